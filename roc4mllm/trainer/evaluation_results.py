"""
What an evaluation holds: every picture with its label and prediction, and per attribute what follows from them.
"""

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from ..datasets_scripts.split_guard import Overlap
from .evaluation_parts import Group, Segment, label_segments, measure_groups, prediction_tenths
from .image_aesthetics_metric.score_agreement import Array
from .metrics_aesthetics import Measurement, measure_agreement, vote_distances

Range = tuple[float, float]


@dataclass(frozen=True)
class PredictedPicture:
    """
    A rated picture and what the scorer said, all scores in units of the labels.

    Args:
        picture (`str`): Its path below the folder that all pictures share, or its place in the data.
        where (`str`): Its place in the data, as in `ratings.csv, line 7`.
        labels, predicted (`dict[str, float]`): By attribute; `predicted` is empty where the picture failed.
        columns (`dict`): Further columns of the data.
        error (`str`, *optional*): Why it failed.
        std (`float`, *optional*): Predicted spread of the first attribute.
        distribution, votes (`list[float]`, *optional*): Of the first attribute, per level.
    """

    picture: str
    where: str
    labels: dict[str, float]
    predicted: dict[str, float]
    columns: dict[str, Any] = field(default_factory=dict)
    error: str | None = None
    std: float | None = None
    distribution: list[float] | None = None
    votes: list[float] | None = None


@dataclass(frozen=True)
class AttributeResult:
    """
    How well one attribute is predicted.

    Args:
        score_range (`tuple[float, float]`): Units of everything here.
        cut (`float`): Where the accuracy cuts.
        n (`int`): Pictures with a label and a prediction: those that the metrics are of.
        failed (`int`): Pictures with a label and no prediction.
        metrics (`dict[str, Measurement]`): By name, as `measure_agreement` gives them.
        curve (`list[float]`, *optional*): β₁ to β₄ of the logistic curve.
        segments (`list[Segment]`): Of the labels: fifths at both ends and the middle.
        calibration (`list[Segment]`): Tenths of the predictions.
        groups (`list[Group]`): By value of the column asked for.
    """

    score_range: Range
    cut: float
    n: int
    failed: int
    metrics: dict[str, Measurement]
    curve: list[float] | None
    segments: list[Segment]
    calibration: list[Segment]
    groups: list[Group]


@dataclass(frozen=True)
class Evaluation:
    """
    What [`evaluate_scorer`] found.

    Args:
        model, revision, version (`str`, *optional*): What made the scores.
        higher_is_better (`bool`): Direction of the model's scores.
        data (`str`): What the pictures came from.
        date (`str`): When, in UTC.
        protocols (`list[str]`): Division and split of the data, as in `ava-official/test`: never compare across two.
        overlap ([`Overlap`], *optional*): What the data share with the model's training; `None` where nothing tells.
        notes (`list[str]`): What a reader has to know about the training and the units.
        by (`str`, *optional*): Column of the groups.
        bootstraps, seed (`int`): Of the 95 % percentile intervals, which are over pictures.
        results (`dict[str, AttributeResult]`): By attribute, the main one first.
        pictures (`list[PredictedPicture]`): In the order of the data.
    """

    model: str | None
    revision: str | None
    version: str | None
    higher_is_better: bool
    data: str
    date: str
    protocols: list[str]
    overlap: Overlap | None
    notes: list[str]
    by: str | None
    bootstraps: int
    seed: int
    results: dict[str, AttributeResult]
    pictures: list[PredictedPicture]

    @property
    def failures(self) -> list[PredictedPicture]:
        """The pictures that could not be scored."""
        return [picture for picture in self.pictures if picture.error is not None]

    def to_dict(self) -> dict[str, Any]:
        """All but the single predictions, as JSON can hold it."""
        facts = {name: value for name, value in vars(self).items() if name not in ("results", "pictures")}
        facts["overlap"] = None if self.overlap is None else asdict(self.overlap)
        facts |= {"pictures": len(self.pictures), "failed": len(self.failures)}
        facts["attributes"] = {name: asdict(result) for name, result in self.results.items()}
        failures = [{"picture": row.picture, "where": row.where, "error": row.error} for row in self.failures]
        return facts | {"failures": failures}


