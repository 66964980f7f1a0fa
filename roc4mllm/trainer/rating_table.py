"""All rows of a source of ratings by column, and how they are filled in: what is kept in memory of rated pictures."""

import os
import sys
from array import array
from collections.abc import Mapping
from typing import Any

import numpy as np

from .rating_checks import (
    BadRows,
    FoundRange,
    check_scores,
    count_levels,
    given_ranges,
    guess_range,
    is_url,
    level_weights,
    picture_folder,
    vote_means,
)
from .rating_records import RatingSource
from .rating_rows import ColumnRoles, RatedRow, is_missing, read_row


class RatingTable:
    """
    All rows of a source, by column: lists while it is filled, arrays when it is finished.

    Names of axes: R rows, A attributes, N levels. Unknown numbers are NaN.

    Args:
        source ([`RatingSource`]): Where the rows stand.
        roles ([`ColumnRoles`]): What its columns hold.
    """

    def __init__(self, source: RatingSource, roles: ColumnRoles):
        self.where, self.attributes = f"{source.name}, {source.unit}", roles.attributes
        self.also_rated = [name for name in source.attributes if name not in roles.attributes]
        self.score_columns = roles.scores
        self.numbers: Any = array("q")  # (R,)
        self.pictures: Any = [] if source.pictures is None else source.pictures
        self.same_picture: Any = None  # (R,), equal where the picture is
        self.contents: Any = None  # (R,), hashes of the pictures
        self.scores: Any = array("d")  # (R, A)
        self.stds: Any = array("d")  # (R, A)
        self.votes: Any = []  # a dict per row, then (R, A, N)
        self.vote_levels: dict[str, int] = {}  # as they were given
        self.comments: list[str | None] = []
        self.questions: list[str | None] = []
        further = [name for name in roles.further if name and name not in source.attribute_columns]
        self.columns: dict[str, list[Any]] = {name: [] for name in further}
        self.declared_ranges: dict[str, set[tuple[float, float]]] = {name: set() for name in roles.attributes}

    def add(self, number: int, picture: str | None, row: RatedRow, fields: Mapping[str, Any]) -> None:
        """Take up a row."""
        self.numbers.append(number)
        if picture is not None:
            self.pictures.append(picture)
        self.scores.extend(row.scores.get(name, np.nan) for name in self.attributes)
        self.stds.extend(row.stds.get(name, np.nan) for name in self.attributes)
        self.votes.append({name: array("d", counts) for name, counts in row.votes.items()} or None)
        self.comments.append(row.comment)
        self.questions.append(row.question and sys.intern(row.question))  # mostly the same one
        for name, values in self.columns.items():
            value = fields.get(name)
            values.append(sys.intern(value) if type(value) is str else value)  # one object for each theme
        for name, pair in row.score_ranges.items():
            self.declared_ranges[name].add(pair)

    def finish(self, num_levels: int | None, bad: BadRows) -> None:
        """
        Make arrays of the lists. The votes of all attributes get the number of levels of the main one's; rows whose
        votes have another number than the others of their attribute are noted.
        """
        num_rows, num_attributes = len(self.numbers), len(self.attributes)
        self.numbers = np.array(self.numbers)
        self.scores = np.array(self.scores).reshape(num_rows, num_attributes)
        self.stds = np.array(self.stds).reshape(num_rows, num_attributes)
        self._lay_out_votes(num_levels, bad)

    def _lay_out_votes(self, num_levels: int | None, bad: BadRows) -> None:
        main = self.attributes[0]
        for name in self.attributes:
            lengths = [len(votes[name]) for votes in self.votes if votes and name in votes]
            if own := count_levels(lengths, num_levels if name == main else None):
                self.vote_levels[name] = own
        levels = self.vote_levels.get(main) or num_levels or max(self.vote_levels.values(), default=0)
        weights = {name: level_weights(own, levels) for name, own in self.vote_levels.items() if own != levels}
        laid_out = np.full((len(self.votes), len(self.attributes), levels if self.vote_levels else 0), np.nan)
        for row, votes in enumerate(self.votes):
            for name, counts in (votes or {}).items():
                if len(counts) != self.vote_levels[name]:
                    reason = f"votes for {len(counts)} levels, expected {self.vote_levels[name]}"
                    bad.add(self.numbers[row], reason)
                    continue
                laid_out[row, self.attributes.index(name)] = counts @ weights[name] if name in weights else counts
        self.votes = laid_out


