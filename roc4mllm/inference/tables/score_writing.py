"""
A table of scores on its way to a file, and how it goes on after a crash.

While it grows it stands under another name beside the final one (`scores.partial.csv`), a row at a time, so that
nothing but the row being written can be lost; Parquet, whose files are readable only when they are whole, grows as a
folder of parts. At the end it takes its name: a file under the final name is always whole.
"""

import contextlib
import csv
import importlib.util
import io
import json
import os
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from filelock import FileLock, Timeout

from ..whole_files import check_writable
from .score_table import ORIGIN_COLUMNS, TEXT_COLUMNS, Row

Origin = tuple[str | None, ...]  # model, revision, version


class FoundRows:
    """
    What an interrupted run left.

    Attributes:
        paths (`Counter`): How many rows there are of each path.
        origins (set of `tuple`): Model, revision and version of the rows.
    """

    def __init__(self) -> None:
        self.paths: Counter[str] = Counter()
        self.origins: set[Origin] = set()

    def add(self, row: Row) -> None:
        """Take note of a row."""
        self.paths[row["path"]] += 1
        self.origins.add(tuple(row.get(name) or None for name in ORIGIN_COLUMNS[:-1]))


# Formats -------------------------------------------------------------------------------------------------------------


class CSVWriter:
    """CSV in UTF-8: numbers rounded to 6 decimals, an empty cell for what is missing."""

    def __init__(self, partial: Path, columns: Sequence[str], found: FoundRows) -> None:
        self.columns = list(columns)
        if partial.exists():
            keep_whole_rows(partial, self._rows, found)
        self.file = partial.open("a", encoding="utf-8", newline="", buffering=1)
        if not partial.stat().st_size:
            self._write_cells(columns)

    def _rows(self, file: BinaryIO) -> Iterator[Row | None]:
        """Rows of a file, None for its first line. What breaks off or does not fit is the end."""
        reader = csv.reader((line.decode("utf-8", "replace") for line in whole_lines(file)), strict=True)
        first = next(reader, None)
        if first is None:
            return
        if first != self.columns:
            raise ValueError(f"{file.name} has the columns {', '.join(first)}, not {', '.join(self.columns)}")
        yield None
        with contextlib.suppress(csv.Error):  # a quote that was never closed
            for cells in reader:
                if len(cells) != len(self.columns):
                    return
                yield dict(zip(self.columns, cells, strict=True))

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

    def __init__(self, partial: Path, columns: Sequence[str], found: FoundRows) -> None:
        if partial.exists():
            keep_whole_rows(partial, self._rows, found)
        self.file = partial.open("a", encoding="utf-8", newline="\n", buffering=1)

    def _rows(self, file: BinaryIO) -> Iterator[Row | None]:
        for line in whole_lines(file):
            try:
                row = json.loads(line)
            except ValueError:
                return
            if not isinstance(row, dict) or "path" not in row:
                return
            yield row

    def write(self, row: Row) -> None:
        """Add a row."""
        self.file.write(json.dumps(row, ensure_ascii=False) + "\n")

    def close(self) -> None:
        """Finish the file."""
        self.file.close()


def keep_whole_rows(partial: Path, read: Callable[[BinaryIO], Iterator[Row | None]], found: FoundRows) -> None:
    """Note the rows of a file and cut off a last one that a crash has torn."""
    end = 0
    with partial.open("r+b") as file:
        for row in read(file):
            end = file.tell()
            if row is not None:
                found.add(row)
        file.truncate(end)


def whole_lines(file: BinaryIO) -> Iterator[bytes]:
    """Lines up to one without an end, each read when it is asked for, so that `file.tell()` is where the last ends."""
    while (line := file.readline()).endswith(b"\n"):
        yield line


class ParquetPartsWriter:
    """
    A folder of Parquet files, each whole: text columns are strings, all others float64.

    A part is written when it has `rows_per_part` rows, or `seconds_per_part` after the one before: that is what a
    crash can cost.
    """

    rows_per_part = 10_000
    seconds_per_part = 60.0

    def __init__(self, partial: Path, columns: Sequence[str], found: FoundRows) -> None:
        self.folder = partial
        self.schema = parquet_schema(columns)
        self.waiting: list[Row] = []
        self.written = time.monotonic()
        partial.mkdir(exist_ok=True)
        self.number = 0
        for part in parquet_parts(partial):
            self._take(part, found)

    def _take(self, part: Path, found: FoundRows) -> None:
        import pyarrow.parquet  # type: ignore[import-untyped]

        self.number = int(part.stem.removeprefix("part-")) + 1
        with pyarrow.parquet.ParquetFile(part) as file:
            if file.schema_arrow.names != self.schema.names:
                names = ", ".join(file.schema_arrow.names)
                raise ValueError(f"{part} has the columns {names}, not {', '.join(self.schema.names)}")
            for batch in file.iter_batches(columns=["path", *ORIGIN_COLUMNS[:-1]]):
                for row in batch.to_pylist():
                    found.add(row)

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
        pyarrow.parquet.write_table(table, unfinished)
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
    return sorted(folder.glob("part-*.parquet"))


