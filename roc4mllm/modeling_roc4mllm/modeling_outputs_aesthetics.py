"""
The one output class of every family, and the maths between level probabilities and scores.

Levels are equally spaced over the score range: level i of N stands for `min + i * (max - min) / (N - 1)`.
Names of axes: B pictures of the batch, A attributes, N levels.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers.utils import ModelOutput


@dataclass
class AestheticsOutput(ModelOutput):
    """
    What every image-aesthetics model returns.

    Args:
        loss (`torch.Tensor` of shape `()`, *optional*, returned when labels or target scores are given):
            Weighted sum of the parts below.
        scores (`torch.Tensor` of shape `(batch_size, num_attributes)`):
            Predicted scores in `config.score_range`; NaN where the row has no such attribute (see `score_mask`).
        distribution (`torch.Tensor` of shape `(batch_size, num_attributes, num_levels)`, *optional*):
            Probability of each level, float32 or wider; NaN where masked. `None` for heads without levels.
        std (`torch.Tensor` of shape `(batch_size, num_attributes)`, *optional*):
            Standard deviation of `distribution`, in units of the score.
        score_mask (`torch.Tensor` of shape `(batch_size, num_attributes)`, bool):
            True where `scores` holds a prediction.
        logits (`torch.Tensor` of shape `(batch_size, num_attributes, num_levels)`):
            Raw head values before any softmax; NaN where masked.
        text_loss, smooth_l1_loss, ce_loss, emd_loss, similarity_loss (`torch.Tensor` of shape `()`, *optional*):
            The unweighted parts of `loss`, detached.
        text_logits (`torch.Tensor` of shape `(num_supervised_tokens, vocab_size)`, *optional*):
            Logits that predict the supervised tokens, in reading order; returned with `output_text_logits=True`.
    """

    loss: torch.Tensor | None = None
    scores: torch.Tensor | None = None
    distribution: torch.Tensor | None = None
    std: torch.Tensor | None = None
    score_mask: torch.Tensor | None = None
    logits: torch.Tensor | None = None
    text_loss: torch.Tensor | None = None
    smooth_l1_loss: torch.Tensor | None = None
    ce_loss: torch.Tensor | None = None
    emd_loss: torch.Tensor | None = None
    similarity_loss: torch.Tensor | None = None
    text_logits: torch.Tensor | None = None


ScoreRange = Sequence[Any]  # (min, max), or one such pair per attribute


def score_ranges(score_range: ScoreRange, num_attributes: int) -> list[tuple[float, float]]:
    """
    One `(min, max)` pair per attribute, from a config's `score_range` (one pair for all, or one per attribute).
    """
    pairs = score_range if isinstance(score_range[0], Sequence) else [score_range] * num_attributes
    return [(float(low), float(high)) for low, high in pairs]


def level_values(score_range: ScoreRange, num_levels: int, num_attributes: int = 1, **factory: Any) -> torch.Tensor:
    """
    The score that each level stands for.

    Made anew at each call: a non-persistent buffer would hold garbage after `from_pretrained`, which builds models
    on the meta device.

    Args:
        score_range (pair of `float`, or one pair per attribute): Lowest and highest score.
        num_levels (`int`): Number of levels, at least 2.
        num_attributes (`int`, *optional*, defaults to 1): Number of rows.
        **factory: `device` and `dtype` of the result.

    Returns:
        `torch.Tensor` of shape `(num_attributes, num_levels)`, in units of `score_range`.
    """
    rows = [
        torch.linspace(low, high, num_levels, **factory) for low, high in score_ranges(score_range, num_attributes)
    ]
    return torch.stack(rows)  # (A, N)


def expected_score(distribution: torch.Tensor, levels: torch.Tensor) -> torch.Tensor:
    """
    score = Σ p_i s_i.

    Args:
        distribution (`torch.Tensor` of shape `(..., num_levels)`): Probabilities; each row sums to 1.
        levels (`torch.Tensor` of shape `(..., num_levels)`): Score of each level.

    Returns:
        `torch.Tensor` of shape `(...)`, in units of the levels.
    """
    return (distribution * levels).sum(-1)


def score_std(distribution: torch.Tensor, levels: torch.Tensor) -> torch.Tensor:
    """
    std = sqrt(Σ p_i (s_i − score)²): how far the predicted opinions are apart, not the error of the score.

    Shapes and units as in [`expected_score`].
    """
    score = expected_score(distribution, levels)
    return (distribution * (levels - score.unsqueeze(-1)) ** 2).sum(-1).sqrt()


__all__ = [
    "AestheticsOutput",
    "expected_score",
    "level_values",
    "score_ranges",
    "score_std",
]
