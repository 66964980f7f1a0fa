"""
How good a scorer is on rated pictures: one pass over the pictures, then metrics per attribute.

A picture that fails stays a failure: counted, listed with its place and its error, and in no metric.
"""

import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from torch.utils.data import Dataset
from tqdm import tqdm  # type: ignore[import-untyped]

from ..processing_roc4mllm.pipeline_image_aesthetics import attribute_range
from .evaluation_results import Evaluation, PredictedPicture, Range, measure_attribute, with_short_paths
from .trained_on import compare_with_training


def evaluate_scorer(
    scorer: Any,
    rated: Any,
    *,
    data: str = "the data",
    attributes: Sequence[str] | None = None,
    batch_size: int = 8,
    num_workers: int = 0,
    cut: float | None = None,
    by: str | None = None,
    bootstraps: int = 1000,
    seed: int = 0,
    rescale: bool = False,
    allow_leak: bool = False,
) -> Evaluation:
    """
    Score rated pictures and compare. The model is asked its own question, as whenever it scores.

    Args:
        scorer ([`ImageAestheticsPipeline`]): What `load_scorer` returns.
        rated ([`RatedPictures`]): What `read_ratings` returns.
        data (`str`, *optional*): What reports call the data.
        attributes (`list[str]`, *optional*, defaults to those that both have): What to compare, the main one first.
        batch_size (`int`, *optional*, defaults to 8): Pictures per forward pass.
        num_workers (`int`, *optional*, defaults to 0): Processes that read pictures.
        cut (`float`, *optional*, defaults to the middle of the score range): Where the accuracy cuts, in units of the
            labels. Papers on AVA (1 to 10) cut at 5.
        by (`str`, *optional*): A column of the data whose values make groups.
        bootstraps (`int`, *optional*, defaults to 1000): Resamples behind each interval; 0 for none.
        seed (`int`, *optional*, defaults to 0): Of the resamples.
        rescale (`bool`, *optional*, defaults to `False`): Map predictions linearly from the model's score range to
            that of the labels, where these differ.
        allow_leak (`bool`, *optional*, defaults to `False`): Go on if the model was trained on some of the pictures,
            with a result that says so.

    Returns:
        [`Evaluation`].

    Raises:
        LeakError: If the model was trained on some of the pictures, as far as the file tells that lies beside it.
        ValueError: If there is nothing to compare, or the score ranges differ and `rescale` is not set. Labels whose
            range was only guessed take the model's, if they fit into it.
        ImportError: If scipy is missing.
    """
    check_before_scoring(rated, by)
    names = shared_attributes(scorer.model.config, rated, attributes)
    scales = {name: Scale.of(scorer.model.config, rated, name, cut, rescale) for name in names}
    overlap, told = compare_with_training(scorer.model, rated, allow_leak)
    records = scorer(Sources(rated), batch_size=batch_size, num_workers=num_workers, attributes=names)
    progress = tqdm(records, total=len(rated), unit="picture", leave=False, disable=None)  # None: on a terminal only
    pictures, record = [], {}
    for index, record in enumerate(progress):
        pictures.append(compare(rated[index], record, scales))
    pictures = with_short_paths(pictures)
    return Evaluation(
        **{name: record[name] for name in ("model", "revision", "version", "higher_is_better")},
        data=data,
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        protocols=rated.protocols,
        overlap=overlap,
        notes=told + [note for name, scale in scales.items() for note in scale.notes(name)],
        by=by,
        bootstraps=bootstraps,
        seed=seed,
        results={
            name: measure_attribute(pictures, name, scale.labels, scale.cut, by, name == names[0], bootstraps, seed)
            for name, scale in scales.items()
        },
        pictures=pictures,
    )


# Before scoring ------------------------------------------------------------------------------------------------------


def check_before_scoring(rated: Any, by: str | None) -> None:
    """Refuse, before hours of scoring, what could not be measured after them."""
    if importlib.util.find_spec("scipy") is None:
        raise ImportError('evaluation needs scipy: pip install "roc4mllm[train]"')
    if not len(rated) or rated.score_range is None:
        raise ValueError("the data hold no scores to compare with")
    if by is not None and by not in rated.columns:
        there = ", ".join(rated.columns) or "none"
        raise ValueError(f"the data have no column {by!r} to group by; further columns: {there}")


