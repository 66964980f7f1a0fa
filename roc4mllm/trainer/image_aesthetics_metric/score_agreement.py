"""
How well predicted scores agree with rated ones: correlations, errors, and the share on the right side of a cut.

Each metric takes predictions and labels of shape `(n,)` and, optionally, `counts` of shape `(..., n)`: how often each
picture counts. The value has the shape of the leading axes, so one call measures a thousand bootstrap resamples
without drawing or sorting the pictures again. A value that does not exist (fewer than three pictures, no variation)
is NaN.

This file travels with the metric's script to machines without the package, so it imports numpy, and scipy where that
is needed. Names of axes: n pictures, D distinct values.
"""

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Array: TypeAlias = npt.NDArray[np.float64]

FEWEST = 3  # pictures: two always correlate perfectly
FEWEST_FOR_CURVE = 5  # distinct predictions: the curve has four parameters
MOST_FOR_PAIRS = 1000  # pictures whose pairs are held in matrices, 8 MB each


def weighted_mean(values: Array, counts: Array | None = None) -> Array:
    """
    Mean of `values` of shape `(n,)`, each counted as `counts` says; NaN stands for what is unknown and is left out.
    """
    counts = _all_once(values) if counts is None else counts
    if (unknown := np.isnan(values)).any():
        values, counts = values[~unknown], counts[..., ~unknown]
    with np.errstate(invalid="ignore"):  # 0 / 0 where nothing is known
        return np.asarray(counts @ values / counts.sum(-1))


def mae(predicted: Array, labels: Array, counts: Array | None = None) -> Array:
    """Mean absolute error, in units of the scores."""
    return weighted_mean(np.abs(predicted - labels), counts)


def rmse(predicted: Array, labels: Array, counts: Array | None = None) -> Array:
    """Root of the mean squared error, in units of the scores."""
    return np.sqrt(weighted_mean((predicted - labels) ** 2, counts))


def accuracy(predicted: Array, labels: Array, cut: float, counts: Array | None = None) -> Array:
    """Share, 0 to 1, of pictures that prediction and label put on the same side of `cut`; above it means `> cut`."""
    return weighted_mean(((predicted > cut) == (labels > cut)).astype(float), counts)


def plcc(predicted: Array, labels: Array, counts: Array | None = None) -> Array:
    """Pearson's linear correlation coefficient, −1 to 1."""
    counts = _all_once(labels) if counts is None else counts
    if why_no_correlation(predicted, labels):
        return np.full(counts.shape[:-1], np.nan)
    x, y = ((values - values.mean()) / values.std() for values in (predicted, labels))
    moments = counts @ np.stack([x, y, x * x, y * y, x * y], axis=1)  # (..., 5)
    mean_x, mean_y, xx, yy, xy = np.moveaxis(moments / counts.sum(-1, keepdims=True), -1, 0)
    return _correlation(xy - mean_x * mean_y, xx - mean_x**2, yy - mean_y**2)


def srcc(predicted: Array, labels: Array, counts: Array | None = None) -> Array:
    """Spearman's rank correlation coefficient, −1 to 1; equal values share their mean rank."""
    counts = _all_once(labels) if counts is None else counts
    if why_no_correlation(predicted, labels):
        return np.full(counts.shape[:-1], np.nan)
    x, y = _centred_ranks(predicted, counts), _centred_ranks(labels, counts)  # (..., n)
    pairs = ((x, y), (x, x), (y, y))
    return _correlation(*(np.einsum("...n,...n,...n->...", counts, *pair) / counts.sum(-1) for pair in pairs))


def krcc(predicted: Array, labels: Array, counts: Array | None = None) -> Array:
    """
    Kendall's rank correlation coefficient tau-b, which allows for equal values, −1 to 1 (Kendall, 1945).

    Counts are whole numbers here. Few pictures are measured by the definition, all resamples at a time: scipy, called
    once for each of 1000 resamples, takes 0.2 s however few these are. From about 1000 pictures on it is the faster.
    """
    counts = _all_once(labels) if counts is None else counts
    if why_no_correlation(predicted, labels):
        return np.full(counts.shape[:-1], np.nan)
    if len(labels) > MOST_FOR_PAIRS:
        return _krcc_by_scipy(predicted, labels, counts)
    x, y = (np.sign(values[:, None] - values) for values in (predicted, labels))  # (n, n) order of each pair
    return _correlation(*(np.asarray(((counts @ pairs) * counts).sum(-1)) for pairs in (x * y, x * x, y * y)))


def _krcc_by_scipy(predicted: Array, labels: Array, counts: Array) -> Array:
    from scipy.stats import kendalltau  # type: ignore[import-untyped]

    draws = counts.reshape(-1, len(labels)).astype(int)
    values = [kendalltau(predicted.repeat(draw), labels.repeat(draw)).statistic for draw in draws]
    return np.array(values, dtype=float).reshape(counts.shape[:-1])


def why_no_correlation(predicted: Array, labels: Array) -> str | None:
    """Why these have no correlation, for a reader; None where they have one."""
    if len(labels) < FEWEST:
        return f"{len(labels)} pictures, a correlation needs {FEWEST}"
    for name, values in (("predictions", predicted), ("labels", labels)):
        if np.ptp(values) == 0:
            return f"all {name} are {values[0]:.6g}"
    return None


def logistic(scores: Array, parameters: Array) -> Array:
    """β₂ + (β₁ − β₂) / (1 + exp(−(s − β₃) / |β₄|)) of each score, with the parameters of [`fit_logistic`]."""
    from scipy.special import expit  # type: ignore[import-untyped]

    top, bottom, middle, width = parameters
    return np.asarray(bottom + (top - bottom) * expit((scores - middle) / abs(width)))


