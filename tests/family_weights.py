"""Weights of TANet, EAT and ELTA as the authors' code saves them, for tests of what reads them."""

import functools

import torch

from roc4mllm import (
    EATConfig,
    EATForImageAesthetics,
    ELTAConfig,
    ELTAForImageAesthetics,
    TANetConfig,
    TANetForImageAesthetics,
)
from roc4mllm.hub import eat_keys, elta_keys, tanet_keys

SWIN = {"image_size": 256, "embed_dim": 8, "depths": [1, 1], "num_heads": [1, 2], "window_size": 16}
EAT = {
    "image_size": 32, "hidden_sizes": (8, 16), "stage_blocks": ("L", "D"), "num_heads": (2, 2),
    "window_sizes": (4, 4), "num_groups": (1, 2), "offset_range_factors": (2, 2), "offset_kernel_sizes": (9, 7),
    "position_biases": ("none", "table"), "use_conv_mlps": (False, False), "mlp_ratio": 2, "raw_head": True,
}  # fmt: skip


@functools.cache
def original(family: str, variant: str):
    """`(native model, its weights as the authors save them)`; TANet is whole, the others are tiny."""
    if family == "tanet":
        options = {name: value for name, value in tanet_keys.VARIANTS[variant].items() if name != "theme_calibrated"}
        model = drawn(TANetForImageAesthetics(TANetConfig(**options)))
        return model, tanet_weights(model)
    head = (
        {"num_levels": 10, "score_range": (1, 10)} if variant == "AVA" else {"num_levels": 1, "score_range": (0, 10)}
    )
    if family == "elta":
        model = drawn(ELTAForImageAesthetics(ELTAConfig(swin_config=SWIN, **head)))
        return model, elta_weights(model)
    model = drawn(EATForImageAesthetics(EATConfig(**EAT, **head)))
    return model, eat_weights(model)


def drawn(model):
    """Wide enough to react to its picture, and raw values such that the scores stay in their range."""
    torch.manual_seed(0)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=(2 / parameter[0].numel()) ** 0.5)
    if model.config.raw_head:
        model.score_head.weight.data *= 0.05
        model.score_head.bias.data.fill_(0.5 if model.config.num_levels == 1 else 0.1)
    model.config.score_head_trained = True
    return model.eval()


def variant_of(model) -> str:
    return "AVA" if model.config.num_levels > 1 else "TAD66K"


def tanet_weights(model) -> dict[str, torch.Tensor]:
    """With the activation that one variant has and never uses."""
    stems = tanet_keys.ORIGINAL_STEMS
    found = {tanet_keys.translated(name, stems): weight for name, weight in model.state_dict().items()}
    return found | dict.fromkeys(tanet_keys.UNUSED.get(variant_of(model), ()), torch.tensor([0.25]))


def eat_weights(model) -> dict[str, torch.Tensor]:
    """Tables of window attention have heads last; all else is taken as ours is laid out too."""
    found = {}
    for name, weight in model.state_dict().items():
        theirs = eat_keys.original_name(name, model.config)
        is_table = theirs.endswith("relative_position_bias_table")
        found[theirs] = weight.flatten(1).T.contiguous() if is_table else weight
    return found


def elta_weights(model, prefix: str = "backbone.", downsample_first: bool = True) -> dict[str, torch.Tensor]:
    """Query, key and value are one weight of theirs."""
    found: dict[str, list[torch.Tensor]] = {}
    for name, weight in model.state_dict().items():
        theirs = elta_keys.original_name(name, variant_of(model), prefix, downsample_first)
        found.setdefault(theirs, []).append(weight)
    return {name: torch.cat(weights) for name, weights in found.items()}
