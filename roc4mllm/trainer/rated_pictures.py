"""Rated pictures as rows to train on and to judge on. Pictures stay where they are until a row is asked for."""

import copy
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from torch.utils.data import Dataset

from ..datasets_scripts.split_guard import protocol_name
from .rating_checks import (
    FoundRange,
)
from .rating_table import RatingTable


class RatedPictures(Dataset):
    """
    Pictures with their ratings, in the order of their source; made by [`read_ratings`].

    `pictures[i]` is a dict: `image` (a path, or `{"bytes", "path"}` as the `datasets` library has it; not decoded),
    `scores` and `stds` by attribute (in units of the score range), `votes` by attribute (a number per level), each as
    far as they are known; `comment` and `question` (text or `None`); `columns`, the further columns of the source as
    they stand there; and `where`, the place of the row.

    Attributes:
        attributes (`list[str]`): What is scored, the main attribute first.
        score_range (pair of `float`, or one pair per attribute): Lowest and highest score; `None` where only comments
            are known.
        range_guessed (`bool`): Whether nobody stated the range, so that it was guessed from the scores.
        num_levels (`int`, *optional*): Number of levels of the votes, `None` without votes.
        columns (`list[str]`): Names of the further columns.
        also_rated (`list[str]`): Attributes that the source has and that were not asked for.
        warnings (`list[str]`): What the reading noticed and a person should see.
    """

    def __init__(self, table: RatingTable, rows: np.ndarray, ranges: list[FoundRange], warnings: list[str]):
        self._table, self._rows, self._ranges = table, rows, ranges
        self.attributes, self.columns = table.attributes, list(table.columns)
        pairs = [(found.low, found.high) for found in ranges]
        self.score_range = (pairs[0] if len(set(pairs)) == 1 else pairs) or None
        self.range_guessed = any(found.guessed for found in ranges)
        self.also_rated = table.also_rated
        self.num_levels: int | None = table.votes.shape[-1] or None
        self.warnings = warnings

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        table, row = self._table, self._rows[index]
        picture = table.pictures[row] if self.has_paths else table.pictures[int(table.numbers[row])]
        return {"image": picture, **self.rating(index)}

    @property
    def has_paths(self) -> bool:
        """Whether pictures are files; else the data set itself holds them."""
        return isinstance(self._table.pictures, list)

    def rating(self, index: int) -> dict[str, Any]:
        """A row without its picture, which is not read."""
        table, row = self._table, self._rows[index]
        return {
            "scores": known_numbers(table.attributes, table.scores[row]),
            "stds": known_numbers(table.attributes, table.stds[row]),
            "votes": {
                name: votes.tolist()
                for name, votes in zip(table.attributes, table.votes[row], strict=True)
                if votes.size and not np.isnan(votes[0])
            },
            "comment": table.comments[row],
            "question": table.questions[row],
            "columns": self._columns_of(row),
            "where": f"{table.where} {int(table.numbers[row])}",
        }

    def _columns_of(self, row: int) -> dict[str, Any]:
        return {name: values[row] for name, values in self._table.columns.items()}

    def outlines(self) -> Iterator[dict[str, Any]]:
        """What tells pictures, without reading them: `image` where it is a path, `content` (hash) and `columns`."""
        table = self._table
        for row in self._rows:
            image = table.pictures[row] if self.has_paths else None
            yield {"image": image, "content": int(table.contents[row]), "columns": self._columns_of(row)}

    @property
    def protocols(self) -> list[str]:
        """`<split_protocol>/<split>` of the rows, where they say so: numbers on two of them are not comparable."""
        columns = self._table.columns
        if "split_protocol" not in columns:
            return []
        known = {name: columns[name] for name in ("split_protocol", "split") if name in columns}
        found = {protocol_name({name: values[row] for name, values in known.items()}) for row in self._rows}
        return sorted(name for name in found if name)

    def take(self, indices: Iterable[int]) -> "RatedPictures":
        """The rows at some positions, in that order; the table behind them is shared."""
        taken = copy.copy(self)
        taken._rows = self._rows[np.fromiter(indices, dtype=np.int64)]
        taken.warnings = []  # they tell of all rows
        return taken

    def split(self, share: float, seed: int) -> tuple["RatedPictures", "RatedPictures"]:
        """
        Divide at random into rows for training and for evaluation, each in the old order.

        Rows of the same picture stay together, also of copies under several names.

        Args:
            share (`float`): Share of the pictures for evaluation, between 0 and 1; at least one is left on each side.
            seed (`int`): The same seed divides the same rows in the same way.

        Returns:
            `tuple[RatedPictures, RatedPictures]`: for training, for evaluation.

        Raises:
            ValueError: If the share is not between 0 and 1, or there are fewer than two different pictures.
        """
        same = self._table.same_picture[self._rows]  # (R,)
        pictures = np.unique(same)
        if not 0 < share < 1 or len(pictures) < 2:
            raise ValueError(
                f"Cannot put a share of {share} of {len(pictures)} different pictures aside; expected a "
                "share between 0 and 1, and two pictures at least."
            )
        count = min(max(round(share * len(pictures)), 1), len(pictures) - 1)
        aside = np.isin(same, np.random.default_rng(seed).permutation(pictures)[:count])  # (R,)
        return self.take(np.flatnonzero(~aside)), self.take(np.flatnonzero(aside))

    def summary(self) -> str:
        """What there is, for a person to read."""
        table, rows = self._table, self._rows
        lines = [f"{len(rows)} rows, {len(np.unique(table.same_picture[rows]))} pictures"]
        lines += [f"  split: {', '.join(self.protocols)}"] if self.protocols else []
        for index, name in enumerate(self.attributes):
            scores = table.scores[rows, index]
            known = scores[~np.isnan(scores)]
            line = f"  {name}: {len(known)} scores"
            if len(known):
                found = self._ranges[index]
                line += f" from {known.min():.4g} to {known.max():.4g}, mean {known.mean():.4g}"
                line += f", range {found.low:g} to {found.high:g} ({found.origin})"
                line += f", column {table.score_columns[name]!r}" if name in table.score_columns else ", mean of votes"
            lines.append(line)
            if self.num_levels and (count := int((~np.isnan(table.votes[rows, index, 0])).sum())):
                lines.append(f"    {count} with votes for {self.num_levels} levels")
            if count := int((~np.isnan(table.stds[rows, index])).sum()):
                lines.append(f"    {count} with a std")
        for kind, texts in (("comment", table.comments), ("question of its own", table.questions)):
            if count := sum(texts[row] is not None for row in rows):
                lines.append(f"  {count} with a {kind}")
        if self.also_rated:
            lines.append(f"  also rated, for attributes: {','.join(self.also_rated)}")
        if self.columns:
            lines.append(f"  further columns: {', '.join(self.columns)}")
        return "\n".join(lines)


def known_numbers(attributes: Sequence[str], values: np.ndarray) -> dict[str, float]:
    """Numbers by attribute, NaN left out."""
    return {name: float(value) for name, value in zip(attributes, values, strict=True) if not np.isnan(value)}


__all__ = ["RatedPictures"]
