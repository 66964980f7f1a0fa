"""mPLUG-Owl2 as a native backbone, on tiny random weights. Equality with the originals: test_mplug_owl2_parity.py."""

import copy
import json

import pytest
import torch
from bitsandbytes.functional import dequantize_4bit
from huggingface_hub.errors import StrictDataclassError
from tiny import backbone, photo, random_model, scorer_parts
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    BitsAndBytesConfig,
    DynamicCache,
    StaticCache,
)
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from roc4mllm import MPLUGOwl2Config, MPLUGOwl2ForConditionalGeneration, ROC4MLLMForImageAesthetics
from roc4mllm.modeling_roc4mllm import language_mplug_owl2, modeling_mplug_owl2
from roc4mllm.modeling_roc4mllm.abstractor_mplug_owl2 import grid_table, sine_table
from roc4mllm.modeling_roc4mllm.language_mplug_owl2 import by_modality, modality_of
from roc4mllm.modeling_roc4mllm.modeling_mplug_owl2 import MPLUGOwl2Model

PAD = 0


@pytest.fixture(scope="module")
def model():
    """Shared: a test that changes it works on a copy."""
    return backbone("mplugowl2")[0]


def inputs(model, *layouts: str, side: str = "right") -> dict:
    """
    A batch with a row for each layout, such as `"3i5ii"`: 3 words, a picture, 5 words, two pictures; random and the
    same at each call.
    """
    generator = torch.Generator().manual_seed(0)
    size, each = model.config.vision_config.image_size, model.config.num_image_tokens
    rows = []
    for layout in layouts:
        parts = [[model.config.image_token_id] * each if c == "i" else random_words(int(c), generator) for c in layout]
        rows.append(torch.tensor(sum(parts, [])))
    ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=PAD, padding_side=side)
    ones = [torch.ones(len(row), dtype=torch.long) for row in rows]
    mask = torch.nn.utils.rnn.pad_sequence(ones, batch_first=True, padding_side=side)
    batch = {"input_ids": ids, "attention_mask": mask}
    if count := "".join(layouts).count("i"):
        batch["pixel_values"] = torch.randn(count, 3, size, size, generator=generator)
    return batch


def random_words(count: int, generator: torch.Generator) -> list[int]:
    return torch.randint(10, 200, (count,), generator=generator).tolist()


@torch.no_grad()
def logits(model, batch: dict, **kwargs) -> torch.Tensor:
    """Logits `(B, T, V)`, zero on padding."""
    return model(**batch, **kwargs).logits * batch["attention_mask"].unsqueeze(-1)


def close(found, expected, atol: float = 1e-5):
    torch.testing.assert_close(found, expected, atol=atol, rtol=0)


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


# ---- modality -------------------------------------------------------------------------------------------------------

LAYOUTS = {
    "one": ["4i3"],
    "alike": ["4i3", "4i2", "4i5"],
    "unlike": ["4i3", "7i2", "2i"],
    "at the ends": ["i3", "4i", "i"],
    "side by side": ["2ii3", "i1ii", "3i3i3"],
    "with text rows": ["9", "3i3", "5"],
}


