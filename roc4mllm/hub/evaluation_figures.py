"""
Figures of an evaluation for a model card: `metrics.json` of `roc4mllm evaluate -o`, or what its `--json` prints.

They become rows of a table and entries of the card's `model-index`, which the Hub shows and searches.
"""

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult

# Our names, what the Hub calls the metric, what a reader does; an evaluation's further metrics are left out.
METRICS = {
    "srcc": ("spearmanr", "SRCC"),
    "plcc": ("pearsonr", "PLCC"),
    "plcc_logistic": ("plcc_logistic", "PLCC after logistic fit"),
    "krcc": ("kendalltau", "KRCC (tau-b)"),
    "mae": ("mae", "MAE"),
    "rmse": ("rmse", "RMSE"),
    "accuracy": ("accuracy", "accuracy at the cut"),
    "emd_r1": ("emd_r1", "EMD (r = 1)"),
    "emd_r2": ("emd_r2", "EMD (r = 2)"),
}


@dataclass(frozen=True)
class Figure:
    """A metric of an attribute, with the ends of its 95 % bootstrap interval where it has one."""

    attribute: str
    metric: str
    value: float
    interval: tuple[float, float] | None
    pictures: int

    def __str__(self) -> str:
        text = f"{self.value:.3f}"
        return text + (f" ({self.interval[0]:.3f} to {self.interval[1]:.3f})" if self.interval else "")


@dataclass(frozen=True)
class Figures:
    """
    What an evaluation says.

    Args:
        data (`str`): Data that it is on, without folders of the machine.
        split (`str`, *optional*): Split of the data.
        date (`str`): When.
        bootstraps, seed (`int`, *optional*): Of the intervals.
        failed (`int`): Pictures that could not be scored, which are in no metric.
        notes (`tuple[str, ...]`): What a reader has to know.
        figures (`tuple[Figure, ...]`): In the order of the file.
    """

    data: str
    split: str | None
    date: str
    bootstraps: int | None
    seed: int | None
    failed: int
    notes: tuple[str, ...]
    figures: tuple[Figure, ...]

    def of(self, attribute: str) -> dict[str, Figure]:
        """Figures of one attribute by metric."""
        return {figure.metric: figure for figure in self.figures if figure.attribute == attribute}


def read_evaluation(path: str | os.PathLike[str], attributes: Sequence[str]) -> Figures:
    """
    Figures of an evaluation.

    Args:
        path (`str` or `os.PathLike`): The JSON file.
        attributes (sequence of `str`): What the model scores.

    Raises:
        ValueError: If the file is none of an evaluation, or of a model that scores something else.
        OSError: If it cannot be read.
    """
    try:
        told = json.loads(Path(path).read_text(encoding="utf-8"))
        found, data = told["attributes"], shown_data(str(told["data"]))
        figures = tuple(figure for name in found for figure in figures_of(name, found[name]))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{os.fspath(path)!r} is no evaluation ({type(error).__name__}: {error}); expected metrics.json of "
            "roc4mllm evaluate -o, or what its --json prints"
        ) from error
    if other := [name for name in found if name not in attributes]:
        raise ValueError(
            f"{os.fspath(path)!r} evaluates {', '.join(other)}, the model scores {', '.join(attributes)}; take the "
            "evaluation of this model"
        )
    data, _, split = data.partition(", split ")
    return Figures(
        data=data,
        split=split or None,
        date=str(told.get("date") or ""),
        bootstraps=told.get("bootstraps"),
        seed=told.get("seed"),
        failed=int(told.get("failed") or 0),
        notes=tuple(str(note) for note in told.get("notes") or ()),
        figures=figures,
    )


def figures_of(attribute: str, result: Mapping[str, Any]) -> Iterator[Figure]:
    """Figures of one attribute; those that have no value are left out."""
    for metric, found in result["metrics"].items():
        if metric in METRICS and found["value"] is not None:
            low, high = found.get("low"), found.get("high")
            interval = None if low is None or high is None else (float(low), float(high))
            yield Figure(attribute, metric, float(found["value"]), interval, int(result["n"]))


def shown_data(name: str) -> str:
    """The data as they were named; of a path of this machine, the last part."""
    path, comma, split = name.partition(", split ")
    if os.path.isabs(path) or re.match(r"[A-Za-z]:\\|~", path) or path.startswith(".."):
        path = re.split(r"[/\\]", path.rstrip("/\\"))[-1]
    return path + comma + split


def eval_results(found: Figures) -> list[EvalResult]:
    """Entries of `model-index`. It has no place for intervals, so they stand in the name, and as arguments."""
    identifier = found.data if re.fullmatch(r"[\w.-]+/[\w.-]+", found.data) else "custom"
    results = []
    for figure in found.figures:
        kind, title = METRICS[figure.metric]
        between = f", 95 % between {figure.interval[0]:.3f} and {figure.interval[1]:.3f}" if figure.interval else ""
        arguments = {"attribute": figure.attribute, "pictures": figure.pictures}
        if figure.interval:
            arguments |= {"interval_95": [round(end, 6) for end in figure.interval], "bootstraps": found.bootstraps}
            arguments |= {"seed": found.seed}
        results.append(
            EvalResult(
                task_type="image-classification",
                task_name="Image aesthetics assessment",
                dataset_type=identifier,
                dataset_name=found.data,
                dataset_split=found.split,
                metric_type=kind,
                metric_name=f"{title} of {figure.attribute}{between}",
                metric_value=round(figure.value, 6),
                metric_args=arguments,
            )
        )
    return results


__all__ = ["METRICS", "Figures", "eval_results", "read_evaluation"]
