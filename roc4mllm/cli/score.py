"""`roc4mllm score`: pictures to a table, as a file, on the terminal or as JSON lines."""

import argparse
import itertools
import json
import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm  # type: ignore[import-untyped]

from ..inference.personal_scorer import PersonalScorer
from ..inference.personal_taste import PersonalTaste
from ..inference.score_files import PictureInput, expand_inputs, score_inputs
from ..inference.score_table import (
    GENERAL_SCORE,
    Row,
    TableFile,
    attribute_column,
    check_output,
    make_row,
    shown,
    table_columns,
)
from .loading import choose_attributes, load

ScoreInto = Callable[[Callable[[Row], None]], list[Row]]  # takes what writes a row, returns the rows that failed


def run(args: argparse.Namespace) -> int:
    """Score `args.paths`; 1 if something failed and `args.strict`, else 0."""
    # What is wrong with the arguments is said before a model is loaded and hours are spent.
    output = None if args.output is None else check_output(args.output)
    table_columns(args.attributes or [], args.alias, args.personal is not None)
    taste = None if args.personal is None else PersonalTaste.load(args.personal)
    inputs = expand_inputs(args.paths, recursive=args.recursive)
    scorer = load(args)
    attributes = choose_attributes(args.attributes, scorer.model.config)
    if taste is not None:
        scorer = personal(scorer, taste, args.personal, attributes)
    columns = table_columns(attributes, args.alias, taste is not None)

    def score_into(write: Callable[[Row], None]) -> list[Row]:
        return score_rows(args, scorer, inputs, attributes, write)

    if output is not None:
        failed = write_file(output, columns, score_into)
    elif sys.stdout.isatty():
        rows: list[Row] = []
        failed = score_into(rows.append)
        print(format_table(rows, attributes))
    else:
        failed = score_into(lambda row: print(json.dumps(row), flush=True))
    print(summary(len(inputs), failed, args.output), file=sys.stderr)
    return 1 if failed and args.strict else 0


def personal(scorer: Any, taste: PersonalTaste, file: str, attributes: Sequence[str]) -> PersonalScorer:
    """The scorer by a taste; whatever does not fit names the file."""
    try:
        by_taste = PersonalScorer(scorer, taste)
        by_taste.check_first(attributes)
    except ValueError as error:
        raise ValueError(f"{file!r}: {error}") from error
    return by_taste


def score_rows(
    args: argparse.Namespace,
    scorer: Any,
    inputs: Sequence[PictureInput],
    attributes: Sequence[str],
    write: Callable[[Row], None],
) -> list[Row]:
    """Score and write every input; the rows that failed are returned."""
    options = {"batch_size": args.batch_size, "num_workers": args.num_workers, "attributes": list(attributes)}
    records = score_inputs(scorer, inputs, **options)
    progress = tqdm(inputs, unit="picture", leave=False, disable=not sys.stderr.isatty())
    failed = []
    for item, record in zip(progress, records, strict=True):
        row = make_row(item.path, record, attributes, args.alias)
        write(row)
        if row["error"] is not None:
            failed.append(row)
    return failed


def write_file(output: Path, columns: Sequence[str], score_into: ScoreInto) -> list[Row]:
    """Score into a file; after an interruption, say where the rows so far are."""
    table = TableFile(output, columns)
    try:
        with table:
            return score_into(table.write)
    finally:
        if table.partial.exists():
            print(f"roc4mllm: the {table.rows} rows so far are in {table.partial}", file=sys.stderr)


def summary(count: int, failed: Sequence[Row], output: str | None) -> str:
    """What was done, in one line."""
    line = f"{count - len(failed)} of {count} scored, {len(failed)} failed"
    if failed:
        line += f" (first: {failed[0]['path']}: {failed[0]['error']})"
    return shown(line + (f"; written to {output}" if output else ""))


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
