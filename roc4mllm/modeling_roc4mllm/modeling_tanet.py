"""
TANet (IJCAI 2022): what a picture shows decides by which weights it is judged.

Paper: "Rethinking Image Aesthetics Assessment: Models, Datasets and Benchmarks", IJCAI 2022. Written from the paper
and a description of the published code.

How it works, each branch giving ten values:
- perception: MobileNetV2
- theme: a frozen scene classifier; from its 365 logits a hypernetwork makes weights w and a bias b, and a second net a
  query q; the value is q · w + b
- colour: cosine similarity of each colour with each, on a grid of 12 by 12 mean colours

What differs from the original: it multiplies every query of the batch with every picture's weights and normalises
over the batch, so that a score depends on the other pictures. Here each picture meets its own weights, the ten values
of the theme branch are this one value, and statistics over a set of pictures stand in for those of the batch. The
original's way is kept as `config.legacy_batch_mixing`.

Names of axes: B pictures, H and W pixels, S scenes, D theme size, P cells of the colour grid.
"""

import torch
from torch import nn
from torch.nn import functional
from transformers import MobileNetV2Model, ResNetModel
from transformers import initialization as init
from transformers.utils import logging

from .configuration_tanet import TANetConfig
from .modeling_image_scorer import ImageScorer

logger = logging.get_logger(__name__)

BRANCH_SIZE = 10  # values of each branch
STATISTICS_EPS = 1e-5  # as in nn.BatchNorm1d, which the original uses
UNCALIBRATED = (
    "uncalibrated theme branch: the original normalises by statistics of each batch, and this converted model holds "
    "none of its own. Measure them with `roc4mllm convert tanet FILE DIR --calibrate PICTURES`."
)
CONSTANTS = (
    "The theme branch is trained on, and normalises by statistics of pictures. They stay as they are, constants that "
    "it is trained with, and no longer describe its values; to measure them anew would change what was learnt."
)
DROPPED = (
    "The theme branch is trained on with legacy_batch_mixing, which does not use its statistics of pictures. They "
    "would not fit the new weights and are dropped: measure them again before the model scores without that mode."
)


class TANetPerception(nn.Module):
    """Ten values of a MobileNetV2, of any sign."""

    def __init__(self, config: TANetConfig):
        super().__init__()
        self.mobilenet = MobileNetV2Model(config.mobilenet_config)
        for module in self.mobilenet.modules():
            if isinstance(module, nn.BatchNorm2d):
                # transformers writes TensorFlow's 0.997, which to PyTorch means: forget all but the last batch
                module.momentum = 0.1
        channels = self.mobilenet.conv_1x1.convolution.out_channels
        self.head = nn.Linear(channels, BRANCH_SIZE)
        self.dropout = nn.Dropout(config.dropout)
        self.gradient_checkpointing = False

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """`(B, 10)` of `(B, 3, H, W)`."""
        features = self.mobilenet.conv_stem(pixel_values)
        for layer in self.mobilenet.layer:
            if self.gradient_checkpointing and self.training:
                # a second pass: running statistics of BatchNorm take each batch twice
                features = self._gradient_checkpointing_func(layer.__call__, features)
            else:
                features = layer(features)
        pooled = self.mobilenet.conv_1x1(features).mean((-2, -1))  # (B, C, H / 32, W / 32) → (B, C)
        return self.head(self.dropout(pooled.relu()))


