"""The authors' EAT checkpoints as native models, in miniature. With their own numbers: test_eat_parity.py."""

import pytest
import torch
from torch.nn import functional

from roc4mllm import EATConfig, EATForImageAesthetics
from roc4mllm.hub.convert_original import load_original
from roc4mllm.hub.eat_keys import EATConversion, config_from_weights, load_dat_weights, original_name, published_rate
from roc4mllm.modeling_roc4mllm.attention_eat import relative_table, shift_mask

CONFIG = {
    "img_size": 64,
    "patch_size": 4,
    "num_classes": 10,
    "dim_stem": 6,
    "dims": [8, 16],
    "depths": [2, 2],
    "stage_spec": [["L", "S"], ["L", "D"]],
    "heads": [2, 4],
    "window_sizes": [4, 2],
    "groups": [-1, 2],
    "strides": [-1, 1],
    "offset_range_factor": [-1, 2],
    "use_pes": [False, True],
    "dwc_pes": [False, False],
    "use_dwc_mlps": [False, True],
    "use_conv_patches": False,
    "expansion": 2,
    "drop_path_rate": 0.2,
}
ATTENTION = "stages.1.attns.1"


def native_model(**fields) -> EATForImageAesthetics:
    torch.manual_seed(0)
    model = EATForImageAesthetics(EATConversion(CONFIG | fields).config).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return model


def original_weights(model: EATForImageAesthetics) -> dict[str, torch.Tensor]:
    """Its weights as the authors' code saves them: 1 × 1 convolutions, heads last, and tables that are computed."""
    found = {}
    for name, weight in model.state_dict().items():
        theirs = original_name(name, model.config)
        if theirs.endswith("relative_position_bias_table"):
            weight = weight.flatten(1).T
        elif weight.ndim == 2 and any(part in theirs for part in ("stages.0.proj", ATTENTION, "stages.1.mlps")):
            weight = weight[..., None, None]
        found[theirs] = weight.clone()
    for stage, window in enumerate(model.config.window_sizes):
        side = 2 * window - 1
        index = relative_table(torch.arange(side**2).view(1, side, side))[0]
        found[f"stages.{stage}.attns.0.relative_position_index"] = index
    found["stages.0.attns.1.relative_position_index"] = found["stages.0.attns.0.relative_position_index"].clone()
    side = model.config.table_size(0)
    found["stages.0.attns.1.attn_mask"] = shift_mask(side, side, 4, 2)
    return found


@pytest.fixture(scope="module")
def native():
    return native_model()


@pytest.fixture
def weights(native):
    return original_weights(native)


@torch.no_grad()
def logits(model) -> torch.Tensor:
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    return model(images).logits[:, 0]


