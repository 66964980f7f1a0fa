"""
Reading what data sets come as: tables and lists of text, spreadsheets. Row by row, with the line of each.

Tolerated, because raw downloads have it: a byte order mark, CRLF, blanks round cells and names of columns, `=` as the
separator, lines in Windows' encoding among UTF-8, a spreadsheet saved as UTF-16. A line that does not fit its table is
a row with a `problem`, and never left out in silence.
"""

import csv
import io
import json
import re
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

JSON_PIECE = 1 << 20  # characters
JSON_GAP = re.compile(r"[\s,]*")
UTF_16_MARKS = (b"\xff\xfe", b"\xfe\xff")
SHEET = "{http://schemas.openxmlformats.org/spreadsheetml/2006/main}"
# what zipfile raises on a file that is damaged, encrypted (`RuntimeError`) or of a kind that it does not know
DAMAGED_ZIP = (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError)
MAX_COLUMNS = 16_384  # of Excel: up to XFD
MAX_SHEET_BYTES = 256 * 1024 * 1024  # unpacked; that of 11 125 pictures has 2 MB


class RawRow(NamedTuple):
    """
    One row as it stands in its file.

    Args:
        file (`str`): The file's name.
        line (`int`): Its line, counted from 1.
        fields (`dict`): Values by column, and what the reader of the data set joined to them.
        problem (`str`, *optional*, defaults to `""`): Why it could not be taken apart.
        unit (`str`, *optional*, defaults to `"line"`): What `line` counts, where it is not lines.
    """

    file: str
    line: int
    fields: dict[str, Any]
    problem: str = ""
    unit: str = "line"

    @property
    def where(self) -> str:
        """What a message calls it."""
        return f"{self.file}, {self.unit} {self.line}"


# Text ----------------------------------------------------------------------------------------------------------------


def read_lines(path: Path) -> Iterator[str]:
    """The lines of a file of text, with their ends."""
    with path.open("rb") as file:
        start = file.read(2)
        file.seek(0)
        if start in UTF_16_MARKS:
            yield from io.StringIO(file.read().decode("utf-16"), newline="\n")  # no other line end than that
            return
        if start == b"\xef\xbb":
            file.seek(3)
        for line in file:
            try:
                yield line.decode()
            except UnicodeDecodeError:
                yield line.decode("cp1252", errors="replace")  # what programs under Windows call ANSI


def read_words(path: Path, columns: Sequence[str]) -> Iterator[RawRow]:
    """Rows of words between any blanks, without a header; the last column takes what is left over."""
    width = len(columns)
    for number, line in enumerate(read_lines(path), start=1):
        words = line.strip().split(None, width - 1) if columns[-1] == "name" else line.split()
        if not words:
            continue
        problem = "" if len(words) == width else f"{len(words)} words, expected {width}: {', '.join(columns)}"
        fields = dict(zip(columns, words, strict=False))
        yield RawRow(path.name, number, fields, problem)


def read_list(path: Path) -> list[str]:
    """The entries of a file with one a line."""
    return [entry for line in read_lines(path) if (entry := line.strip())]


def read_table(
    path: Path, *, delimiter: str = ",", need: Sequence[str] = (), columns: Sequence[str] = ()
) -> Iterator[RawRow]:
    """
    Rows of a table of separated values.

    Args:
        path (`Path`): The file.
        delimiter (`str`, *optional*, defaults to `","`): Between cells.
        need (sequence of `str`, *optional*): Columns that must be there.
        columns (sequence of `str`, *optional*): Names of the columns, where no first line holds them.

    Raises:
        ValueError: If a column is missing, or a quotation mark is never closed.
    """
    reader = csv.reader(read_lines(path), delimiter=delimiter, skipinitialspace=True, strict=True)
    names = list(columns)
    while True:
        line = reader.line_num + 1
        try:
            cells = next(reader, None)
        except csv.Error as error:
            raise ValueError(f"{path.name}, line {line}: {error}; is a quotation mark left open?") from error
        if cells is None:
            break
        cells = [cell.strip() for cell in cells]
        if not names:
            names = cells
            check_columns(path, names, need)
        elif any(cells):
            problem = "" if len(cells) == len(names) else f"{len(cells)} cells, expected {len(names)}"
            yield RawRow(path.name, line, dict(zip(names, cells, strict=False)), problem)
    check_columns(path, names, need)


def read_header(path: Path, delimiter: str = ",") -> list[str]:
    """Names of the columns of a table."""
    try:
        first = next(csv.reader(read_lines(path), delimiter=delimiter, skipinitialspace=True), [])
    except csv.Error as error:
        raise ValueError(f"{path.name}, line 1: {error}; save it with the line ends of Unix or Windows") from error
    return [cell.strip() for cell in first]


def check_columns(path: Path, columns: Sequence[str], need: Sequence[str]) -> None:
    """Refuse a table without the columns that are read, or with several of one name."""
    if missing := [name for name in need if name not in columns]:
        raise ValueError(f"{path.name} has no column {', '.join(missing)}; it has {', '.join(columns) or 'nothing'}.")
    if twice := [name for name in need if columns.count(name) > 1]:
        raise ValueError(f"{path.name} has several columns {', '.join(twice)}; which one is meant? Rename the other.")


# JSON ----------------------------------------------------------------------------------------------------------------