class TestModality:
    @pytest.mark.parametrize(
        ("pattern", "runs"),
        [
            (["..##.", "#...#"], (2, 2, 1, 1, 3, 1)),
            (["##..", "...."], (0, 2, 6)),
            (["####"], (0, 4)),
            (["#"], (0, 1)),
            (["..", ".."], None),
        ],
    )
    def test_runs(self, pattern, runs):
        is_image = torch.tensor([[sign == "#" for sign in row] for row in pattern])
        assert modality_of(is_image) == runs
        hidden = torch.randn(*is_image.shape, 3)
        found = by_modality(hidden, runs, lambda x: x + 10, lambda x: 2 * x)
        expected = torch.where(is_image.unsqueeze(-1), 2 * hidden, hidden + 10)
        assert torch.equal(found, expected)

    @pytest.mark.parametrize("layouts", LAYOUTS.values(), ids=LAYOUTS)
    def test_both_paths_agree(self, model, layouts, monkeypatch):
        """In logits and in gradients. Each copy of a projection sees its own tokens, or on the general path all."""
        batch = inputs(model, *layouts)
        tokens, images = batch["input_ids"].numel(), int((batch["input_ids"] == model.config.image_token_id).sum())
        runs, runs_seen = logits_and_gradients(model, batch)
        monkeypatch.setattr(language_mplug_owl2, "can_read", lambda _: False)
        monkeypatch.setattr(modeling_mplug_owl2, "can_read", lambda _: False)
        where, where_seen = logits_and_gradients(model, batch)
        assert runs_seen == {"k_proj": tokens - images, "image_k_proj": images}
        assert where_seen == {"k_proj": tokens, "image_k_proj": tokens}
        for name, value in runs.items():
            close(value, where[name], atol=1e-4 * max(1.0, value.abs().max().item()))

    def test_modality_matters(self, model):
        """Both copies of every module are drawn apart, and text rows next to a picture keep theirs."""
        batch = inputs(model, "4i3")
        expected = logits(model, batch)
        for name in ("image_k_proj", "image_v_proj"):
            changed = copy.deepcopy(model)
            for layer in changed.model.language_model.layers:
                getattr(layer.self_attn, name).weight.data.zero_()
            assert (logits(changed, batch) - expected).abs().max() > 1e-2
            text = inputs(model, "7")
            assert torch.equal(logits(changed, text), logits(model, text))

    def test_nothing_is_read_on_the_general_path(self, model):
        """A meta tensor has no values to read: whoever asks for one raises, as the host would wait for a GPU."""
        empty = copy.deepcopy(model).to("meta")
        empty.set_attn_implementation("eager")  # transformers' mask for SDPA looks whether it hides anything at all
        batch = {name: value.to("meta") for name, value in inputs(model, "4i3", "1ii").items()}
        assert empty(**batch).logits.shape == (2, 12, model.config.text_config.vocab_size)

    @pytest.mark.gpu
    def test_a_gpu_is_never_waited_for(self, model):
        batch = inputs(model, "4i3", "1ii")
        expected = logits(model, batch)
        on_gpu = copy.deepcopy(model).cuda()
        on_gpu.set_attn_implementation("eager")
        moved = {name: value.cuda() for name, value in batch.items()}
        logits(on_gpu, moved)  # libraries start at the first call
        torch.cuda.set_sync_debug_mode("error")
        try:
            found = logits(on_gpu, moved)
        finally:
            torch.cuda.set_sync_debug_mode("default")
        close(found.cpu(), expected, atol=1e-3)

    def test_compiles_as_one_graph(self, model):
        batch = inputs(model, "4i3", "7i2")
        expected = logits(model, batch)
        torch.compiler.reset()
        compiled = torch.compile(model, backend="eager", fullgraph=True)
        close(logits(compiled, batch), expected)
        torch.compiler.reset()


def logits_and_gradients(model, batch: dict) -> tuple[dict[str, torch.Tensor], dict[str, int]]:
    """Logits and all gradients by name, and how many tokens both copies of a projection saw."""
    model = copy.deepcopy(model).train()
    seen = {}
    for name in ("k_proj", "image_k_proj"):
        layer = getattr(model.model.language_model.layers[1].self_attn, name)
        layer.register_forward_pre_hook(lambda _, args, name=name: seen.update({name: args[0][..., 0].numel()}))
    labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
    output = model(**batch, labels=labels)
    output.loss.backward()
    gradients = {name: value.grad for name, value in model.named_parameters() if value.grad is not None}
    return {"logits": output.logits.detach() * batch["attention_mask"].unsqueeze(-1)} | gradients, seen


# ---- parts ----------------------------------------------------------------------------------------------------------


