"""
Two scorers in stages: a fast one looks at every picture, and a slow one at those whose fast score lies in a band, as
round the threshold that decides what is kept. Outside the band the fast score is the score.
"""

import copy
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from ..processing_roc4mllm.pipeline_image_aesthetics import model_id
from .tables.score_table import CASCADE_COLUMNS, Row

WAITING = 1024  # rows that may wait for a picture before them
ROUNDED = 1e-6  # a CSV holds six decimals


class Stopwatch:
    """A function, and the seconds that its calls have taken."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function, self.seconds = function, 0.0

    def __call__(self, *args: Any, **options: Any) -> Any:
        start = time.perf_counter()
        try:
            return self.function(*args, **options)
        finally:
            self.seconds += time.perf_counter() - start


class Cascade:
    """
    A scorer of two stages.

    Its records are those of the scorer that decided, whose range and name they hold; `fast_score`, `fast_model` and
    `fast_revision` stand in all of them. Those outside the band come at once, unless one inside stands before them:
    the slow scorer gets several at a time.

    Args:
        fast ([`ImageAestheticsPipeline`]): Scores every picture.
        slow ([`ImageAestheticsPipeline`]): Scores those in the band.
        band (`tuple[float, float]`): Lowest and highest fast score of the band, in units of the fast scorer.
        attributes (sequence of `str`, *optional*): What to score; all of the slow scorer's by default. The band is of
            the first one.

    Raises:
        ValueError: If the fast scorer does not know the first attribute, if the band does not lie in its range, or if
            higher is better for one of the two only.
    """

    columns = CASCADE_COLUMNS

    def __init__(
        self, fast: Any, slow: Any, band: tuple[float, float], attributes: Sequence[str] | None = None
    ) -> None:
        self.attributes = list(attributes or slow.model.config.attributes)
        self.fast_attributes = [name for name in self.attributes if name in fast.model.config.attributes]
        if self.attributes[0] not in self.fast_attributes:
            raise ValueError(
                f"the fast model does not score {self.attributes[0]}, which the band would be of; it scores "
                f"{', '.join(fast.model.config.attributes)}"
            )
        check_band(fast, self.attributes[0], band)
        if fast.model.config.higher_is_better != slow.model.config.higher_is_better:
            raise ValueError("for one of the two models higher is better, for the other lower: they do not agree")
        self.fast, self.slow, self.band = timed(fast), timed(slow), band
        self.fast_name, self.slow_name = model_id(fast.model), model_id(slow.model)
        self.counts = {"fast": 0, "slow": 0}  # pictures scored by each, without those that cannot be read

    @property
    def model(self) -> Any:
        """The slow scorer's, whose attributes the records have."""
        return self.slow.model

    def __call__(
        self, sources: Iterable[Any], *, batch_size: int = 8, num_workers: int = 0, **_: Any
    ) -> Iterator[dict[str, Any]]:
        """
        Records in the order of the sources.

        Args:
            sources (iterable): Pictures, as the pipeline takes them.
            batch_size (`int`, *optional*, defaults to 8): Pictures per forward pass of each scorer.
            num_workers (`int`, *optional*, defaults to 0): Processes that read pictures for the fast scorer.
        """
        held: deque[Any] = deque()  # sources that the fast scorer has under way

        def noted() -> Iterator[Any]:
            for source in sources:
                held.append(source)
                yield source

        options = {"batch_size": batch_size, "num_workers": num_workers, "attributes": self.fast_attributes}
        waiting: list[dict[str, Any]] = []
        chosen: dict[int, Any] = {}  # sources in the band, by their place in `waiting`
        for record in self._fast_records(noted(), options):
            source = held.popleft() if held else None
            if self._in_band(record["score"]):
                chosen[len(waiting)] = source
            if not chosen:
                yield record
                continue
            waiting.append(record)
            if len(chosen) == 4 * batch_size or len(waiting) == WAITING:
                yield from self._settle(waiting, chosen, batch_size)
        yield from self._settle(waiting, chosen, batch_size)

    def _in_band(self, score: float | None) -> bool:
        low, high = self.band
        return score is not None and low <= score <= high

    def _fast_records(self, sources: Iterable[Any], options: dict[str, Any]) -> Iterator[dict[str, Any]]:
        for record in self.fast(sources, **options):
            self.counts["fast"] += record["score"] is not None
            yield record | beside(record)

    def _settle(self, waiting: list[dict[str, Any]], chosen: dict[int, Any], batch_size: int) -> list[dict[str, Any]]:
        """All that waits, with the slow scorer's records of those in the band; nothing waits then."""
        sources = list(chosen.values())
        records = self.slow(sources, batch_size=batch_size, attributes=self.attributes) if sources else []
        for place, record in zip(chosen, records, strict=True):
            waiting[place] = record | {name: waiting[place][name] for name in CASCADE_COLUMNS}
        self.counts["slow"] += len(sources)
        settled = list(waiting)
        waiting.clear()
        chosen.clear()
        return settled

    @property
    def seconds(self) -> dict[str, float]:
        """What the forward passes of each have taken, reading apart."""
        return {"fast": self.fast.forward.seconds, "slow": self.slow.forward.seconds}

    def take_totals(self) -> dict[str, dict[str, float]]:
        """Pictures and seconds of each since this was last asked."""
        totals: dict[str, dict[str, float]] = {"counts": dict(self.counts), "seconds": self.seconds}
        self.counts = dict.fromkeys(self.counts, 0)
        self.fast.forward.seconds = self.slow.forward.seconds = 0.0
        return totals

    def add_totals(self, totals: Mapping[str, Mapping[str, Any]]) -> None:
        """Count what the same cascade has done in another process, as it took its totals."""
        for name, scorer in (("fast", self.fast), ("slow", self.slow)):
            self.counts[name] += totals["counts"][name]
            scorer.forward.seconds += totals["seconds"][name]

    def saving(self) -> str:
        """What the band saved, from the forward passes so far: both models' pictures are read, each in its own way."""
        fast, slow = self.counts["fast"], self.counts["slow"]
        low, high = self.band
        line = f"{slow} of {fast} with a fast score from {low:g} to {high:g} went to {self.slow_name}"
        if not slow:
            return line
        alone = self.seconds["slow"] / slow * fast
        factor = alone / sum(self.seconds.values())
        words = f"{factor:.1f} times as fast" if factor >= 1 else f"{1 / factor:.1f} times as slow"
        return f"{line}: {words} as that model alone (estimated; forward passes without reading)"

    def check_row(self, row: Row) -> None:
        """
        Refuse a row of an earlier run in which another band decided.

        Args:
            row (`dict`): As it stands in a table; values of a CSV are texts.

        Raises:
            ValueError: If the fast scorer decided inside this band, or the slow one outside of it.
        """
        if row.get("fast_score") in (None, ""):
            return  # the fast scorer failed, which no band decides
        (low, high), score = self.band, float(row["fast_score"])
        if min(abs(score - low), abs(score - high)) <= ROUNDED or self.fast_name == self.slow_name:
            return  # it cannot be told
        inside = low <= score <= high
        if inside == (row["model"] == self.fast_name):
            raise ValueError(
                f"the rows so far are of another band: {row['path']!r} was decided by {row['model']}, and its fast "
                f"score {score:g} lies {'inside' if inside else 'outside of'} the band {low:g} to {high:g} of this "
                "run: resume with the same band, or write another file"
            )


def beside(record: Mapping[str, Any]) -> dict[str, Any]:
    """What a record of the fast scorer tells beside the score that stands in the end: `CASCADE_COLUMNS`."""
    return {f"fast_{name}": record[name] for name in ("score", "model", "revision")}


def timed(scorer: Any) -> Any:
    """The same scorer, whose forward passes are timed: they end with the results on the CPU."""
    scorer = copy.copy(scorer)
    scorer.forward = Stopwatch(scorer.forward)
    return scorer


def check_band(fast: Any, attribute: str, band: tuple[float, float]) -> None:
    """Refuse a band in which the fast scorer has no scores."""
    low, high = fast.postprocess({"error": "none"}, attributes=[attribute])["score_range"]
    if not low <= band[0] <= band[1] <= high:
        raise ValueError(
            f"got the band {band[0]:g} to {band[1]:g}; expected LOW <= HIGH in the units of the fast model, whose "
            f"scores go from {low:g} to {high:g}"
        )


__all__ = ["Cascade", "beside"]
