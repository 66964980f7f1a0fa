"""
mPLUG-Owl2 as a native backbone, on tiny random weights: config, saving, inputs, and under ROC4MLLM.

Its language model and what it writes: test_mplug_owl2_language.py. How and where it computes:
test_mplug_owl2_execution.py. Equality with the originals: test_mplug_owl2_parity.py.
"""

import copy
import json

import numpy as np
import pytest
import torch
from huggingface_hub.errors import StrictDataclassError
from mplug_owl2_batches import close, generated, inputs, logits
from tiny import backbone, photo, random_model, scorer_parts, shared_parts
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoModelForImageTextToText

from roc4mllm import MPLUGOwl2Config, MPLUGOwl2ForConditionalGeneration, ROC4MLLMForImageAesthetics
from roc4mllm.modeling_roc4mllm.abstractor_mplug_owl2 import grid_table, sine_table
from roc4mllm.modeling_roc4mllm.modeling_mplug_owl2 import MPLUGOwl2Model


@pytest.fixture(scope="module")
def model():
    """Shared: a test that changes it works on a copy."""
    return backbone("mplugowl2")[0]


# ---- config ---------------------------------------------------------------------------------------------------------


class TestConfig:
    def test_defaults_are_the_published_model(self):
        config = MPLUGOwl2Config()
        assert (config.vision_config.image_size, config.vision_config.num_hidden_layers) == (448, 24)
        assert (config.text_config.hidden_size, config.text_config.vocab_size) == (4096, 32000)
        assert (config.image_token_id, config.num_image_tokens) == (32000, 65)

    def test_round_trip(self, tmp_path):
        config = MPLUGOwl2Config(text_config={"vocab_size": 32002}, abstractor_config={"num_queries": 3})
        config.save_pretrained(tmp_path)
        again = AutoConfig.from_pretrained(tmp_path)
        assert type(again) is MPLUGOwl2Config
        assert again.to_json_string() == config.to_json_string()
        assert again.image_token_id == 32000  # and not the first id beyond the vocabulary of now

    @pytest.mark.parametrize(
        ("fields", "message"),
        [
            ({"vision_config": {"num_attention_heads": 5}}, "1024.*multiple of num_attention_heads.*5"),
            ({"vision_config": {"image_size": 450}}, "450.*multiple of patch_size.*14"),
            ({"abstractor_config": {"hidden_size": 10, "num_attention_heads": 5}}, "10.*multiple of 4"),
            ({"abstractor_config": {"hidden_size": 512}}, "512.*vision encoder.*1024"),
            ({"abstractor_config": {"num_queries": "many"}}, "num_queries"),
            ({"image_token_id": "<|image|>"}, "image_token_id"),
        ],
    )
    def test_what_does_not_fit_is_refused(self, fields, message):
        with pytest.raises(StrictDataclassError, match=message):
            MPLUGOwl2Config(**fields)


