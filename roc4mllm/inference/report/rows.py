"""
What a report shows, read from tables of scores: pictures by model, failures, and labels found for their paths.

Scores are compared only within a scale: one model and revision, one range, one direction. Several tables, or several
models in one, give several scales, and nothing is averaged or ranked across them.
"""

import itertools
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..tables.score_reading import Scale, as_number, scale_of
from ..tables.score_table import CASCADE_COLUMNS, GENERAL_SCORE, JSON_ONLY, ORIGIN_COLUMNS, SCORE_COLUMNS, Row

LABEL = "label"  # the column of a table that holds what people said
NO_ATTRIBUTES = frozenset(
    (*SCORE_COLUMNS, GENERAL_SCORE, *CASCADE_COLUMNS, *ORIGIN_COLUMNS, *JSON_ONLY, LABEL, "")
)  # "": surplus cells of a CSV line


@dataclass(slots=True)
class ScoredPicture:
    """
    A row with a score.

    Args:
        number (`int`):
            Its place among all rows of the report, from 1.
        path (`str`):
            The `path` of the row, as it stands there.
        score (`float`):
            In units of the scale.
        std (`float`, *optional*):
            Standard deviation of the levels behind the score, in its units.
        attributes (`dict[str, float]`):
            Further numbers by the names of their columns.
        label (`float`, *optional*):
            What people said.
        general_score (`float`, *optional*):
            Where `score` is by one person's taste: the model's own, in the same units.
        distribution (`list[float]`, *optional*):
            Probability of each level of the score, lowest first.
    """

    number: int
    path: str
    score: float
    std: float | None = None
    attributes: dict[str, float] = field(default_factory=dict)
    label: float | None = None
    general_score: float | None = None
    distribution: list[float] | None = None


@dataclass(slots=True)
class FailedPicture:
    """A row without a score: its place among all rows, its path, the reason, and the model that was asked."""

    number: int
    path: str
    error: str
    model: str | None


@dataclass
class Scores:
    """All rows of a report: scored pictures by scale in the order of the tables, and failures."""

    pictures: dict[Scale, list[ScoredPicture]] = field(default_factory=dict)
    failures: list[FailedPicture] = field(default_factory=list)
    versions: list[str] = field(default_factory=list)

    @property
    def rows(self) -> int:
        """Number of all rows."""
        return sum(map(len, self.pictures.values())) + len(self.failures)

    @property
    def distinct(self) -> int:
        """Number of pictures, by their paths: several models may have scored the same ones."""
        scored = {picture.path for group in self.pictures.values() for picture in group}
        return len(scored | {failure.path for failure in self.failures})


# Reading -------------------------------------------------------------------------------------------------------------


def collect_scores(tables: Iterable[Iterable[Row]]) -> Scores:
    """
    Sort the rows of tables by scale.

    Args:
        tables (iterable of iterables of `dict`):
            What `read_table` returned for each file; a row is let go of when it was taken up.

    Returns:
        [`Scores`]

    Raises:
        ValueError: If a score, range, std or label is not a number, if a table has no column of scores, or if there is
            no row at all.
    """
    scores, versions, number = Scores(), set(), 0
    for rows in tables:
        numbers = NumberColumns()
        first, is_scored = number + 1, False
        for count, row in enumerate(rows, start=1):
            number += 1
            numbers.add(row)
            is_scored |= "score" in row
            add_row(scores, row, number, f"row {count}")
            versions |= {str(row["version"])} if row.get("version") else set()
        if number >= first and not is_scored:
            raise ValueError(f"a table has no column 'score'; its columns are {', '.join(filter(None, row))}")
        keep_attributes(scores, numbers.attributes(), first)
    if not number:
        raise ValueError("there is nothing to report: the table has no rows")
    scores.versions = sorted(versions)
    return scores


