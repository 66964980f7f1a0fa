"""Names of TANet's published weights. With the numbers behind them: test_tanet_parity.py."""

import pytest
import torch
from PIL import Image

from roc4mllm import TANetForImageAesthetics
from roc4mllm.hub.convert_original import load_original
from roc4mllm.hub.tanet_keys import (
    NATIVE_STEMS,
    ORIGINAL_STEMS,
    UNUSED,
    TANetConversion,
    config_from_weights,
    translated,
)


@pytest.fixture(scope="module", params=["AVA", "TAD66K"])
def conversion(request):
    return TANetConversion({"variant": request.param})


@pytest.fixture
def names(conversion):
    """What a checkpoint of the variant holds."""
    return {translated(name, ORIGINAL_STEMS) for name in conversion.shapes} | UNUSED.get(conversion.variant, set())


def test_names_are_one_to_one(conversion, names):
    assert len(ORIGINAL_STEMS) == len(NATIVE_STEMS)
    assert None not in names
    assert {translated(translated(name, ORIGINAL_STEMS), NATIVE_STEMS) for name in conversion.shapes} == set(
        conversion.shapes
    )


def test_both_variants_have_the_same_names():
    expected = {*NATIVE_STEMS}
    for variant in ("AVA", "TAD66K"):
        conversion = TANetConversion({"variant": variant})
        found = {translated(name, ORIGINAL_STEMS).rpartition(".")[0] for name in conversion.shapes}
        # of the shortcuts, only the three that change the size exist
        left = {name for name in expected - found if "downsample" not in name}
        assert left == ({"tygertnet.relu7"} if variant == "TAD66K" else set())


@pytest.mark.parametrize(
    ("original", "native"),
    [
        ("head.2.weight", "score_head.weight"),
        (
            "mobileNet.base_model.0.0.1.running_var",
            "perception.mobilenet.conv_stem.first_conv.normalization.running_var",
        ),
        ("mobileNet.base_model.0.1.conv.6.weight", "perception.mobilenet.conv_stem.reduce_1x1.convolution.weight"),
        ("mobileNet.base_model.0.17.conv.4.bias", "perception.mobilenet.layer.15.conv_3x3.normalization.bias"),
        (
            "res365_last.layer4.0.downsample.1.bias",
            "theme.scene_network.encoder.stages.3.layers.0.shortcut.normalization.bias",
        ),
        ("tygertnet.relu1.weight", "theme.query.2.weight"),
    ],
)
def test_name(original, native):
    assert translated(original, NATIVE_STEMS) == native
    assert translated(native, ORIGINAL_STEMS) == original


def test_whole_checkpoint(conversion, names):
    """All weights, one at a time and in any order, fill a model."""
    conversion.check_names(names)
    found = {}
    for name in sorted(names, reverse=True):
        native = translated(name, NATIVE_STEMS)
        shape = conversion.shapes.get(native, torch.Size([1]))
        dtype = torch.int64 if name.endswith("tracked") else torch.float32
        found |= conversion.convert(name, torch.zeros(shape, dtype=dtype))
    assert {name: weight.shape for name, weight in found.items()} == conversion.shapes


def test_config_and_preparation(conversion):
    config, images = conversion.config, conversion.image_processor
    assert config.score_head_trained
    assert not config.legacy_batch_mixing
    expected = {
        "AVA": (10, [1.0, 10.0], "prelu", False, Image.Resampling.BICUBIC),
        "TAD66K": (1, [0.0, 10.0], "softmax", None, Image.Resampling.BILINEAR),
    }
    found = (config.num_levels, config.score_range, config.theme_activation, config.theme_calibrated, images.resample)
    assert found == expected[conversion.variant]
    pixel_values = images(Image.new("RGB", (90, 40), (124, 116, 104)), return_tensors="pt")["pixel_values"]
    assert pixel_values.shape == (1, 3, 224, 224)
    assert pixel_values.abs().max() < 0.01  # the mean colour of ImageNet


def test_options():
    config = TANetConversion({"variant": "AVA", "legacy_batch_mixing": True, "score_range": (0, 9)}).config
    assert config.legacy_batch_mixing
    assert config.score_range == [0, 9]


@pytest.mark.parametrize(("levels", "variant"), [(10, "AVA"), (1, "TAD66K")])
def test_the_head_tells_the_variant(levels, variant):
    assert config_from_weights({"head.2.weight": torch.zeros(levels, 30)}, score_range=(0, 1)) == {
        "variant": variant,
        "score_range": (0, 1),
    }


def test_other_weights():
    with pytest.raises(ValueError, match=r"checkpoint of TANet lacks head\.2\.weight"):
        config_from_weights({"fc.weight": torch.zeros(2, 2)})
    with pytest.raises(ValueError, match="head gives 5 values; those of TANet give 10"):
        config_from_weights({"head.2.weight": torch.zeros(5, 30)})


def test_unknown_and_missing_names_are_told(conversion, names):
    names = names - {"head.2.bias"} | {"head.3.bias"}
    message = r"unknown head\.3\.bias \(1\); missing head\.2\.bias \(1\)"
    with pytest.raises(ValueError, match=message):
        conversion.check_names(names)
    with pytest.raises(ValueError, match=message):
        load_original("tanet", dict.fromkeys(names, torch.zeros(1)), {"variant": conversion.variant})


@pytest.mark.parametrize(
    ("name", "weight", "message"),
    [
        ("head.2.weight", torch.zeros(7, 30), r"head\.2\.weight has shape \(7, 30\).*\(10, 30\) for score_head"),
        ("head.2.bias", torch.zeros(10, dtype=torch.int8), r"head\.2\.bias \(torch\.int8\)"),
        ("res365_last.bn1.num_batches_tracked", torch.zeros(()), "dtype torch.float32"),
        ("head.9.bias", torch.zeros(10), "Unknown weight 'head.9.bias'"),
    ],
)
def test_wrong_weight(name, weight, message):
    with pytest.raises(ValueError, match=message):
        TANetConversion({"variant": "AVA"}).convert(name, weight)


@pytest.mark.parametrize("config", [{}, {"variant": "LSVQ"}])
def test_unknown_variant(config):
    with pytest.raises(ValueError, match="must name its variant, AVA or TAD66K.*got"):
        TANetConversion(config)


def test_model_class():
    assert TANetConversion.model_class is TANetForImageAesthetics
