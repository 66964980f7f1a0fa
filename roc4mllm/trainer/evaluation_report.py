"""
An evaluation for readers: a text table, and a folder with numbers, single predictions, plots and an HTML page.

`report.html` needs no other file and no network. Each file is written under a temporary name and then renamed.
"""

import base64
import csv
import html
import importlib.util
import io
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..whole_files import check_writable, write_whole
from .evaluation_parts import SMALL_GROUP
from .evaluation_results import AttributeResult, Evaluation, PredictedPicture
from .metrics_aesthetics import Measurement
from .trained_on import LEAK

FILES = ("metrics.json", "predictions.csv", "report.png", "report.html")
LISTED = 20  # groups and failures that a table shows; metrics.json has all
NO_PLOTS = 'no report.png and report.html: they need matplotlib (pip install "roc4mllm[plots]")'


@dataclass(frozen=True)
class Table:
    """Cells as text: the first row holds the names of the columns, the first column those of the rows."""

    rows: list[list[str]]
    note: str = ""


# Tables --------------------------------------------------------------------------------------------------------------


def summary_lines(evaluation: Evaluation) -> list[str]:
    """What was evaluated on what, and what a reader has to know about it."""
    revision = f", revision {evaluation.revision}" if evaluation.revision else ""
    scored = len(evaluation.pictures) - len(evaluation.failures)
    protocols = f" ({', '.join(evaluation.protocols)})" if evaluation.protocols else ""
    lines = [
        f"model {evaluation.model}{revision}; roc4mllm {evaluation.version}",
        f"data {evaluation.data}{protocols}: {len(evaluation.pictures)} pictures, {scored} scored, "
        f"{len(evaluation.failures)} failed",
    ]
    lines += evaluation.notes
    if not evaluation.higher_is_better:
        lines.append("the model's scores are better the lower they are; correlations keep their sign")
    if evaluation.bootstraps:
        lines.append(
            f"intervals: 95 %, percentiles of {evaluation.bootstraps} bootstrap resamples of the pictures (seed "
            f"{evaluation.seed}); the logistic curve is fitted once"
        )
    return lines


def attribute_title(name: str, result: AttributeResult) -> str:
    """An attribute with its units and numbers of pictures."""
    low, high = result.score_range
    failed = f", {result.failed} rated and failed" if result.failed else ""
    return f"{name}, {low:g} to {high:g}: {result.n} pictures{failed}"


def attribute_tables(result: AttributeResult, by: str | None) -> list[Table]:
    """Metrics, segments of the labels and groups of one attribute."""
    tables = [metric_table(result)]
    if result.segments:
        tables.append(segment_table(result))
    if by is not None and result.groups:
        tables.append(group_table(result, by))
    return tables


def metric_table(result: AttributeResult) -> Table:
    """One row per metric."""
    titles = {
        "srcc": "SRCC", "plcc": "PLCC", "plcc_logistic": "PLCC after logistic fit", "krcc": "KRCC (tau-b)",
        "mae": "MAE", "rmse": "RMSE", "accuracy": f"accuracy at {result.cut:g}",
        "emd_r1": "EMD (r = 1)", "emd_r2": "EMD (r = 2)",
    }  # fmt: skip
    rows = [["metric", "value", "95 % interval"]]
    rows += [[titles[name], digits(found.value), interval(found)] for name, found in result.metrics.items()]
    return Table(rows, "best: 1 for correlations and accuracy, 0 for MAE, RMSE (in units of the scores) and EMD")


def interval(found: Measurement) -> str:
    """The interval of a metric, or why there is none."""
    if found.low is None or found.high is None:
        return found.reason or ""
    return f"{found.low:.3f} to {found.high:.3f}"


def segment_table(result: AttributeResult) -> Table:
    """One row per segment of the labels."""
    rows = [["labels", "from", "to", "n", "MAE", "bias"]]
    for segment in result.segments:
        start, end = (f"{100 * share:g}" for share in segment.shares)
        ends = [digits(end) for end in segment.limits]
        rows.append([f"{start}–{end} %", *ends, str(segment.n), digits(segment.mae), digits(segment.bias, sign=True)])
    return Table(rows, "bias: mean of prediction − label; a label at a limit belongs to the lower segment")