def add_row(scores: Scores, row: Row, number: int, where: str) -> None:
    """Take up one row, with every further column that holds a number there; `where` names it in messages."""
    names = ("score", "std", LABEL, GENERAL_SCORE)
    score, std, label, general = (as_number(row.get(name), f"{where}, {name}") for name in names)
    path, error, model = str(row["path"]), row.get("error"), row.get("model")
    if score is None or error is not None:
        scores.failures.append(FailedPicture(number, path, str(error or "no score"), model and str(model)))
        return
    numbers = {name: number_or_none(row[name]) for name in row if name not in NO_ATTRIBUTES}
    values = {name: value for name, value in numbers.items() if value is not None}
    picture = ScoredPicture(number, path, score, std, values, label, general, levels_of(row.get("distribution")))
    scores.pictures.setdefault(scale_of(row, where), []).append(picture)


class NumberColumns:
    """Which columns beyond those of every table hold nothing but numbers; `score --alias` repeats the score in one."""

    def __init__(self) -> None:
        self.differing: dict[str, bool] = {}  # whether a column is more than the score again; in their order
        self.texts: set[str] = set()

    def add(self, row: Row) -> None:
        """Take note of a row."""
        score = number_or_none(row.get("score"))
        for name, value in row.items():
            if name in NO_ATTRIBUTES:
                continue
            self.differing.setdefault(name, False)
            if value is not None:
                number = number_or_none(value)
                self.differing[name] |= number != score
                if number is None and not holds_number(value):
                    self.texts.add(name)

    def attributes(self) -> list[str]:
        """Their names."""
        return [name for name, differs in self.differing.items() if differs and name not in self.texts]


def keep_attributes(scores: Scores, attributes: Sequence[str], first: int) -> None:
    """Drop other columns of the rows from number `first` on."""
    for group in scores.pictures.values():
        for picture in itertools.takewhile(lambda picture: picture.number >= first, reversed(group)):
            known = picture.attributes
            picture.attributes = {name: known[name] for name in attributes if name in known}


def number_or_none(value: Any) -> float | None:
    """The finite number that a cell holds, None for whatever else."""
    try:
        return as_number(value, "")
    except ValueError:
        return None


def holds_number(value: Any) -> bool:
    """Whether a cell is empty or holds a number, which may be NaN or infinite."""
    try:
        as_number(value, "")
    except ValueError:
        return False
    return True


def levels_of(distribution: Any) -> list[float] | None:
    """The probabilities of a JSON line, if they are some."""
    values = [number_or_none(value) for value in distribution] if isinstance(distribution, list) else []
    known = [value for value in values if value is not None and value >= 0]
    return known if len(known) == len(values) > 1 and sum(known) > 0 else None


# Labels --------------------------------------------------------------------------------------------------------------


def add_labels(scores: Scores, labels: Mapping[str, float], folder: str | os.PathLike[str]) -> int:
    """
    Give pictures the labels of their paths: the very path, else the same file, else a file name that only one has.

    Args:
        scores ([`Scores`]):
            Changed in place; a label of the table gives way to one found here.
        labels (mapping of `str` to `float`):
            By path, which starts from `folder` or the current folder.
        folder (`str` or path):
            Where the labels were read.

    Returns:
        `int`: the number of pictures that have got one, each counted once per model.

    Raises:
        ValueError: If none has.
    """
    pictures = [picture for group in scores.pictures.values() for picture in group]
    files = {
        os.path.abspath(os.path.join(start, path)): label for path, label in labels.items() for start in ("", folder)
    }
    label_names = Counter(map(os.path.basename, labels))
    names = {name: label for path, label in labels.items() if label_names[name := os.path.basename(path)] == 1}
    taken = Counter(map(os.path.basename, {picture.path for picture in pictures}))
    found = 0
    for picture in pictures:
        name = os.path.basename(picture.path)
        label = labels.get(picture.path, files.get(os.path.abspath(picture.path)))
        if label is None and taken[name] == 1:
            label = names.get(name)
        if label is not None:
            picture.label, found = label, found + 1
    if pictures and not found:
        raise ValueError(
            f"none of the {len(labels)} labels is of a picture with a score: they begin with "
            f"{next(iter(labels), '')!r}, the pictures with {pictures[0].path!r}; paths or file names must be the same"
        )
    return found
