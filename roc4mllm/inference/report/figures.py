"""
The figures of a report: bins, groups of best and worst, what stands out, reasons of failures, agreement with labels.

What stands out is decided by the modified z-score of Iglewicz and Hoaglin (How to Detect and Handle Outliers, 1993),
0.6745 · (x − median) / median absolute deviation, above their limit of 3.5: mean and standard deviation would be moved
by the very pictures that are looked for.
"""

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from ..tables.score_reading import Scale
from .rows import FailedPicture, ScoredPicture, Scores

Array = npt.NDArray[np.float64]
Measures = Mapping[str, Callable[[Array, Array], Any]]

Z_LIMIT = 3.5
FEWEST_FOR_OUTLIERS = 20
FEWEST_FOR_GROUPS = 8
MOST_OUTLIERS = 12
NICE_STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)


@dataclass(frozen=True)
class Histogram:
    """Counts of equal bins: `edges` is one longer than `counts`."""

    edges: list[float]
    counts: list[int]
    mean: float
    median: float


@dataclass(frozen=True)
class AttributeFigures:
    """
    How one attribute goes with the score.

    Args:
        name (`str`):
            Its column.
        means (`tuple` of three `float`):
            Of all pictures, of the best and of the worst group, in the attribute's units.
        ranks (`tuple` of two `float`):
            Mean share, 0 to 1, of all pictures that those of the best and of the worst group surpass; 0.5 is chance.
        srcc (`float`):
            Spearman's rank correlation with the score, −1 to 1; 0 where one of them does not vary.
    """

    name: str
    means: tuple[float, float, float]
    ranks: tuple[float, float]
    srcc: float


@dataclass(frozen=True)
class Outlier:
    """A picture that stands out, and why."""

    picture: ScoredPicture
    reason: str


@dataclass(frozen=True)
class Agreement:
    """
    Scores against labels.

    Args:
        pictures (`list[ScoredPicture]`):
            Those that have a label, the largest difference first where units are the same.
        values (`dict[str, float]`):
            The measures, by name.
        differences ([`Histogram`], *optional*):
            Of score − label, in units of the scores; None where labels lie outside their range, and so in other units.
    """

    pictures: list[ScoredPicture]
    values: dict[str, float]
    differences: Histogram | None

    @property
    def same_units(self) -> bool:
        """Whether score and label can be subtracted."""
        return self.differences is not None

    def largest_differences(self, count: int) -> list[ScoredPicture]:
        """Pictures of which score and label differ most; none where their units do."""
        return self.pictures[: min(count, MOST_OUTLIERS)] if self.same_units else []