def with_short_paths(pictures: Sequence[PredictedPicture]) -> list[PredictedPicture]:
    """Paths from the folder that all share: a report that is passed on does not tell how a machine is laid out."""
    paths = [picture.picture for picture in pictures if os.path.isabs(picture.picture)]
    shared = os.path.commonpath([os.path.dirname(path) for path in paths]) if paths else ""
    return [
        replace(picture, picture=os.path.relpath(picture.picture, shared))
        if os.path.isabs(picture.picture)
        else picture
        for picture in pictures
    ]


def scored_pairs(pictures: Sequence[PredictedPicture], name: str) -> tuple[Array, Array]:
    """Predictions and labels `(n,)` of the pictures that have both, in order."""
    pairs = [(p.predicted[name], p.labels[name]) for p in pictures if name in p.labels and name in p.predicted]
    predicted, labels = np.array(pairs, dtype=float).reshape(-1, 2).T
    return predicted, labels


def measure_attribute(
    pictures: Sequence[PredictedPicture],
    name: str,
    score_range: Range,
    cut: float,
    by: str | None = None,
    is_first: bool = True,
    bootstraps: int = 1000,
    seed: int = 0,
) -> AttributeResult:
    """
    Metrics of one attribute over the pictures that have both a label and a prediction.

    Args:
        pictures (sequence of [`PredictedPicture`]): All pictures.
        name (`str`): The attribute.
        score_range (`tuple[float, float]`): Of its labels.
        cut (`float`): Of the accuracy, in the same units.
        by (`str`, *optional*): A column whose values make groups.
        is_first (`bool`, *optional*, defaults to `True`): Whether distributions and votes are of this attribute.
        bootstraps, seed (`int`, *optional*): Of the intervals.
    """
    predicted, labels = scored_pairs(pictures, name)
    rated = [picture for picture in pictures if name in picture.labels]
    scored = [picture for picture in rated if name in picture.predicted]
    stds = np.array([picture.std for picture in scored], dtype=float) if is_first else None  # None becomes NaN
    distances, why_none = distances_to_votes(scored) if is_first else ({}, None)
    metrics, curve = measure_agreement(predicted, labels, cut, distances, bootstraps, seed)
    if why_none is not None:
        metrics |= dict.fromkeys(("emd_r1", "emd_r2"), Measurement(None, reason=why_none))
    return AttributeResult(
        score_range=score_range,
        cut=cut,
        n=len(scored),
        failed=len(rated) - len(scored),
        metrics=metrics,
        curve=None if curve is None else curve.tolist(),
        segments=label_segments(predicted, labels),
        calibration=prediction_tenths(predicted, labels, stds),
        groups=measure_groups(predicted, labels, [str(picture.columns[by]) for picture in scored]) if by else [],
    )


def distances_to_votes(scored: Sequence[PredictedPicture]) -> tuple[dict[str, Array], str | None]:
    """Distances `(n,)` between predicted distribution and votes, NaN without votes, or why there are none."""
    num_votes = {len(picture.votes) for picture in scored if picture.votes is not None}
    num_levels = {len(picture.distribution) for picture in scored if picture.distribution is not None}
    if not num_votes:
        return {}, None
    if num_levels != num_votes:
        levels = f"{max(num_levels)} levels are predicted" if num_levels else "the model predicts no distribution"
        return {}, f"votes are over {max(num_votes)} levels, {levels}"
    unknown = [np.nan] * max(num_votes)
    predicted = np.array([picture.distribution for picture in scored])  # (n, N)
    return vote_distances(predicted, np.array([picture.votes or unknown for picture in scored], dtype=float)), None
