"""Tables of scores read again, for everything that works on them."""

import csv
import json
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from .score_formats import ROWS_READ, parquet_parts
from .score_table import Row
from .score_writing import UNFINISHED, check_format

LARGEST = 1e100  # far beyond any score, and its square is still a number


def read_table(path: str | os.PathLike[str]) -> Iterator[Row]:
    """
    Read a table that `score` wrote, or one of another tool that has a column `path`.

    Args:
        path (`str` or path):
            A .csv, .jsonl or .parquet file, or a folder of Parquet parts.

    Yields:
        `dict`: a row, with None for what is empty or NaN; values of a CSV are texts. No more than some thousand rows
        are held at once.

    Raises:
        ValueError: If the ending names no format, the content does not fit it, or a row has no path.
        ImportError: If the format needs a library that is not installed.
        OSError: If the file cannot be read.
    """
    file = Path(path)
    if not file.suffix and not file.is_dir():
        expected = "expected a .csv, .jsonl or .parquet file, or a folder of Parquet parts"
        if file.exists():
            raise ValueError(f"cannot tell the format of {str(file)!r}: {expected}")
        raise FileNotFoundError(f"there is no table {str(file)!r}: {expected}")
    formats = {".csv": _read_csv, ".jsonl": _read_json_lines, ".parquet": _read_parquet}
    read = _read_parts if file.is_dir() else formats[check_format(file)]
    try:
        for count, row in enumerate(read(file), start=1):
            known = {name: _known(value) for name, value in row.items()}
            if known.get("path") is None:
                hint = " (a .csv file has commas between them)" if any(set(name) & {";", "\t"} for name in row) else ""
                listed = ", ".join(filter(None, row))
                raise ValueError(f"{file}, row {count} has no path; its columns are {listed}{hint}")
            yield known
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} is not a {file.suffix} file: {error}") from error


def _read_csv(path: Path) -> Iterator[Row]:
    with path.open(encoding="utf-8-sig", newline="") as file:  # -sig: Excel puts a byte order mark in front
        reader = csv.DictReader(file, restkey="", strict=True)  # else all rows behind a stray quote are one cell
        try:
            if reader.fieldnames is None:
                raise ValueError(f"{path} is empty: expected a first line that names the columns")
            yield from reader
        except csv.Error as error:
            raise ValueError(f"{path} is not a .csv file behind line {reader.line_num}: {error}") from error


def _read_json_lines(path: Path) -> Iterator[Row]:
    with path.open(encoding="utf-8-sig") as file:
        for count, line in enumerate(file, start=1):
            if line.isspace():
                continue
            try:
                row = json.loads(line)
            except (ValueError, RecursionError):
                row = None
            if not isinstance(row, dict):
                raise ValueError(f"{path}, line {count}: expected a JSON object, got {line.strip()[:60]!r}")
            yield row


def _read_parquet(path: Path) -> Iterator[Row]:
    import pyarrow  # type: ignore[import-untyped]
    import pyarrow.parquet  # type: ignore[import-untyped]

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(ROWS_READ):
                yield from batch.to_pylist()
    except pyarrow.ArrowException as error:
        raise ValueError(f"{path} is not a .parquet file: {error}") from error


def _read_parts(folder: Path) -> Iterator[Row]:
    parts = parquet_parts(folder)
    if not parts and not is_unfinished(folder):
        raise ValueError(f"the folder {str(folder)!r} holds no parts of a table (part-00000.parquet, …): name a file")
    for part in parts:
        yield from _read_parquet(part)


def _known(value: Any) -> Any:
    return None if value == "" or (isinstance(value, float) and math.isnan(value)) else value


def is_unfinished(path: str | os.PathLike[str]) -> bool:
    """Whether a folder of parts is of a run that is under way or was broken off."""
    return (Path(path) / UNFINISHED).exists()


class Scale(NamedTuple):
    """
    What two scores must share before they can be compared.

    Args:
        model, revision (`str`, *optional*):
            As the table names them.
        low, high (`float`, *optional*):
            Lowest and highest score possible; None where the table declares none.
        higher_is_better (`bool`):
            The direction; only JSON lines declare one, and higher is better elsewhere.
    """

    model: str | None
    revision: str | None
    low: float | None
    high: float | None
    higher_is_better: bool


def scale_of(row: Row, where: str) -> Scale:
    """The scale of a row, which `where` names in messages."""
    model, revision = (None if row.get(name) is None else str(row[name]) for name in ("model", "revision"))
    if row.get("fast_model"):  # of two models that were put together, which make one scale if they share a range
        model, revision = f"cascade on {row['fast_model']}", row.get("fast_revision")
    low, high = (as_number(row.get(name), f"{where}, {name}") for name in ("score_min", "score_max"))
    if low is None or high is None or low >= high:
        low = high = None
    return Scale(model, revision, low, high, str(row.get("higher_is_better")).lower() not in ("false", "0"))


def as_number(value: Any, where: str) -> float | None:
    """
    The number that a cell holds; None for an empty one, NaN, and what is beyond ±1e100: no sum or square overflows.

    Raises:
        ValueError: If it holds something else.
    """
    if value is None:
        return None
    try:
        if isinstance(value, bool) or (isinstance(value, str) and "_" in value):  # float("1_0") is 10
            raise ValueError
        number = float(value)  # a text in CSV, else whatever the file holds
    except OverflowError:  # a whole number of more than 308 digits
        return None
    except (TypeError, ValueError):
        raise ValueError(f"{where}: expected a number, got {value!r}") from None
    return number if abs(number) <= LARGEST else None  # of NaN False


__all__ = ["Scale", "as_number", "is_unfinished", "read_table", "scale_of"]
