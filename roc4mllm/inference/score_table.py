"""
A table of scores: its columns, how a record becomes a row, and how rows are written and read again.

One row per input, in input order. `score` and `std` are in the units of `score_min` to `score_max`, `normalized` goes
from 0 to 1. A row that failed has an `error` text and no score. Files are written under a temporary name beside the
final one and moved there at the end, so that a file under the final name is always whole.
"""

import csv
import importlib.util
import io
import json
import math
import os
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from .whole_files import check_writable, create_partial

SCORE_COLUMNS = ("path", "score", "normalized", "std", "score_min", "score_max")
GENERAL_SCORE = "general_score"  # the model's own, beside that of a personal taste
ORIGIN_COLUMNS = ("model", "revision", "version", "error")
TEXT_COLUMNS = ("path", *ORIGIN_COLUMNS)
JSON_ONLY = ("higher_is_better", "distribution", "attribute_ranges")  # what a JSON line tells beyond the columns

Row = dict[str, Any]


# Columns and rows ----------------------------------------------------------------------------------------------------


def table_columns(attributes: Sequence[str], alias: str | None = None, personal: bool = False) -> list[str]:
    """
    The columns of a table, in order.

    Args:
        attributes (sequence of `str`):
            What was scored, the main attribute (whose column is `score`) first.
        alias (`str`, *optional*):
            Name under which the score stands a second time.
        personal (`bool`, *optional*, defaults to `False`):
            Whether the scores are those of a personal taste, beside which the model's own stands.

    Returns:
        `list[str]`: the columns.

    Raises:
        ValueError: If two columns would have one name.
    """
    further = [*([GENERAL_SCORE] if personal else []), *([alias] if alias else [])]
    columns = [*SCORE_COLUMNS, *further, *map(attribute_column, attributes[1:]), *ORIGIN_COLUMNS]
    if twice := sorted({name for name in columns if columns.count(name) > 1 or name in JSON_ONLY}):
        raise ValueError(f"the table already has a column {', '.join(twice)}: choose another --alias or attribute")
    return columns


