"""
From rows of rated pictures to a training batch: pictures read, ratings laid out by attribute, soft targets made.

Names of axes: B rows, A attributes, N levels.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ..modeling_roc4mllm.loss_aesthetics import gaussian_distribution
from ..modeling_roc4mllm.modeling_outputs_aesthetics import level_values
from ..processing_roc4mllm.image_reading_aesthetics import open_image, read_image


@dataclass
class RatingCollator:
    """
    Makes batches for a scorer of rows as [`RatedPictures`] holds them.

    A row is a dict with `image` and, each where it is known, `scores` (number of the main attribute, or dict by
    attribute, in units of the score range), `stds` (likewise), `votes` (list per level, or dict by attribute),
    `comment` and `question`. Plain columns of a data set, `score`, `std` and `votes`, do as well.

    Where votes are missing and a std is known, a Gaussian of that mean and std stands in for them; where only the mean
    is known, the model itself takes a two-hot distribution.

    Args:
        processor ([`ROC4MLLMProcessor`]): Prepares pictures and text.
        config (`PreTrainedConfig`): That of the model: attributes, levels and score range.
    """

    processor: Any
    config: Any

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> Any:
        """A batch with `labels`, `scores` `(B, A)` and, if any row has them, `votes` `(B, A, N)`."""
        attributes = list(self.config.attributes)
        scores = [by_attribute(row, "score", attributes) for row in rows]
        votes = [self._votes(row, score) for row, score in zip(rows, scores, strict=True)]
        questions = [row.get("question") or self.processor.question for row in rows]
        return self.processor(
            images=[read_row_image(row) for row in rows],
            text=questions,
            scores=scores,
            votes=votes if any(votes) else None,
            comments=[row.get("comment") for row in rows],
        )

    def length(self, row: Mapping[str, Any]) -> int:
        """
        Tokens of a row, roughly, to batch rows of like length: its text, and its picture where the backbone's
        processor makes more tokens of a larger one.
        """
        text = f"{row.get('question') or ''} {row.get('comment') or ''}"
        tokens = len(self.processor.tokenizer(text, add_special_tokens=False)["input_ids"])
        count_image_tokens = getattr(self.processor.backbone_processor, "_get_num_multimodal_tokens", None)
        if count_image_tokens is None:
            return tokens
        width, height = open_image(row["image"]).size  # read from the head of the file
        return tokens + sum(count_image_tokens(image_sizes=[(height, width)])["num_image_tokens"])

    def _votes(self, row: Mapping[str, Any], scores: Mapping[str, float]) -> dict[str, list[float]]:
        """Votes of a row by attribute, its own or Gaussian ones."""
        votes = by_attribute(row, "votes", list(self.config.attributes))
        for name, std in by_attribute(row, "std", list(self.config.attributes)).items():
            if name not in votes and name in scores:
                shares = self._gaussian(name, scores[name], std)
                if shares is not None:
                    votes[name] = shares
        return votes

    def _gaussian(self, name: str, score: float, std: float) -> list[float] | None:
        """
        Shares per level; `None` where the levels are too far apart to show the spread: the Gaussian would round the
        mean to a level, and the two-hot distribution, which keeps it, is as wide.
        """
        config = self.config
        index = list(config.attributes).index(name)
        levels = level_values(config.score_range, config.num_levels, len(config.attributes))[index]  # (N,)
        if std < (levels[1] - levels[0]).item() / 2:
            return None
        return gaussian_distribution(torch.tensor([score]), torch.tensor([std]), levels[None])[0].tolist()


def by_attribute(row: Mapping[str, Any], kind: str, attributes: list[str]) -> dict[str, Any]:
    """What a row knows of `kind` (`score`, `std`, `votes`) by attribute, unknown values left out."""
    plural = kind if kind == "votes" else f"{kind}s"
    value = row.get(plural, row.get(kind))
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        value = {attributes[0]: value}
    return {name: entry for name, entry in value.items() if name in attributes and is_known(entry)}


def is_known(value: Any) -> bool:
    """Whether a cell holds something."""
    return value is not None and not (isinstance(value, float) and math.isnan(value))


def read_row_image(row: Mapping[str, Any]) -> Any:
    """
    The picture of a row.

    Raises:
        ValueError: If it cannot be read; the message says where the row stands.
    """
    try:
        return read_image(row["image"])
    except ValueError as error:
        where = row.get("where") or "a row of the data set"
        raise ValueError(f"{where}: the picture cannot be read: {error}") from error


__all__ = ["RatingCollator"]