class TestLoadOriginal:
    def test_equals_the_native_model(self, native, weights):
        model = load_original("eat", weights, CONFIG)
        assert type(model) is EATForImageAesthetics
        assert not model.training
        assert (logits(native)[0] - logits(native)[1]).abs().max() > 1e-3
        torch.testing.assert_close(logits(model), logits(native), atol=1e-5, rtol=1e-6)

    def test_config(self, weights):
        config = load_original("eat", weights, CONFIG).config
        assert (config.num_levels, config.score_range, config.raw_head) == (10, [1.0, 10.0], True)
        assert config.stage_blocks == ["LS", "LD"]
        assert config.position_biases == ["none", "table"]
        assert config.score_head_trained
        assert not config.legacy_batch_mixing

    def test_one_output_is_a_score_of_tad66k(self):
        weights = original_weights(native_model(num_classes=1))
        one = load_original("eat", weights, CONFIG | {"num_classes": 1}).config
        assert (one.num_levels, one.score_range) == (1, [0.0, 10.0])
        other = load_original("eat", weights, CONFIG | {"num_classes": 1, "score_range": (0, 1)}).config
        assert other.score_range == [0, 1]

    def test_values_of_another_number_are_scores_from_one(self):
        native = native_model(num_classes=7)
        weights = original_weights(native)
        assert native.config.score_range == [1.0, 7.0]
        loaded = load_original("eat", weights, {"state_dict": "of a file that tells more than the config"})
        pictures = torch.randn(2, 3, 64, 64)
        raw = loaded(pictures).logits[:, 0]  # (B, 7)
        assert raw.std() > 1e-3
        expected = (raw * torch.arange(1.0, 8.0)).sum(-1).clamp(1, 7)
        assert loaded(pictures).scores[:, 0].tolist() == pytest.approx(expected.tolist(), abs=1e-4)

    def test_config_is_read_off_the_weights(self, native, weights):
        found = load_original("eat", {f"module.{name}": weight for name, weight in weights.items()})
        assert found.config.score_range == [1.0, 10.0]
        torch.testing.assert_close(logits(found), logits(native), atol=1e-5, rtol=1e-6)

    def test_drop_path_rate_is_that_of_the_published_size(self, weights):
        assert "drop_path_rate" not in config_from_weights(weights)
        for size, rate in (("tiny", 0.2), ("small", 0.3), ("base", 0.5), ("base-384", 0.5)):
            config = EATConfig.of_size(size)
            assert published_rate(config.hidden_sizes, [len(blocks) for blocks in config.stage_blocks]) == {
                "drop_path_rate": rate
            }
        with torch.device("meta"):
            base = EATForImageAesthetics(EATConfig.of_size("base", raw_head=True))
        names = {original_name(name, base.config): weight for name, weight in base.state_dict().items()}
        found = {
            name: torch.empty(weight.flatten(1).T.shape, device="meta") if name.endswith("bias_table") else weight
            for name, weight in names.items()
        }
        assert config_from_weights(found)["drop_path_rate"] == 0.5
        assert config_from_weights(found, drop_path_rate=0.1)["drop_path_rate"] == 0.1

    def test_without_tables(self, native, weights):
        kept = {name: weight for name, weight in weights.items() if not name.endswith(("_index", "attn_mask"))}
        assert len(kept) == len(weights) - 4
        torch.testing.assert_close(logits(load_original("eat", kept, CONFIG)), logits(native), atol=1e-5, rtol=1e-6)

    def test_preparation(self):
        processor = EATConversion(CONFIG).image_processor
        assert dict(processor.size) == {"height": 64, "width": 64}
        assert list(processor.image_mean) == [0.485, 0.456, 0.406]
        assert processor.resample == 2  # bilinear


class TestWhatDoesNotFit:
    def test_names(self, weights):
        weights["stages.1.attns.1.proj_x.weight"] = weights.pop("stages.1.attns.1.proj_q.weight")
        message = (
            r"unknown stages\.1\.attns\.1\.proj_x\.weight \(1\); missing stages\.1\.attns\.1\.proj_q\.weight \(1\)"
        )
        with pytest.raises(ValueError, match=message):
            load_original("eat", weights, CONFIG)

    @pytest.mark.parametrize(
        ("name", "change", "message"),
        [
            (
                "cls_head.weight",
                lambda w: w[:5],
                r"cls_head.weight has shape \(5, 16\).*\(10, 16\) for score_head.weight",
            ),
            (f"{ATTENTION}.rpe_table", lambda w: w[:, 1:], r"\(4, 14, 15\).*\(4, 15, 15\)"),
            ("cls_norm.norm.bias", lambda w: w.long(), r"cls_norm\.norm\.bias \(torch\.int64\)"),
            ("stages.0.attns.1.attn_mask", lambda w: w * 2, "not the table"),
            ("stages.1.attns.0.relative_position_index", lambda w: w.T, "not the table"),
        ],
    )
    def test_weight(self, weights, name, change, message):
        with pytest.raises(ValueError, match=message):
            load_original("eat", weights | {name: change(weights[name])}, CONFIG)

    def test_unknown_weight(self):
        with pytest.raises(ValueError, match="Unknown weight 'x'"):
            EATConversion(CONFIG).convert("x", torch.zeros(1))

    @pytest.mark.parametrize(
        ("fields", "message"),
        [
            ({"depths": [2, 3]}, r"depths is \[2, 3\], but stage_spec holds \[2, 2\]"),
            ({"strides": [-1, 2]}, r"strides\[1\] is 2; .* with 1 only"),
            ({"no_offs": [False, True]}, r"no_offs\[1\] is True"),
            ({"fixed_pes": [False, True]}, r"fixed_pes\[1\] is True"),
        ],
    )
    def test_config(self, fields, message):
        with pytest.raises(ValueError, match=message):
            EATConversion(CONFIG | fields)

    def test_config_without_a_field(self):
        with pytest.raises(ValueError, match="EAT checkpoint lacks num_classes, dims"):
            EATConversion({name: value for name, value in CONFIG.items() if name not in ("dims", "num_classes")})


