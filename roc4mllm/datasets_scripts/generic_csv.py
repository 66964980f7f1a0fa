"""
Any table of pictures and ratings: one .csv or .tsv file, columns known by name or named by the user.

| role | columns that are taken for it |
|---|---|
| `image` | image, path, file_name, filename, image_path, image_name, img |
| `score` | score, mean, mos, gt_score, mean_score, aesthetic_score, rating |
| `std` | std, score_std, sd |
| `votes` | one column per level: r1 …, votes_1 …, vote_1 …, 1 … |
| `image_id`, `split`, `theme`, `comment`, `rater_id`, `num_ratings` | a column of the name |

Capitals do not matter. The range of the scores has to be stated: guessing it would put units on record that nobody
knows.
"""

import functools
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from .data_set import DataSet
from .raw_folder import RawFolder
from .raw_tables import RawRow, count, number, read_header, read_table
from .schema import Range, Row, attribute, picture_row

ROLES = {
    "image": ("image", "path", "file_name", "filename", "image_path", "image_name", "img"),
    "score": ("score", "mean", "mos", "gt_score", "mean_score", "aesthetic_score", "rating"),
    "std": ("std", "score_std", "sd"),
    "image_id": ("image_id",),
    "split": ("split",),
    "theme": ("theme",),
    "comment": ("comment", "comments", "caption"),
    "rater_id": ("rater_id",),
    "num_ratings": ("num_ratings",),
}
VOTE_PREFIXES = ("votes_", "vote_", "r", "")
SPLITS = {"training": "train", "val": "validation", "dev": "validation", "testing": "test"}
DELIMITERS = ",;\t="
NAME = re.compile(r"[a-z0-9][a-z0-9._-]*")


def generic_csv(
    score_range: Range,
    *,
    name: str = "csv",
    columns: Mapping[str, str] | None = None,
    attributes: Sequence[str] = (),
) -> DataSet:
    """
    A data set for a table of the user's own.

    Args:
        score_range (pair of `float`): Lowest and highest possible score, also of the attributes.
        name (`str`, *optional*, defaults to `"csv"`): What stands in `source` and before the protocol.
        columns (`dict[str, str]`, *optional*): Column by role, where it has another name.
        attributes (sequence of `str`, *optional*): Further columns that were rated.

    Raises:
        ValueError: If a role is none of those above, or the name could not be one of a data set.
    """
    columns = dict(columns or {})
    if unknown := sorted(columns.keys() - ROLES.keys()):
        raise ValueError(f"No role {', '.join(unknown)}; the roles are {', '.join(ROLES)}.")
    if not NAME.fullmatch(name):
        raise ValueError(f"The name of a data set is of small letters, digits, '-', '_' and '.'; got {name!r}.")
    return DataSet(
        name=name,
        title=name,
        read=functools.partial(read, columns=columns, attributes=attributes),
        row=functools.partial(row, score_range=score_range, attributes=attributes),
        protocols={"own": "the column `split` of the table, or all in train"},
        score=f"rating of the table, from {score_range[0]:g} to {score_range[1]:g}",
        homepage="a table of the user's",
        terms="Those of the pictures and ratings, which only their owner knows.",
        citation="none is known",
        notes=(f"Attributes: {', '.join(attributes)}, in the range of the score.",) if attributes else (),
    )


def row(fields: dict[str, Any], score_range: Range, attributes: Sequence[str] = ()) -> Row:
    """One row of the table, fields by role; `votes` is a list of cells, empty where there are none."""
    votes = [count({"votes": cell}, "votes") for cell in fields["votes"]] if any(fields["votes"]) else None
    split = fields["split"] or "train"
    return picture_row(
        fields["image"],
        image_id=fields["image_id"] or None,
        split=SPLITS.get(split, split),
        score_range=score_range,
        score=number(fields, "score") if fields["score"] else None,
        std=number(fields, "std") if fields["std"] else None,
        votes=votes,
        num_ratings=count(fields, "num_ratings") if fields["num_ratings"] else None,
        attributes=[attribute(name, number(fields, name), score_range) for name in attributes if fields[name]],
        theme=fields["theme"] or None,
        comments=[fields["comment"]] if fields["comment"] else [],
        rater_id=fields["rater_id"] or None,
    )


def read(
    raw: RawFolder, protocol: str, columns: Mapping[str, str] | None = None, attributes: Sequence[str] = ()
) -> Iterator[RawRow]:
    """Rows of the one table, fields by role."""
    tables = [*raw.find_all("*.csv"), *raw.find_all("*.tsv")]
    if len(tables) != 1:
        names = ", ".join(os.path.relpath(path, raw.path) for path in tables[:5])
        raise ValueError(
            f"Expected one .csv or .tsv file, found {len(tables)}: {names or 'none'}; name the file itself."
        )
    path = tables[0]
    header = max((read_header(path, mark) for mark in DELIMITERS), key=len)
    delimiter = next(mark for mark in DELIMITERS if read_header(path, mark) == header)
    chosen = choose_columns(header, columns or {})
    votes = vote_columns(header)
    if missing := [name for name in attributes if name not in header]:
        raise ValueError(f"{path.name} has no column {', '.join(missing)}; it has {', '.join(header)}.")
    for found in read_table(path, delimiter=delimiter):
        fields: dict[str, Any] = {role: found.fields.get(column, "") for role, column in chosen.items()}
        fields |= {name: found.fields.get(name, "") for name in attributes}
        fields["votes"] = [found.fields.get(column, "") for column in votes]
        yield found._replace(fields=fields)


def choose_columns(header: Sequence[str], named: Mapping[str, str]) -> dict[str, str]:
    """Column by role, `""` where there is none."""
    known = {column.casefold(): column for column in reversed(header)}
    chosen = {}
    for role, names in ROLES.items():
        wanted = [named[role]] if role in named else names
        chosen[role] = next((known[name.casefold()] for name in wanted if name.casefold() in known), "")
        if role in named and not chosen[role]:
            raise ValueError(f"No column {named[role]!r} for {role}; the table has {', '.join(header)}.")
    if not chosen["image"]:
        raise ValueError(f"No column of pictures ({', '.join(ROLES['image'])}); the table has {', '.join(header)}.")
    return chosen


def vote_columns(header: Sequence[str]) -> list[str]:
    """One column per level, or none."""
    known = {column.casefold(): column for column in header}
    for prefix in VOTE_PREFIXES:
        columns: list[str] = []
        while (column := f"{prefix}{len(columns) + 1}") in known:
            columns.append(known[column])
        if len(columns) > 1:
            return columns
    return []


__all__ = ["generic_csv"]
