"""
The authors' names of ELTA's weights, those of timm's Swin Transformer V2 among them, and ours.

Under which name the authors keep the Swin is read off the weights, and so is where it reduces features: with an older
timm (0.6) a stage ends with that, with a newer one (1.0) the next one begins with it. One weight of theirs holds
query, key and value.
"""

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from transformers import Swinv2Config
from transformers.models.swinv2.modeling_swinv2 import Swinv2Layer

from ..modeling_roc4mllm.configuration_elta import ELTAConfig
from ..modeling_roc4mllm.modeling_elta import ELTAForImageAesthetics
from .image_scorer_conversion import ImageScorerConversion, whole_picture
from .mplug_owl2_keys import refuse_missing

# Labels of TAD66K were scores divided by 10, and the sigmoid is multiplied by 10 again.
RANGES = {"AVA": (1.0, 10.0), "TAD66K": (0.0, 10.0)}
HEADS = {
    "AVA": {"score_head.hidden": "linear_emd.0", "score_head": "linear_emd.2"},
    "TAD66K": {"score_head": "linear_mse.1"},
}
SWIN = {
    "swin.embeddings.patch_embeddings.projection": "patch_embed.proj",
    "swin.embeddings.norm": "patch_embed.norm",
    "swin.layernorm": "norm",
}
BLOCK = {
    "attention.self.query.weight": "attn.qkv.weight",
    "attention.self.key.weight": "attn.qkv.weight",
    "attention.self.value.weight": "attn.qkv.weight",
    "attention.self.query.bias": "attn.q_bias",
    "attention.self.value.bias": "attn.v_bias",
    "attention.self.logit_scale": "attn.logit_scale",
    "attention.self.continuous_position_bias_mlp.0.weight": "attn.cpb_mlp.0.weight",
    "attention.self.continuous_position_bias_mlp.0.bias": "attn.cpb_mlp.0.bias",
    "attention.self.continuous_position_bias_mlp.2.weight": "attn.cpb_mlp.2.weight",
    **{
        f"{ours}.{ending}": f"{theirs}.{ending}"
        for ours, theirs in {
            "attention.output.dense": "attn.proj",
            "layernorm_before": "norm1",
            "intermediate.dense": "mlp.fc1",
            "output.dense": "mlp.fc2",
            "layernorm_after": "norm2",
        }.items()
        for ending in ("weight", "bias")
    },
}
PLACE = re.compile(r"swin\.encoder\.layers\.(\d+)\.(?:blocks\.(\d+)|downsample)\.(.+)")
TABLE = re.compile(
    r"layers\.(\d+)\.blocks\.\d+\.(attn_mask|attn\.(?:relative_coords_table|relative_position_index|k_bias))"
)
CLASSES = re.compile(r"head\.(fc\.)?(weight|bias)")  # of ImageNet; the authors take the features below