@dataclass
class ModelFigures:
    """All that is shown of one scale; `ranked` holds its pictures, best first, and `group` the share of the groups."""

    scale: Scale
    ranked: list[ScoredPicture]
    attributes: list[str]
    scores: Histogram
    stds: Histogram | None
    group: float | None = None
    compared: list[AttributeFigures] = field(default_factory=list)
    uncertain: list[Outlier] = field(default_factory=list)
    disagreeing: list[Outlier] = field(default_factory=list)
    agreement: Agreement | None = None

    def best(self, count: int) -> list[ScoredPicture]:
        """The best, best first; of few pictures the better half, so that none is among both."""
        return self.ranked[: min(count, (len(self.ranked) + 1) // 2)]

    def worst(self, count: int) -> list[ScoredPicture]:
        """The worst, worst first."""
        return self.ranked[::-1][: min(count, len(self.ranked) // 2)]


def figures_of(scale: Scale, pictures: Sequence[ScoredPicture], measures: Measures) -> ModelFigures:
    """
    Work out all figures of one scale.

    Args:
        scale ([`Scale`]):
            What the scores share.
        pictures (sequence of [`ScoredPicture`]):
            At least one.
        measures (mapping of `str` to a function):
            Measures of agreement by name; each takes predictions and labels, arrays of shape `(n,)`. "MAE" is left out
            where the units differ.

    Returns:
        [`ModelFigures`]
    """
    sign = -1 if scale.higher_is_better else 1
    ranked = sorted(pictures, key=lambda picture: sign * picture.score)  # stable: ties stay in the order of the table
    attributes = list(dict.fromkeys(name for picture in ranked for name in picture.attributes))
    stds = np.array([picture.std for picture in ranked if picture.std is not None], dtype=float)
    figures = ModelFigures(
        scale,
        ranked,
        attributes,
        histogram(np.array([picture.score for picture in ranked])),
        histogram(stds) if len(stds) else None,
        uncertain=find_uncertain(ranked),
        disagreeing=find_disagreeing(ranked, attributes),
        agreement=find_agreement(scale, ranked, measures),
    )
    if len(ranked) >= FEWEST_FOR_GROUPS:
        figures.group = 0.1 if len(ranked) >= 100 else 0.25
        figures.compared = [compare(ranked, name, figures.group) for name in attributes]
    return figures


# Bins ----------------------------------------------------------------------------------------------------------------


def nice_step(span: float, pieces: int) -> float:
    """The smallest of 1, 2, 2.5 or 5 times a power of ten that cuts `span` into at most `pieces`."""
    rough = span / pieces
    power = 10.0 ** np.floor(np.log10(rough))
    return float(next(step * power for step in NICE_STEPS if step * power >= rough * (1 - 1e-9)))


def ticks(low: float, high: float, pieces: int) -> list[float]:
    """Round numbers from at most `low` to at least `high`, `pieces` + 2 steps at most."""
    varies = high - low > 1e-8 * max(abs(low), abs(high), 1e-90)  # else 12 digits would not tell the ticks apart
    step = nice_step(high - low if varies else max(abs(low), 1.0), pieces)
    first, last = np.floor(low / step + 1e-9), np.ceil(high / step - 1e-9)
    places = np.arange(first, max(last, first + 1) + 1)
    return [float(f"{place * step:.12g}") for place in places]  # 7 · 0.2 is 1.4000000000000001: 1.4 would lie below


def histogram(values: Array) -> Histogram:
    """Values of shape `(n,)`, at least one, in bins of round width: about the root of n, from 8 to 40."""
    edges = ticks(float(values.min()), float(values.max()), int(np.clip(np.sqrt(len(values)) * 1.5, 8, 40)))
    counts, _ = np.histogram(np.clip(values, edges[0], edges[-1]), np.array(edges))  # a value may lie 1e-9 outside
    return Histogram(edges, counts.tolist(), float(values.mean()), float(np.median(values)))


# Attributes ----------------------------------------------------------------------------------------------------------


def compare(ranked: Sequence[ScoredPicture], name: str, share: float) -> AttributeFigures:
    """One attribute among the best and the worst `share` of the pictures that have it."""
    known = [picture for picture in ranked if name in picture.attributes]
    values, scores = (np.array(column) for column in zip(*((p.attributes[name], p.score) for p in known), strict=True))
    size = max(1, round(share * len(known)))
    place = mean_ranks(values) / max(1, len(known) - 1)  # 0 lowest, 1 highest
    best, worst = slice(None, size), slice(-size, None)
    return AttributeFigures(
        name,
        (float(values.mean()), float(values[best].mean()), float(values[worst].mean())),
        (float(place[best].mean()), float(place[worst].mean())),
        correlation(place, mean_ranks(scores)),
    )


def correlation(x: Array, y: Array) -> float:
    """Pearson's correlation of two rows; 0 where one does not vary."""
    return 0.0 if np.ptp(x) == 0 or np.ptp(y) == 0 else float(np.corrcoef(x, y)[0, 1])


def mean_ranks(values: Array) -> Array:
    """Ranks from 0; equal values share their mean rank."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = counts.cumsum()
    return np.asarray((ends - (counts + 1) / 2)[place], dtype=float)


# What stands out -----------------------------------------------------------------------------------------------------


def robust_z(values: Array, size: float) -> Array:
    """Modified z-scores of shape `(n,)`; 0 where most are the same, but for rounding of such sizes."""
    distance = values - np.median(values)
    deviation = np.median(np.abs(distance))
    return np.zeros_like(values) if deviation <= 1e-12 * size else np.asarray(0.6745 * distance / deviation)


def find_uncertain(ranked: Sequence[ScoredPicture]) -> list[Outlier]:
    """Pictures whose std is far above that of the others."""
    known = [picture for picture in ranked if picture.std is not None]
    if len(known) < FEWEST_FOR_OUTLIERS:
        return []
    stds = np.array([picture.std for picture in known], dtype=float)
    z = robust_z(stds, np.abs(stds).max())
    order = [place for place in np.argsort(-z, kind="stable")[:MOST_OUTLIERS] if z[place] > Z_LIMIT]
    return [Outlier(known[place], f"std {known[place].std:.3g} (z {z[place]:.1f})") for place in order]


def find_disagreeing(ranked: Sequence[ScoredPicture], attributes: Sequence[str]) -> list[Outlier]:
    """Pictures with an attribute far from what their score lets expect (the line of least squares)."""
    found: dict[int, tuple[float, Outlier]] = {}
    for name in attributes:
        known = [picture for picture in ranked if name in picture.attributes]
        scores = np.array([picture.score for picture in known])
        if len(known) < FEWEST_FOR_OUTLIERS or np.ptp(scores) == 0:
            continue
        values = np.array([picture.attributes[name] for picture in known])
        slope = ((scores - scores.mean()) @ (values - values.mean())) / (
            (scores - scores.mean()) @ (scores - scores.mean())
        )
        rest = values - values.mean() - slope * (scores - scores.mean())
        z = robust_z(rest, np.abs(values).max())
        for place in np.argsort(-np.abs(z), kind="stable")[:MOST_OUTLIERS]:
            strength, picture = float(abs(z[place])), known[place]
            if strength > max(Z_LIMIT, found.get(picture.number, (0.0,))[0]):
                side = "above" if rest[place] > 0 else "below"
                reason = f"{name} {values[place]:.3g}, {abs(rest[place]):.2g} {side} what the score suggests"
                found[picture.number] = (strength, Outlier(picture, f"{reason} (z {z[place]:.1f})"))
    strongest = sorted(found.values(), key=lambda entry: -entry[0])
    return [outlier for _, outlier in strongest[:MOST_OUTLIERS]]


# Labels and failures -------------------------------------------------------------------------------------------------


def find_agreement(scale: Scale, ranked: Sequence[ScoredPicture], measures: Measures) -> Agreement | None:
    """Scores against labels; None where no picture has one."""
    rated = [picture for picture in ranked if picture.label is not None]
    if not rated:
        return None
    predicted = np.array([picture.score for picture in rated])
    labels = np.array([picture.label for picture in rated], dtype=float)
    known = scale.low is not None and scale.high is not None
    same_units = known and bool(scale.low <= labels.min() and labels.max() <= scale.high)
    values = {name: float(measure(predicted, labels)) for name, measure in measures.items()}
    if not same_units:
        return Agreement(rated, {name: value for name, value in values.items() if name != "MAE"}, None)
    order = np.argsort(-np.abs(predicted - labels), kind="stable")
    return Agreement([rated[place] for place in order], values, histogram(predicted - labels))


def group_failures(failures: Sequence[FailedPicture]) -> list[tuple[str, list[FailedPicture]]]:
    """Failures by reason, the most frequent first. Errors that differ in a number or a quotation share a reason."""
    groups: dict[str, list[FailedPicture]] = {}
    for failure in failures:
        groups.setdefault(reason_of(failure.error), []).append(failure)
    return sorted(groups.items(), key=lambda group: -len(group[1]))


def reason_of(error: str) -> str:
    """An error without what differs from picture to picture."""
    quoted = re.sub(r"""(?<!\w)b?(['"]).*?(?<!\\)\1(?!\w)""", "…", error, flags=re.DOTALL)
    return re.sub(r"\d+", "…", quoted)


def choose_rows(scores: Scores, shown: Collection[int], most: int) -> set[int]:
    """
    Numbers of the rows that the table lists.

    Args:
        scores ([`Scores`]):
            All rows.
        shown (collection of `int`):
            Numbers of the pictures on the sheets and among the outliers, which the table always lists.
        most (`int`):
            How many rows, if those shown are not more: failures come next, then pictures evenly spaced by rank.

    Returns:
        `set[int]`
    """
    chosen = set(shown) | {failure.number for failure in scores.failures[: max(0, most - len(shown))]}
    ranked = [picture.number for group in scores.pictures.values() for picture in sorted(group, key=lambda p: p.score)]
    rest = [number for number in ranked if number not in chosen]
    room = min(len(rest), max(0, most - len(chosen)))
    return chosen | {rest[place] for place in np.linspace(0, len(rest) - 1, room).round().astype(int)}
