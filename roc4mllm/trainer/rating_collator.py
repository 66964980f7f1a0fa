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

RATINGS = ("score", "scores", "std", "stds", "votes", "comment")


@dataclass
class RatingCollator:
    """
    Makes batches for a scorer of rows as [`RatedPictures`] holds them.

    A row is a dict with `image` and, each where it is known, `scores` (number of the main attribute, or dict by
    attribute, in units of the score range), `stds` (likewise), `votes` (list per level, or dict by attribute),
    `comment` and `question`. Plain columns of a data set, `score`, `std` and `votes`, do as well. Rows of pictures
    alone, with none of these, make a batch without targets.

    Where votes are missing and a std is known, a Gaussian of that mean and std stands in for them; where only the mean
    is known, the model itself takes a two-hot distribution.

    Args:
        processor ([`ROC4MLLMProcessor`] or image processor): Prepares pictures, and text where the model reads some;
            comments and questions are left out for one that does not.
        config (`PreTrainedConfig`): That of the model: attributes, levels and score range.
    """

    processor: Any
    config: Any

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> Any:
        """A batch with `labels` of text, `scores` `(B, A)` and, if any row has them, `votes` `(B, A, N)`."""
        is_rated = any(name in row for row in rows for name in RATINGS)
        batch = self._inputs(rows, is_rated)
        if not is_rated:
            return batch
        scores = [by_attribute(row, "score", self._attributes) for row in rows]
        batch["scores"] = self._laid_out(scores)  # (B, A)
        if self.config.num_levels > 1:  # a head of one value learns from scores alone
            votes = [self._votes(row, known) for row, known in zip(rows, scores, strict=True)]
            if any(votes):
                batch["votes"] = self._laid_out(votes)  # (B, A, N)
        return batch

    @property
    def _attributes(self) -> list[str]:
        return list(self.config.attributes)

    @property
    def reads_text(self) -> bool:
        """Whether the model is shown text beside the picture."""
        return hasattr(self.processor, "tokenizer")

    def _inputs(self, rows: Sequence[Mapping[str, Any]], is_rated: bool) -> Any:
        """What the model is shown, and labels of the text if there is something to learn."""
        images = [read_row_image(row) for row in rows]
        if not self.reads_text:
            return self.processor(images=images, return_tensors="pt")
        questions = [row.get("question") or self.processor.question for row in rows]
        comments = [row.get("comment") for row in rows] if is_rated else None
        return self.processor(images=images, text=questions, comments=comments)

    def _laid_out(self, rows: Sequence[Mapping[str, Any]]) -> torch.Tensor:
        """Numbers, or lists of equal length, of each row by attribute: `(B, A)` or `(B, A, N)`, NaN where unknown."""
        known = {(at, name): torch.tensor(entry) for at, row in enumerate(rows) for name, entry in row.items()}
        shapes = {tuple(entry.shape) for entry in known.values()} or {()}
        if len(shapes) > 1:
            raise ValueError(f"Votes must have one length, got {sorted(size for (size,) in shapes)}.")
        target = torch.full((len(rows), len(self._attributes), *shapes.pop()), math.nan)
        for (at, name), entry in known.items():
            target[at, self._attributes.index(name)] = entry
        return target

    def length(self, row: Mapping[str, Any]) -> int:
        """
        Tokens of a row, roughly, to batch rows of like length: its text, and its picture where the backbone's
        processor makes more tokens of a larger one. All alike where there is no text.
        """
        if not self.reads_text:
            return 1
        text = f"{row.get('question') or ''} {row.get('comment') or ''}"
        tokens = len(self.processor.tokenizer(text, add_special_tokens=False)["input_ids"])
        count_image_tokens = getattr(self.processor.backbone_processor, "_get_num_multimodal_tokens", None)
        if count_image_tokens is None:
            return tokens
        width, height = open_image(row["image"]).size  # read from the head of the file
        return tokens + sum(count_image_tokens(image_sizes=[(height, width)])["num_image_tokens"])

    def _votes(self, row: Mapping[str, Any], scores: Mapping[str, float]) -> dict[str, list[float]]:
        """Votes of a row by attribute, its own or Gaussian ones."""
        votes = by_attribute(row, "votes", self._attributes)
        for name, std in by_attribute(row, "std", self._attributes).items():
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
        levels = level_values(config.score_range, config.num_levels, len(config.attributes))
        levels = levels[self._attributes.index(name)]  # (N,)
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
