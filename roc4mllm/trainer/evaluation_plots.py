"""
Plots of an evaluation: label against prediction, residuals and calibration of each attribute.

Dark on white, in colours that also differ in lightness. Figures are made without pyplot: no display, no state.
"""

import io
import warnings
from typing import Any

import numpy as np

from .evaluation_results import AttributeResult, Evaluation, scored_pairs
from .image_aesthetics_metric.score_agreement import Array, logistic

BLUE, ORANGE, GREY, PALE = "#2b6ca3", "#c2410c", "#6b7280", "#e5e7eb"
WIDTH, HEIGHT = 4.2, 5.2  # inches of a panel, 630 pixels wide: a phone's width at twice its density
DOTS_PER_INCH = 150


def summary_png(evaluation: Evaluation) -> bytes:
    """All panels in one picture, a row per attribute."""
    names = list(evaluation.results)
    figure = make_figure(WIDTH * len(PANELS), HEIGHT * len(names))
    rows = figure.subplots(len(names), len(PANELS), squeeze=False)
    for name, axes in zip(names, rows, strict=True):
        for title, axis in zip(PANELS, axes, strict=True):
            draw_panel(axis, title, evaluation, name)
            axis.set_title(f"{name}: {title}", parse_math=False)
    marks = [*evaluation.protocols, *(["LEAK: trained on some of these pictures"] if evaluation.overlap else [])]
    if marks:
        figure.suptitle(", ".join(marks), parse_math=False)
    return as_png(figure)


def panel_png(evaluation: Evaluation, name: str, title: str) -> bytes:
    """One panel of one attribute."""
    figure = make_figure(WIDTH, HEIGHT)
    draw_panel(figure.subplots(), title, evaluation, name)
    return as_png(figure)


def make_figure(width: float, height: float) -> Any:
    """An empty figure; sizes in inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=DOTS_PER_INCH, layout="constrained", facecolor="white")


def as_png(figure: Any) -> bytes:
    """The file; an attribute in letters that the font lacks shows boxes, which is no reason for a warning."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(buffer, format="png")
    return buffer.getvalue()


def draw_panel(axis: Any, title: str, evaluation: Evaluation, name: str) -> None:
    """One panel on its axes, or a note that there is nothing to show."""
    axis.set_title(title)
    axis.grid(color=PALE)
    axis.set_axisbelow(True)
    axis.spines[["top", "right"]].set_visible(False)
    result = evaluation.results[name]
    if not result.n:
        axis.text(0.5, 0.5, "no picture has both label and prediction", ha="center", transform=axis.transAxes)
        return
    PANELS[title](axis, result, *scored_pairs(evaluation.pictures, name))
    below = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.12)}  # below the axes it covers no point
    axis.legend(fontsize="small", frameon=False, **below)


def draw_scatter(axis: Any, result: AttributeResult, predicted: Array, labels: Array) -> None:
    """Labels over predictions with the identity and, as papers on quality assessment show it, the fitted curve."""
    draw_points(axis, predicted, labels)
    limits = draw_identity(axis, predicted, labels)
    if result.curve is not None:
        line = np.linspace(predicted.min(), predicted.max(), 200)
        axis.plot(line, logistic(line, np.array(result.curve)), color=ORANGE, linewidth=2, label="logistic fit")
    axis.set(xlabel="prediction", ylabel="label", xlim=limits, ylim=limits, aspect="equal")


def draw_residuals(axis: Any, result: AttributeResult, predicted: Array, labels: Array) -> None:
    """Errors over labels, with the mean error of each segment: a scorer that shrinks to the middle falls."""
    draw_points(axis, labels, predicted - labels)
    axis.axhline(0, color=GREY, linestyle="--", label="no error")
    for segment in result.segments:
        if segment.bias is not None:
            label = "mean of 0–20–80–100 % of labels" if segment is result.segments[0] else None
            axis.plot(segment.limits, [segment.bias] * 2, color=ORANGE, linewidth=3, label=label)
    axis.set(xlabel="label", ylabel="prediction − label")


def draw_calibration(axis: Any, result: AttributeResult, predicted: Array, labels: Array) -> None:
    """
    Mean label over mean prediction of each tenth of the predictions. Where the spread of single votes is predicted, a
    band round the identity shows it; mean labels, each of many votes, should lie well within.
    """
    tenths = [tenth for tenth in result.calibration if tenth.n]
    rows = [(tenth.predicted_mean, tenth.label_mean, tenth.predicted_std) for tenth in tenths]
    mean, label, std = np.array(rows, dtype=float).T  # None becomes NaN
    draw_identity(axis, mean, label)
    if not np.isnan(std).any():
        shade = {"color": BLUE, "alpha": 0.15, "linewidth": 0}
        axis.fill_between(mean, mean - std, mean + std, label="prediction ± predicted std of votes", **shade)
    axis.plot(mean, label, color=BLUE, marker="o", label="mean of a tenth of the predictions")
    axis.set(xlabel="mean prediction", ylabel="mean label")


def draw_points(axis: Any, x: Array, y: Array) -> None:
    """One point a picture, the paler the more there are."""
    size, alpha = (14, 0.6) if len(x) <= 1000 else (8, 0.3)
    axis.scatter(x, y, s=size, alpha=alpha, color=BLUE, linewidths=0, label=f"{len(x)} pictures")


def draw_identity(axis: Any, x: Array, y: Array) -> tuple[float, float]:
    """The line where both are equal, as long as the data; its ends, with a margin."""
    low, high = min(x.min(), y.min()), max(x.max(), y.max())
    margin = 0.04 * (high - low) or 0.5
    limits = (float(low - margin), float(high + margin))
    axis.plot(limits, limits, color=GREY, linestyle="--", label="prediction = label")
    return limits


PANELS = {"label against prediction": draw_scatter, "residuals": draw_residuals, "calibration": draw_calibration}