def group_table(result: AttributeResult, by: str) -> Table:
    """One row per group, the largest ones."""
    rows = [[by, "n", "SRCC", "PLCC", "MAE"]]
    for group in result.groups[:LISTED]:
        numbers = [digits(value) for value in (group.srcc, group.plcc, group.mae)]
        rows.append([group.name + (" *" if group.small else ""), str(group.n), *numbers])
    notes = [f"* fewer than {SMALL_GROUP} pictures"] if any(group.small for group in result.groups) else []
    if len(result.groups) > LISTED:
        notes.append(f"{LISTED} of {len(result.groups)} groups, the largest; metrics.json has all")
    return Table(rows, "; ".join(notes))


def digits(value: float | None, sign: bool = False) -> str:
    """A number with three decimals; a dash where there is none."""
    if value is None:
        return "–"
    return f"{value:+.3f}" if sign else f"{value:.3f}"


def failure_lines(failures: Sequence[PredictedPicture]) -> list[str]:
    """The first failures."""
    # what a data set holds itself has no name but its place
    lines = [": ".join(dict.fromkeys((row.where, row.picture, str(row.error)))) for row in failures[:LISTED]]
    return lines + ([f"… and {len(failures) - LISTED} more"] if len(failures) > LISTED else [])


def format_text(evaluation: Evaluation) -> str:
    """All of it as text for a terminal or a log, without colour or markup."""
    blocks = ["\n".join(summary_lines(evaluation))]
    for name, result in evaluation.results.items():
        blocks.append(attribute_title(name, result))
        blocks += [format_table(table) for table in attribute_tables(result, evaluation.by)]
    if evaluation.failures:
        blocks.append("\n".join(["failed:", *(f"  {line}" for line in failure_lines(evaluation.failures))]))
    return "\n\n".join(blocks)


def format_table(table: Table) -> str:
    """A table in columns: the first to the left, numbers to the right."""
    widths = [max(map(len, column)) for column in zip(*table.rows, strict=True)]
    lines = []
    for first, *others in table.rows:
        cells = [first.ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True))]
        lines.append("  " + "  ".join(cells).rstrip())
    return "\n".join(lines + ([f"  {table.note}"] if table.note else []))


# Files ---------------------------------------------------------------------------------------------------------------


def check_folder(folder: str | os.PathLike[str], data: str | os.PathLike[str]) -> Path:
    """
    Make sure, before hours of scoring, that a report can be written; the folder is made if need be.

    Raises:
        OSError: If it is a file, or cannot be made or written to.
        ValueError: If the report would overwrite `data`, the file of ratings.
    """
    path = Path(folder)
    if os.path.exists(data) and any((path / name).exists() and (path / name).samefile(data) for name in FILES):
        raise ValueError(f"the report would overwrite the ratings, {os.fspath(data)!r}: choose another folder")
    if path.exists() and not path.is_dir():
        raise NotADirectoryError(f"expected a folder for the report, got the file {os.fspath(folder)!r}")
    path.mkdir(parents=True, exist_ok=True)
    check_writable(path / "metrics.json")
    return path


def write_report(evaluation: Evaluation, folder: str | os.PathLike[str]) -> list[str]:
    """
    Write `metrics.json`, `predictions.csv` and, where matplotlib is installed, `report.png` and `report.html`.

    Args:
        evaluation ([`Evaluation`]): What `evaluate_scorer` returned.
        folder (`str` or path): An existing folder; files of these names are replaced.

    Returns:
        `list[str]`: the names of the files.

    Raises:
        OSError: If a file cannot be written.
    """
    numbers = json.dumps(evaluation.to_dict(), indent=2, ensure_ascii=False, allow_nan=False)
    files = {"metrics.json": text_bytes(numbers + "\n"), "predictions.csv": text_bytes(predictions_csv(evaluation))}
    if has_matplotlib():
        from .evaluation_plots import summary_png

        files |= {"report.png": summary_png(evaluation), "report.html": text_bytes(report_html(evaluation))}
    for name, content in files.items():
        write_whole(Path(folder) / name, content)
    return list(files)


def has_matplotlib() -> bool:
    """Whether there will be plots."""
    return importlib.util.find_spec("matplotlib") is not None


def text_bytes(text: str) -> bytes:
    r"""UTF-8; bytes of a file name that are not UTF-8 are written as `\udcXX`."""
    return text.encode("utf-8", "backslashreplace")