def fill_table(table: RatingTable, source: RatingSource, roles: ColumnRoles, bad: BadRows) -> int:
    """Take up the rows that can be read; the number of all."""
    count = 0
    for record in source:
        count += 1
        try:
            if record.problem:
                raise ValueError(record.problem)
            picture = picture_in(record.fields, roles.picture)
            table.add(record.number, picture, read_row(record.fields, roles), record.fields)
        except ValueError as error:
            bad.add(record.number, str(error))
    if not count:
        raise ValueError(f"{source.name} holds no rows{f' of the split {source.split!r}' if source.split else ''}.")
    return count


def picture_in(fields: Mapping[str, Any], column: str | None) -> str | None:
    """The path in a record, `None` where the source holds the pictures themselves."""
    if column is None:
        return None
    name = fields.get(column)
    if not isinstance(name, str) or is_missing(name):
        raise ValueError(f"{column} is {str(name)[:60]!r}; expected the path of a picture")
    return name


def place_pictures(table: RatingTable, source: RatingSource, pictures: str | os.PathLike[str] | None) -> str | None:
    """Make the paths of pictures absolute; the folder that they started from."""
    if source.pictures is not None:
        return None
    folder = picture_folder(table.pictures, source.folder, pictures)
    table.pictures = [
        name if is_url(name) else os.path.normpath(os.path.join(folder, name)) for name in table.pictures
    ]
    return folder


def find_ranges(table: RatingTable, score_range: Any, names: list[str]) -> list[FoundRange]:
    """Range of each attribute: given, declared in the rows, that of the votes, or guessed; empty without scores."""
    if score_range is not None:
        given = dict(zip(names, given_ranges(score_range, names, "as given"), strict=True))
        refuse_other_units(table.declared_ranges, given)
        return [given[name] for name in table.attributes]
    for name, pairs in table.declared_ranges.items():
        if len(pairs) > 1:
            raise ValueError(
                f"The rows declare several score ranges of {name} ({sorted(pairs)[:5]}), and their scores cannot be "
                "compared; state the score_range if they can."
            )
    if np.isnan(table.scores).all() and np.isnan(table.votes).all() and not any(table.declared_ranges.values()):
        return []
    return [range_of(table, place) for place in range(len(table.attributes))]


def refuse_other_units(declared: Mapping[str, set[tuple[float, float]]], given: Mapping[str, FoundRange]) -> None:
    """Scores in other units than those asked for would be taken for them where both ranges hold them."""
    for name, pairs in declared.items():
        low, high, _ = given[name]
        if len(pairs) == 1 and pairs != {(low, high)}:
            start, end = next(iter(pairs))
            raise ValueError(
                f"The rows declare scores of {name} from {start:g} to {end:g}; the score_range given, or that of the "
                f"scorer, is {low:g} to {high:g}. Leave it out, start from a backbone, or correct the rows."
            )


def range_of(table: RatingTable, place: int) -> FoundRange:
    """The range of one attribute: what the rows declare, that of the votes, or a guess."""
    name, scores = table.attributes[place], table.scores[:, place]  # (R,)
    if declared := table.declared_ranges[name]:
        return given_ranges(next(iter(declared)), [name], "as the file declares")[0]
    if levels := table.vote_levels.get(name):
        return FoundRange(1.0, float(levels), f"{levels} levels of votes")
    if np.isnan(scores).all():
        raise ValueError(f"No row has a score for {name!r}; leave the attribute out, or state the score_range.")
    return guess_range(scores[~np.isnan(scores)], name)


def check_ratings(table: RatingTable, ranges: list[FoundRange], bad: BadRows) -> None:
    """Note scores that cannot be right, and fill in the mean of the votes where a score is unknown."""
    for index, found in enumerate(ranges):
        name = table.attributes[index]
        scores, votes = table.scores[:, index], table.votes[:, index]  # views (R,) and (R, N)
        check_scores(scores, votes, found, table.score_columns.get(name, name), table.numbers, bad)
        np.copyto(scores, vote_means(votes, found), where=np.isnan(scores))


__all__ = ["RatingTable", "check_ratings", "fill_table", "find_ranges", "place_pictures"]
