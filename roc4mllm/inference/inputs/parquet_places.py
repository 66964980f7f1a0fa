"""
Rows of Parquet files by their place: named by one process, which reads no picture, and read by another.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from .containers import NO_ROW, PARQUET_ROWS, open_parquet, picture_columns, row_input
from .picture_input import PictureInput


@dataclass(frozen=True)
class ParquetRow:
    """Where in a Parquet file a picture is."""

    file: str
    row: int


def name_parquet_rows(path: str) -> Iterator[PictureInput]:
    """The inputs that `read_parquet` gives, each with a `ParquetRow` in place of its bytes."""
    row = 0
    try:
        with open_parquet(path) as file:
            image, name = picture_columns(file.schema_arrow)
            inner = f"{image}.path" in {file.schema.column(index).path for index in range(len(file.schema))}
            columns = [*([f"{image}.path"] if inner else []), *([name] if name else [])]
            for count, entries in name_batches(file, columns):
                for index in range(count):
                    entry = entries[index] if columns else {}
                    value = {"path": (entry.get(image) or {}).get("path"), "bytes": b""}
                    place = row_input(f"{path}#{row}", value, entry.get(name) if name else None)
                    yield replace(place, content=ParquetRow(path, row))
                    row += 1
        if not row:
            yield PictureInput(path, NO_ROW)
    except (ValueError, OSError) as error:  # pyarrow's own errors among them
        yield PictureInput(path, f"the file breaks off after {row} pictures: {error}" if row else str(error))


def name_batches(file: Any, columns: list[str]) -> Iterator[tuple[int, list[dict[str, Any]]]]:
    """How many rows there are, and their names, some rows at a time."""
    if not columns:
        yield file.metadata.num_rows, []
        return
    for batch in file.iter_batches(columns=columns):
        yield batch.num_rows, batch.to_pylist()


class ParquetReader:
    """Rows of one file, in rising order: what lies between is skipped, a row group at a time where it can be."""

    def __init__(self, path: str) -> None:
        self.path, self.file = path, open_parquet(path)
        self.image, self.name = picture_columns(self.file.schema_arrow)
        self.group, self.start = 0, 0  # of the rows at hand: their group, and the number of their first
        self.rows: list[dict[str, Any]] = []
        self.batches: Iterator[Any] | None = None

    def read(self, row: int) -> PictureInput:
        """
        The input of a row.

        Raises:
            OSError: If the file cannot be read there.
        """
        while row >= self.start + len(self.rows):
            self._next_rows(row)
        entry = self.rows[row - self.start]
        return row_input(f"{self.path}#{row}", entry[self.image], entry.get(self.name) if self.name else None)

    def _next_rows(self, row: int) -> None:
        self.start += len(self.rows)
        self.rows = []
        if self.batches is None:
            while row >= self.start + self.file.metadata.row_group(self.group).num_rows:
                self.start += self.file.metadata.row_group(self.group).num_rows
                self.group += 1
            columns = [self.image, *([self.name] if self.name else [])]
            self.batches = self.file.iter_batches(PARQUET_ROWS, row_groups=[self.group], columns=columns)
        if (batch := next(self.batches, None)) is None:
            self.batches, self.group = None, self.group + 1
        else:
            self.rows = batch.to_pylist()


__all__ = ["ParquetReader", "ParquetRow", "name_parquet_rows"]