def predictions_csv(evaluation: Evaluation) -> str:
    """One row per picture in the order of the data, failed ones too, with an empty cell for what is missing."""
    names = list(evaluation.results)
    columns = [f"{name}_{kind}" for name in names for kind in ("label", "predicted")]
    by = [evaluation.by] if evaluation.by else []
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["picture", "where", *columns, f"{names[0]}_std", *by, "error"])
    for row in evaluation.pictures:
        scores = [values.get(name) for name in names for values in (row.labels, row.predicted)]
        numbers = ["" if value is None else repr(round(value, 6)) for value in (*scores, row.std)]
        writer.writerow([row.picture, row.where, *numbers, *(row.columns[name] for name in by), row.error or ""])
    return text.getvalue()


# The page ------------------------------------------------------------------------------------------------------------

PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light">
<title>{title}</title>
<style>
body {{ margin: 0 auto; max-width: 64rem; padding: 1rem; background: #fff; color: #1f2937;
  font: 16px/1.5 system-ui, sans-serif; overflow-wrap: break-word; }}
h1 {{ font-size: 1.5rem; }}
p {{ margin: .25rem 0; }}
.leak {{ padding: .5rem; background: #b91c1c; color: #fff; font-weight: 600; }}
h2 {{ margin-top: 2.5rem; border-top: 1px solid #d1d5db; padding-top: 1rem; font-size: 1.25rem; }}
.tables {{ display: flex; flex-wrap: wrap; gap: 1rem 3rem; align-items: flex-start; }}
.table {{ max-width: 100%; overflow-x: auto; }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums; }}
th, td {{ padding: .25rem .75rem .25rem 0; border-bottom: 1px solid #e5e7eb; text-align: right; }}
th {{ font-weight: 600; }}
th:first-child, td:first-child {{ text-align: left; }}
.note {{ margin: .25rem 0 1rem; max-width: 22rem; color: #4b5563; font-size: .875rem; }}
.plots {{ display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 18rem), 1fr)); gap: .5rem;
  margin-top: 1.5rem; }}
img {{ width: 100%; height: auto; }}
</style>
</head>
<body>
{body}
</body>
</html>
"""


def report_html(evaluation: Evaluation) -> str:
    """The page: one file, pictures in it, nothing loaded from elsewhere; all texts of others are escaped."""
    title = f"{evaluation.model} on {evaluation.data}"
    parts = [f"<h1>{html.escape(title)}</h1>", *map(line_html, summary_lines(evaluation))]
    for name, result in evaluation.results.items():
        parts.append(f"<h2>{html.escape(attribute_title(name, result))}</h2>")
        tables = "\n".join(table_html(table) for table in attribute_tables(result, evaluation.by))
        parts += [f'<div class="tables">\n{tables}\n</div>', plots_html(evaluation, name)]
    if evaluation.failures:
        lines = "\n".join(f"<li>{html.escape(line)}</li>" for line in failure_lines(evaluation.failures))
        parts.append(f"<h2>Failed pictures</h2>\n<ul>\n{lines}\n</ul>")
    parts.append(f'<p class="note">evaluated {html.escape(evaluation.date)}</p>')
    return PAGE.format(title=html.escape(title), body="\n".join(parts))


def line_html(line: str) -> str:
    """A line of the summary; that on a leak stands out."""
    mark = ' class="leak"' if line.startswith(LEAK) else ""
    return f"<p{mark}>{html.escape(line)}</p>"


def plots_html(evaluation: Evaluation, name: str) -> str:
    """The panels of one attribute, beside each other where there is room."""
    from .evaluation_plots import PANELS, panel_png

    pictures = []
    for title in PANELS:
        data = base64.b64encode(panel_png(evaluation, name, title)).decode("ascii")
        pictures.append(f'<img alt="{html.escape(f"{name}: {title}")}" src="data:image/png;base64,{data}">')
    return '<div class="plots">\n' + "\n".join(pictures) + "\n</div>"


def table_html(table: Table) -> str:
    """A table with its note."""
    head, *rows = ([html.escape(cell) for cell in row] for row in table.rows)
    lines = ["".join(f"<th>{cell}</th>" for cell in head)]
    lines += ["".join(f"<td>{cell}</td>" for cell in row) for row in rows]
    body = "\n".join(f"<tr>{line}</tr>" for line in lines)
    note = f'\n<p class="note">{html.escape(table.note)}</p>' if table.note else ""
    return f'<div class="table">\n<table>\n{body}\n</table>{note}\n</div>'
