"""Scores as a reader at a terminal sees them."""

import itertools
import math
from collections.abc import Sequence

from ..inference.tables.score_table import GENERAL_SCORE, Row, attribute_column, shown


def format_table(rows: Sequence[Row], attributes: Sequence[str]) -> str:
    """
    The rows as text for a reader, in input order, with range, direction and model in the first line.

    Args:
        rows (sequence of `dict`):
            What `make_row` returned, all of one model; at least one.
        attributes (sequence of `str`):
            What was scored, the main attribute first.

    Returns:
        `str`: lines without colour or markup. Numbers have 3 to 4 digits. Control characters are escaped.
    """
    model_columns = [GENERAL_SCORE, "normalized"] if GENERAL_SCORE in rows[0] else ["normalized", "std"]
    columns = ["score", *model_columns, *map(attribute_column, attributes[1:])]
    highest = dict.fromkeys(columns, float(rows[0]["score_max"])) | {"normalized": 1.0}
    highest |= {attribute_column(name): high for name, (_, high) in attribute_ranges(rows[0], attributes).items()}
    decimals = {name: decimals_for(highest[name]) for name in columns}
    cells = [columns]
    for row in rows:
        cells.append(["-" if row[name] is None else f"{row[name]:.{decimals[name]}f}" for name in columns])
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    # The path comes last: it may be long or of wide characters, and then shifts nothing.
    ends = ["path", *(row["path"] + (f"  [{row['error']}]" if row["error"] else "") for row in rows)]
    lines = [table_head(rows[0], attributes), ""]
    for line, end in zip(cells, ends, strict=True):
        lines.append("  ".join([cell.rjust(width) for cell, width in zip(line, widths, strict=True)] + [shown(end)]))
    return "\n".join(lines)


def attribute_ranges(row: Row, attributes: Sequence[str]) -> dict[str, tuple[float, float]]:
    """Ranges of the further attributes, where the model has one per attribute; else they share the score's."""
    ranges = row.get("attribute_ranges") or {}
    return {name: ranges[name] for name in attributes[1:] if name in ranges}


def table_head(row: Row, attributes: Sequence[str]) -> str:
    """Range, direction and origin of a row's scores, in one line."""
    direction = "higher is better" if row["higher_is_better"] else "lower is better"
    model = f"model {row['model']}" + (f", revision {row['revision']}" if row["revision"] else "")
    ranges = {f"score ({attributes[0]})": (row["score_min"], row["score_max"])} | attribute_ranges(row, attributes)
    # neighbours that share a range name it once
    alike = itertools.groupby(ranges, key=lambda name: tuple(ranges[name]))
    scale = ", ".join(f"{', '.join(names)} {low:g} to {high:g}" for (low, high), names in alike)
    return shown(f"{scale}, {direction}; {model}; roc4mllm {row['version']}")


def decimals_for(highest: float) -> int:
    """Decimals that leave four digits of the highest score: 5.730 of 7, 5.73 of 10, 57.3 of 100."""
    return max(0, 3 - math.floor(math.log10(abs(highest) or 1.0)))