def shared_attributes(config: Any, rated: Any, wanted: Sequence[str] | None) -> list[str]:
    """What to compare: `wanted`, or all that the model scores and the data rate, in the model's order."""
    known, labelled = list(config.attributes), list(rated.attributes)
    names = [name for name in known if name in labelled] if wanted is None else list(wanted)
    missing = [name for name in names if name not in known or name not in labelled]
    if missing or not names:
        which = f"{', '.join(missing)} cannot be compared" if names else "no attribute can be compared"
        raise ValueError(f"{which}: the model scores {', '.join(known)}, the data rate {', '.join(labelled)}")
    return names


@dataclass(frozen=True)
class Scale:
    """Score range of an attribute by the model and by the labels, and where to cut the latter."""

    model: Range
    labels: Range
    cut: float
    assumed: bool = False

    @classmethod
    def of(cls, config: Any, rated: Any, name: str, cut: float | None, rescale: bool) -> "Scale":
        """
        Raises:
            ValueError: If the ranges differ and `rescale` is not set, or the cut is outside that of the labels.
        """
        low, high = attribute_range(config, list(config.attributes).index(name))
        model, labels = (low, high), label_range(rated, name)
        if rated.range_guessed and rescale:
            raise ValueError("rescale=True needs a stated score_range of the labels; nothing is mapped to a guess")
        assumed = rated.range_guessed and low <= labels[0] and labels[1] <= high
        labels = model if assumed else labels
        if model != labels and not rescale:
            raise ValueError(
                f"the labels of {name} go from {labels[0]:g} to {labels[1]:g}, the model's scores from {low:g} to "
                f"{high:g}: MAE and RMSE need the same units. State the score_range of the labels if it is another, "
                "or set rescale=True to map the predictions linearly to it"
            )
        cut = sum(labels) / 2 if cut is None else cut
        if not labels[0] < cut < labels[1]:
            raise ValueError(
                f"the cut {cut:g} is not inside the score range of {name}, {labels[0]:g} to {labels[1]:g}"
            )
        return cls(model, labels, cut, assumed)

    @property
    def stretch(self) -> float:
        """Units of the labels per unit of the model."""
        return (self.labels[1] - self.labels[0]) / (self.model[1] - self.model[0])

    def to_labels(self, score: float) -> float:
        """A score of the model in units of the labels; the very same number where the ranges agree."""
        return score if self.model == self.labels else self.labels[0] + (score - self.model[0]) * self.stretch

    def notes(self, name: str) -> list[str]:
        """What a reader has to know."""
        (low, high), (start, end) = self.model, self.labels
        if self.assumed:
            return [f"{name}: the data state no score range, so the model's is taken, {low:g} to {high:g}"]
        mapped = f"{name}: predictions are mapped linearly from {low:g} to {high:g} to {start:g} to {end:g}"
        return [mapped] if self.model != self.labels else []


def label_range(rated: Any, name: str) -> Range:
    """Score range of an attribute of the data, which hold one pair for all or one for each."""
    ranges = rated.score_range
    low, high = ranges if isinstance(ranges, tuple) else ranges[rated.attributes.index(name)]
    return (float(low), float(high))


class Sources(Dataset):
    """The pictures of rated rows, one by one, for the scorer and its workers."""

    def __init__(self, rated: Any):
        self.rated = rated

    def __len__(self) -> int:
        return len(self.rated)

    def __getitem__(self, index: int) -> Any:
        return self.rated[index]["image"]


# Scored pictures -----------------------------------------------------------------------------------------------------


def compare(row: Mapping[str, Any], record: Mapping[str, Any], scales: Mapping[str, Scale]) -> PredictedPicture:
    """A row of the data and the record of its picture, in units of the labels."""
    first, scale = next(iter(scales.items()))
    image = row["image"].get("path") if isinstance(row["image"], Mapping) else row["image"]
    failed = record["error"] is not None
    scores = {} if failed else record["attributes"]
    return PredictedPicture(
        picture=image if isinstance(image, str) else row["where"],
        where=row["where"],
        labels={name: row["scores"][name] for name in scales if name in row["scores"]},
        predicted={name: scales[name].to_labels(score) for name, score in scores.items()},
        columns=row["columns"],
        error=record["error"],
        std=None if record["std"] is None else record["std"] * scale.stretch,
        distribution=record["distribution"],
        votes=row["votes"].get(first),
    )


__all__ = ["Evaluation", "evaluate_scorer"]