class TestConfigFromWeights:
    def test_all_that_shapes_tell(self, weights):
        found = config_from_weights(weights, drop_path_rate=0.2)
        assert found == {name: CONFIG[name] for name in CONFIG if name != "strides"}

    def test_what_is_known_otherwise(self, weights):
        found = config_from_weights(weights, offset_range_factor=[-1, 0.0], img_size=64)
        assert found["offset_range_factor"] == [-1, 0.0]

    def test_other_weights(self):
        with pytest.raises(ValueError, match="checkpoint of EAT lacks patch_proj.0.weight, cls_head.weight"):
            config_from_weights({"fc.weight": torch.zeros(2, 2)})

    def test_any_missing_weight_is_told(self, weights):
        for name in weights:
            # tables are computed; without `rpe_table` it is another model, of the same authors' options
            if not name.endswith(("_index", "attn_mask", "rpe_table")):
                kept = {other: weight for other, weight in weights.items() if other != name}
                with pytest.raises(ValueError, match="lacks|missing|weights of a DAT"):
                    load_original("eat", kept)

    def test_weights_of_dat_are_no_scorer(self, weights):
        kept = {name: weight for name, weight in weights.items() if ".ref_point14." not in name}
        with pytest.raises(ValueError, match="weights of a DAT.*load_dat_weights"):
            load_original("eat", kept | {"cls_head.weight": torch.zeros(1000, 16), "cls_head.bias": torch.zeros(1000)})


class TestDAT:
    """Weights of DAT are those of EAT without reference points, and with another head."""

    @pytest.fixture
    def dat(self, weights):
        kept = {name: weight for name, weight in weights.items() if ".ref_point14." not in name}
        return kept | {"cls_head.weight": torch.zeros(1000, 16), "cls_head.bias": torch.zeros(1000)}

    @pytest.mark.parametrize("nest", [None, "model", "state_dict"])
    def test_all_but_head_and_reference_points(self, native, dat, nest):
        model = EATForImageAesthetics(native.config)
        before = {name: weight.clone() for name, weight in model.state_dict().items()}
        fresh = load_dat_weights(
            model, {nest: {f"module.{name}": weight for name, weight in dat.items()}} if nest else dat
        )
        attention = "eat.stages.1.blocks.1.attention"
        heads = ["score_head.bias", "score_head.weight"]
        assert fresh == [f"{attention}.reference_proj.bias", f"{attention}.reference_proj.weight", *heads]
        for name, weight in model.state_dict().items():
            expected = before if name in fresh else native.state_dict()
            assert torch.equal(weight, expected[name]), name

    def test_bare_model(self, native, dat):
        model = EATForImageAesthetics(native.config)
        assert len(load_dat_weights(model.eat, dat)) == 2
        assert torch.equal(model.eat.norm.weight, native.eat.norm.weight)

    def test_tables_of_another_size_are_interpolated(self, native, dat):
        config = EATConversion(CONFIG | {"img_size": 128, "window_sizes": [8, 4]}).config
        model = EATForImageAesthetics(config)
        load_dat_weights(model, dat)
        found, table = (part.eat.stages[1].blocks[1].attention.position_bias for part in (model, native))
        assert found.shape == (4, 31, 31)
        corners = (slice(None), [0, 0, -1, -1], [0, -1, 0, -1])
        torch.testing.assert_close(found[corners], table[corners])
        smaller = functional.interpolate(found[None], (15, 15), mode="bicubic", align_corners=True)[0]
        assert (smaller - table).abs().mean() < 0.2 * table.abs().mean()

    def test_weights_that_are_no_numbers(self, native, dat):
        with pytest.raises(ValueError, match=r"no numbers.*patch_proj\.0\.bias \(1\)"):
            load_dat_weights(native, dat | {"patch_proj.0.bias": torch.full((6,), torch.nan)})

    def test_weights_of_another_size(self, native, dat):
        with pytest.raises(ValueError, match="missing down_projs.0.0.weight"):
            load_dat_weights(native, {name: weight for name, weight in dat.items() if "down_projs" not in name})
        with pytest.raises(ValueError, match=r"patch_proj.0.bias has shape \(7,\); this model needs \(6,\)"):
            load_dat_weights(EATForImageAesthetics(native.config), dat | {"patch_proj.0.bias": torch.zeros(7)})
