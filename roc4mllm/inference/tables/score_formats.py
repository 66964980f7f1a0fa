"""
The formats of a table of scores: how rows are added to one that grows, and how those that are there are found again.

`find` reads and changes nothing; a writer then goes on behind what was found.
"""

import csv
import io
import json
import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from .path_counts import PathCounts
from .score_table import CASCADE_ORIGIN, JSON_ONLY, ORIGIN_COLUMNS, TEXT_COLUMNS, Row

Check = Callable[[Row], object]  # raises a ValueError at a row that does not fit
Origin = tuple[str | None, ...]
ORIGIN_CELLS = (*ORIGIN_COLUMNS[:-1], *CASCADE_ORIGIN, "score_min", "score_max")
PART = re.compile(r"part-\d{5,}\.parquet")
ROWS_READ = 4096  # of a Parquet file at once


class FoundRows:
    """
    Rows of an earlier run.

    Attributes:
        paths ([`PathCounts`]): How many rows there are of each path.
        origins (set of `tuple`): What rows must share to stand in one table, as `origin_of` gives it.
        end (`int`): Bytes of a text file up to the end of the last whole row.
    """

    def __init__(self) -> None:
        self.paths = PathCounts()
        self.origins: set[Origin] = set()
        self.end = 0
        self._seen: set[tuple[Any, ...]] = set()  # what origins are made of

    def add(self, row: Row) -> None:
        """Take note of a row."""
        self.paths.add(row["path"])
        cells = tuple(map(row.get, ORIGIN_CELLS))
        if cells not in self._seen:
            self._seen.add(cells)
            self.origins.add(origin_of(row))


def origin_of(row: Row) -> Origin:
    """Whose score of what a row holds: attribute, model, revision, version, fast model of a cascade and its, range."""
    *names, low, high = (row.get(name) for name in ORIGIN_CELLS)
    ends = (low, high)  # texts in CSV
    return (*(name or None for name in names), *(None if end in (None, "") else f"{float(end):g}" for end in ends))


def check_columns(place: Path | str, found: Sequence[str], wanted: Sequence[str]) -> None:
    """Refuse a table of other columns."""
    if list(found) != list(wanted):
        raise ValueError(f"{str(place)!r} has the columns {', '.join(found)}, not {', '.join(wanted)}")


# Text ----------------------------------------------------------------------------------------------------------------


def whole_lines(file: BinaryIO) -> Iterator[bytes]:
    """Lines up to one without an end, each read when it is asked for, so that `file.tell()` is where the last ends."""
    while (line := file.readline()).endswith(b"\n"):
        yield line


class CSVWriter:
    """CSV in UTF-8: numbers rounded to 6 decimals, an empty cell for what is missing."""

    @staticmethod
    def find(path: Path, columns: Sequence[str], check: Check = lambda row: None) -> FoundRows:
        """
        Its rows; a last one that a crash has torn does not count.

        Raises:
            ValueError: If it has other columns, or is damaged elsewhere, and whatever `check` raises.
        """
        found = FoundRows()
        with path.open("rb") as file:
            reader = csv.reader((line.decode("utf-8", "replace") for line in whole_lines(file)), strict=True)
            try:
                for number, cells in enumerate(reader):
                    if number == 0:
                        check_columns(path, cells, columns)
                    elif len(cells) != len(columns):
                        raise ValueError(
                            f"{str(path)!r}, line {reader.line_num}: {len(cells)} cells, not {len(columns)}"
                        )
                    else:
                        row = dict(zip(columns, cells, strict=True))
                        check(row)
                        found.add(row)
                    found.end = file.tell()
            except csv.Error as error:
                if "unexpected end" not in str(error):  # else a quote that was never closed: the torn row
                    raise ValueError(f"{str(path)!r}, line {reader.line_num}: {error}") from error
        return found

    def __init__(self, path: Path, columns: Sequence[str], found: FoundRows) -> None:
        self.columns = list(columns)
        self.file = open_behind(path, found)
        if not found.end:
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
        close_on_disk(self.file)


def _csv_cell(value: Any) -> str:
    if isinstance(value, float):
        return repr(round(value, 6))
    return "" if value is None else str(value)


class JSONLinesWriter:
    """One JSON object per line: the columns, then direction, distribution and the ranges of attributes."""

    @staticmethod
    def find(path: Path, columns: Sequence[str], check: Check = lambda row: None) -> FoundRows:
        """As in `CSVWriter`."""
        found = FoundRows()
        with path.open("rb") as file:
            for number, line in enumerate(whole_lines(file), start=1):
                try:
                    row = json.loads(line)
                except ValueError:
                    row = None
                if not isinstance(row, dict):
                    raise ValueError(f"{str(path)!r}, line {number}: expected a JSON object, got {line[:60]!r}")
                check_columns(f"{path}, line {number}", [name for name in row if name not in JSON_ONLY], columns)
                check(row)
                found.add(row)
                found.end = file.tell()
        return found

    def __init__(self, path: Path, columns: Sequence[str], found: FoundRows) -> None:
        self.file = open_behind(path, found)

    def write(self, row: Row) -> None:
        """Add a row."""
        self.file.write(json.dumps(row, ensure_ascii=False) + "\n")

    def close(self) -> None:
        """Finish the file."""
        close_on_disk(self.file)


