"""The authors' checkpoints as native models, in miniature. With their own numbers: test_mplug_owl2_parity.py."""

import copy

import pytest
import torch
from huggingface_hub.errors import StrictDataclassError
from originals import LEVELS, WORDS, roc4mllm_config, roc4mllm_model, roc4mllm_weights
from transformers import AutoModel

from roc4mllm import ROC4MLLMForImageAesthetics
from roc4mllm.hub.convert_original import ROC4MLLMConversion, load_original
from roc4mllm.hub.mplug_owl2_keys import NATIVE_STEMS, ORIGINAL_STEMS, native_name, original_name

HEAD, EMBEDDING = "lm_head.weight", "model.embed_tokens.weight"
IMAGE_ID = WORDS + 1


@pytest.fixture(scope="module")
def native():
    return roc4mllm_model()


@pytest.fixture
def weights(native):
    return roc4mllm_weights(native)


@pytest.fixture
def config():
    return roc4mllm_config()


def batch() -> dict:
    """Two rows with a picture each and `[SCORE]` at the end."""
    generator = torch.Generator().manual_seed(0)
    row = [1, 5, *[IMAGE_ID] * 4, 7, 9, 11, WORDS]
    return {
        "input_ids": torch.tensor([row, row]),
        "pixel_values": torch.randn(2, 3, 24, 24, generator=generator),
    }


@torch.no_grad()
def scores(model) -> torch.Tensor:
    return model(**batch()).scores[:, 0]


class TestLoadOriginal:
    def test_equals_the_native_model(self, native, weights, config):
        model = load_original("roc4mllm", weights, config)
        assert type(model) is ROC4MLLMForImageAesthetics
        assert not model.training
        found, expected = model.state_dict(), native.state_dict()
        assert found.keys() == expected.keys()
        for name, weight in expected.items():
            assert torch.equal(found[name], weight), name
        assert abs(scores(native).diff()) > 1e-3
        torch.testing.assert_close(scores(model), scores(native), atol=1e-6, rtol=0)

    def test_config(self, native, weights, config):
        found = load_original("roc4mllm", weights, config).config
        assert (found.score_token_id, found.num_levels, found.score_range) == (WORDS, LEVELS, [0.0, 5.0])
        assert found.score_head_trained
        backbone, expected = found.mllm_config, native.config.mllm_config
        assert (backbone.image_token_id, backbone.num_image_tokens) == (IMAGE_ID, 4)
        for part in ("vision_config", "abstractor_config", "text_config"):
            ours, theirs = (getattr(side, part).to_dict() for side in (backbone, expected))
            for fields in (ours, theirs):
                fields.pop("initializer_range")
                fields.pop("dtype")
            assert ours == theirs

    def test_level_rows_become_the_head_and_leave_the_text(self, weights, config):
        model = load_original("roc4mllm", weights, config)
        assert torch.equal(model.score_head.weight, weights[HEAD][-LEVELS:])
        assert torch.equal(model.get_output_embeddings().weight, weights[HEAD][:-LEVELS])  # [SCORE] is the last row
        assert torch.equal(model.get_input_embeddings().weight, weights[EMBEDDING][:-LEVELS])
        assert model.backbone(**batch()).logits.shape[-1] == WORDS + 1

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_weights_keep_their_dtype_and_the_head_is_float32(self, weights, config, dtype):
        """Published weights are float16, their tables too."""
        model = load_original("roc4mllm", {name: weight.to(dtype) for name, weight in weights.items()}, config)
        assert model.backbone.dtype == dtype
        assert model.score_head.weight.dtype == torch.float32
        assert torch.equal(model.score_head.weight, weights[HEAD][-LEVELS:].to(dtype).float())
        assert ((scores(model) > 0) & (scores(model) < 5)).all()

    def test_without_what_is_computed_or_unused(self, native, weights, config):
        kept = {name: weight for name, weight in weights.items() if native_name(name)}
        assert len(kept) < len(weights) - 3
        torch.testing.assert_close(scores(load_original("roc4mllm", kept, config)), scores(native), atol=1e-6, rtol=0)

    def test_saved_and_loaded(self, native, weights, config, tmp_path):
        load_original("roc4mllm", weights, config).save_pretrained(tmp_path)
        again, info = AutoModel.from_pretrained(tmp_path, output_loading_info=True)
        assert not any(info.values())
        torch.testing.assert_close(scores(again), scores(native), atol=1e-6, rtol=0)

    def test_shard_by_shard(self, weights, config):
        """Names first, then one weight at a time, in any order."""
        conversion = ROC4MLLMConversion(config)
        conversion.check_names(weights)
        found = {}
        for name in reversed(weights):
            found |= conversion.convert(name, weights[name])
        model = ROC4MLLMForImageAesthetics(conversion.config)
        assert {name: value.shape for name, value in found.items()} == conversion.shapes
        model.load_state_dict(found, strict=True)

    def test_unknown_family(self, weights, config):
        with pytest.raises(ValueError, match=r"Unknown family 'owl'.*'roc4mllm', 'tanet'"):
            load_original("owl", weights, config)


