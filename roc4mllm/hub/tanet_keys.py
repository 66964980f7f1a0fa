"""
TANet's published checkpoints: the authors' names of weights, and ours.

All shapes are alike. The authors publish no config; what tells their two variants apart is the data set.
"""

from collections.abc import Mapping
from typing import Any

import torch
from PIL import Image

from ..modeling_roc4mllm.configuration_tanet import TANetConfig
from ..modeling_roc4mllm.modeling_tanet import TANetForImageAesthetics
from .image_scorer_conversion import ImageScorerConversion, whole_picture
from .mplug_owl2_keys import refuse_missing

# `theme_calibrated`: the statistics of a batch are computed anew in each forward pass and never stored.
# TAD66K is rated from 1 to 10 and learnt as a tenth of that.
VARIANTS: dict[str, dict[str, Any]] = {
    "AVA": {"num_levels": 10, "score_range": (1.0, 10.0), "theme_calibrated": False},
    "TAD66K": {"num_levels": 1, "score_range": (0.0, 10.0), "theme_activation": "softmax"},
}
OPTIONS = ("legacy_batch_mixing", "score_range")
PICTURE_SIDE = 224  # pixels
RESAMPLE = {"AVA": Image.Resampling.BICUBIC, "TAD66K": Image.Resampling.BILINEAR}
UNUSED = {"TAD66K": {"tygertnet.relu7.weight"}}  # the activation that softmax stands in for

BLOCK = {"0": "expand_1x1.convolution", "1": "expand_1x1.normalization",
         "3": "conv_3x3.convolution", "4": "conv_3x3.normalization",
         "6": "reduce_1x1.convolution", "7": "reduce_1x1.normalization"}  # fmt: skip
LAYER = {"conv1": "layer.0.convolution", "bn1": "layer.0.normalization",
         "conv2": "layer.1.convolution", "bn2": "layer.1.normalization",
         "downsample.0": "shortcut.convolution", "downsample.1": "shortcut.normalization"}  # fmt: skip
MOBILENET, RESNET = "perception.mobilenet", "theme.scene_network"


def native_stems() -> dict[str, str]:
    """Our names by theirs, without `.weight`, `.bias` and what else stands in a module."""
    stems = {
        "head.2": "score_head",
        "head_rgb.2": "colour.head",
        "mobileNet.head.2": "perception.head",
        "hypernet.last_out_w": "theme.make_weights",
        "hypernet.last_out_b": "theme.make_bias",
        "tygertnet.fc1": "theme.query.0",
        "tygertnet.bn1": "theme.query.1",
        "tygertnet.relu1": "theme.query.2",
        "tygertnet.relu7": "theme.activation",
        "res365_last.conv1": f"{RESNET}.embedder.embedder.convolution",
        "res365_last.bn1": f"{RESNET}.embedder.embedder.normalization",
        "res365_last.fc": "theme.scene_head",
    }
    first, last = "mobileNet.base_model.0.0", "mobileNet.base_model.0.18"
    for number, kind in (("0", "convolution"), ("1", "normalization")):
        stems[f"{first}.{number}"] = f"{MOBILENET}.conv_stem.first_conv.{kind}"
        stems[f"{last}.{number}"] = f"{MOBILENET}.conv_1x1.{kind}"
    for block in range(1, 18):
        ours = f"{MOBILENET}.conv_stem" if block == 1 else f"{MOBILENET}.layer.{block - 2}"
        stems |= {f"mobileNet.base_model.0.{block}.conv.{number}": f"{ours}.{name}" for number, name in BLOCK.items()}
    for stage in range(4):
        for layer in range(2):
            theirs, ours = f"res365_last.layer{stage + 1}.{layer}", f"{RESNET}.encoder.stages.{stage}.layers.{layer}"
            stems |= {f"{theirs}.{name}": f"{ours}.{native}" for name, native in LAYER.items()}
    return stems


NATIVE_STEMS = native_stems()
ORIGINAL_STEMS = {native: original for original, native in NATIVE_STEMS.items()}


def translated(name: str, table: Mapping[str, str]) -> str | None:
    """A weight's name by a table of stems; `None` if it has none there."""
    stem, dot, ending = name.rpartition(".")
    return f"{table[stem]}{dot}{ending}" if stem in table else None


def config_from_weights(state_dict: Mapping[str, torch.Tensor], /, **fields: Any) -> dict[str, Any]:
    """
    What [`TANetConversion`] has to know: the variant, by the values that the head gives.

    Args:
        state_dict (`Mapping[str, torch.Tensor]`): The original's weights.
        **fields: What is known otherwise.

    Raises:
        ValueError: If these are not the weights of a TANet model.
    """
    refuse_missing("A checkpoint of TANet", state_dict, ("head.2.weight",))
    num_levels = len(state_dict["head.2.weight"])
    found = [variant for variant, options in VARIANTS.items() if options["num_levels"] == num_levels]
    if not found and "variant" not in fields:
        raise ValueError(f"The head gives {num_levels} values; those of TANet give 10 (AVA) or 1 (TAD66K).")
    return {"variant": "".join(found)} | fields


class TANetConversion(ImageScorerConversion):
    """
    TANet (IJCAI 2022).

    Args:
        config (`Mapping`): `variant`, `"AVA"` or `"TAD66K"`, and, if wanted, `legacy_batch_mixing` and another
            `score_range` than (1, 10) or (0, 10).

    Attributes:
        config ([`TANetConfig`]): The native model's; for `shapes` and `names` see [`ImageScorerConversion`].
        image_processor ([`~transformers.ViTImageProcessorPil`]): The whole picture stretched to 224 × 224 pixels, as
            the authors test on AVA; statistics of ImageNet. For TAD66K they train on random 224 × 224 of 256 × 256
            pixels; that they test on the whole is assumed.

    Raises:
        ValueError: If the variant is unknown.
    """

    model_class: Any = TANetForImageAesthetics

    def __init__(self, config: Mapping[str, Any]):
        self.variant = config.get("variant")
        if self.variant not in VARIANTS:
            raise ValueError(
                f"The config of a TANet checkpoint must name its variant, {' or '.join(VARIANTS)}, as {{'variant': "
                f"'AVA'}}; got {self.variant!r}."
            )
        native = TANetConfig(
            **VARIANTS[self.variant] | {name: config[name] for name in OPTIONS if name in config},
            score_head_trained=True,
        )
        self.describe(native, lambda name: translated(name, ORIGINAL_STEMS) or name)
        self.unused = UNUSED.get(self.variant, set())
        self.image_processor = whole_picture(PICTURE_SIDE, resample=RESAMPLE[self.variant])

    def is_left_out(self, name: str) -> bool:
        """Whether a weight of theirs is never used."""
        return name in self.unused


__all__ = ["TANetConversion", "config_from_weights"]