def read_json_array(path: Path, key: str) -> Iterator[RawRow]:
    """
    The objects of the array under a key of a JSON file, one by one: such files have a gigabyte, and their objects
    would take several times that.
    """
    with path.open(encoding="utf-8-sig") as file:
        text, at = file.read(JSON_PIECE), 0
        if (start := re.search(rf'"{key}"\s*:\s*\[', text)) is None:
            raise ValueError(f"{path.name} has no list {key!r}; it begins with {text[:60]!r}.")
        text, number = text[start.end() :], 0
        while True:
            at = JSON_GAP.match(text, at).end()  # type: ignore[union-attr]  # it matches the empty text
            if text.startswith("]", at):
                return
            try:
                value, end = json.JSONDecoder().raw_decode(text, at)
            except json.JSONDecodeError as error:
                if not (more := file.read(max(JSON_PIECE, len(text) - at))):  # twice as much each time
                    raise ValueError(
                        f"{path.name} is cut off or damaged behind entry {number}: {error.msg}."
                    ) from error
                text, at = text[at:] + more, 0
                continue
            except (ValueError, RecursionError) as error:  # a number of thousands of digits, thousands of brackets
                raise ValueError(f"{path.name} is damaged behind entry {number}: {error}.") from error
            number, at = number + 1, end
            problem = "" if isinstance(value, dict) else "expected a JSON object"
            yield RawRow(path.name, number, {} if problem else value, problem, "entry")


# Spreadsheets --------------------------------------------------------------------------------------------------------


def read_spreadsheet(path: Path, need: Sequence[str] = ()) -> Iterator[RawRow]:
    """
    Rows of the first sheet of an .xlsx file, as texts; the first row names the columns.

    Such a file is a zip of XML. What these data sets have in it is plain, and no library is needed for it.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            texts = shared_texts(archive)
            sheet = parse_part(archive, "xl/worksheets/sheet1.xml")
    except (*DAMAGED_ZIP, KeyError, ElementTree.ParseError) as error:
        raise ValueError(f"{path.name} is not a spreadsheet that can be read: {error or 'it is cut off'}") from error
    names: list[str] = []
    for count, row in enumerate(sheet.iter(f"{SHEET}row"), start=1):
        try:
            line = int(row.get("r", count))
            cells = {column_number(cell.get("r", "A")): cell_text(cell, texts) for cell in row.iter(f"{SHEET}c")}
        except (ValueError, LookupError) as error:
            raise ValueError(f"{path.name} is damaged in row {count}: {error}") from error
        if not names:
            names = [cells.get(number, "") for number in range(max(cells, default=-1) + 1)]
            check_columns(path, names, need)
        elif any(cells.values()):
            fields = {name: cells.get(number, "") for number, name in enumerate(names) if name}
            yield RawRow(path.name, line, fields)


def parse_part(archive: zipfile.ZipFile, name: str) -> ElementTree.Element:
    """A part of the file, within a limit: a few bytes of zip can hold gigabytes."""
    if archive.getinfo(name).file_size > MAX_SHEET_BYTES:
        raise ValueError(f"{archive.filename}: {name} is larger than {MAX_SHEET_BYTES} bytes.")
    return ElementTree.fromstring(archive.read(name))


def shared_texts(archive: zipfile.ZipFile) -> list[str]:
    """Texts that cells refer to by number."""
    if "xl/sharedStrings.xml" not in archive.namelist():
        return []
    entries = parse_part(archive, "xl/sharedStrings.xml").iter(f"{SHEET}si")
    return ["".join(part.text or "" for part in entry.iter(f"{SHEET}t")) for entry in entries]


def cell_text(cell: ElementTree.Element, texts: Sequence[str]) -> str:
    """The content of a cell."""
    if cell.get("t") == "inlineStr":
        return "".join(part.text or "" for part in cell.iter(f"{SHEET}t")).strip()
    value = cell.findtext(f"{SHEET}v", "")
    return (texts[int(value)] if cell.get("t") == "s" else value).strip()


def column_number(reference: str) -> int:
    """Of a cell such as `AB12`, counted from 0."""
    number = 0
    for letter in re.match("[A-Z]*", reference)[0]:  # type: ignore[index]  # it matches the empty text
        number = 26 * number + ord(letter) - ord("A") + 1
    if number > MAX_COLUMNS:
        raise ValueError(f"there is no column of the cell {reference[:20]!r}")
    return number - 1


# Cells ---------------------------------------------------------------------------------------------------------------


def number(fields: dict[str, Any], column: str) -> float:
    """
    The number in a cell.

    Raises:
        ValueError: If there is none; the message names the column.
    """
    try:
        return float(fields[column])
    except (KeyError, TypeError, ValueError):
        raise ValueError(f"{column} is {str(fields.get(column))[:60]!r}, which is no number") from None


def count(fields: dict[str, Any], column: str) -> int:
    """The whole number in a cell; a table that went through pandas has `3.0`."""
    text = fields.get(column)
    try:
        return int(text)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        value = number(fields, column)
        if not value.is_integer():
            raise ValueError(f"{column} is {text!r}, which is no whole number") from None
        return int(value)


__all__ = [
    "RawRow",
    "count",
    "number",
    "read_header",
    "read_json_array",
    "read_lines",
    "read_list",
    "read_spreadsheet",
    "read_table",
    "read_words",
]
