"""Scores as a reader at a terminal sees them."""

import itertools
import math
import sys
import time
from collections.abc import Sequence

from tqdm import tqdm  # type: ignore[import-untyped]

from ..inference.tables.score_table import GENERAL_SCORE, Row, attribute_column, shown

PAGE, SECONDS_PER_PAGE = 64, 1.0  # rows printed together, and how long they wait at most for the next


class TableDisplay:
    """
    Rows as text for a reader, in input order, with range, direction and model in the first line.

    They are printed `PAGE` at a time, or once a second, so that few wait, and the columns of a page are at least as
    wide as those of the one before. Lines have no colour or markup; numbers have 3 to 4 digits, and control characters
    are escaped.

    Args:
        attributes (sequence of `str`):
            What was scored, the main attribute first.
    """

    def __init__(self, attributes: Sequence[str]) -> None:
        self.attributes = attributes
        self.waiting: list[Row] = []
        self.widths: list[int] = []
        self.told = time.monotonic()

    def write(self, row: Row) -> None:
        """Take a row, which `make_row` returned; all are of one model."""
        self.waiting.append(row)
        if len(self.waiting) == PAGE or time.monotonic() - self.told > SECONDS_PER_PAGE:
            self.flush()

    def flush(self) -> None:
        """Print what waits."""
        if self.waiting:
            with tqdm.external_write_mode(file=sys.stdout):  # not into a bar of progress
                print("\n".join(self.lines()), flush=True)
            self.waiting.clear()
        self.told = time.monotonic()

    def lines(self) -> list[str]:
        """What waits, as text; before the first page its head."""
        rows, first = self.waiting, self.waiting[0]
        model_columns = [GENERAL_SCORE, "normalized"] if GENERAL_SCORE in first else ["normalized", "std"]
        columns = ["score", *model_columns, *map(attribute_column, self.attributes[1:])]
        highest = dict.fromkeys(columns, float(first["score_max"])) | {"normalized": 1.0}
        ranges = attribute_ranges(first, self.attributes)
        highest |= {attribute_column(name): high for name, (_, high) in ranges.items()}
        decimals = {name: decimals_for(highest[name]) for name in columns}
        cells = [["-" if row[name] is None else f"{row[name]:.{decimals[name]}f}" for name in columns] for row in rows]
        # The path comes last: it may be long or of wide characters, and then shifts nothing.
        ends = [row["path"] + (f"  [{row['error']}]" if row["error"] else "") for row in rows]
        head: list[str] = []
        if not self.widths:
            head, self.widths = [table_head(first, self.attributes), ""], [0] * len(columns)
            cells, ends = [columns, *cells], ["path", *ends]
        lengths = [map(len, column) for column in zip(*cells, strict=True)]
        self.widths = [max(width, *found) for width, found in zip(self.widths, lengths, strict=True)]
        return head + [
            "  ".join([cell.rjust(width) for cell, width in zip(line, self.widths, strict=True)] + [shown(end)])
            for line, end in zip(cells, ends, strict=True)
        ]


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
