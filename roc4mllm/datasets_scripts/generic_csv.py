"""
Any table of pictures and ratings: one .csv or .tsv file, columns known by name or named by the user.

| role | columns that are taken for it |
|---|---|
| `image` | image, path, file_name, filename, image_path, image_name, img |
| `score` | score, mean, mos, gt_score, mean_score, aesthetic_score, rating |
| `std` | std, score_std, sd |
| `votes` | one column per level: r1 …, votes_1 …, vote_1 …, 1 … |
| `image_id`, `split`, `theme`, `comment`, `rater_id`, `num_ratings` | a column of the name |

Capitals do not matter, nor does a comma for the decimal point where semicolons stand between cells. The range of the
scores has to be stated: guessing it would put units on record that nobody knows.

A table of one's own has all the freedom that a published one has not: names with folders, names that several folders
hold, paths of the machine it was made on. A picture is only taken for the one that is meant if nothing else could be,
and only from the folder; of a path of a machine no more is kept than where the picture lies in it.
"""

import functools
import math
import os
import posixpath
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any

from .data_set import DataSet
from .raw_folder import RawFolder, is_absolute
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
SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "val", "valid", "dev"), "validation"),
    **dict.fromkeys(("test", "testing"), "test"),
}
DELIMITERS = ",;\t="
DECIMAL_COMMA = re.compile(r"[+-]?\d+,\d+")  # as Excel writes numbers in half of Europe, with semicolons between cells
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
        ValueError: If a role is none of those above, the name could not be one of a data set, or the range is none.
    """
    columns = dict(columns or {})
    low, high = score_range
    if not -math.inf < low < high < math.inf:
        raise ValueError(f"score_range is {low:g} to {high:g}; expected the lowest and the highest possible score.")
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
        score=f"rating of the table, from {low:g} to {high:g}",
        homepage="a table of the user's",
        terms="Those of the pictures and ratings, which only their owner knows.",
        citation="none is known",
        notes=(f"Attributes: {', '.join(attributes)}, in the range of the score.",) if attributes else (),
    )


def row(fields: dict[str, Any], score_range: Range, attributes: Sequence[str] = ()) -> Row:
    """One row of the table, fields by role; `votes` are cells by column, empty where there are none."""
    votes = [count(fields["votes"], column) for column in fields["votes"]] if any(fields["votes"].values()) else None
    split = fields["split"] or "train"
    return picture_row(
        fields["image"],
        image_id=fields["image_id"] or None,
        split=SPLITS.get(split.casefold(), split),
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
    path = the_table(raw)
    header = max((read_header(path, mark) for mark in DELIMITERS), key=len)
    delimiter = next(mark for mark in DELIMITERS if read_header(path, mark) == header)
    chosen, votes = choose_columns(header, columns or {}), vote_columns(header)
    if missing := [name for name in attributes if name not in header]:
        raise ValueError(f"{path.name} has no column {', '.join(missing)}; it has {', '.join(header)}.")
    if not ({"score", "comment"} & chosen.keys() or votes or attributes):
        raise ValueError(
            f"{path.name} has no column of scores ({', '.join(ROLES['score'])}), of votes or comments; it has "
            f"{', '.join(header)}. Name the one of scores: --column score=COLUMN."
        )
    meant: dict[str, str] = {}
    for found in read_table(path, delimiter=delimiter, need=[*chosen.values(), *attributes, *votes]):
        numbers = {chosen.get("score"), chosen.get("std"), *attributes} if delimiter == ";" else ()
        cells = found.fields | {name: with_point(found.fields.get(name, "")) for name in numbers if name}
        fields: dict[str, Any] = {role: cells.get(chosen[role], "") if role in chosen else "" for role in ROLES}
        fields |= {name: cells.get(name, "") for name in attributes}
        fields["votes"] = {column: cells.get(column, "") for column in votes}
        yield found._replace(fields=fields, problem=found.problem or settle_picture(raw, fields, meant))


def the_table(raw: RawFolder) -> Path:
    """The one table that there is."""
    tables = [*raw.find_all("*.csv"), *raw.find_all("*.tsv")]
    if len(tables) != 1:
        names = ", ".join(os.path.relpath(path, raw.path) for path in tables[:5]) or f"none{raw.packed()}"
        raise ValueError(f"Expected one .csv or .tsv file, found {len(tables)}: {names}; name the file itself.")
    return tables[0]


def with_point(cell: str) -> str:
    """A number with a decimal point."""
    return cell.replace(",", ".") if DECIMAL_COMMA.fullmatch(cell) else cell


def settle_picture(raw: RawFolder, fields: dict[str, Any], meant: dict[str, str]) -> str:
    """
    Say which picture a row means, and what it is called.

    Args:
        raw ([`RawFolder`]): Where the pictures lie.
        fields (`dict`): `image` becomes the place in the folder of a path of a machine; `image_id` is that or `image`.
        meant (`dict[str, str]`): What rows before called a picture, by its place; taken up here.

    Returns:
        `str`: Why it cannot be told, `""` otherwise. A picture that is nowhere is noted later.
    """
    if not fields["image"]:
        return ""
    name = fields["image"].replace("\\", "/")
    name = name if "://" in name else posixpath.normpath(name)
    root = f"{os.path.abspath(raw.path)}/"
    image = name.removeprefix(root)
    if is_absolute(image) and os.path.isfile(image):
        return "the picture lies outside of the folder; name one that holds the table and all its pictures"
    places = raw.places(image)
    if len(places) > 1:
        folders = " and in ".join(os.path.relpath(os.path.dirname(place), raw.path) for place in places[:2])
        return f"{image} lies in {folders}; give its folder too"
    if places and meant.setdefault(places[0], name) != name:
        return f"the only {posixpath.basename(image)} there is was {meant[places[0]]} in a row before"
    if places and is_absolute(image):
        image = shared_end(image, places[0])
    fields.update(image=image, image_id=fields["image_id"] or image)
    return ""


def shared_end(one: str, other: str) -> str:
    """What two paths have in common, from the end."""
    pairs = zip(one.split("/")[::-1], other.split("/")[::-1], strict=False)
    return "/".join([part for part, _ in takewhile(lambda pair: pair[0] == pair[1], pairs)][::-1])


def choose_columns(header: Sequence[str], named: Mapping[str, str]) -> dict[str, str]:
    """Column by role, for those roles that have one."""
    known = {column.casefold(): column for column in reversed(header)}
    told = f"the first line of the table has {', '.join(header) or 'nothing'}"
    chosen = {}
    for role, names in ROLES.items():
        wanted = [named[role]] if role in named else names
        if column := next((known[name.casefold()] for name in wanted if name.casefold() in known), None):
            chosen[role] = column
        elif role in named:
            raise ValueError(f"No column {named[role]!r} for {role}; {told}.")
    if "image" not in chosen:
        raise ValueError(f"No column of pictures ({', '.join(ROLES['image'])}); {told}.")
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