def attribute_column(attribute: str) -> str:
    """The column of an attribute: its name, or `attribute_<name>` where the table uses that name itself."""
    taken = attribute in (*SCORE_COLUMNS, GENERAL_SCORE, *ORIGIN_COLUMNS, *JSON_ONLY)
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
        `dict`: a value for each of `table_columns(attributes, alias, personal)`, None where there is none, then those
        of JSON_ONLY that the record holds.
    """
    low, high = record["score_range"] or (None, None)
    values = record["attributes"] or {}
    score = _finite(record["score"])
    row = {"path": path, "score": score, "normalized": _finite(record["normalized"]), "std": _finite(record["std"])}
    row |= {"score_min": low, "score_max": high}
    if GENERAL_SCORE in record:
        row[GENERAL_SCORE] = _finite(record[GENERAL_SCORE])
    if alias:
        row[alias] = score
    row |= {attribute_column(name): _finite(values.get(name)) for name in attributes[1:]}
    row |= {name: record[name] for name in (*ORIGIN_COLUMNS, *JSON_ONLY) if name in record}
    return row | {name: None if row[name] is None else encodable(str(row[name])) for name in TEXT_COLUMNS}


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


# Writing -------------------------------------------------------------------------------------------------------------


class CSVWriter:
    """CSV in UTF-8: numbers rounded to 6 decimals, an empty cell for what is missing."""

    def __init__(self, path: Path, columns: Sequence[str]) -> None:
        self.columns = columns
        self.file = path.open("w", encoding="utf-8", newline="", buffering=1)
        self._write_cells(columns)

    def write(self, row: Row) -> None:
        """Add a row."""
        self._write_cells([_csv_cell(row[name]) for name in self.columns])

    def _write_cells(self, cells: Sequence[str]) -> None:
        line = io.StringIO()
        csv.writer(line).writerow(cells)  # its "\r\n" makes Python before 3.13 put cells with "\r" in quotes
        self.file.write(line.getvalue().removesuffix("\r\n") + "\n")

    def close(self) -> None:
        """Finish the file."""
        self.file.close()


def _csv_cell(value: Any) -> str:
    if isinstance(value, float):
        return repr(round(value, 6))
    return "" if value is None else str(value)


class JSONLinesWriter:
    """One JSON object per line: the columns, then direction, distribution and the ranges of attributes."""

    def __init__(self, path: Path, columns: Sequence[str]) -> None:
        self.file = path.open("w", encoding="utf-8", newline="\n", buffering=1)

    def write(self, row: Row) -> None:
        """Add a row."""
        self.file.write(json.dumps(row, ensure_ascii=False) + "\n")

    def close(self) -> None:
        """Finish the file."""
        self.file.close()


class ParquetWriter:
    """Parquet: text columns are strings, all others float64."""

    rows_per_group = 10_000

    def __init__(self, path: Path, columns: Sequence[str]) -> None:
        import pyarrow  # type: ignore[import-untyped]
        import pyarrow.parquet  # type: ignore[import-untyped]

        kinds = [(name, pyarrow.string() if name in TEXT_COLUMNS else pyarrow.float64()) for name in columns]
        self.schema = pyarrow.schema(kinds)
        self.file = pyarrow.parquet.ParquetWriter(path, self.schema)
        self.waiting: list[Row] = []

    def write(self, row: Row) -> None:
        """Add a row."""
        self.waiting.append(row)
        if len(self.waiting) == self.rows_per_group:
            self._write_group()

    def _write_group(self) -> None:
        import pyarrow

        self.file.write_table(pyarrow.Table.from_pylist(self.waiting, schema=self.schema))
        self.waiting = []

    def close(self) -> None:
        """Finish the file."""
        if self.waiting:
            self._write_group()
        self.file.close()


WRITERS: dict[str, type[CSVWriter] | type[JSONLinesWriter] | type[ParquetWriter]] = {
    ".csv": CSVWriter,
    ".jsonl": JSONLinesWriter,
    ".parquet": ParquetWriter,
}


class TableFile:
    """
    A table on its way to a file: `with TableFile(path, columns) as table: table.write(row)`.

    The file takes its name when the block ends. If an exception ends the block, `path` is untouched and the rows so
    far stay beside it in `partial`.

    Args:
        path (`Path`):
            What `check_output` returned; an existing file is replaced.
        columns (sequence of `str`):
            What `table_columns` returned.
    """

    def __init__(self, path: Path, columns: Sequence[str]) -> None:
        self.path = path
        self.partial = create_partial(path)
        self.rows = 0
        self._writer = WRITERS[check_format(path)](self.partial, columns)

    def write(self, row: Row) -> None:
        """Add a row, which `make_row` returned."""
        self._writer.write(row)
        self.rows += 1

    def __enter__(self) -> "TableFile":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._writer.close()
        if kind is None:
            os.replace(self.partial, self.path)
        elif not self.rows:
            self.partial.unlink()


def check_output(path: str | os.PathLike[str]) -> Path:
    """
    Make sure, before hours of scoring, that a table can be written.

    Args:
        path (`str` or path):
            The file to be written.

    Returns:
        `Path`: the file, symbolic links followed.

    Raises:
        ValueError: If the ending names no format.
        ImportError: If the format needs a library that is not installed.
        OSError: If the file cannot be written there.
    """
    check_format(Path(os.path.realpath(path)))
    return check_writable(path)


def check_format(path: Path) -> str:
    """The ending, if it is one of WRITERS and its library is there; `check_output` lists the errors."""
    ending = path.suffix.lower()
    if ending not in WRITERS:
        raise ValueError(f"cannot tell the format of {path.name!r}: expected a name that ends in {', '.join(WRITERS)}")
    if ending == ".parquet" and importlib.util.find_spec("pyarrow") is None:
        raise ImportError(f"{path.name!r} needs pyarrow: pip install 'roc4mllm[data]', or choose .csv or .jsonl")
    return ending


# Reading -------------------------------------------------------------------------------------------------------------


def read_table(path: str | os.PathLike[str]) -> list[Row]:
    """
    Read a table that `score` wrote, or one of another tool that has a column `path`.

    Args:
        path (`str` or path):
            A .csv, .jsonl or .parquet file.

    Returns:
        `list[dict]`: the rows, with None for what is empty or NaN. Values of a CSV are texts.

    Raises:
        ValueError: If the ending names no format, the content does not fit it, or a row has no path.
        ImportError: If the format needs a library that is not installed.
        OSError: If the file cannot be read.
    """
    file = Path(path)
    read = {".csv": _read_csv, ".jsonl": _read_json_lines, ".parquet": _read_parquet}[check_format(file)]
    try:
        rows = [{name: _known(value) for name, value in row.items()} for row in read(file)]
    except (csv.Error, UnicodeDecodeError) as error:
        raise ValueError(f"{file} is not a {file.suffix} file: {error}") from error
    for count, row in enumerate(rows, start=1):
        if row.get("path") is None:
            raise ValueError(f"{file}, row {count} has no path; its columns are {', '.join(map(str, row))}")
    return rows


def _read_csv(path: Path) -> Iterator[Row]:
    with path.open(encoding="utf-8-sig", newline="") as file:  # -sig: Excel puts a byte order mark in front
        reader = csv.DictReader(file, restkey="")
        if reader.fieldnames is None:
            raise ValueError(f"{path} is empty: expected a first line that names the columns")
        yield from reader


def _read_json_lines(path: Path) -> Iterator[Row]:
    with path.open(encoding="utf-8") as file:
        for count, line in enumerate(file, start=1):
            try:
                row = json.loads(line)
            except json.JSONDecodeError:
                row = None
            if not isinstance(row, dict):
                raise ValueError(f"{path}, line {count}: expected a JSON object, got {line.strip()[:60]!r}")
            yield row


def _read_parquet(path: Path) -> Iterable[Row]:
    import pyarrow
    import pyarrow.parquet

    try:
        rows: list[Row] = pyarrow.parquet.read_table(path).to_pylist()
    except pyarrow.ArrowInvalid as error:
        raise ValueError(f"{path} is not a .parquet file: {error}") from error
    return rows


def _known(value: Any) -> Any:
    return None if value == "" or (isinstance(value, float) and math.isnan(value)) else value


def shown(text: str) -> str:
    r"""The text as a terminal may show it: control and format characters as `\x1b`; all kinds of spaces are kept."""
    return "".join(
        char if char.isprintable() or unicodedata.category(char) == "Zs" else char.encode("unicode_escape").decode()
        for char in text
    )
