"""
An evaluation by parts of the pictures: segments of the labels, tenths of the predictions, groups by a column.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from .image_aesthetics_metric.score_agreement import Array, mae, plcc, srcc, weighted_mean

SEGMENTS = (0.0, 0.2, 0.8, 1.0)  # the lowest and the highest fifth of the labels, where scorers shrink to the middle
TENTHS = tuple(tenth / 10 for tenth in range(11))
SMALL_GROUP = 30  # pictures; the standard error of a correlation of 0.5 is then about 0.14


@dataclass(frozen=True)
class Segment:
    """
    Pictures whose labels, or predictions, lie in one part of all; the means and errors of no picture are `None`.

    Args:
        shares (`tuple[float, float]`): Which part, as quantiles: 0.8 and 1 are the highest fifth.
        limits (`tuple[float, float]`): The values at these quantiles. A value at an inner limit belongs to the lower
            segment, so equal values stay together and no picture is lost or counted twice.
        n (`int`): Pictures in it.
        label_mean, predicted_mean (`float`, *optional*): Means in units of the labels.
        predicted_std (`float`, *optional*): Mean spread of the predicted distributions, where these are known.
        mae, bias (`float`, *optional*): Mean absolute error, and mean of prediction − label, in units of the labels.
    """

    shares: tuple[float, float]
    limits: tuple[float, float]
    n: int
    label_mean: float | None = None
    predicted_mean: float | None = None
    predicted_std: float | None = None
    mae: float | None = None
    bias: float | None = None


@dataclass(frozen=True)
class Group:
    """Pictures with one value of a column; `small` below 30 of them. Numbers as in [`Measurement`] and [`Segment`]."""

    name: str
    n: int
    srcc: float | None
    plcc: float | None
    mae: float
    small: bool


def label_segments(predicted: Array, labels: Array) -> list[Segment]:
    """
    Errors and means by quantile of the labels: where a scorer errs. Even a calibrated one is, unless it
    never errs, too high in the lowest fifth and too low in the highest; one that shrinks to the middle is more so.

    Args:
        predicted (`np.ndarray` of shape `(n,)`): Predicted scores.
        labels (`np.ndarray` of shape `(n,)`): Rated scores in the same units.

    Returns:
        `list[Segment]`: the lowest labels first; empty without pictures.
    """
    return segments(labels, SEGMENTS, predicted, labels)


def prediction_tenths(predicted: Array, labels: Array, stds: Array | None = None) -> list[Segment]:
    """
    Means by tenth of the predictions: whether a prediction can be taken at its word. Of a calibrated scorer the mean
    label of pictures with one prediction is that prediction, however large its errors are.

    Args:
        predicted (`np.ndarray` of shape `(n,)`): Predicted scores.
        labels (`np.ndarray` of shape `(n,)`): Rated scores in the same units.
        stds (`np.ndarray` of shape `(n,)`, *optional*): Predicted spreads; NaN where unknown.

    Returns:
        `list[Segment]`: the lowest predictions first; empty without pictures.
    """
    return segments(predicted, TENTHS, predicted, labels, stds)


def segments(
    values: Array, shares: Sequence[float], predicted: Array, labels: Array, stds: Array | None = None
) -> list[Segment]:
    """Parts of the pictures between the quantiles `shares` of `values`."""
    if not len(values):
        return []
    limits = np.quantile(values, shares)
    place = np.searchsorted(limits[1:-1], values)  # (n,) a value at a limit goes below it
    stds = np.full(len(values), np.nan) if stds is None else stds
    found = []
    for index, part in enumerate(pairwise(shares)):
        inside = place == index
        ends = (float(limits[index]), float(limits[index + 1]))
        means = segment_means(predicted[inside], labels[inside], stds[inside])
        found.append(Segment(part, ends, int(inside.sum()), **means))
    return found


def segment_means(predicted: Array, labels: Array, stds: Array) -> dict[str, float | None]:
    """Means and errors of the pictures of a segment."""
    values = {"label_mean": labels, "predicted_mean": predicted, "predicted_std": stds}
    values |= {"mae": np.abs(predicted - labels), "bias": predicted - labels}
    return {name: known(weighted_mean(value)) for name, value in values.items()}


def measure_groups(predicted: Array, labels: Array, names: Sequence[str]) -> list[Group]:
    """SRCC, PLCC and MAE of the pictures of each name; the largest group first, equal ones by name."""
    places: dict[str, list[int]] = {}
    for place, name in enumerate(names):
        places.setdefault(name, []).append(place)
    groups = []
    for name in sorted(places):
        x, y = predicted[places[name]], labels[places[name]]
        small = len(y) < SMALL_GROUP
        groups.append(Group(name, len(y), known(srcc(x, y)), known(plcc(x, y)), float(mae(x, y)), small))
    return sorted(groups, key=lambda group: -group.n)


def known(value: Array | float) -> float | None:
    """A number, or `None` for NaN."""
    return None if np.isnan(value) else float(value)


__all__ = ["Group", "Segment", "label_segments", "measure_groups", "prediction_tenths"]