def join_parts(folder: Path, target: Path) -> None:
    """One Parquet file of the parts of a folder, a row group at a time."""
    import pyarrow.parquet

    parts = parquet_parts(folder)
    with pyarrow.parquet.ParquetWriter(target, pyarrow.parquet.read_schema(parts[0])) as writer:
        for part in parts:
            writer.write_table(pyarrow.parquet.read_table(part, partitioning=None))


Writer = CSVWriter | JSONLinesWriter | ParquetPartsWriter
WRITERS: dict[str, type[CSVWriter] | type[JSONLinesWriter] | type[ParquetPartsWriter]] = {
    ".csv": CSVWriter,
    ".jsonl": JSONLinesWriter,
    ".parquet": ParquetPartsWriter,
    "": ParquetPartsWriter,  # a folder of parts
}


# The file ------------------------------------------------------------------------------------------------------------


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
        resume (`bool`, *optional*, defaults to `False`):
            Keep the rows that an interrupted run left, or else those of an existing file; `found` tells which.

    Raises:
        ValueError: If there are rows of an interrupted run and `resume` is false, if their columns are others, or if
            another process is writing this table.
        OSError: If the file cannot be written there.
    """

    def __init__(self, path: Path, columns: Sequence[str], resume: bool = False) -> None:
        self.path = path
        self.partial = path.with_name(f"{path.stem}.partial{path.suffix}")
        self.found = FoundRows()
        self.rows = 0  # written by this run
        self._lock = FileLock(f"{self.partial}.lock")
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            raise ValueError(f"another process is writing {str(path)!r}: wait for it, or name another file") from None
        try:
            self._begin(resume)
            self._writer: Writer = WRITERS[check_format(path)](self.partial, columns, self.found)
        except BaseException:
            self._unlock()
            raise

    def _begin(self, resume: bool) -> None:
        if self.partial.exists() and not resume:
            raise ValueError(
                f"{str(self.partial)!r} holds the rows of an interrupted run: resume it, or delete them to begin anew"
            )
        if not (resume and self.path.exists()) or self.partial.exists():
            return
        if self.path.is_dir():
            os.replace(self.path, self.partial)
            return
        copy = self.partial.with_name(f"{self.partial.name}.copy")
        remove(copy)
        if self.path.suffix.lower() == ".parquet":
            copy.mkdir()
            shutil.copyfile(self.path, copy / "part-00000.parquet")
        else:
            shutil.copyfile(self.path, copy)
        os.replace(copy, self.partial)

    def write(self, row: Row) -> None:
        """Add a row, which `make_row` returned."""
        self._writer.write(row)
        self.rows += 1

    def __enter__(self) -> "TableFile":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self._writer.close()
                self._finish()
            else:
                with contextlib.suppress(OSError):  # the disk that is full says so once
                    self._writer.close()
                if not (self.rows or self.found.paths):
                    remove(self.partial)
        finally:
            self._unlock()

    def _finish(self) -> None:
        """Give the table its name."""
        if self.path.suffix.lower() == ".parquet":
            whole = self.partial / "whole.unfinished"
            join_parts(self.partial, whole)
            os.replace(whole, self.path)
            remove(self.partial)
        else:
            os.replace(self.partial, self.path)

    def _unlock(self) -> None:
        self._lock.release()
        Path(self._lock.lock_file).unlink(missing_ok=True)


def remove(path: Path) -> None:
    """Delete a file, or a folder and what is in it."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def check_output(path: str | os.PathLike[str]) -> Path:
    """
    Make sure, before hours of scoring, that a table can be written.

    Args:
        path (`str` or path):
            The file to be written; or a folder for Parquet parts, if it ends in a separator or is a folder that is
            empty or holds such parts.

    Returns:
        `Path`: the file, symbolic links followed.

    Raises:
        ValueError: If the ending names no format.
        ImportError: If the format needs a library that is not installed.
        OSError: If the file cannot be written there.
    """
    target = Path(os.path.realpath(path))
    if target.suffix == "" and (target.is_dir() or os.fspath(path).endswith(os.sep)):
        check_format(target)
        if target.is_dir() and any(entry not in parquet_parts(target) for entry in target.iterdir()):
            raise FileExistsError(f"{str(path)!r} holds other things than parts of a table: name a new folder")
        check_writable(target.with_name(f"{target.name}.lock"))
        return target
    if target.suffix == "":
        raise ValueError(_unknown_format(target))
    check_format(target)
    return check_writable(path)


def check_format(path: Path) -> str:
    """The ending, if it is one of WRITERS and its library is there; `check_output` lists the errors."""
    ending = path.suffix.lower()
    if ending not in WRITERS:
        raise ValueError(_unknown_format(path))
    if ending in (".parquet", "") and importlib.util.find_spec("pyarrow") is None:
        raise ImportError(f"{path.name!r} needs pyarrow: pip install 'roc4mllm[data]', or choose .csv or .jsonl")
    return ending


def _unknown_format(path: Path) -> str:
    endings = ", ".join(filter(None, WRITERS))
    return f"cannot tell the format of {path.name!r}: expected a name that ends in {endings}, or a folder with a /"


__all__ = ["FoundRows", "TableFile", "check_format", "check_output", "parquet_parts", "parquet_schema"]
