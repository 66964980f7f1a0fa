"""
The authors' names of EAT's weights and config fields, and ours; also those of DAT's ImageNet weights.

The layout of DAT's files is known only through EAT, which is built on DAT's code. Assumed is that they have EAT's
names without those of the reference points, a head of 1000 classes, and lie bare in the file or under `"model"`.
"""

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from ..modeling_roc4mllm.attention_eat import relative_table, shift_mask
from ..modeling_roc4mllm.configuration_eat import SIZES, EATConfig
from ..modeling_roc4mllm.modeling_eat import EATForImageAesthetics
from .image_scorer_conversion import ImageScorerConversion, whole_picture
from .mplug_owl2_keys import refuse_missing
from .weight_names import refuse_differences, weights_within

# `{s}` stands for the number of a stage, `{b}` for that of a block. Ours end in `.weight`, `.bias` or nothing.
BLOCK, ATTENTION, MLP = "stages.{s}.blocks.{b}", "stages.{s}.blocks.{b}.attention", "stages.{s}.blocks.{b}.mlp"
ORIGINAL_STEMS = {
    "score_head": "cls_head",
    "norm": "cls_norm.norm",
    "stem.conv": "patch_proj.0",
    "stem.norm": "patch_proj.1.norm",
    "downsamples.{s}.conv": "down_projs.{s}.0",
    "downsamples.{s}.norm": "down_projs.{s}.1.norm",
    "stages.{s}.input_proj": "stages.{s}.proj",
    f"{BLOCK}.attention_norm": "stages.{s}.layer_norms.{first}.norm",
    f"{BLOCK}.mlp_norm": "stages.{s}.layer_norms.{second}.norm",
    f"{ATTENTION}.qkv": "stages.{s}.attns.{b}.proj_qkv",
    f"{ATTENTION}.relative_position_bias": "stages.{s}.attns.{b}.relative_position_bias_table",
    f"{ATTENTION}.q_proj": "stages.{s}.attns.{b}.proj_q",
    f"{ATTENTION}.k_proj": "stages.{s}.attns.{b}.proj_k",
    f"{ATTENTION}.v_proj": "stages.{s}.attns.{b}.proj_v",
    f"{ATTENTION}.out_proj": "stages.{s}.attns.{b}.proj_out",
    f"{ATTENTION}.offset_conv": "stages.{s}.attns.{b}.conv_offset.0",
    f"{ATTENTION}.offset_norm": "stages.{s}.attns.{b}.conv_offset.1.norm",
    f"{ATTENTION}.offset_proj": "stages.{s}.attns.{b}.conv_offset.3",
    f"{ATTENTION}.reference_proj": "stages.{s}.attns.{b}.ref_point14",
    f"{ATTENTION}.position_bias": "stages.{s}.attns.{b}.rpe_table",
    f"{ATTENTION}.position_conv": "stages.{s}.attns.{b}.rpe_table",
    f"{MLP}.fc1": "stages.{s}.mlps.{b}.{chunk}linear1",
    f"{MLP}.conv": "stages.{s}.mlps.{b}.dwc",
    f"{MLP}.fc2": "stages.{s}.mlps.{b}.{chunk}linear2",
}
TABLE = re.compile(r"stages\.(\d+)\.attns\.(\d+)\.(relative_position_index|attn_mask)")
REQUIRED = (
    "img_size", "num_classes", "dim_stem", "dims", "stage_spec", "heads", "window_sizes", "groups",
    "offset_range_factor",
)  # fmt: skip
FIELDS = {
    "img_size": "image_size",
    "patch_size": "patch_size",
    "expansion": "mlp_ratio",
    "dim_stem": "stem_size",
    "dims": "hidden_sizes",
    "heads": "num_heads",
    "window_sizes": "window_sizes",
    "offset_range_factor": "offset_range_factors",
    "use_conv_patches": "use_conv_patches",
    "use_dwc_mlps": "use_conv_mlps",
    "drop_rate": "hidden_dropout_prob",
    "attn_drop_rate": "attention_probs_dropout_prob",
    "drop_path_rate": "drop_path_rate",
    "legacy_batch_mixing": "legacy_batch_mixing",  # ours, as is `score_range` below
}
OFFSET_KERNELS = (9, 7, 5, 3)  # fixed in the original
TAD66K = (0.0, 10.0)  # score range of one value, which is learnt as a tenth of a score; of N values (AVA: 10) 1 to N


