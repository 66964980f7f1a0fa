"""
The authors' ELTA checkpoints as native models, in miniature. With their own numbers: test_elta_parity.py.

With timm 0.6.13 and 1.0.31 themselves, their Swin V2 and ours gave features equal to the last bit on random weights,
base size and smaller, tables of shifted windows included; timm is not needed here.
"""

import pytest
import torch
from family_weights import elta_weights

from roc4mllm import ELTAConfig, ELTAForImageAesthetics
from roc4mllm.hub.convert_original import load_original
from roc4mllm.hub.elta_keys import ELTAConversion, computed_tables, config_from_weights, original_name

SWIN = {"image_size": 64, "embed_dim": 8, "depths": [2, 1, 2], "num_heads": [1, 2, 4], "window_size": 4}
SIZES = {"image_size": 64, "window_size": 4}  # what weights do not tell


def native_model(**options) -> ELTAForImageAesthetics:
    torch.manual_seed(0)
    model = ELTAForImageAesthetics(ELTAConfig(swin_config=SWIN, **options)).eval()
    for parameter in model.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=(2 / parameter[0].numel()) ** 0.5)
    return model


@pytest.fixture(scope="module")
def native():
    return native_model()


@pytest.fixture
def weights(native):
    return elta_weights(native)


@torch.no_grad()
def logits(model) -> torch.Tensor:
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    return model(images).logits[:, 0]


def same(found, native) -> None:
    assert (logits(native)[0] - logits(native)[1]).abs().max() > 1e-3
    torch.testing.assert_close(logits(found), logits(native), atol=1e-5, rtol=1e-6)


class TestNames:
    @pytest.mark.parametrize(
        ("original", "native"),
        [
            ("backbone.patch_embed.proj.weight", "swin.embeddings.patch_embeddings.projection.weight"),
            ("backbone.patch_embed.norm.bias", "swin.embeddings.norm.bias"),
            ("backbone.norm.weight", "swin.layernorm.weight"),
            (
                "backbone.layers.2.blocks.1.attn.qkv.weight",
                "swin.encoder.layers.2.blocks.1.attention.self.key.weight",
            ),
            ("backbone.layers.0.blocks.1.attn.q_bias", "swin.encoder.layers.0.blocks.1.attention.self.query.bias"),
            ("backbone.layers.0.blocks.0.attn.v_bias", "swin.encoder.layers.0.blocks.0.attention.self.value.bias"),
            (
                "backbone.layers.1.blocks.0.attn.logit_scale",
                "swin.encoder.layers.1.blocks.0.attention.self.logit_scale",
            ),
            (
                "backbone.layers.1.blocks.0.attn.cpb_mlp.2.weight",
                "swin.encoder.layers.1.blocks.0.attention.self.continuous_position_bias_mlp.2.weight",
            ),
            ("backbone.layers.1.blocks.0.norm1.bias", "swin.encoder.layers.1.blocks.0.layernorm_before.bias"),
            ("backbone.layers.1.blocks.0.mlp.fc2.bias", "swin.encoder.layers.1.blocks.0.output.dense.bias"),
            ("linear_emd.0.weight", "score_head.hidden.weight"),
            ("linear_emd.2.bias", "score_head.bias"),
        ],
    )
    def test_of_a_weight(self, original, native):
        assert original_name(native, "AVA", "backbone.") == original

    @pytest.mark.parametrize(("first", "stage"), [(True, 2), (False, 1)])
    def test_of_what_reduces_features(self, first, stage):
        found = original_name("swin.encoder.layers.1.downsample.norm.bias", "AVA", "", first)
        assert found == f"layers.{stage}.downsample.norm.bias"

    def test_number_of_weights(self, native, weights):
        blocks = sum(SWIN["depths"])
        assert len(weights) == len(native.state_dict()) - 2 * blocks  # three become one


