"""
Metrics of one attribute, with bootstrap intervals; and metrics for a Trainer.

The formulas are in `image_aesthetics_metric/score_agreement.py`, beside the script that `evaluate.load(METRIC_PATH)`
loads without network. Names of axes: n pictures, N levels.
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..modeling_roc4mllm.loss_aesthetics import earth_movers_distance, votes_to_distribution
from .evaluation_parts import known
from .image_aesthetics_metric.score_agreement import (
    Array,
    accuracy,
    fit_logistic,
    krcc,
    logistic,
    mae,
    plcc,
    rmse,
    srcc,
    weighted_mean,
    why_no_correlation,
)

METRIC_PATH = os.fspath(Path(__file__).parent / "image_aesthetics_metric")  # for `evaluate.load`
FEWEST_FOR_INTERVAL = 10  # pictures: of fewer, resamples show little of what other pictures would have shown
MOST_COUNTS = 500_000  # in one chunk of resamples: 4 MB, which fits into caches

Statistic = Callable[[Array], Array]  # from counts of shape (..., n) to values of shape (...)


@dataclass(frozen=True)
class Measurement:
    """
    A metric of a set of pictures.

    Args:
        value (`float`, *optional*): The metric; `None` where it has no value, as any has of no picture.
        low, high (`float`, *optional*): Ends of its 95 % bootstrap interval; `None` where it has none.
        reason (`str`, *optional*): Why something is missing.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    reason: str | None = None


# Metrics with intervals ----------------------------------------------------------------------------------------------


def measure_agreement(
    predicted: Array,
    labels: Array,
    cut: float,
    distances: Mapping[str, Array] | None = None,
    bootstraps: int = 1000,
    seed: int = 0,
) -> tuple[dict[str, Measurement], Array | None]:
    """
    Every metric of one attribute.

    Args:
        predicted (`np.ndarray` of shape `(n,)`): Predicted scores.
        labels (`np.ndarray` of shape `(n,)`): Rated scores in the same units.
        cut (`float`): Of the accuracy, in the same units.
        distances (mapping from `str` to `np.ndarray` of shape `(n,)`, *optional*): Further metrics that are means over
            pictures; NaN where a picture has none.
        bootstraps (`int`, *optional*, defaults to 1000): Resamples of the pictures; 0 gives no intervals.
        seed (`int`, *optional*, defaults to 0): Of the resamples.

    Returns:
        `tuple`: metrics by the names `srcc`, `plcc`, `plcc_logistic`, `krcc`, `mae`, `rmse`, `accuracy` and those of
        `distances`; and the parameters `(4,)` of the logistic curve or `None`. The curve is fitted once, to all
        pictures: resamples keep it.
    """
    curve, no_curve = logistic_curve(predicted, labels)
    fitted = np.zeros_like(predicted) if curve is None else logistic(predicted, curve)  # constant: no correlation
    pair = (predicted, labels)
    statistics: dict[str, Statistic] = {"srcc": partial(srcc, *pair), "plcc": partial(plcc, *pair)}
    statistics |= {"plcc_logistic": partial(plcc, fitted, labels), "krcc": partial(krcc, *pair)}
    statistics |= {"mae": partial(mae, *pair), "rmse": partial(rmse, *pair), "accuracy": partial(accuracy, *pair, cut)}
    statistics |= {name: partial(weighted_mean, values) for name, values in (distances or {}).items()}
    metrics = measure(statistics, len(labels), bootstraps, seed)
    reasons = dict.fromkeys(("srcc", "plcc", "krcc"), why_no_correlation(predicted, labels))
    reasons |= {"plcc_logistic": no_curve}
    return {
        name: replace(found, reason=reasons.get(name)) if found.value is None else found
        for name, found in metrics.items()
    }, curve


def logistic_curve(predicted: Array, labels: Array) -> tuple[Array | None, str | None]:
    """The fitted curve, or why there is none."""
    try:
        return fit_logistic(predicted, labels), None
    except ValueError as error:
        return None, str(error)


def measure(statistics: Mapping[str, Statistic], n: int, bootstraps: int, seed: int) -> dict[str, Measurement]:
    """Each statistic of `n` pictures with its percentile interval, all from the same resamples."""
    if not n:
        return dict.fromkeys(statistics, Measurement(None))
    resampled: dict[str, list[Array]] = {name: [] for name in statistics}
    for counts in resamples(n, bootstraps, seed):  # (rows, n)
        for name, statistic in statistics.items():
            resampled[name].append(statistic(counts))  # (rows,)
    values = {name: float(statistic(np.ones(n))) for name, statistic in statistics.items()}
    return {name: with_interval(value, resampled[name], n) for name, value in values.items()}


