"""
EAT (ACM MM 2023): scores from a transformer whose attention looks at points that move to where a picture is
interesting.

Papers: "EAT: An Enhancer for Aesthetics-Oriented Transformers", ACM MM 2023; DAT, "Vision Transformer with Deformable
Attention", CVPR 2022. Written from them and from a description of the authors' code; [`attention_eat`] tells what
differs.
Names of axes: B pictures, H and W features, C channels.
"""

import itertools
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.utils import ModelOutput, logging

from .attention_eat import EATDeformableAttention, EATWindowAttention, convolved, depthwise_conv
from .configuration_eat import EATConfig
from .modeling_image_scorer import ImageScorer

logger = logging.get_logger(__name__)


@dataclass
class EATModelOutput(ModelOutput):
    """
    Features of pictures.

    Args:
        last_hidden_state (`torch.Tensor` of shape `(batch_size, hidden_size, height, width)`):
            Features after the final norm.
        pooler_output (`torch.Tensor` of shape `(batch_size, hidden_size)`):
            Their mean over height and width, which the head reads.
        sampling_points (`tuple` of `torch.Tensor` of shape `(batch_size, num_groups, height, width, 2)`):
            Where each deformable block looked, in the order of the blocks, as (y, x) from −1 at the first feature to
            1 at the last; beyond, a point sees nothing.
        reference_points (`tuple` of `torch.Tensor`): Of the same shapes: where those points were moved from.
        hidden_states (`tuple` of `torch.Tensor`, *optional*, returned with `output_hidden_states=True`):
            Features behind each stage, of shape `(batch_size, hidden_sizes[stage], height, width)`.
    """

    last_hidden_state: torch.Tensor | None = None
    pooler_output: torch.Tensor | None = None
    sampling_points: tuple[torch.Tensor, ...] | None = None
    reference_points: tuple[torch.Tensor, ...] | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None