class ELTAConversion(ImageScorerConversion):
    """
    ELTA (ICML 2024).

    Args:
        config (`Mapping`): What [`config_from_weights`] reads off the weights: `variant`, `"AVA"` for the head of
            levels or `"TAD66K"` for that of one value; `prefix`, what stands before the Swin's names;
            `downsample_first`; `swin`, fields of its [`~transformers.Swinv2Config`]; `num_levels` and `head_size`.
            `score_range` may be added: by default (1, 10) for levels and (0, 10) for one value.

    Attributes:
        config ([`ELTAConfig`]): The native model's; for `shapes` and `names` see [`ImageScorerConversion`].
        image_processor ([`~transformers.ViTImageProcessorPil`]): The whole picture stretched to a square,
            bilinear, statistics of ImageNet. Assumed: so the same authors test TANet.

    Raises:
        ValueError: If the variant is unknown.
        huggingface_hub.errors.StrictDataclassError: If a field has the wrong type or value.
    """

    model_class: Any = ELTAForImageAesthetics

    def __init__(self, config: Mapping[str, Any]):
        self.variant: Any = config.get("variant")
        if self.variant not in HEADS:
            raise ValueError(
                f"The config of an ELTA checkpoint must name its variant, {' or '.join(HEADS)}, as {{'variant': "
                f"'AVA'}}; got {self.variant!r}."
            )
        fields = {name: config[name] for name in ("num_levels", "head_size") if name in config}
        fields |= {"num_levels": 1} if self.variant == "TAD66K" else {}
        self.prefix: str = config.get("prefix", "")
        others = [stem for variant in HEADS for stem in HEADS[variant].values() if variant != self.variant]
        self.unused = {f"{stem}.{ending}" for stem in others for ending in ("weight", "bias")}
        native = ELTAConfig(
            swin_config=config.get("swin", {}),
            score_range=config.get("score_range", RANGES[self.variant]),
            score_head_trained=True,
            **fields,
        )
        first = config.get("downsample_first", True)
        self.describe(native, lambda name: original_name(name, self.variant, self.prefix, first))
        self.image_processor = whole_picture(native.swin_config.image_size)

    def is_left_out(self, name: str) -> bool:
        """Whether a weight of theirs is computed here, or never used: classes of ImageNet, and the other head."""
        rest = name.removeprefix(self.prefix)
        is_of_swin = name.startswith(self.prefix)
        return name in self.unused or bool(is_of_swin and (TABLE.fullmatch(rest) or CLASSES.fullmatch(rest)))

    def check_table(self, name: str, values: torch.Tensor) -> None:
        """As in the parent."""
        found = TABLE.fullmatch(name.removeprefix(self.prefix))
        if found is None:
            return
        table = computed_tables(self.config.swin_config, int(found[1]))[found[2]]
        if table is None or values.shape != table.shape or not torch.allclose(values.to(table), table, atol=1e-5):
            raise ValueError(
                f"{name} is not the table that the config describes. A Swin for other pictures or windows, or made "
                "from one with other windows, needs `image_size`, `window_size` or `pretrained_window_sizes`."
            )


def original_name(name: str, variant: str, prefix: str = "", downsample_first: bool = True) -> str:
    """
    The original's name of one of our weights.

    Args:
        name (`str`): Ours.
        variant (`str`): `"AVA"` or `"TAD66K"`.
        prefix (`str`, *optional*, defaults to `""`): What stands before the names of the Swin.
        downsample_first (`bool`, *optional*, defaults to `True`): Whether a stage begins with what reduces features,
            as in newer timm; else the stage before ends with it, as in transformers.
    """
    if found := PLACE.fullmatch(name):
        stage, block, rest = found.groups()
        if block is None:
            return f"{prefix}layers.{int(stage) + downsample_first}.downsample.{rest}"
        return f"{prefix}layers.{stage}.blocks.{block}.{BLOCK[rest]}"
    stem, dot, ending = name.rpartition(".")
    return f"{HEADS[variant][stem] if stem in HEADS[variant] else prefix + SWIN[stem]}{dot}{ending}"


def computed_tables(config: Swinv2Config, stage: int) -> dict[str, torch.Tensor | None]:
    """What timm may store and transformers computes, in a block of a stage, by timm's names."""
    side = config.image_size // config.patch_size // 2**stage  # features along the side of a picture
    heads, windows = config.num_heads[stage], config.pretrained_window_sizes[stage]
    layer = Swinv2Layer(  # as narrow as can be: tables do not depend on widths
        config, heads, (side, side), heads, shift_size=config.window_size // 2, pretrained_window_size=windows
    )
    return {
        "attn_mask": layer.get_attn_mask(side, side, torch.float32),
        "attn.relative_coords_table": layer.attention.self.relative_coords_table,
        "attn.relative_position_index": layer.attention.self.relative_position_index,
        "attn.k_bias": torch.zeros(config.embed_dim * 2**stage),
    }


# ---- config ---------------------------------------------------------------------------------------------------------