def with_interval(value: float, resampled: Sequence[Array], n: int) -> Measurement:
    """A value with the middle 95 % of its resamples, if at least 95 % of these have one."""
    if np.isnan(value) or not resampled:
        return Measurement(known(value))
    if n < FEWEST_FOR_INTERVAL:
        return Measurement(value, reason=f"{n} pictures, an interval needs {FEWEST_FOR_INTERVAL}")
    values = np.concatenate(resampled)  # (bootstraps,)
    if (without := np.isnan(values).mean()) > 0.05:
        return Measurement(value, reason=f"no value in {without:.0%} of the resamples")
    low, high = np.nanpercentile(values, [2.5, 97.5])
    return Measurement(value, float(low), float(high))


def resamples(n: int, bootstraps: int, seed: int) -> Iterator[Array]:
    """How often each of n pictures is in each of `bootstraps` draws of n, in chunks of shape `(rows, n)`."""
    generator = np.random.default_rng(seed)
    rows = max(1, MOST_COUNTS // n)
    for start in range(0, bootstraps, rows):
        count = min(rows, bootstraps - start)
        drawn = generator.integers(0, n, (count, n)) + n * np.arange(count)[:, None]  # (rows, n), a row's own numbers
        yield np.bincount(drawn.ravel(), minlength=count * n).reshape(count, n).astype(float)


def vote_distances(distributions: Array, votes: Array) -> dict[str, Array]:
    """
    Earth mover's distance between predicted distribution and votes, per picture (NIMA, 2018, eq. 1): `emd_r1`, which
    the paper's tables report, and `emd_r2`, which it trains with.

    Args:
        distributions (`np.ndarray` of shape `(n, N)`): Predicted; a row of NaN where there is none.
        votes (`np.ndarray` of shape `(n, N)`): Counts or shares; a row of NaN where there are none.

    Returns:
        `dict[str, np.ndarray]`: two arrays of shape `(n,)`, below 1; NaN where either side is.
    """
    predicted, rated = torch.from_numpy(distributions), votes_to_distribution(torch.from_numpy(votes))
    apart = (predicted.cumsum(-1) - rated.cumsum(-1)).abs()  # (n, N)
    return {
        "emd_r1": apart.mean(-1).numpy(),
        "emd_r2": earth_movers_distance(predicted, rated, reduction="none").numpy(),
    }


# For a Trainer -------------------------------------------------------------------------------------------------------


def aesthetics_metrics(attributes: Sequence[str]) -> Callable[[Any], dict[str, float]]:
    """
    The `compute_metrics` of a [`~transformers.Trainer`].

    Args:
        attributes (sequence of `str`): Attributes of the model, the main one first.

    Returns:
        `Callable`: from a [`~transformers.EvalPrediction`], whose predictions are scores of shape `(n, attributes)` or
        a tuple that begins with them and whose labels have the same shape (NaN where unrated), to `srcc`, `plcc`,
        `mae` and `rmse` of the main attribute and `srcc_<attribute>`, … of the others. NaN is a metric without a
        value, also where a rated picture was given no finite score.
    """

    def compute_metrics(prediction: Any) -> dict[str, float]:
        scores, labels = (first_array(part) for part in (prediction.predictions, prediction.label_ids))
        if not scores.shape == labels.shape == (len(scores), len(attributes)):
            raise ValueError(
                f"expected scores and labels of shape (pictures, {len(attributes)}), got {scores.shape} and "
                f"{labels.shape}: `label_names` of the training arguments must be ['scores']"
            )
        metrics: dict[str, float] = {}
        for column, attribute in enumerate(attributes):
            rated = ~np.isnan(labels[:, column])
            x, y = scores[rated, column], labels[rated, column]
            failed = not np.isfinite(x).all()
            for name, metric in {"srcc": srcc, "plcc": plcc, "mae": mae, "rmse": rmse}.items():
                key = name if column == 0 else f"{name}_{attribute}"
                metrics[key] = float("nan") if failed else float(metric(x, y))
        return metrics

    return compute_metrics


def first_array(part: Any) -> Array:
    """An array of numbers, or the first of several."""
    return np.asarray(part[0] if isinstance(part, tuple | list) else part, dtype=float)


__all__ = [
    "METRIC_PATH",
    "Measurement",
    "aesthetics_metrics",
    "measure_agreement",
    "vote_distances",
]