class EATReduction(nn.Module):
    """
    A convolution with a stride, and a layer norm: patches of a picture, or half as many features a side. Convolutions
    overlap, by a kernel of that size, where the config says so.
    """

    def __init__(self, config: EATConfig, in_channels, out_channels, stride: int, kernel: int, bias: bool):
        super().__init__()
        kernel, padding = (kernel, kernel // 2) if config.use_conv_patches else (stride, 0)
        self.conv = nn.Conv2d(in_channels, out_channels, kernel, stride, padding, bias=bias)
        self.norm = nn.LayerNorm(out_channels, eps=config.layer_norm_eps)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`(B, H, W, C)` to `(B, H / stride, W / stride, C')`."""
        return self.norm(convolved(self.conv, x))


class EATMLP(nn.Module):
    """Two linear maps with a GELU between them, and a depth-wise convolution before it where the config says so."""

    def __init__(self, config: EATConfig, stage: int):
        super().__init__()
        width = config.hidden_sizes[stage]
        self.fc1 = nn.Linear(width, config.mlp_ratio * width)
        self.conv = depthwise_conv(config.mlp_ratio * width, kernel=3) if config.use_conv_mlps[stage] else None
        self.fc2 = nn.Linear(config.mlp_ratio * width, width)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`(B, H, W, C)` to the same shape."""
        x = self.fc1(x)  # (B, H, W, mlp_ratio * C)
        if self.conv is not None:
            x = convolved(self.conv, x)
        return self.dropout(self.fc2(self.dropout(functional.gelu(x))))


class EATBlock(GradientCheckpointingLayer):
    """Attention and MLP, each behind a layer norm and added to what came in. `kind` is `L`, `S` or `D`."""

    def __init__(self, config: EATConfig, stage: int, kind: str, drop_path_rate: float):
        super().__init__()
        width, window = config.hidden_sizes[stage], config.window_sizes[stage]
        self.attention_norm = nn.LayerNorm(width, eps=config.layer_norm_eps)
        if kind == "D":
            self.attention = EATDeformableAttention(config, stage)
        else:
            self.attention = EATWindowAttention(config, stage, shift=-(-window // 2) if kind == "S" else 0)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        self.mlp_norm = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.mlp = EATMLP(config, stage)
        self.drop_path_rate = drop_path_rate

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Features `(B, H, W, C)`, and of a deformable block its sampling points and reference points."""
        attended, *points = self.attention(self.attention_norm(x))
        x = x + self._drop_path(self.dropout(attended))
        x = x + self._drop_path(self.mlp(self.mlp_norm(x)))
        return x, *points

    def _drop_path(self, x: torch.Tensor) -> torch.Tensor:
        """In training, 0 for some pictures; the others are scaled so that the mean stays."""
        if not (self.training and self.drop_path_rate):
            return x
        kept = 1 - self.drop_path_rate
        return x * x.new_empty(len(x), 1, 1, 1).bernoulli_(kept) / kept


class EATStage(nn.Module):
    """Blocks of one width."""

    def __init__(self, config: EATConfig, stage: int, drop_path_rates: list[float]):
        super().__init__()
        width = config.hidden_sizes[stage]
        self.input_proj = nn.Linear(config.stem_size, width) if stage == 0 and config.stem_size != width else None
        self.blocks = nn.ModuleList(
            EATBlock(config, stage, kind, rate)
            for kind, rate in zip(config.stage_blocks[stage], drop_path_rates, strict=True)
        )

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, list, list]:
        """Features `(B, H, W, C)`, sampling points and reference points of the deformable blocks."""
        sampling, reference = [], []
        if self.input_proj is not None:
            x = self.input_proj(x)
        for block in self.blocks:
            x, *points = block(x)
            if points:
                sampling.append(points[0])
                reference.append(points[1])
        return x, sampling, reference


class EATPreTrainedModel(PreTrainedModel):
    """What the models of this file share."""

    config_class = EATConfig
    base_model_prefix = "eat"
    main_input_name = "pixel_values"
    input_modalities = ("image",)
    supports_gradient_checkpointing = True
    _no_split_modules = ["EATBlock"]
    _supports_sdpa = True

    @torch.no_grad()
    def _init_weights(self, module):
        super()._init_weights(module)
        if isinstance(module, EATWindowAttention):
            init.normal_(module.relative_position_bias, std=self.config.initializer_range)
        elif isinstance(module, EATDeformableAttention) and module.position_bias is not None:
            init.normal_(module.position_bias, std=self.config.initializer_range)


class EATModel(EATPreTrainedModel):
    """
    The transformer without a head.

    Args:
        config ([`EATConfig`]): Configuration.
    """

    def __init__(self, config: EATConfig):
        super().__init__(config)
        widths = config.hidden_sizes
        self.stem = EATReduction(
            config, config.num_channels, config.stem_size, stride=config.patch_size, kernel=7, bias=True
        )
        self.stages = nn.ModuleList(
            EATStage(config, stage, rates) for stage, rates in enumerate(drop_path_rates(config))
        )
        self.downsamples = nn.ModuleList(
            EATReduction(config, width, following, stride=2, kernel=3, bias=False)
            for width, following in zip(widths[:-1], widths[1:], strict=True)
        )
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.post_init()

    def forward(self, pixel_values: torch.Tensor, output_hidden_states: bool = False, **kwargs) -> EATModelOutput:
        """
        Features of a batch of pictures.

        Args:
            pixel_values (`torch.Tensor` of shape `(batch_size, num_channels, height, width)`): Prepared pictures.
            output_hidden_states (`bool`, *optional*, defaults to `False`): Also return the features of each stage.

        Raises:
            ValueError: If windows do not divide the features.
        """
        self._warn_if_mixing()
        states, sampling, reference = [], [], []
        x = self.stem(pixel_values.permute(0, 2, 3, 1))  # (B, H / patch, W / patch, C)
        for index, stage in enumerate(self.stages):
            if index:
                x = self.downsamples[index - 1](x)  # (B, H / 2, W / 2, C')
            self._check_windows(index, x, pixel_values)
            x, points, references = stage(x)
            states.append(x.permute(0, 3, 1, 2))
            sampling += points
            reference += references
        x = self.norm(x)  # (B, H, W, C)
        return EATModelOutput(
            last_hidden_state=x.permute(0, 3, 1, 2),
            pooler_output=x.mean((1, 2)),
            sampling_points=tuple(sampling),
            reference_points=tuple(reference),
            hidden_states=tuple(states) if output_hidden_states else None,
        )

    def _warn_if_mixing(self) -> None:
        if self.config.legacy_batch_mixing and not torch.compiler.is_compiling():
            logger.warning_once(
                "legacy_batch_mixing is on: a picture's score depends on the pictures beside it in the batch, as in "
                "the authors' code. Use it only to compare with their numbers."
            )

    def _check_windows(self, stage: int, x: torch.Tensor, pixel_values: torch.Tensor) -> None:
        (height, width), window = x.shape[1:3], self.config.window_sizes[stage]
        if set(self.config.stage_blocks[stage]) & set("LS") and (height % window or width % window):
            picture = " × ".join(str(side) for side in pixel_values.shape[2:])
            raise ValueError(
                f"A picture of {picture} pixels has {height} × {width} features in stage {stage}, which windows of "
                f"{window} do not divide. This model was made for {self.config.image_size} × {self.config.image_size} "
                "pixels; other sizes must fit the windows of every stage."
            )


class EATForImageAesthetics(EATPreTrainedModel, ImageScorer):
    """
    EAT with a head of `num_levels` values per attribute.

    The ten values of the authors' weights for AVA are no logits: no softmax follows them, and the score is Σ i o_i.
    The one value of those for TAD66K is a tenth of the score: with a range of (0, 10), 0 is its lowest score and 1 its
    highest. Converted, both have `raw_head=True`; where such a score leaves the range, it is set to the range's end,
    and `logits` still holds the values.

    Args:
        config ([`EATConfig`]): Configuration.
    """

    def __init__(self, config: EATConfig):
        super().__init__(config)
        self.eat = EATModel(config)
        self.add_score_head(config.hidden_size)
        self.post_init()

    def aesthetic_features(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Mean features, `(B, hidden_size)`."""
        return self.eat(pixel_values).pooler_output


def drop_path_rates(config: EATConfig) -> list[list[float]]:
    """Rates of the blocks of each stage, growing evenly from 0 to `config.drop_path_rate`."""
    last = max(len("".join(config.stage_blocks)) - 1, 1)
    numbers = itertools.count()
    return [[config.drop_path_rate * next(numbers) / last for _ in blocks] for blocks in config.stage_blocks]


__all__ = ["EATConfig", "EATForImageAesthetics", "EATModel", "EATModelOutput"]
