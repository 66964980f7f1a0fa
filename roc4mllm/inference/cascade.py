"""
Two scorers in stages: a fast one looks at every picture, and a slow one at those whose fast score lies in a band, as
round the threshold that decides what is kept. Outside the band the fast score is the score.
"""

import itertools
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from .tables.score_table import CASCADE_COLUMNS

BLOCK = 1024  # pictures that one stage does before the other: what starting workers costs is then small


class Cascade:
    """
    A scorer of two stages.

    Its records are those of the scorer that decided, whose range and name they hold; `fast_score` and `fast_model`
    stand in all of them.

    Args:
        fast ([`ImageAestheticsPipeline`]): Scores every picture.
        slow ([`ImageAestheticsPipeline`]): Scores those in the band.
        band (`tuple[float, float]`): Lowest and highest fast score of the band, in units of the fast scorer.

    Raises:
        ValueError: If the band does not lie in the range of the fast scorer, or higher is better for one of the two
            only.
    """

    columns = CASCADE_COLUMNS

    def __init__(self, fast: Any, slow: Any, band: tuple[float, float]) -> None:
        check_band(fast, band)
        if fast.model.config.higher_is_better != slow.model.config.higher_is_better:
            raise ValueError("for one of the two models higher is better, for the other lower: they do not agree")
        self.fast, self.slow, self.band = fast, slow, band
        self.counts = {"fast": 0, "slow": 0}  # pictures scored by each
        self.seconds = {"fast": 0.0, "slow": 0.0}

    @property
    def model(self) -> Any:
        """The slow scorer's, whose attributes the records have."""
        return self.slow.model

    def __call__(
        self, sources: Iterable[Any], *, attributes: Sequence[str] | None = None, **options: Any
    ) -> Iterator[dict[str, Any]]:
        """
        Records in the order of the sources.

        Args:
            sources (iterable): Pictures, as the pipeline takes them.
            attributes (sequence of `str`, *optional*): What to score; the fast scorer gives those of them it knows,
                beside its main one, which is compared with the band.
            **options: `batch_size`, `num_workers`.
        """
        stream = iter(sources)
        while block := list(itertools.islice(stream, BLOCK)):
            records = self._timed("fast", block, attributes=fast_attributes(self.fast, attributes), **options)
            told = [{"fast_score": record["score"], "fast_model": record["model"]} for record in records]
            places = [place for place, record in enumerate(records) if self._in_band(record["score"])]
            chosen = [block[place] for place in places]
            for place, record in zip(
                places, self._timed("slow", chosen, attributes=attributes, **options), strict=True
            ):
                records[place] = record
            yield from (record | beside for record, beside in zip(records, told, strict=True))

    def _in_band(self, score: float | None) -> bool:
        low, high = self.band
        return score is not None and low <= score <= high

    def _timed(self, stage: str, sources: list[Any], **options: Any) -> list[dict[str, Any]]:
        start = time.perf_counter()
        records: list[dict[str, Any]] = list(getattr(self, stage)(sources, **options)) if sources else []
        self.seconds[stage] += time.perf_counter() - start
        self.counts[stage] += len(records)
        return records

    def saving(self) -> str:
        """What the band saved, from the times so far."""
        fast, slow = self.counts["fast"], self.counts["slow"]
        low, high = self.band
        line = f"{slow} of {fast} with a fast score from {low:g} to {high:g} went to {self.slow.model.name_or_path}"
        if not slow:
            return line
        alone = self.seconds["slow"] / slow * fast
        return f"{line}: {alone / sum(self.seconds.values()):.1f} times as fast as that model alone (estimated)"


def check_band(fast: Any, band: tuple[float, float]) -> None:
    """Refuse a band in which the fast scorer has no scores."""
    low, high = fast.postprocess({"error": "none"})["score_range"]
    if not low <= band[0] <= band[1] <= high:
        raise ValueError(
            f"got the band {band[0]:g} to {band[1]:g}; expected LOW <= HIGH in the units of the fast model, whose "
            f"scores go from {low:g} to {high:g}"
        )


def fast_attributes(fast: Any, wanted: Sequence[str] | None) -> list[str]:
    """The fast scorer's main attribute, then those wanted that it also knows."""
    known = list(fast.model.config.attributes)
    return [known[0], *(name for name in wanted or known if name in known[1:])]


__all__ = ["Cascade"]