class TestAutoClasses:
    def test_save_and_load(self, model, tmp_path):
        model.save_pretrained(tmp_path)
        again, info = AutoModelForImageTextToText.from_pretrained(tmp_path, output_loading_info=True)
        assert type(again) is MPLUGOwl2ForConditionalGeneration
        assert not any(info.values())
        batch = inputs(model, "3i5", "4i2")
        close(logits(again, batch), logits(model, batch))
        inner, info = AutoModel.from_pretrained(tmp_path, output_loading_info=True)
        assert type(inner) is MPLUGOwl2Model
        assert not info["missing_keys"]
        states = model.model(**batch).last_hidden_state
        close(inner(**batch).last_hidden_state, states)

    def test_tied_embeddings(self, tmp_path):
        model, _ = backbone("mplugowl2", tied=True)
        assert model.lm_head.weight is model.get_input_embeddings().weight
        model.save_pretrained(tmp_path)
        again = AutoModelForImageTextToText.from_pretrained(tmp_path)
        assert again.lm_head.weight is again.get_input_embeddings().weight
        batch = inputs(model, "3i5")
        close(logits(again, batch), logits(model, batch))

    def test_remote_code_of_other_people(self, tmp_path):
        """`mplug_owl2` is the model type that Q-Align and DeQA-Score ship code for."""
        (tmp_path / "configuration_theirs.py").write_text(
            "from transformers import PreTrainedConfig\n\n\n"
            "class MPLUGOwl2Config(PreTrainedConfig):\n"
            "    model_type = 'mplug_owl2'\n"
            "    width: int = 3\n"
        )
        (tmp_path / "modeling_theirs.py").write_text(
            "from torch import nn\n"
            "from transformers import PreTrainedModel\n\n"
            "from .configuration_theirs import MPLUGOwl2Config\n\n\n"
            "class MPLUGOwl2LlamaForCausalLM(PreTrainedModel):\n"
            "    config_class = MPLUGOwl2Config\n\n"
            "    def __init__(self, config):\n"
            "        super().__init__(config)\n"
            "        self.layer = nn.Linear(config.width, config.width)\n"
            "        self.post_init()\n"
        )
        auto_map = {
            "AutoConfig": "configuration_theirs.MPLUGOwl2Config",
            "AutoModelForCausalLM": "modeling_theirs.MPLUGOwl2LlamaForCausalLM",
        }
        fields = {"model_type": "mplug_owl2", "auto_map": auto_map, "width": 5}
        (tmp_path / "config.json").write_text(json.dumps(fields))
        config = AutoConfig.from_pretrained(tmp_path, trust_remote_code=True)
        assert type(config).__module__.startswith("transformers_modules.")
        theirs = AutoModelForCausalLM.from_config(config, trust_remote_code=True)
        assert type(theirs).__name__ == "MPLUGOwl2LlamaForCausalLM"
        theirs.save_pretrained(tmp_path)
        again = AutoModelForCausalLM.from_pretrained(tmp_path, trust_remote_code=True)
        assert torch.equal(again.layer.weight, theirs.layer.weight)
        assert again.layer.weight.shape == (5, 5)


# ---- pictures -------------------------------------------------------------------------------------------------------


class TestPictures:
    def test_image_features(self, model):
        images = inputs(model, "iii")["pixel_values"]
        config = model.config
        with torch.no_grad():
            features = model.get_image_features(images, output_hidden_states=True)
        assert features.pooler_output.shape == (3, config.num_image_tokens, config.text_config.hidden_size)
        assert features.last_hidden_state.shape == (3, 17, config.vision_config.hidden_size)
        assert len(features.hidden_states) == 3
        assert (features.pooler_output[0] - features.pooler_output[1]).abs().max() > 1e-2
        tokens = model(**inputs(model, "iii")).image_hidden_states
        assert tokens.shape == (3 * config.num_image_tokens, config.text_config.hidden_size)

    def test_tables_of_positions(self):
        table = sine_table(5, 8)
        assert table.shape == (5, 8)
        close(table[3, [0, 4]], torch.tensor([3.0, 3.0]).double().sin().new_tensor([0.14112001, -0.9899925]), 1e-7)
        close(table[3, [1, 5]], torch.tensor([0.29552021, 0.95533649]).double(), 1e-7)  # 3 / 10
        grid = grid_table(3, 16)
        assert not grid[0].any()  # the class token
        assert torch.equal(grid[1 + 3 * 2 + 1], torch.cat([sine_table(3, 8)[1], sine_table(3, 8)[2]]))

    def test_tables_survive_saving(self, model, tmp_path):
        """transformers builds a model without memory before it loads, and no file holds the tables."""
        model.save_pretrained(tmp_path)
        again = AutoModelForImageTextToText.from_pretrained(tmp_path)
        for name in ("query_positions", "image_positions"):
            table = getattr(again.model.abstractor, name)
            assert torch.equal(table, getattr(model.model.abstractor, name))
            assert table.abs().max() == 1


# ---- inputs ---------------------------------------------------------------------------------------------------------


