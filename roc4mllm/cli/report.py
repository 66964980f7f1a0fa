"""`roc4mllm report`: tables of scores to one HTML page."""

import argparse
import os
import sys
from pathlib import Path

from ..inference.report.rows import add_labels, collect_scores
from ..inference.report.write_report import write_report
from ..inference.tables.score_reading import is_unfinished, read_table
from ..inference.tables.score_table import shown
from ..inference.tables.score_writing import check_format
from ..trainer.image_aesthetics_metric.score_agreement import mae, plcc, srcc
from ..trainer.rating_rows import MAIN_ATTRIBUTE, assign_columns, read_row
from ..trainer.rating_sources import open_file
from ..whole_files import check_writable

MEASURES = {"SRCC": srcc, "PLCC": plcc, "MAE": mae}  # passed in, as inference knows nothing of training


def run(args: argparse.Namespace) -> int:
    """Report on `args.scores`; always 0, since failures are part of a report."""
    output = check_output(args.output)
    for path in args.scores:
        if not os.path.isdir(path):  # of Parquet parts
            check_format(Path(path))
    for path in filter(is_unfinished, args.scores):
        print(f"roc4mllm: {path} is of a run that is not finished: rows are missing", file=sys.stderr)
    scores = collect_scores(read_table(path) for path in args.scores)
    if args.labels is not None:
        found = add_labels(scores, read_labels(args.labels), os.path.dirname(args.labels))
        print(f"{found} of {scores.rows} rows have a label", file=sys.stderr)
    name = ", ".join(os.path.basename(os.path.abspath(path)) for path in args.scores)  # of `parts/` too
    size = write_report(scores, output, name=name, rows=args.rows, sheet=args.sheet, measures=MEASURES)
    failed = len(scores.failures)
    line = f"{scores.rows - failed} scores and {failed} failures written to {args.output} ({size / 1e6:.1f} MB)"
    print(shown(line), file=sys.stderr)
    return 0


def check_output(path: str) -> Path:
    """The file to be written."""
    if not path.lower().endswith((".html", ".htm")):
        raise ValueError(f"a report is a .html file, got {path!r}")
    return check_writable(path)


def read_labels(path: str) -> dict[str, float]:
    """
    Ratings of the main attribute by path, in a file of the forms and column names that `evaluate` reads; their mean
    where several people rated a picture.

    The pictures themselves are not opened: a report may be made where they no longer are.
    """
    source = open_file(Path(path), path)
    roles = assign_columns(source.columns, [MAIN_ATTRIBUTE])
    if roles.picture is None or MAIN_ATTRIBUTE not in roles.scores:
        listed = ", ".join(source.columns)
        raise ValueError(f"{path!r}: expected a column of paths and one of scores (path, score); it has {listed}")
    ratings: dict[str, list[float]] = {}
    for record in source:
        try:
            if record.problem:
                raise ValueError(record.problem)
            rating = read_row(record.fields, roles).scores.get(MAIN_ATTRIBUTE)
        except ValueError as error:
            raise ValueError(f"{path!r}, {source.unit} {record.number}: {error}") from None
        if rating is not None:
            ratings.setdefault(str(record.fields[roles.picture]), []).append(rating)
    return {path: sum(given) / len(given) for path, given in ratings.items()}