class TestLoadOriginal:
    @pytest.mark.parametrize("prefix", ["backbone.", "", "net.swin."])
    @pytest.mark.parametrize("downsample_first", [True, False])
    @pytest.mark.parametrize("wrapper", ["", "module."])
    def test_layouts(self, native, prefix, downsample_first, wrapper):
        weights = elta_weights(native, prefix, downsample_first)
        model = load_original("elta", {wrapper + name: weight for name, weight in weights.items()}, {"swin": SIZES})
        assert not model.training
        same(model, native)

    def test_config(self, weights):
        config = load_original("elta", weights, {"swin": SIZES}).config
        assert (config.num_levels, config.score_range, config.raw_head) == (10, [1.0, 10.0], False)
        assert config.score_head_trained
        assert config.head_size == 64
        expected = ELTAConfig(swin_config=SWIN).swin_config
        assert config.swin_config.to_dict() | {"dtype": None} == expected.to_dict()

    def test_one_value_is_a_score_of_tad66k(self):
        native = native_model(num_levels=1)
        model = load_original("elta", elta_weights(native), {"swin": SIZES})
        assert (model.config.num_levels, model.config.score_range) == (1, [0.0, 10.0])
        same(model, native)
        other = load_original("elta", elta_weights(native), {"swin": SIZES, "score_range": (0, 1)})
        assert other.config.score_range == [0, 1]

    def test_two_heads(self, native, weights):
        both = elta_weights(native_model(num_levels=1)) | weights
        with pytest.raises(ValueError, match="holds two heads.*'AVA' for the ten levels.*'TAD66K' for the one value"):
            load_original("elta", both, {"swin": SIZES})
        same(load_original("elta", both, {"swin": SIZES, "variant": "AVA"}), native)
        one = load_original("elta", both, {"swin": SIZES, "variant": "TAD66K"})
        assert one.config.num_levels == 1

    def test_what_is_not_used(self, native, weights):
        """Tables, which also tell sizes, and the classes of ImageNet."""
        swin = native.config.swin_config
        for stage, depth in enumerate(SWIN["depths"]):
            for block in range(depth):
                tables = computed_tables(swin, stage)
                if block % 2 == 0:
                    del tables["attn_mask"]
                place = f"backbone.layers.{stage}.blocks.{block}."
                weights |= {place + name: table for name, table in tables.items() if table is not None}
        assert "backbone.layers.0.blocks.1.attn_mask" in weights
        weights |= {"backbone.head.fc.weight": torch.zeros(1000, 32), "backbone.head.fc.bias": torch.zeros(1000)}
        same(load_original("elta", weights), native)

    def test_preparation(self):
        processor = ELTAConversion({"variant": "AVA"}).image_processor
        assert dict(processor.size) == {"height": 256, "width": 256}
        assert list(processor.image_std) == [0.229, 0.224, 0.225]
        assert processor.resample == 2  # bilinear


class TestWhatDoesNotFit:
    def test_any_missing_weight_is_told(self, weights):
        for name in weights:
            kept = {other: weight for other, weight in weights.items() if other != name}
            with pytest.raises(ValueError, match=r"patch_embed\.proj\.weight|lacks|missing"):
                load_original("elta", kept, {"swin": SIZES})

    @pytest.mark.parametrize(
        "name", ["backbone.layers.0.blocks.0.attn.rpb.weight", "linear_emd.1.weight", "head.bias"]
    )
    def test_unknown_weight(self, weights, name):
        with pytest.raises(ValueError, match=rf"unknown {name} \(1\)"):
            load_original("elta", weights | {name: torch.zeros(1)}, {"swin": SIZES})
        with pytest.raises(ValueError, match=f"Unknown weight '{name}'"):
            ELTAConversion({"variant": "AVA", "prefix": "backbone."}).convert(name, torch.zeros(1))

    @pytest.mark.parametrize(
        ("name", "change", "message"),
        [
            ("linear_emd.2.bias", lambda w: w[:5], r"linear_emd.2.bias has shape \(5,\).*\(10,\) for score_head.bias"),
            (
                "backbone.layers.0.blocks.0.attn.qkv.weight",
                lambda w: w[1:],
                r"\(23, 8\).*\(24, 8\).*query.*key.*value",
            ),
            ("backbone.norm.bias", lambda w: w.double(), r"backbone\.norm\.bias \(torch\.float64\)"),
        ],
    )
    def test_weight(self, weights, name, change, message):
        with pytest.raises(ValueError, match=message):
            load_original("elta", weights | {name: change(weights[name])}, {"swin": SIZES})

    @pytest.mark.parametrize("name", ["attn_mask", "attn.relative_coords_table", "attn.k_bias"])
    def test_table_of_other_values(self, native, weights, name):
        table = computed_tables(native.config.swin_config, 0)[name]
        with pytest.raises(ValueError, match="not the table that the config describes"):
            load_original("elta", weights | {f"backbone.layers.0.blocks.1.{name}": table + 1}, {"swin": SIZES})

    def test_no_head(self, weights):
        with pytest.raises(ValueError, match="linear_emd or linear_mse; this one has neither"):
            config_from_weights({name: weight for name, weight in weights.items() if "linear" not in name})

    def test_two_networks(self, weights):
        with pytest.raises(ValueError, match="one patch_embed.proj.weight; got .*backbone.*teacher"):
            config_from_weights(weights | {"teacher.patch_embed.proj.weight": torch.zeros(1)})

    def test_unknown_variant(self):
        with pytest.raises(ValueError, match="must name its variant, AVA or TAD66K.*got 'PARA'"):
            ELTAConversion({"variant": "PARA"})