class TestInputs:
    def test_pictures_matter(self, model):
        batch = inputs(model, "4i3", "4i3")
        turned = batch | {"pixel_values": batch["pixel_values"].flip(0)}
        assert (logits(model, batch) - logits(model, turned))[:, -1].abs().max() > 1e-2

    @pytest.mark.parametrize("side", ["left", "right"])
    def test_padding_changes_nothing(self, model, side):
        """Whichever side, and without positions: rotary embeddings see differences only."""
        layouts = ("4i3", "2i8", "1ii2", "5")
        together = inputs(model, *layouts, side=side)
        found, images = logits(model, together), together["pixel_values"].split([1, 1, 2])
        for row, mask in enumerate(together["attention_mask"].bool()):
            alone = {
                "input_ids": together["input_ids"][row : row + 1, mask],
                "attention_mask": mask[mask].unsqueeze(0),
            }
            if row < len(images):
                alone["pixel_values"] = images[row]
            close(found[row, mask], logits(model, alone)[0])

    def test_logits_to_keep(self, model):
        batch = inputs(model, "4i3", "1i6")
        whole = logits(model, batch)
        close(model(**batch, logits_to_keep=3).logits, whole[:, -3:])
        positions = torch.tensor([0, 7])
        close(model(**batch, logits_to_keep=positions).logits, whole[:, positions])

    def test_labels_on_image_tokens_do_not_count(self, model):
        batch = inputs(model, "4i3")
        labels = batch["input_ids"].clone()
        masked = labels.masked_fill(labels == model.config.image_token_id, -100)
        assert torch.equal(model(**batch, labels=labels).loss, model(**batch, labels=masked).loss)

    def test_embeddings_in_the_place_of_ids(self, model):
        batch = inputs(model, "4i3", "2i5")
        expected = logits(model, batch)
        is_image = batch["input_ids"] == model.config.image_token_id
        embeddings = model.get_input_embeddings()(batch["input_ids"].masked_fill(is_image, 0))
        given = {"inputs_embeds": embeddings, "attention_mask": batch["attention_mask"]}
        types = {"mm_token_type_ids": is_image.long()}
        close(logits(model, given | types, pixel_values=batch["pixel_values"]), expected)
        tokens = model.get_image_features(batch["pixel_values"]).pooler_output.flatten(0, 1)
        filled = given | {"inputs_embeds": embeddings.masked_scatter(is_image.unsqueeze(-1), tokens)}
        close(logits(model, filled | types), expected)
        assert (logits(model, filled) - expected).abs().max() > 1e-2  # read as text
        written = model.generate(**filled, **types, max_new_tokens=4, do_sample=False)
        assert torch.equal(written, generated(model, batch, max_new_tokens=4))

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda b: b | {"pixel_values": b["pixel_values"][:1]}, "input_ids hold 10 image tokens.*make 5, 5 each"),
            (lambda b: b | {"pixel_values": None}, "hold 10 image tokens.*make 0"),
            (lambda b: b | {"input_ids": b["input_ids"][:, 5:]}, "hold 6 image tokens.*make 10"),
            (
                lambda b: b | {"pixel_values": torch.zeros(2, 3, 40, 40)},
                r"\(pictures, 3, 32, 32\), got \(2, 3, 40, 40\)",
            ),
            (lambda b: b | {"pixel_values": torch.zeros(2, 1, 32, 32)}, r"3, 32, 32\), got \(2, 1, 32, 32\)"),
            (lambda b: b | {"pixel_values": torch.zeros(2, 1, 3, 32, 32)}, r"got \(2, 1, 3, 32, 32\)"),
            (lambda b: b | {"inputs_embeds": torch.zeros(2, 3, 32)}, "either input_ids or inputs_embeds"),
            (lambda b: b | {"input_ids": None, "inputs_embeds": torch.zeros(2, 3, 32)}, "need mm_token_type_ids"),
            (lambda b: b | {"mm_encoder_outputs": {"image": object()}}, "either pixel_values or mm_encoder_outputs"),
        ],
    )
    def test_what_does_not_fit_is_an_error(self, model, change, message):
        batch = change(inputs(model, "3i4", "3i3") | {"attention_mask": None})
        with pytest.raises(ValueError, match=message):
            model(**batch)


