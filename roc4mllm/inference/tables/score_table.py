"""
A table of scores: its columns, and how a record becomes a row.

One row per input, in input order. `score` and `std` are in the units of `score_min` to `score_max`, `normalized` goes
from 0 to 1. A row that failed has an `error` text and no score.
"""

import math
import os
import re
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

SCORE_COLUMNS = ("path", "score", "normalized", "std", "score_min", "score_max")
GENERAL_SCORE = "general_score"  # the model's own, beside that of a personal taste
ORIGIN_COLUMNS = ("attribute", "model", "revision", "version", "error")  # the attribute is whose score `score` is
CASCADE_ORIGIN = ("fast_model", "fast_revision")  # of the model that decided which pictures the other one sees
CASCADE_COLUMNS = ("fast_score", *CASCADE_ORIGIN)
TEXT_COLUMNS = ("path", *CASCADE_ORIGIN, *ORIGIN_COLUMNS)
JSON_ONLY = ("higher_is_better", "distribution", "attribute_ranges")  # what a JSON line tells beyond the columns

Row = dict[str, Any]


def table_columns(attributes: Sequence[str], alias: str | None = None, beside: Sequence[str] = ()) -> list[str]:
    """
    The columns of a table, in order.

    Args:
        attributes (sequence of `str`):
            What was scored, the main attribute (whose column is `score`) first.
        alias (`str`, *optional*):
            Name under which the score stands a second time.
        beside (sequence of `str`, *optional*):
            What the scorer tells beside the score: `GENERAL_SCORE` or `CASCADE_COLUMNS`.

    Returns:
        `list[str]`: the columns.

    Raises:
        ValueError: If two columns would have one name.
    """
    columns = [
        *SCORE_COLUMNS,
        *beside,
        *([alias] if alias else []),
        *map(attribute_column, attributes[1:]),
        *ORIGIN_COLUMNS,
    ]
    if twice := sorted({name for name in columns if columns.count(name) > 1 or name in JSON_ONLY}):
        raise ValueError(f"the table already has a column {', '.join(twice)}: choose another --alias or attribute")
    return columns


def attribute_column(attribute: str) -> str:
    """The column of an attribute: its name, or `attribute_<name>` where the table uses that name itself."""
    taken = attribute in (*SCORE_COLUMNS, GENERAL_SCORE, *CASCADE_COLUMNS, *ORIGIN_COLUMNS, *JSON_ONLY)
    return f"attribute_{attribute}" if taken else attribute


def make_row(path: str, record: Mapping[str, Any], attributes: Sequence[str], alias: str | None = None) -> Row:
    """
    The row of one record, and beyond the columns what only JSON lines hold.

    Args:
        path (`str`):
            The input as it was given.
        record (mapping):
            What the scorer returned for it.
        attributes (sequence of `str`):
            As in `table_columns`.
        alias (`str`, *optional*):
            As in `table_columns`.

    Returns:
        `dict`: a value for each of `table_columns(attributes, alias, beside)`, None where there is none, then those
        of JSON_ONLY that the record holds.
    """
    low, high = record["score_range"] or (None, None)
    values = record["attributes"] or {}
    score = _finite(record["score"])
    row = {"path": path, "score": score, "normalized": _finite(record["normalized"]), "std": _finite(record["std"])}
    row |= {"score_min": low, "score_max": high}
    row |= {name: _finite(record[name]) for name in (GENERAL_SCORE, "fast_score") if name in record}
    row |= {name: record[name] for name in CASCADE_ORIGIN if name in record}
    if alias:
        row[alias] = score
    row |= {attribute_column(name): _finite(values.get(name)) for name in attributes[1:]}
    row["attribute"] = attributes[0]
    row |= {name: record[name] for name in (*ORIGIN_COLUMNS, *JSON_ONLY) if name in record}
    texts = [name for name in TEXT_COLUMNS if name in row]
    return row | {name: None if row[name] is None else encodable(str(row[name])) for name in texts}


def _finite(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else float(value)


def encodable(text: str) -> str:
    r"""
    The text as UTF-8 can hold it.

    Bytes of a file name that are not UTF-8 reach Python as lone surrogates, which no file format takes; they become
    `\udcXX`, and `as_path` turns them back.
    """
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def as_path(text: str) -> str:
    r"""The file that the `path` of a row means: `\udcXX` is the byte XX, unless a file of exactly that name exists."""
    if "\\udc" not in text or os.path.lexists(text):
        return text
    return re.sub(r"\\u(dc[89a-f][0-9a-f])", lambda found: chr(int(found[1], 16)), text)


def shown(text: str) -> str:
    r"""The text as a terminal may show it: control and format characters as `\x1b`; all kinds of spaces are kept."""
    return "".join(
        char if char.isprintable() or unicodedata.category(char) == "Zs" else char.encode("unicode_escape").decode()
        for char in text
    )