class TestNames:
    def test_tables_of_names_are_one_to_one(self):
        assert len(ORIGINAL_STEMS) == len(NATIVE_STEMS)

    @pytest.mark.parametrize(
        "name",
        [
            "model.layers.31.self_attn.k_proj.multiway.1.weight",
            "model.vision_model.encoder.layers.7.self_attn.query_key_value.bias",
            "model.visual_abstractor.encoder.layers.0.crossattention.output.mlp.ffn_ln.weight",
            "model.visual_abstractor.vit_eos",
        ],
    )
    def test_there_and_back(self, name):
        assert native_name(name) != name
        assert original_name(native_name(name)) == name

    @pytest.mark.parametrize(
        "name", ["model.layers.x.mlp.up_proj.weight", "model.layers.1.mlp.up_proj.scale", "", "a.b"]
    )
    def test_unknown(self, name):
        assert native_name(name) is None


class TestWeightsThatDoNotFit:
    def test_unknown_and_missing_are_named(self, weights, config):
        weights["model.layers.1.self_attn.k_proj.weight"] = weights.pop(
            "model.layers.1.self_attn.k_proj.multiway.0.weight"
        )
        message = (
            r"unknown model\.layers\.1\.self_attn\.k_proj\.weight \(1\); "
            r"missing model\.layers\.1\.self_attn\.k_proj\.multiway\.0\.weight \(1\)"
        )
        with pytest.raises(ValueError, match=message):
            load_original("roc4mllm", weights, config)

    def test_another_number_of_layers(self, weights, config):
        config["num_hidden_layers"] = 1
        with pytest.raises(ValueError, match=r"unknown model\.layers\.1\.input_layernorm.*, … \(13\)"):
            load_original("roc4mllm", weights, config)

    @pytest.mark.parametrize(
        ("name", "change", "message"),
        [
            ("model.norm.weight", lambda w: w[:-1], r"model\.norm\.weight has shape \(31,\).*\(32,\)"),
            (HEAD, lambda w: w[:-1], r"lm_head\.weight has shape \(46, 32\).*\(6, 32\) for score_head"),
            (EMBEDDING, lambda w: w[:9], r"embed_tokens\.weight has shape \(9, 32\)"),
            ("model.norm.weight", lambda w: w.to(torch.int8), r"float16.*got model\.norm\.weight \(torch\.int8\)"),
            (
                "model.visual_abstractor.encoder.layers.0.crossattention.attention.q_pos_embed",
                lambda w: w + 0.1,
                "table",
            ),
            ("model.layers.0.self_attn.rotary_emb.inv_freq", lambda w: w / 2, r"inv_freq is not the table"),
        ],
    )
    def test_wrong_weight(self, weights, config, name, change, message):
        weights[name] = change(weights[name])
        with pytest.raises(ValueError, match=message):
            load_original("roc4mllm", weights, config)

    def test_unknown_name_of_a_single_weight(self, config):
        with pytest.raises(ValueError, match="Unknown weight 'model.norm.bias.x'"):
            ROC4MLLMConversion(config).convert("model.norm.bias.x", torch.zeros(3))


class TestConfigsThatDoNotFit:
    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda c: c.pop("visual_config"), "model_type 'mplug_owl2'.*no visual_config.*not that of an mPLUG-Owl2"),
            (lambda c: c["visual_config"].pop("visual_abstractor"), "visual_abstractor.*not that of an mPLUG-Owl2"),
            (lambda c: (c.clear(), c.update(model_type="llava")), "model_type 'llava'.*no visual_config"),
            (lambda c: c.pop("score_id"), "ROC4MLLM checkpoint lacks score_id"),
            (lambda c: (c.pop("num_tokens"), c.pop("min_score")), "checkpoint lacks num_tokens, min_score"),
            (lambda c: c.pop("hidden_size"), "config lacks hidden_size"),
            (lambda c: c["visual_config"]["visual_model"].pop("patch_size"), "visual_model lacks patch_size"),
            (lambda c: c.update(img_token_num=10), "num_tokens is 6, img_token_num is 10"),
            (lambda c: c.update(score_id=WORDS + 1), f"score_id is {WORDS + 1}, expected a number below {WORDS + 1}"),
            (lambda c: c["visual_config"]["visual_abstractor"].update(grid_size=4), "grid_size is 4.*24 pixels.*3"),
            (lambda c: c["visual_config"]["visual_abstractor"].update(hidden_size=12), "12.*vision encoder's.*24"),
            (lambda c: c.update(min_score=5), "min < max"),
        ],
    )
    def test_refused(self, config, change, message):
        config = copy.deepcopy(config)
        change(config)
        with pytest.raises((ValueError, StrictDataclassError), match=message):
            ROC4MLLMConversion(config)