class TestNoPictures:
    """Of the bare model and of ROC4MLLM on it: `generate` and `forward` read a prompt without pictures as text."""

    @pytest.fixture(params=["bare", "scorer"])
    def writer(self, request, model):
        return model if request.param == "bare" else shared_parts("mplugowl2")[0]

    @pytest.mark.parametrize("count", [None, 0])
    def test_generate(self, writer, model, count):
        batch = inputs(model, "4", "6", side="left")
        expected = generated(writer, batch, max_new_tokens=4)
        pixel_values = None if count is None else torch.zeros(count, 3, 32, 32)
        assert torch.equal(generated(writer, batch | {"pixel_values": pixel_values}, max_new_tokens=4), expected)
        beams = {"num_beams": 2, "max_new_tokens": 4}
        found = generated(writer, batch | {"pixel_values": pixel_values}, **beams)
        assert torch.equal(found, generated(writer, batch, **beams))

    def test_forward(self, model):
        batch = inputs(model, "4", "6")
        assert torch.equal(logits(model, batch | {"pixel_values": torch.zeros(0, 3, 32, 32)}), logits(model, batch))

    def test_a_scorer_trains_on_text_alone(self):
        model, _ = scorer_parts("mplugowl2")
        batch = inputs(model.backbone, "4", "6") | {"slot_attributes": torch.full((2, 0), -1)}
        expected = model(**batch, labels=batch["input_ids"]).text_loss
        for pixel_values in (None, torch.zeros(0, 3, 32, 32)):
            assert model(**batch, labels=batch["input_ids"], pixel_values=pixel_values).text_loss == expected

    @pytest.mark.parametrize("pixel_values", [None, torch.zeros(0, 3, 32, 32)])
    def test_image_tokens_without_pictures(self, writer, model, pixel_values):
        batch = inputs(model, "4i3") | {"pixel_values": pixel_values}
        with pytest.raises(ValueError, match=r"hold 5 image tokens \(id \d+\); the pictures make 0.*made together"):
            writer.generate(**batch, max_new_tokens=2)

    @pytest.mark.parametrize(
        ("pictures", "found"),
        [
            (photo(), "Image"),
            ([photo()], "list"),
            ("photo.jpg", "str"),
            (np.zeros((1, 3, 32, 32), np.float32), "ndarray"),
            ([torch.zeros(3, 32, 32)], "list"),
            (torch.zeros(1, 3, 32, 32, dtype=torch.uint8), r"torch\.uint8"),
        ],
        ids=lambda value: value if isinstance(value, str) else "",
    )
    def test_what_are_no_prepared_pictures(self, writer, model, pictures, found):
        batch = inputs(model, "4i3") | {"pixel_values": pictures}
        message = rf"tensor of floating point numbers, got {found}\. Let the processor of this model prepare"
        with pytest.raises(TypeError, match=message):
            writer.generate(**batch, max_new_tokens=2)
        with pytest.raises(TypeError, match=message):
            model(**batch)

    def test_the_encoder_of_pictures_wants_one(self, model):
        with pytest.raises(ValueError, match=r"got \(0, 3, 32, 32\): one picture or more"):
            model.get_image_features(torch.zeros(0, 3, 32, 32))


# ---- under ROC4MLLM -------------------------------------------------------------------------------------------------


class TestUnderROC4MLLM:
    """Its common tests run on this backbone in test_backbones.py."""

    def test_without_processor_the_id_spares_that_of_image_tokens(self):
        model, _ = backbone("mplugowl2")
        rows = len(model.get_input_embeddings().weight)
        assert model.config.image_token_id == rows
        scorer = ROC4MLLMForImageAesthetics.from_backbone(model)
        assert scorer.config.score_token_id == rows + 1
        torch.nn.init.normal_(scorer.score_head.weight, std=0.5)
        batch = inputs(model, "4i3", "4i3")
        batch["input_ids"][:, -1] = rows + 1
        scores = scorer(**batch).scores
        assert (scores[0] - scores[1]).abs() > 1e-3

    def test_parts(self):
        model, _ = scorer_parts("mplugowl2")
        parts = model.part_prefixes
        assert parts["backbone.model.vision_tower"] == "vision_tower"
        assert parts["backbone.model.language_model"] == parts["backbone.lm_head"] == "language_model"
        assert parts["backbone"] == "connector"  # what is left: the abstractor

    def test_a_picture_of_another_size(self):
        model, processor = scorer_parts("mplugowl2")
        batch = processor(images=photo(0))
        batch["pixel_values"] = torch.zeros(1, 3, 64, 64)
        with pytest.raises(ValueError, match=r"32, 32\), got \(1, 3, 64, 64\)"):
            model(**batch)

    def test_a_model_from_its_config(self, model):
        """Every part starts from what its config says, without a weight left at zero."""
        fresh = random_model(copy.deepcopy(model.config))
        assert all(parameter.any() for name, parameter in fresh.named_parameters() if not name.endswith("bias"))