def fit_logistic(predicted: Array, labels: Array) -> Array:
    """
    The four-parameter logistic curve from predictions to labels, by least squares.

    PLCC after this curve is what papers on quality assessment report since the Video Quality Experts Group (VQEG,
    final report on the validation of objective models of video quality assessment, FR-TV phase I, 2000): a scorer is
    not blamed for a scale of its own. The curve is monotone, rising or falling; SRCC and KRCC need none.

    Args:
        predicted (`np.ndarray` of shape `(n,)`): Predicted scores.
        labels (`np.ndarray` of shape `(n,)`): Rated scores.

    Returns:
        `np.ndarray` of shape `(4,)`: β₁ and β₂ (where the curve tends to, in units of the labels), β₃ (the middle) and
        β₄ (the width), in units of the predictions.

    Raises:
        ValueError: If there is too little to fit, or values are not finite.
    """
    from scipy.optimize import least_squares  # type: ignore[import-untyped]

    if reason := why_no_correlation(predicted, labels):
        raise ValueError(reason)
    if (distinct := len(np.unique(predicted))) < FEWEST_FOR_CURVE:
        raise ValueError(f"{distinct} distinct predictions, the curve needs {FEWEST_FOR_CURVE}")
    centre, spread = predicted.mean(), predicted.std()
    x, y = (predicted - centre) / spread, (labels - labels.mean()) / labels.std()
    # Two starts, a bend within the data and nearly a line: from one alone some data end in a step beside the optimum.
    # Bounds, in standard deviations: a straight line or an exponential is the limit of curves that grow for ever.
    bounds = ([-1e3, -1e3, -10, 1e-3], [1e3, 1e3, 10, 1e2])
    fits = [least_squares(lambda p: logistic(x, p) - y, start, bounds=bounds) for start in _starts(x, y)]
    top, bottom, middle, width = min(fits, key=lambda fit: float(fit.cost)).x
    ends = labels.mean() + labels.std() * np.array([top, bottom])
    return np.array([*ends, centre + spread * middle, spread * width])


def _starts(x: Array, y: Array) -> list[list[float]]:
    """Parameters to start from, for standardised values; a falling relation starts with the ends exchanged."""
    slope = float((x * y).mean())
    ends = [y.max(), y.min()] if slope >= 0 else [y.min(), y.max()]
    width = 5.0  # over ±2 such a curve is a line to 1 %; its slope in the middle is (β₁ − β₂) / (4 β₄)
    return [[*ends, 0.0, 0.5], [2 * width * slope, -2 * width * slope, 0.0, width]]


def score_agreement(predicted: npt.ArrayLike, labels: npt.ArrayLike, cut: float | None = None) -> dict[str, float]:
    """
    All metrics of one set of pictures.

    Args:
        predicted (array of shape `(n,)`): Predicted scores.
        labels (array of shape `(n,)`): Rated scores in the same units; NaN where a picture has no rating, which leaves
            it out.
        cut (`float`, *optional*): Adds `accuracy`, the share of pictures on the same side of it.

    Returns:
        `dict[str, float]`: `n`, `srcc`, `plcc`, `plcc_logistic`, `krcc`, `mae`, `rmse`; NaN for what has no value.

    Raises:
        ValueError: If the lengths differ, or a rated picture has no finite prediction.
    """
    x, y = np.asarray(predicted, dtype=float), np.asarray(labels, dtype=float)
    if x.shape != y.shape or x.ndim != 1:
        raise ValueError(f"expected as many predictions as labels in one row, got shapes {x.shape} and {y.shape}")
    x, y = x[~np.isnan(y)], y[~np.isnan(y)]
    if failed := int((~np.isfinite(x)).sum()):
        raise ValueError(f"{failed} predictions are no numbers: leave pictures that failed out, and tell how many")
    try:
        after_fit = float(plcc(logistic(x, fit_logistic(x, y)), y))
    except ValueError:
        after_fit = float("nan")
    values: dict[str, Any] = {"srcc": srcc(x, y), "plcc": plcc(x, y), "plcc_logistic": after_fit, "krcc": krcc(x, y)}
    values |= {"mae": mae(x, y), "rmse": rmse(x, y)}
    if cut is not None:
        values["accuracy"] = accuracy(x, y, cut)
    return {"n": len(y), **{name: float(value) for name, value in values.items()}}


def _all_once(values: Array) -> Array:
    return np.ones(len(values))


def _centred_ranks(values: Array, counts: Array) -> Array:
    """Ranks, less the mean rank, that each value has when pictures count as `counts` says; shape of `counts`."""
    distinct, place = np.unique(values, return_inverse=True)  # (D,), (n,)
    order = np.argsort(place, kind="stable")
    starts = np.searchsorted(place[order], np.arange(len(distinct)))
    tied = np.add.reduceat(counts[..., order], starts, axis=-1)  # (..., D) pictures per value
    ranks = tied.cumsum(-1) - (tied + counts.sum(-1, keepdims=True)) / 2  # (..., D)
    return np.asarray(ranks[..., place])


def _correlation(xy: Array, xx: Array, yy: Array) -> Array:
    """Correlation from covariance and variances; NaN where a resample holds one value only."""
    varies = (xx > 1e-12) & (yy > 1e-12)  # of values with variance 1, or of ranks: anything below is rounding
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(varies, np.clip(xy / np.sqrt(xx * yy), -1, 1), np.nan)