def config_from_weights(state_dict: Mapping[str, torch.Tensor], /, **fields: Any) -> dict[str, Any]:
    """
    What [`ELTAConversion`] has to know, read off an original's weights.

    Args:
        state_dict (`Mapping[str, torch.Tensor]`): The original's weights.
        **fields: What is known otherwise. Shapes do not tell sizes of pictures and windows, which are taken to be
            those of the published size where no table is stored, and not which of two heads was trained.

    Raises:
        ValueError: If these are not the weights of an ELTA model, or hold two heads and no variant is given.
    """
    first = [name for name in state_dict if name.endswith("patch_embed.proj.weight")]
    if len(first) != 1:
        raise ValueError(
            f"An ELTA checkpoint holds one Swin V2 in timm's layout, with one patch_embed.proj.weight; got {first}."
        )
    prefix = first[0].removesuffix("patch_embed.proj.weight")
    swin = {name.removeprefix(prefix): weight for name, weight in state_dict.items() if name.startswith(prefix)}
    depths = stage_depths(swin)
    found: dict[str, Any] = {
        "variant": fields["variant"] if "variant" in fields else variant_from_names(state_dict),
        "prefix": prefix,
        "downsample_first": any(name.startswith(f"layers.{len(depths) - 1}.downsample.") for name in swin),
        "swin": swin_fields(swin, depths),
    }
    if "linear_emd.0.weight" in state_dict and "linear_emd.2.weight" in state_dict:
        found |= {"num_levels": len(state_dict["linear_emd.2.weight"])}
        found |= {"head_size": len(state_dict["linear_emd.0.weight"])}
    return found | fields | {"swin": found["swin"] | fields.get("swin", {})}


def variant_from_names(names: Iterable[str]) -> str:
    """The variant whose head a checkpoint holds."""
    heads = {name.partition(".")[0] for name in names} & {"linear_emd", "linear_mse"}
    if heads == {"linear_emd", "linear_mse"}:
        raise ValueError(
            "The checkpoint holds two heads, and nothing tells which was trained: name the variant, 'AVA' for the ten "
            "levels of linear_emd, 'TAD66K' for the one value of linear_mse."
        )
    if not heads:
        raise ValueError("An ELTA checkpoint has a head, linear_emd or linear_mse; this one has neither.")
    return "AVA" if heads == {"linear_emd"} else "TAD66K"


def stage_depths(swin: Mapping[str, torch.Tensor]) -> list[int]:
    """Blocks of each stage of a Swin in timm's names."""
    found = [match for name in swin if (match := re.match(r"layers\.(\d+)\.blocks\.(\d+)\.", name))]
    depths = [0] * (1 + max((int(match[1]) for match in found), default=-1))
    for match in found:
        depths[int(match[1])] = max(depths[int(match[1])], int(match[2]) + 1)
    return depths


def swin_fields(swin: Mapping[str, torch.Tensor], depths: list[int]) -> dict[str, Any]:
    """Fields of a [`~transformers.Swinv2Config`] that shapes of weights in timm's names tell."""
    scales = [f"layers.{stage}.blocks.0.attn.logit_scale" for stage in range(len(depths))]
    narrow = "layers.0.blocks.0.mlp.fc1.weight"
    refuse_missing("The Swin of an ELTA checkpoint", swin, [*scales, narrow])
    width, channels, patch_size, _ = swin["patch_embed.proj.weight"].shape
    fields = {
        "embed_dim": width,
        "num_channels": channels,
        "patch_size": patch_size,
        "depths": depths,
        "num_heads": [len(swin[name]) for name in scales],
        "mlp_ratio": len(swin[narrow]) / width,
        "qkv_bias": any(name.endswith(".attn.q_bias") for name in swin),
    }
    for name, mask in swin.items():
        if found := re.fullmatch(r"layers\.(\d+)\.blocks\.\d+\.attn_mask", name):
            windows, area = mask.shape[:2]  # in a picture, and features in each
            side = math.isqrt(windows * area)
            return fields | {"window_size": math.isqrt(area), "image_size": side * patch_size * 2 ** int(found[1])}
    return fields


__all__ = ["ELTAConversion", "config_from_weights", "original_name"]