class TestParts:
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

    def test_fewer_key_and_value_heads(self, model):
        """Equals a model with as many heads whose weights repeat; the originals cannot run it."""
        config = copy.deepcopy(model.config)
        text = config.text_config
        groups = text.num_attention_heads // text.num_key_value_heads
        assert groups == 2
        text.num_key_value_heads = text.num_attention_heads
        full = MPLUGOwl2ForConditionalGeneration(config).eval()
        weights = model.state_dict()
        for name, weight in weights.items():
            if name.endswith(("k_proj.weight", "v_proj.weight")) and "layers" in name and "language" in name:
                heads = weight.unflatten(0, (-1, text.head_dim))
                weights[name] = heads.repeat_interleave(groups, dim=0).flatten(0, 1)
        full.load_state_dict(weights)
        batch = inputs(model, "4i3", "1ii2")
        close(logits(full, batch), logits(model, batch))

    def test_eager_attention(self, model):
        other = copy.deepcopy(model)
        other.set_attn_implementation("eager")
        parts = (other.config.vision_config, other.config.abstractor_config, other.config.text_config)
        assert [part._attn_implementation for part in parts] == ["eager"] * 3
        batch = inputs(model, "4i3", "1ii2")
        close(logits(other, batch), logits(model, batch), atol=1e-4)

    def test_every_attention_goes_through_the_interface(self, model):
        """So flash attention, which is not installed here, serves the tower, the abstractor and the language model."""
        calls = []

        def record(module, *args, **kwargs):
            calls.append((type(module).__name__.removeprefix("MPLUGOwl2"), module.is_causal, args[0].shape[2]))
            return ALL_ATTENTION_FUNCTIONS["sdpa"](module, *args, **kwargs)

        ALL_ATTENTION_FUNCTIONS.register("recording", record)
        other = copy.deepcopy(model)
        other.set_attn_implementation("recording")
        logits(other, inputs(model, "4i3"))
        expected = [("VisionAttention", False, 17), ("AbstractorAttention", False, 4), ("Attention", True, 12)]
        assert calls == [call for call in expected for _ in range(2)]

    def test_eager_attention_gives_its_weights(self, model):
        other = copy.deepcopy(model)
        other.set_attn_implementation("eager")
        output = other(**inputs(model, "4i3"), output_attentions=True, output_hidden_states=True)
        assert [tuple(weights.shape) for weights in output.attentions] == [(1, 4, 12, 12)] * 2
        assert len(output.hidden_states) == 3

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
    def test_half_precision(self, model, dtype):
        batch = inputs(model, "4i3", "1ii2")
        other = copy.deepcopy(model).to(dtype)
        found = logits(other, batch)  # pixels stay float32, as a processor gives them
        assert found.dtype == dtype
        expected = logits(other.float(), batch)  # the same rounded weights
        assert (found.float() - expected).abs().max() < 0.05 * expected.abs().max()

    def test_4_bit(self, model, tmp_path):
        model.save_pretrained(tmp_path)
        config = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_compute_dtype=torch.float32)
        loaded = AutoModelForImageTextToText.from_pretrained(tmp_path, quantization_config=config)
        names = {name for name, layer in loaded.named_modules() if type(layer).__name__ == "Linear4bit"}
        assert names == {
            name for name, layer in model.named_modules() if isinstance(layer, torch.nn.Linear) and name != "lm_head"
        }
        batch = inputs(model, "4i3")
        # with gradients: the CPU kernel for inference refuses layers as narrow as these
        found = loaded(**batch).logits
        rounded = copy.deepcopy(model)
        for name in names:
            weight = loaded.get_submodule(name).weight
            rounded.get_submodule(name).weight.data = dequantize_4bit(weight.data, weight.quant_state)
        torch.testing.assert_close(found, logits(rounded, batch), atol=1e-4, rtol=1e-4)
        assert (found - logits(model, batch)).abs().max() > 1e-2

    def test_parts_on_several_devices(self, model, tmp_path):
        model.save_pretrained(tmp_path)
        layer = "model.language_model.layers"
        names = ("model.vision_tower", "model.language_model.embed_tokens", "model.language_model.norm", f"{layer}.0")
        device_map = dict.fromkeys([*names, "model.language_model.rotary_emb", "lm_head"], "cpu")
        device_map |= {"model.abstractor": "disk", f"{layer}.1": "disk"}
        loaded = AutoModelForImageTextToText.from_pretrained(
            tmp_path, device_map=device_map, offload_folder=tmp_path / "disk"
        )
        batch = inputs(model, "4i3", "1ii2")
        close(logits(loaded, batch), logits(model, batch))

    def test_what_a_device_map_may_not_split(self, model):
        names = {"VisionEmbeddings", "VisionLayer", "Abstractor", "DecoderLayer"}
        assert model._no_split_modules == {f"MPLUGOwl2{name}" for name in names}

    def test_gradient_checkpointing(self, model):
        """In the tower, the abstractor and the language model alike."""
        batch = inputs(model, "4i3", "1ii2")
        plain, _ = logits_and_gradients(model, batch)
        model = copy.deepcopy(model)
        # the name of 5.23 on; the other one is then deprecated
        enable = getattr(model, "activation_checkpointing_enable", None)
        (enable or model.gradient_checkpointing_enable)()
        parts = (model.model.vision_tower, model.model.abstractor, model.model.language_model)
        assert all(part.layers[0].gradient_checkpointing for part in parts)
        checkpointed, _ = logits_and_gradients(model, batch)
        assert plain.keys() == checkpointed.keys()
        for name, value in plain.items():
            close(checkpointed[name], value, atol=1e-6 * max(1.0, value.abs().max().item()))


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


