"""Ratings in text files: comma-, semicolon- or tab-separated values, JSON, JSON lines."""

import contextlib
import csv
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .rating_records import RatingSource, Record

DELIMITERS = ",;\t"


class CSVSource(RatingSource):
    """A file of comma-, semicolon- or tab-separated values whose first line names the columns."""

    path: Path

    def __init__(self, path: Path, name: str, split: str | None = None):
        super().__init__(path, name, split)
        self.delimiter = "\t" if path.suffix.lower() == ".tsv" else self._guess_delimiter()
        _, header = next(self._lines(), (1, []))
        self.columns = [cell.strip() for cell in header]
        named = [column for column in self.columns if column]  # pandas writes its index under an empty name
        if not named:
            raise ValueError(f"{name} is empty: expected a first line that names the columns.")
        if twice := sorted({column for column in named if named.count(column) > 1}):
            raise ValueError(f"{name} has two columns of the name {', '.join(twice)}.")

    def _guess_delimiter(self) -> str:
        with utf8_file(self.path, self.name) as file:
            header = file.readline()
        return max(DELIMITERS, key=header.count)  # the comma, which stands first, where none occurs

    def _lines(self) -> Iterator[tuple[int, list[str]]]:
        """The line on which each row begins, and its cells; rows of empty cells are left out."""
        with utf8_file(self.path, self.name) as file:
            # strict: otherwise a quotation mark that is never closed swallows the rest of the file without a word
            reader = csv.reader(file, delimiter=self.delimiter, skipinitialspace=True, strict=True)
            while True:
                number = reader.line_num + 1
                try:
                    cells = next(reader, None)
                except csv.Error as error:
                    raise ValueError(
                        f"{self.name}, line {number}: {error}. Is a quotation mark left open, or not doubled?"
                    ) from error
                if cells is None:
                    return
                if any(cells):
                    yield number, cells

    def records(self) -> Iterator[Record]:
        """The rows below the header."""
        lines = self._lines()
        next(lines)
        width = len(self.columns)
        for number, cells in lines:
            fields = {column: cell for column, cell in zip(self.columns, cells, strict=False) if column}
            problem = ""
            if len(cells) != width:
                problem = f"{len(cells)} cells where the first line names {width} columns"
            if len(cells) > width:
                problem += f", left over: {cells[width:]} (a text with a comma in it stands in quotation marks)"
            yield Record(number, fields, problem)


class JSONLinesSource(RatingSource):
    """A file with one JSON object per line."""

    path: Path

    def __init__(self, path: Path, name: str, split: str | None = None):
        super().__init__(path, name, split)
        self.columns, _ = survey(self.records())

    def records(self) -> Iterator[Record]:
        """The lines that are not blank."""
        with utf8_file(self.path, self.name) as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    try:
                        yield as_record(number, json.loads(line))
                    except json.JSONDecodeError as error:
                        yield Record(
                            number, {}, f"not JSON ({error.msg}, column {error.colno}): {line.strip()[:60]!r}"
                        )


class JSONSource(RatingSource):
    """A JSON file: a list of objects, as the authors of ROC4MLLM write it, or objects one after another."""

    path: Path

    def __init__(self, path: Path, name: str, split: str | None = None):
        super().__init__(path, name, split)
        self.columns, lines = survey(self.records())
        if len(set(lines)) < len(lines):  # several on one line: counting entries says more
            self.unit = "entry"

    def records(self) -> Iterator[Record]:
        """The entries, parsed one by one: their objects would take several times the memory of the text."""
        with utf8_file(self.path, self.name) as file:
            text = file.read()
        line, last = 1, 0
        try:
            for count, (start, value) in enumerate(json_entries(text), start=1):
                line, last = line + text.count("\n", last, start), start
                yield as_record(count if self.unit == "entry" else line, value)
        except json.JSONDecodeError as error:
            raise ValueError(f"{self.name}, line {error.lineno}, column {error.colno}: {error.msg}.") from error


def json_entries(text: str) -> Iterator[tuple[int, Any]]:
    """Position and value of each entry of a list, or of values that follow each other."""
    decoder, gap = json.JSONDecoder(), re.compile(r"[\s,]*")
    at = gap.match(text).end()  # type: ignore[union-attr]  # it matches the empty text
    in_list = text.startswith("[", at)
    at += in_list
    while True:
        at = gap.match(text, at).end()  # type: ignore[union-attr]
        if in_list and text.startswith("]", at):
            if rest := text[at + 1 :].strip():
                raise json.JSONDecodeError(f"text after the list: {rest[:40]!r}", text, at + 1)
            return
        if at == len(text) and not in_list:
            return
        value, end = decoder.raw_decode(text, at)  # fails at the end of a list that is cut off
        yield at, value
        at = end


def as_record(number: int, value: Any) -> Record:
    """A JSON value as a record."""
    if isinstance(value, dict):
        return Record(number, value)
    return Record(number, {}, f"expected a JSON object, got {json.dumps(value)[:60]}")


def survey(records: Iterator[Record]) -> tuple[list[str], list[int]]:
    """Columns that occur in any record, in the order in which they first do, and the number of each record."""
    names: dict[str, None] = {}
    numbers = []
    for record in records:
        names.update(dict.fromkeys(record.fields))
        numbers.append(record.number)
    return list(names), numbers


@contextlib.contextmanager
def utf8_file(path: Path, name: str) -> Iterator[Any]:
    """The open file, byte order mark skipped, line ends as they are."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            yield file
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{name} is not text in UTF-8 ({error.reason}); save it as 'CSV UTF-8' or convert it."
        ) from error


TEXT_SOURCES: dict[str, Any] = {
    ".csv": CSVSource, ".tsv": CSVSource, ".jsonl": JSONLinesSource, ".ndjson": JSONLinesSource, ".json": JSONSource
}  # fmt: skip


__all__ = ["TEXT_SOURCES"]