class TANetStatistics(nn.Module):
    """
    Mean and covariance of the queries of a set of pictures, which a theme value is normalised by.

    They stay in float32 or wider whatever the model is cast to: w · C · w leaves the range of float16.
    """

    def __init__(self, size: int):
        super().__init__()
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("covariance", torch.eye(size))

    def _apply(self, fn, recurse=True):
        before = dict(self.named_buffers(recurse=False))
        super()._apply(fn, recurse)
        for name, value in before.items():
            moved = getattr(self, name)
            if moved.dtype in (torch.float16, torch.bfloat16):  # keep the move, undo the rounding
                kept = torch.empty_like(value, device=moved.device) if value.is_meta else value.to(moved.device)
                setattr(self, name, kept)
        return self

    def forward(self, values: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        """Theme values `(B, 1)` that these weights `(B, D + 1)` gave, normalised as those of all pictures by them."""
        mean = (weights * self.mean).sum(-1, keepdim=True)  # (B, 1)
        with torch.autocast(weights.device.type, enabled=False):  # autocast would round the product
            variance = (weights @ self.covariance.to(weights) * weights).sum(-1, keepdim=True)  # (B, 1)
        return (values - mean) * variance.clamp(min=0).add(STATISTICS_EPS).rsqrt()  # rounding may bring it below 0


class TANetTheme(nn.Module):
    """
    The theme branch: one value of a picture by the weights that its own scene asks for.

    The scene network is never trained, its BatchNorm statistics included.
    """

    def __init__(self, config: TANetConfig):
        super().__init__()
        self.config = config
        self.scene_network = ResNetModel(config.scene_config)
        self.scene_head = nn.Linear(config.scene_config.hidden_sizes[-1], config.num_scenes)
        self.make_weights = nn.Linear(config.num_scenes, config.theme_size)
        self.make_bias = nn.Linear(config.num_scenes, 1)
        self.query = nn.Sequential(
            nn.Linear(config.num_scenes, config.theme_size), nn.BatchNorm1d(config.theme_size), nn.PReLU()
        )
        self.activation = nn.PReLU() if config.theme_activation == "prelu" else None
        self.statistics = TANetStatistics(config.theme_size + 1) if config.theme_calibrated else None  # bias included

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """`(B, 10)` of `(B, 3, H, W)`; in float32 or wider where the picture decides."""
        if self.config.legacy_batch_mixing:
            return self._mixed(pixel_values)
        if self.activation is None:  # softmax over a single number
            return pixel_values.new_ones(len(pixel_values), BRANCH_SIZE)
        queries, weights = self.queries_and_weights(pixel_values)  # (B, D + 1) each
        values = (queries * weights).sum(-1, keepdim=True)  # (B, 1)
        if self.statistics is not None:
            values = self.statistics(values, weights)
        return self._activated(values).expand(-1, BRANCH_SIZE)

    def scene_logits(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """`(B, S)` of `(B, 3, H, W)`."""
        return self.scene_head(self.scene_network(pixel_values).pooler_output.flatten(1))

    def queries_and_weights(self, pixel_values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """
        Vectors `(B, D + 1)` whose product is q · w + b: the query with the bias behind it, and the weights with a 1.

        The bias goes with the query, for it is the query's picture whose bias the original adds. In float32 or wider:
        the product may leave the range of float16.
        """
        scenes = self.scene_logits(pixel_values)  # (B, S)
        bias = self.make_bias(scenes)  # (B, 1)
        queries = torch.cat([self.query(scenes), bias], -1)  # (B, D + 1)
        weights = torch.cat([self.make_weights(scenes), torch.ones_like(bias)], -1)  # (B, D + 1)
        wide = torch.promote_types(queries.dtype, torch.float32)
        return queries.to(wide), weights.to(wide)

    def _activated(self, values: torch.Tensor) -> torch.Tensor:
        """PReLU in the dtype of the values."""
        slope: torch.Tensor = self.activation.weight  # type: ignore[union-attr]
        return functional.prelu(values, slope.to(values.dtype))

    def set_statistics(self, mean: torch.Tensor, covariance: torch.Tensor) -> None:
        """
        Normalise by these statistics of queries from now on.

        Args:
            mean (`torch.Tensor` of shape `(theme_size + 1,)`): Of queries with their bias.
            covariance (`torch.Tensor` of shape `(theme_size + 1, theme_size + 1)`): Likewise, not of a sample: divided
                by the number of pictures.
        """
        like = self.make_bias.weight
        wide = torch.promote_types(like.dtype, torch.float32)
        self.statistics = TANetStatistics(len(mean))
        self.statistics.mean, self.statistics.covariance = (part.to(like.device, wide) for part in (mean, covariance))
        self.config.theme_calibrated = True

    def _mixed(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """The original's: a row of the table of all queries by all weights, pooled to ten values."""
        logger.warning_once(
            "legacy_batch_mixing is on: the score of a picture depends on the other pictures of its batch. It "
            "reproduces the original's numbers and is for nothing else."
        )
        table = self.legacy_table(pixel_values)  # (B, B)
        return functional.adaptive_avg_pool1d(table, BRANCH_SIZE)  # (B, 10)

    def legacy_table(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """
        Each query by each picture's weights, `(B, B)`, normalised over the batch as in the original.

        Raises:
            ValueError: If a batch statistic is asked of one picture.
        """
        queries, weights = self.queries_and_weights(pixel_values)  # (B, D + 1) each
        with torch.autocast(queries.device.type, enabled=False):
            table = queries @ weights.mT  # (B, B)
        if self.activation is None:
            return table.softmax(-1)
        if len(table) == 1:
            raise ValueError(
                "legacy_batch_mixing normalises over the batch, and this one holds a single picture: give two or "
                "more, or leave it off."
            )
        variance, mean = torch.var_mean(table, 0, correction=0)  # (B,) of each picture's weights
        return self._activated((table - mean) * (variance + STATISTICS_EPS).rsqrt())

    def freeze(self) -> None:
        """Keep the scene network as it is, and the whole branch where it always says 1."""
        frozen = [self] if self.activation is None else [self.scene_network, self.scene_head]
        for module in frozen:
            module.requires_grad_(False)

    def train(self, mode: bool = True):
        """As in the parent; the scene network stays in evaluation."""
        super().train(mode)
        self.scene_network.eval()
        return self


class TANetColour(nn.Module):
    """Shares of ten kinds of colour harmony: how alike each colour of a picture is to each."""

    def __init__(self, config: TANetConfig):
        super().__init__()
        self.grid = config.colour_grid
        self.head = nn.Linear(self.grid**4, BRANCH_SIZE)
        self.dropout = nn.Dropout(config.dropout)

    def similarity(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Cosine similarity of the mean colours of all cells, `(B, P, P)` of `(B, 3, H, W)`; P goes row by row."""
        colours = functional.adaptive_avg_pool2d(pixel_values, self.grid).flatten(2)  # (B, 3, P)
        lengths = colours.norm(dim=1)  # (B, P)
        products = (lengths.unsqueeze(2) * lengths.unsqueeze(1)).clamp(min=1e-8)  # (B, P, P)
        return colours.mT @ colours / products

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """`(B, 10)` of `(B, 3, H, W)`; each row sums to 1."""
        similarity = self.similarity(pixel_values).relu().flatten(1)  # (B, P²)
        return self.head(self.dropout(similarity)).softmax(-1)


class TANetForImageAesthetics(ImageScorer):
    """
    TANet with a score head: level logits, or one value for `num_levels=1`, whose sigmoid is the score.

    Args:
        config ([`TANetConfig`]): Configuration.
    """

    config_class = TANetConfig
    _no_split_modules = ["MobileNetV2InvertedResidual", "TANetTheme", "TANetColour"]
    _keep_in_fp32_modules = ["score_head", "statistics"]  # read by the quantisers, and for float16
    _keep_in_fp32_modules_strict = ["score_head", "statistics"]  # for bfloat16

    def __init__(self, config: TANetConfig):
        super().__init__(config)
        self.perception = TANetPerception(config)
        self.theme = TANetTheme(config)
        self.colour = TANetColour(config)
        self.dropout = nn.Dropout(config.dropout)
        self.add_score_head(3 * BRANCH_SIZE)
        self.post_init()
        self.theme.freeze()

    @torch.no_grad()
    def _init_weights(self, module):
        super()._init_weights(module)
        if isinstance(module, nn.PReLU):
            init.constant_(module.weight, 0.25)
        elif isinstance(module, TANetStatistics):
            init.zeros_(module.mean)
            init.copy_(module.covariance, torch.eye(len(module.mean)))

    def aesthetic_features(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Values of the three branches, `(B, 30)`, none negative, of prepared pictures `(B, 3, H, W)`."""
        if pixel_values.ndim != 4 or pixel_values.shape[1] != 3:
            raise ValueError(
                f"pixel_values must have shape (batch, 3, height, width), got {tuple(pixel_values.shape)}."
            )
        branches = [branch(pixel_values) for branch in (self.perception, self.theme, self.colour)]  # (B, 10) each
        return self.dropout(torch.cat(branches, -1).relu())

    @property
    def part_prefixes(self) -> dict[str, str]:
        """
        Parts that may get a learning rate of their own or be frozen, by the beginning of their parameters' names:
        `perception`, `theme`, `colour` and `score_head`; `scene_network` always is frozen.
        """
        parts = {name: name for name in ("perception", "theme", "colour", "score_head")}
        return parts | {"theme.scene_network": "scene_network", "theme.scene_head": "scene_network"}

    def after_loading(self) -> None:
        """Freeze what is never trained, and say that statistics are missing."""
        self.theme.freeze()  # loading makes new parameters, which all are trainable
        if self.config.theme_calibrated is False:
            logger.warning(f"{type(self).__name__}: {UNCALIBRATED}")

    def before_training(self) -> None:
        """
        Make `config.theme_calibrated` true of what is learnt; the Trainer calls this before its first step, when it
        is settled what is frozen.

        What is learnt without statistics needs none: `False` becomes `None`. Statistics of a branch that is trained
        on stay as constants of it, and with `legacy_batch_mixing`, where training does not see them, are dropped:
        `True` becomes `False`. Both are said.
        """
        mixes, state = self.config.legacy_batch_mixing, self.config.theme_calibrated
        is_trained = any(parameter.requires_grad for parameter in self.theme.parameters())
        if state is False and not mixes:
            self.config.theme_calibrated = None
        elif state and is_trained and mixes:
            self.theme.statistics, self.config.theme_calibrated = None, False
            logger.warning(DROPPED)
        elif state and is_trained:
            logger.warning(CONSTANTS)


__all__ = ["TANetForImageAesthetics"]