# ---- generation -----------------------------------------------------------------------------------------------------


def generated(model, batch: dict, **kwargs) -> torch.Tensor:
    """New ids `(B, new)`."""
    return model.generate(**batch, do_sample=False, **kwargs)[:, batch["input_ids"].shape[1] :]


class TestGeneration:
    LAYOUTS = ("4i3", "1i1i2", "6")

    def test_caches_agree(self, model):
        batch = inputs(model, *self.LAYOUTS, side="left")
        expected = generated(model, batch, max_new_tokens=6)
        assert len({tuple(row) for row in expected.tolist()}) == 3
        for options in ({"cache_implementation": "static", "disable_compile": True}, {"use_cache": False}):
            assert torch.equal(generated(model, batch, max_new_tokens=6, **options), expected)

    @pytest.mark.parametrize("kind", ["dynamic", "static"])
    def test_cached_steps_equal_one_pass(self, model, kind):
        """Keys that the mask hides stay hidden in later steps; the originals show them from the second step on."""
        batch = inputs(model, "4i9", "1i8", side="left")
        batch["position_ids"] = (batch["attention_mask"].cumsum(1) - 1).clamp(min=0)
        whole, length = logits(model, batch), batch["input_ids"].shape[1]
        config = model.config.text_config
        cache = DynamicCache(config=config) if kind == "dynamic" else StaticCache(config, max_cache_len=length)
        prompt, found = length - 5, []
        for start, stop in [(0, prompt), *((at, at + 1) for at in range(prompt, length))]:
            part = {name: batch[name][:, start:stop] for name in ("input_ids", "position_ids")}
            part["attention_mask"] = batch["attention_mask"][:, :stop]
            if start == 0:
                part["pixel_values"] = batch["pixel_values"]
            with torch.no_grad():
                found.append(model(**part, past_key_values=cache, use_cache=True).logits)
        close(torch.cat(found, 1) * batch["attention_mask"].unsqueeze(-1), whole)

    def test_left_padded_prompts_equal_single_ones(self, model):
        batch = inputs(model, *self.LAYOUTS, side="left")
        together = generated(model, batch, max_new_tokens=6)
        images = batch["pixel_values"].split([1, 2])
        for row, mask in enumerate(batch["attention_mask"].bool()):
            alone = {"input_ids": batch["input_ids"][row : row + 1, mask]}
            if row < len(images):
                alone["pixel_values"] = images[row]
            single = generated(model, alone, max_new_tokens=6)[0]
            assert torch.equal(together[row, : len(single)], single)

    def test_beams_with_several_pictures_per_prompt(self, model):
        batch = inputs(model, *self.LAYOUTS[:2], side="left")
        together = generated(model, batch, max_new_tokens=4, num_beams=3)
        images = batch["pixel_values"].split([1, 2])
        for row, mask in enumerate(batch["attention_mask"].bool()):
            alone = {"input_ids": batch["input_ids"][row : row + 1, mask], "pixel_values": images[row]}
            single = generated(model, alone, max_new_tokens=4, num_beams=3)[0]
            assert torch.equal(together[row, : len(single)], single)

    def test_processors_of_logits_bear_an_id_beyond_the_vocabulary(self, model):
        batch = inputs(model, "4i3")
        assert model.config.image_token_id == model.config.text_config.vocab_size
        options = {"repetition_penalty": 1.5, "no_repeat_ngram_size": 2}
        assert generated(model, batch, max_new_tokens=8, **options).shape == (1, 8)


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