class EATConversion(ImageScorerConversion):
    """
    EAT (ACM MM 2023).

    Args:
        config (`Mapping`): Fields of the original's config, as [`config_from_weights`] reads them off its weights.
            `score_range` may be added: by default (1, 10) for ten outputs and (0, 10) for one, whose labels were
            scores of TAD66K divided by 10.

    Attributes:
        config ([`EATConfig`]): The native model's; for `shapes` and `names` see [`ImageScorerConversion`].
        image_processor ([`~transformers.ViTImageProcessorPil`]): The whole picture stretched to a square,
            bilinear, statistics of ImageNet. Assumed: so the same authors test TANet.

    Raises:
        ValueError: If the config lacks a field, contradicts itself or asks for what the original cannot run.
        huggingface_hub.errors.StrictDataclassError: If a field of it has the wrong type or value.
    """

    model_class: Any = EATForImageAesthetics

    def __init__(self, config: Mapping[str, Any]):
        native = native_config(config)
        self.describe(native, lambda name: original_name(name, native))
        self.image_processor = whole_picture(native.image_size)

    def is_left_out(self, name: str) -> bool:
        """Whether a weight of theirs is a table that is computed here."""
        return TABLE.fullmatch(name) is not None

    def native_layout(self, name: str, weight: torch.Tensor, like: torch.Size) -> torch.Tensor:
        """See [`native_layout`]."""
        return native_layout(name, weight, like)

    def check_table(self, name: str, values: torch.Tensor) -> None:
        """As in the parent."""
        stage, _, kind = TABLE.fullmatch(name).groups()  # type: ignore[union-attr]
        window = self.config.window_sizes[int(stage)]
        if kind == "attn_mask":
            side = int(len(values) ** 0.5) * window  # features along the side of the picture that it was made for
            table = shift_mask(side, side, window, -(-window // 2))
        else:
            side = 2 * window - 1
            table = relative_table(torch.arange(side**2).view(1, side, side))[0]
        if values.shape != table.shape or not torch.equal(values.to(table.dtype), table):
            raise ValueError(f"{name} is not the table of positions that the config describes.")


# ---- config ---------------------------------------------------------------------------------------------------------


def native_config(config: Mapping[str, Any]) -> EATConfig:
    """
    Our config of an original one.

    Args:
        config (`Mapping`): Fields of the original's config.

    Raises:
        ValueError: If it lacks a field, contradicts itself or asks for what the original cannot run.
        huggingface_hub.errors.StrictDataclassError: If a field of it has the wrong type or value.
    """
    refuse_missing("The config of an EAT checkpoint", config, REQUIRED)
    spec = ["".join(blocks) for blocks in config["stage_spec"]]
    depths = [len(blocks) for blocks in spec]
    if list(config.get("depths", depths)) != depths:
        raise ValueError(f"depths is {list(config['depths'])}, but stage_spec holds {depths} blocks.")
    refuse_what_never_ran(config, spec)
    num_classes = config["num_classes"]
    uses_bias, uses_conv = (
        config.get(name, [default] * len(spec)) for name, default in (("use_pes", True), ("dwc_pes", False))
    )
    biases = [
        ("conv" if conv else "table") if used else "none" for used, conv in zip(uses_bias, uses_conv, strict=True)
    ]
    fields = {ours: config[name] for name, ours in FIELDS.items() if name in config}
    return EATConfig(
        **fields,
        stage_blocks=spec,
        num_groups=[max(groups, 1) for groups in config["groups"]],  # −1 where no block is deformable
        position_biases=biases,
        offset_kernel_sizes=OFFSET_KERNELS[: len(spec)],
        num_levels=num_classes,
        raw_head=True,
        score_range=config.get("score_range", TAD66K if num_classes == 1 else (1.0, float(num_classes))),
        score_head_trained=True,
    )


def refuse_what_never_ran(config: Mapping[str, Any], spec: list[str]) -> None:
    """Raise a `ValueError` if an option is set that the authors' code has and cannot run."""
    for stage, blocks in enumerate(spec):
        for name, expected in (("no_offs", False), ("fixed_pes", False), ("strides", 1)):
            value = config.get(name, [expected] * len(spec))[stage]
            if "D" in blocks and value != expected:
                raise ValueError(
                    f"{name}[{stage}] is {value}; the authors' own code runs deformable blocks with {expected} only."
                )


def config_from_weights(state_dict: Mapping[str, torch.Tensor], /, **fields: Any) -> dict[str, Any]:
    """
    Fields of the original's config, read off its weights.

    Args:
        state_dict (`Mapping[str, torch.Tensor]`): The original's weights, tables included.
        **fields: What is known otherwise. Shapes do not tell `offset_range_factor`, which is taken to be 2 as in all
            published sizes, and with `use_conv_patches` not `patch_size`, taken to be 4. `drop_path_rate`, for
            training, is that of the published size with these widths and depths, where there is one.

    Raises:
        ValueError: If these are not the weights of an EAT model.
    """
    if all(name in fields for name in REQUIRED):
        return fields
    refuse_missing("A checkpoint of EAT", state_dict, ("patch_proj.0.weight", "cls_head.weight"))
    numbers = [match for name in state_dict if (match := re.match(r"stages\.(\d+)\.attns\.(\d+)\.", name))]
    depths = [0] * (1 + max((int(match[1]) for match in numbers), default=-1))
    for match in numbers:
        depths[int(match[1])] = max(depths[int(match[1])], int(match[2]) + 1)
    refuse_incomplete(state_dict, len(depths))
    stem = state_dict["patch_proj.0.weight"].shape  # (C, channels, kernel, kernel)
    overlap = len(depths) > 1 and state_dict["down_projs.0.0.weight"].shape[-1] == 3
    stages = [stage_fields(state_dict, stage, depth) for stage, depth in enumerate(depths)]
    patch_size = fields.get("patch_size", 4 if overlap else stem[-1])
    sides = [stage.pop("side") * 2**index * patch_size for index, stage in enumerate(stages)]
    return {
        "img_size": max(sides),  # of a stage with an odd side less is left
        "patch_size": patch_size,
        "num_classes": len(state_dict["cls_head.weight"]),
        "dim_stem": stem[0],
        "depths": depths,
        "use_conv_patches": overlap,
        "expansion": next(
            weight.shape[0] // weight.shape[1]
            for name, weight in state_dict.items()
            if name.endswith("linear1.weight")
        ),
        **{name: [stage[name] for stage in stages] for name in stages[0]},
        **published_rate([stage["dims"] for stage in stages], depths),
        **fields,
    }


def published_rate(widths: list[int], depths: list[int]) -> dict[str, float]:
    """`drop_path_rate` of the published size with these widths and depths; nothing where there is none."""
    for config in map(EATConfig.of_size, SIZES):
        if (config.hidden_sizes, list(map(len, config.stage_blocks))) == (widths, depths):
            return {"drop_path_rate": config.drop_path_rate}
    return {}


def refuse_incomplete(state_dict: Mapping[str, torch.Tensor], num_stages: int) -> None:
    """Raise a `ValueError` if weights are missing whose shapes tell the config, or these are weights of a DAT."""
    stages = range(max(num_stages, 1))
    needed = [f"stages.{stage}.attns.0.proj_out.bias" for stage in stages]
    needed += [f"down_projs.{stage}.0.weight" for stage in stages[:-1]]
    if not any(name.endswith("linear1.weight") for name in state_dict):
        needed.append("stages.0.mlps.0.chunk.linear1.weight")
    refuse_missing("A checkpoint of EAT", state_dict, needed)
    has_offsets = any(name.endswith("conv_offset.0.weight") for name in state_dict)
    if has_offsets and not any(".ref_point14." in name for name in state_dict):
        raise ValueError(
            "These are weights of a DAT: they lack reference points (ref_point14), and so score nothing. They can "
            "begin a training: roc4mllm.hub.eat_keys.load_dat_weights."
        )


def stage_fields(state_dict: Mapping[str, torch.Tensor], stage: int, depth: int) -> dict[str, Any]:
    """Fields of one stage by the original's names, and `side`, the features along a picture's side, where known."""
    blocks = [
        {name.removeprefix(prefix): weight for name, weight in state_dict.items() if name.startswith(prefix)}
        for prefix in (f"stages.{stage}.attns.{block}." for block in range(depth))
    ]
    spec = ["D" if "proj_q.weight" in block else "S" if "attn_mask" in block else "L" for block in blocks]
    found = {name: weight for block in blocks for name, weight in block.items()}
    if "D" in spec:
        refuse_missing(f"Stage {stage} of an EAT checkpoint", found, ("conv_offset.0.weight",))
    width = len(found["proj_out.bias"])
    local, table = found.get("relative_position_bias_table"), found.get("rpe_table")
    window = 7 if local is None else (int(len(local) ** 0.5) + 1) // 2
    side = 0 if "attn_mask" not in found else int(len(found["attn_mask"]) ** 0.5) * window
    return {
        "dims": width,
        "stage_spec": spec,
        # without windows or a table nothing tells the heads: 32 channels each, as in every published size
        "heads": local.shape[1] if local is not None else len(table) if table is not None else max(width // 32, 1),
        "window_sizes": window,
        "groups": width // len(found["conv_offset.0.weight"]) if "D" in spec else -1,
        "offset_range_factor": 2 if "D" in spec else -1,
        "use_pes": table is not None or "rpe_table.weight" in found,
        "dwc_pes": "rpe_table.weight" in found,
        "use_dwc_mlps": f"stages.{stage}.mlps.0.dwc.weight" in state_dict,
        "side": side if table is None else (table.shape[-1] + 1) // 2,
    }


# ---- weights --------------------------------------------------------------------------------------------------------


def original_name(name: str, config: EATConfig) -> str:
    """The original's name of one of our weights, `eat.` in front of ours or not."""
    name = name.removeprefix("eat.")
    ending = next((ending for ending in (".weight", ".bias") if name.endswith(ending)), "")
    numbers = re.findall(r"(?<=\.)\d+(?=\.)", name)
    stem = name.removesuffix(ending)
    for number, sign in zip(numbers, ("{s}", "{b}"), strict=False):
        stem = stem.replace(f".{number}.", f".{sign}.", 1)
    stage, block = (int(number) for number in (*numbers, 0, 0)[:2])
    chunk = "" if config.use_conv_mlps[stage] else "chunk."
    return ORIGINAL_STEMS[stem].format(s=stage, b=block, first=2 * block, second=2 * block + 1, chunk=chunk) + ending


def native_layout(name: str, weight: torch.Tensor, like: torch.Size) -> torch.Tensor:
    """An original's weight as ours is laid out: 1 × 1 convolutions are linear maps, tables have heads first."""
    if name.endswith("relative_position_bias_table") and weight.ndim == 2:
        side = int(len(weight) ** 0.5)
        return weight.T.reshape(-1, side, side)  # (K, 2 w − 1, 2 w − 1)
    if weight.ndim == 4 and len(like) == 2 and weight.shape[2:] == (1, 1):
        return weight.flatten(1)
    return weight


@torch.no_grad()
def load_dat_weights(model: nn.Module, state_dict: Mapping[str, Any]) -> list[str]:
    """
    Weights of a DAT trained on ImageNet (`dat_base_in1k_224.pth`) as the beginning of a training.

    Tables of positions of another size are interpolated, so that weights for 224 pixels serve base-384.

    Args:
        model ([`EATForImageAesthetics`] or [`EATModel`]): Its weights are overwritten.
        state_dict (`Mapping`): Content of DAT's file: weights by name, bare or under `"model"` or `"state_dict"`, with
            or without `module.` before each name.

    Returns:
        `list[str]`: Names of the model's weights that DAT does not have and that stay as they are: those of the
        reference points and of the head.

    Raises:
        ValueError: If a weight is unknown, missing, of another shape or not finite.
    """
    weights = weights_within(state_dict, "The checkpoint")
    theirs = {original_name(name, model.config): name for name in model.state_dict()}
    fresh = {name for name in theirs if name.startswith("cls_head.") or ".ref_point14." in name}
    found = {name for name in weights if not TABLE.fullmatch(name) and not name.startswith("cls_head.")}
    found -= {"cls_norm.norm.weight", "cls_norm.norm.bias"} - theirs.keys()
    refuse_differences(found, theirs.keys() - fresh)
    own = dict(model.named_parameters())
    for name in sorted(found):
        parameter = own[theirs[name]]
        value = native_layout(name, weights[name], like=parameter.shape)
        if name.endswith(("relative_position_bias_table", "rpe_table")):
            value = resized_table(value, parameter.shape[-1])
        if value.shape != parameter.shape:
            raise ValueError(f"{name} has shape {tuple(value.shape)}; this model needs {tuple(parameter.shape)}.")
        parameter.copy_(value)
    return sorted(theirs[name] for name in theirs.keys() - found)


def resized_table(table: torch.Tensor, side: int) -> torch.Tensor:
    """A table by relative position, `(K, n, n)`, as `(K, side, side)`; its corners stay."""
    if table.shape[-1] == side:
        return table
    resized: torch.Tensor = nn.functional.interpolate(
        table.float().unsqueeze(0), (side, side), mode="bicubic", align_corners=True
    )
    return resized[0].to(table.dtype)


__all__ = ["EATConversion", "config_from_weights", "load_dat_weights", "native_config", "original_name"]
