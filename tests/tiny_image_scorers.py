"""Tiny scorers of the families that see a picture alone, drawn wide enough to react to it, the same at each call."""

import torch
from transformers import ViTImageProcessorPil

from roc4mllm import EATConfig, EATForImageAesthetics, TANetConfig, TANetForImageAesthetics, load_scorer

EAT = {
    "image_size": 48,
    "hidden_sizes": (8, 16),
    "stage_blocks": ("LS", "LDD"),
    "num_heads": (2, 2),
    "window_sizes": (6, 3),
    "num_groups": (1, 2),
    "offset_range_factors": (2, 2),
    "offset_kernel_sizes": (5, 3),
    "position_biases": ("none", "table"),
    "use_conv_mlps": (False, False),
}
TANET = {
    "mobilenet_config": {"depth_multiplier": 0.25, "finegrained_output": False},
    "scene_config": {"embedding_size": 8, "hidden_sizes": [8, 8, 16, 16], "depths": [1, 1, 1, 1]},
    "num_scenes": 12,
    "theme_size": 6,
    "colour_grid": 4,
}
LEVELS = {"num_levels": 5, "score_range": (1.0, 5.0), "score_head_trained": True}


def eat_scorer(**options):
    return image_scorer(EATForImageAesthetics(EATConfig(**EAT | LEVELS | options)))


def tanet_scorer(**options):
    return image_scorer(TANetForImageAesthetics(TANetConfig(**TANET | LEVELS | options)))


def image_scorer(model):
    torch.manual_seed(0)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=(2 / parameter[0].numel()) ** 0.5)
    torch.nn.init.normal_(model.score_head.weight, std=0.5)
    return load_scorer(model.eval(), image_processor=ViTImageProcessorPil(size={"height": 48, "width": 48}))