def open_behind(path: Path, found: FoundRows) -> io.TextIOWrapper:
    """A text file, open behind the last whole row."""
    if path.exists():
        os.truncate(path, found.end)
    return path.open("a", encoding="utf-8", newline="", buffering=1)


def close_on_disk(file: io.TextIOWrapper) -> None:
    """Close a file whose content survives a power cut: it is about to be renamed."""
    try:
        file.flush()
        os.fsync(file.fileno())
    finally:
        file.close()


# Parquet -------------------------------------------------------------------------------------------------------------


class ParquetPartsWriter:
    """
    A folder of Parquet files, each whole: text columns are strings, all others float64.

    A part is written when it has `rows_per_part` rows, or `seconds_per_part` after the one before: that is what a
    crash can cost.
    """

    rows_per_part = 10_000
    seconds_per_part = 60.0

    @staticmethod
    def find(path: Path, columns: Sequence[str], check: Check = lambda row: None) -> FoundRows:
        """The rows of a folder of parts, or of one Parquet file; errors as in `CSVWriter`."""
        import pyarrow  # type: ignore[import-untyped]
        import pyarrow.parquet  # type: ignore[import-untyped]

        found = FoundRows()
        needed = [name for name in columns if name in (*TEXT_COLUMNS, "fast_score", "score_min", "score_max")]
        for part in parquet_parts(path) if path.is_dir() else [path]:
            try:
                with pyarrow.parquet.ParquetFile(part) as file:
                    check_columns(part, file.schema_arrow.names, columns)
                    for batch in file.iter_batches(ROWS_READ, columns=needed):
                        for row in batch.to_pylist():
                            check(row)
                            found.add(row)
            except pyarrow.ArrowInvalid as error:
                raise ValueError(
                    f"{str(part)!r} is damaged: {error}; delete it, and its rows are scored again"
                ) from error
        return found

    def __init__(self, path: Path, columns: Sequence[str], found: FoundRows) -> None:
        self.folder = path
        self.schema = parquet_schema(columns)
        self.waiting: list[Row] = []
        self.written = time.monotonic()
        path.mkdir(exist_ok=True)
        self.number = 1 + max((int(part.stem.removeprefix("part-")) for part in parquet_parts(path)), default=-1)

    def write(self, row: Row) -> None:
        """Add a row."""
        self.waiting.append(row)
        late = time.monotonic() - self.written > self.seconds_per_part
        if late or len(self.waiting) == self.rows_per_part:
            self._write_part()

    def _write_part(self) -> None:
        import pyarrow
        import pyarrow.parquet

        path = self.folder / f"part-{self.number:05d}.parquet"
        unfinished = path.with_suffix(".unfinished")
        table = pyarrow.Table.from_pylist(self.waiting, schema=self.schema)
        with unfinished.open("wb") as file:
            pyarrow.parquet.write_table(table, file)
            os.fsync(file.fileno())
        os.replace(unfinished, path)
        self.number += 1
        self.waiting, self.written = [], time.monotonic()

    def close(self) -> None:
        """Write what is left; there is at least one part, which tells the columns."""
        if self.waiting or not self.number:
            self._write_part()


def parquet_schema(columns: Sequence[str]) -> Any:
    """The `pyarrow.Schema` of a table."""
    import pyarrow

    return pyarrow.schema(
        [(name, pyarrow.string() if name in TEXT_COLUMNS else pyarrow.float64()) for name in columns]
    )


def parquet_parts(folder: Path) -> list[Path]:
    """The parts of a folder, in order."""
    return sorted(path for path in folder.glob("part-*.parquet") if PART.fullmatch(path.name))


def join_parts(folder: Path, target: Path) -> None:
    """One Parquet file of the parts of a folder, a row group at a time."""
    import pyarrow.parquet

    parts = parquet_parts(folder)
    with target.open("wb") as file:
        with pyarrow.parquet.ParquetWriter(file, pyarrow.parquet.read_schema(parts[0])) as writer:
            for part in parts:
                with pyarrow.parquet.ParquetFile(part) as rows:
                    for group in range(rows.num_row_groups):
                        writer.write_table(rows.read_row_group(group))
        os.fsync(file.fileno())


Writer = CSVWriter | JSONLinesWriter | ParquetPartsWriter
FORMATS: dict[str, type[CSVWriter] | type[JSONLinesWriter] | type[ParquetPartsWriter]] = {
    ".csv": CSVWriter,
    ".jsonl": JSONLinesWriter,
    ".parquet": ParquetPartsWriter,
    "": ParquetPartsWriter,  # a folder of parts
}

__all__ = [
    "FORMATS",
    "ROWS_READ",
    "Check",
    "FoundRows",
    "Origin",
    "Writer",
    "join_parts",
    "origin_of",
    "parquet_parts",
    "parquet_schema",
]
