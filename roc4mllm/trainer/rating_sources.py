"""
Where ratings stand: a CSV, TSV, JSON or JSON-lines file, or a data set of the `datasets` library (Parquet, Hub names).

A source is read record by record, as often as needed, and is never held in memory. Each record knows its number: the
line of a text file on which it begins, as an editor shows it, or the row of a data set, counted from 1.
"""

import contextlib
import csv
import json
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PICTURE_COLUMNS = ("path", "image", "file_name", "filename", "image_path", "img", "image_name")
SPLIT_COLUMN = "split"
DELIMITERS = ",;\t"
ATTRIBUTE_COLUMN = "attributes"  # a list of what else was rated, as converted data sets have it
ATTRIBUTE_FIELDS = ("score", "score_range", "std", "votes")
METADATA_FILES = ("metadata.csv", "metadata.jsonl", "metadata.parquet")  # what an ImageFolder calls its table
HUB_NAME = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?")


@dataclass
class Record:
    """
    One record of a source.

    Args:
        number (`int`): Its line or row, counted from 1.
        fields (`dict`): Values by column; of a CSV all are texts.
        problem (`str`, *optional*, defaults to `""`): Why it could not be taken apart into fields.
    """

    number: int
    fields: dict[str, Any]
    problem: str = ""


class RatingSource:
    """
    Base of the sources: iterating gives the [`Record`]s of the split.

    Args:
        path (`Path`, *optional*): The file or folder, where there is one.
        name (`str`): What messages call it.
        split (`str`, *optional*): Only the records whose column `split` says so.
    """

    unit = "line"  # what a record's number counts
    pictures: Any = None  # `EmbeddedPictures` where the source holds the pictures themselves

    def __init__(self, path: Path | None, name: str, split: str | None):
        self.path, self.name, self.split = path, name, split
        self.columns: list[str] = []
        self.attributes: list[str] = []  # what the source itself says was rated beside the score

    @property
    def attribute_columns(self) -> set[str]:
        """Columns that were made of a list of attributes."""
        return {f"{name}_{kind}" for name in self.attributes for kind in ATTRIBUTE_FIELDS}

    @property
    def folder(self) -> Path | None:
        """The folder of the file, where relative paths of pictures start from."""
        return self.path if self.path is None or self.path.is_dir() else self.path.parent

    def records(self) -> Iterator[Record]:
        """All records of all splits."""
        raise NotImplementedError

    def __iter__(self) -> Iterator[Record]:
        if self.split is not None and SPLIT_COLUMN not in self.columns:
            raise ValueError(f"{self.name} has no column {SPLIT_COLUMN!r} to pick the split {self.split!r} by.")
        for record in self.records():
            # what cannot be taken apart may belong to any split
            if self.split is None or record.problem or record.fields.get(SPLIT_COLUMN) == self.split:
                yield record


# Text files ----------------------------------------------------------------------------------------------------------


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


# Data sets -----------------------------------------------------------------------------------------------------------


class EmbeddedPictures:
    """
    The pictures that stand in a data set, undecoded and on disk: `pictures[n]` is that of row `n`, counted from 1, as
    `{"bytes": …, "path": …}`.
    """

    def __init__(self, dataset: Any, column: str):
        from datasets import Image  # type: ignore[import-untyped]

        self.column = column
        self.dataset = dataset.select_columns([column])
        if isinstance(dataset.features[column], Image):
            self.dataset = self.dataset.cast_column(column, Image(decode=False))

    def __getitem__(self, number: int) -> dict[str, Any]:
        return as_picture(self.dataset[int(number) - 1][self.column])

    def each(self, numbers: Sequence[int]) -> Iterator[dict[str, Any]]:
        """Those of many rows, which is faster than one by one."""
        for batch in self.dataset.select([number - 1 for number in numbers]).iter(batch_size=16):
            yield from map(as_picture, batch[self.column])


def as_picture(value: Any) -> dict[str, Any]:
    """A cell of a picture column as the record that the `datasets` library uses for undecoded pictures."""
    if isinstance(value, dict):
        return {"bytes": value.get("bytes"), "path": value.get("path")}
    return {"bytes": value, "path": None}


class DatasetSource(RatingSource):
    """
    A `datasets.Dataset`; columns of pictures, sound and other bytes are no fields of its records. A column of
    attributes becomes columns of their names: `light_score`, `light_score_range`, `light_std`, `light_votes`.
    """

    unit = "row"

    def __init__(self, dataset: Any, path: Path | None, name: str, split: str | None = None):
        super().__init__(path, name, split)
        dataset = dataset.with_format(None)
        if column := picture_column(dataset.features, name):
            self.pictures = EmbeddedPictures(dataset, column)
        self.columns = [column for column, feature in dataset.features.items() if is_readable(feature)]
        self.dataset = dataset.select_columns(self.columns)
        if is_attribute_list(dataset.features.get(ATTRIBUTE_COLUMN)):
            self.attributes = attribute_names(self.dataset)
            self.columns.remove(ATTRIBUTE_COLUMN)
            self.columns += [f"{name}_{kind}" for name in self.attributes for kind in ATTRIBUTE_FIELDS]

    def records(self) -> Iterator[Record]:
        """The rows; a class label is its name."""
        from datasets import ClassLabel

        labels = {name: kind for name, kind in self.dataset.features.items() if isinstance(kind, ClassLabel)}
        number = 0
        for batch in self.dataset.iter(batch_size=1000) if self.columns else ():
            for values in zip(*batch.values(), strict=True):
                number += 1
                fields = dict(zip(batch, values, strict=True))
                fields |= {name: label_name(kind, fields[name]) for name, kind in labels.items()}
                if self.attributes:
                    fields |= spread(fields.pop(ATTRIBUTE_COLUMN))
                yield Record(number, fields)


def is_attribute_list(feature: Any) -> bool:
    """Whether a column lists what was rated, each with a name and a score."""
    from datasets import List

    return isinstance(feature, List) and isinstance(feature.feature, dict) and {"name", "score"} <= {*feature.feature}


def attribute_names(dataset: Any) -> list[str]:
    """Names of the attributes of all rows, in the order in which they first occur."""
    import pyarrow.compute as pc  # type: ignore[import-untyped]

    names: dict[str, None] = {}
    for batch in dataset.select_columns([ATTRIBUTE_COLUMN]).with_format("arrow").iter(batch_size=1000):
        entries = pc.list_flatten(batch.column(ATTRIBUTE_COLUMN))
        found = pc.unique(pc.struct_field(entries, "name")).to_pylist()
        names.update(dict.fromkeys(name for name in found if name))
    return list(names)


def spread(attributes: Sequence[dict[str, Any]] | None) -> dict[str, Any]:
    """A list of attributes as fields."""
    return {
        f"{entry['name']}_{kind}": entry[kind]
        for entry in attributes or ()
        for kind in ATTRIBUTE_FIELDS
        if kind in entry
    }


def label_name(kind: Any, label: int | None) -> str | None:
    """The name of a class label; `datasets` writes -1 where it is unknown."""
    return None if label is None or label < 0 else kind.int2str(label)


def picture_column(features: Any, name: str) -> str | None:
    """The column that holds pictures themselves: of the type `Image`, or else bytes."""
    from datasets import Image

    columns = [column for column, feature in features.items() if isinstance(feature, Image)]
    columns = columns or [column for column, feature in features.items() if is_bytes(feature)]
    known = [column for wanted in PICTURE_COLUMNS for column in columns if column.casefold() == wanted]
    if len(columns) > 1 and not known:
        raise ValueError(f"{name} has several columns of pictures ({', '.join(columns)}); call the right one 'image'.")
    return (known or columns or [None])[0]


def is_bytes(feature: Any) -> bool:
    """Whether a column holds bytes, plain or under the name `bytes`."""
    if isinstance(feature, dict):
        return "bytes" in feature and is_bytes(feature["bytes"])
    return "binary" in str(getattr(feature, "dtype", ""))


def is_readable(feature: Any) -> bool:
    """Whether a column holds texts, numbers, or lists and records of them."""
    from datasets import ClassLabel, LargeList, List, Value

    if isinstance(feature, List | LargeList):
        return is_readable(feature.feature)
    if isinstance(feature, dict):
        return all(map(is_readable, feature.values()))
    return isinstance(feature, Value | ClassLabel) and not is_bytes(feature)


# From what a user names to a source ----------------------------------------------------------------------------------

TEXT_SOURCES: dict[str, Any] = {
    ".csv": CSVSource, ".tsv": CSVSource, ".jsonl": JSONLinesSource, ".ndjson": JSONLinesSource, ".json": JSONSource
}  # fmt: skip


def open_source(source: Any, split: str | None = None) -> RatingSource:
    """
    Open what a user calls his ratings.

    Args:
        source (`str`, path or `datasets.Dataset`):
            A .csv, .tsv, .json, .jsonl or .parquet file, a folder, or a data set by name or as an object. Only a name
            that could not be a file's is looked for on the Hub.
        split (`str`, *optional*):
            The split to read: of a folder or named data set, or by the column `split` of a file.

    Raises:
        ValueError: If there are several splits and none is named, or the content does not fit the format.
        OSError: If there is no such file, or it cannot be read.
        ImportError: If the `datasets` library is needed and missing.
    """
    if not isinstance(source, str | os.PathLike):
        if not (hasattr(source, "features") and hasattr(source, "select")):
            raise TypeError(f"Got {type(source).__name__}; expected a path, a name or a `datasets.Dataset`.")
        return DatasetSource(source, None, "the data set", split)
    path = Path(source)
    if path.is_dir():
        return open_folder(path, split)
    if path.is_file():
        return open_file(path, path.name, split)
    name = os.fspath(source)
    if not HUB_NAME.fullmatch(name) or path.suffix.lower() in (*TEXT_SOURCES, ".parquet"):
        raise FileNotFoundError(f"No such file or folder: {name!r}.")
    return DatasetSource(load_dataset(name, split, name), None, name)


def open_file(path: Path, name: str, split: str | None = None) -> RatingSource:
    """The source of a file, by its ending."""
    ending = path.suffix.lower()
    if ending == ".parquet":
        loaded = load_dataset(name, "train", "parquet", data_files=str(path))  # the one split of a lone file
        return DatasetSource(loaded, path, name, split)
    if ending not in TEXT_SOURCES:
        raise ValueError(
            f"Cannot tell the format of {name!r}: expected {', '.join([*TEXT_SOURCES, '.parquet'])}, a folder or the "
            "name of a data set."
        )
    return TEXT_SOURCES[ending](path, name, split)


def open_folder(folder: Path, split: str | None) -> RatingSource:
    """
    A folder of pictures with a metadata file, here or in one sub-folder per split, as ImageFolder lays them out; any
    other goes to the `datasets` library. A metadata file is read here, so that messages can name its lines.
    """
    if table := metadata_in(folder):
        return open_file(table, table.name, split)
    tables = {child.name: table for child in sorted(folder.iterdir()) if (table := metadata_in(child))}
    if not tables:
        return DatasetSource(load_dataset(folder.name, split, str(folder)), folder, folder.name)
    name = choose_split(folder.name, list(tables), split)
    return open_file(tables[name], f"{name}/{tables[name].name}")


def metadata_in(folder: Path) -> Path | None:
    """The metadata file that stands in a folder."""
    return next((folder / name for name in METADATA_FILES if (folder / name).is_file()), None)


def choose_split(name: str, splits: list[str], wanted: str | None) -> str:
    """The split to read: the wanted one, or the only one."""
    if wanted is None and len(splits) > 1:
        raise ValueError(f"{name} has the splits {', '.join(splits)}; name the one to read with split.")
    if wanted is not None and wanted not in splits:
        raise ValueError(f"{name} has no split {wanted!r}; it has {', '.join(splits)}.")
    return wanted or splits[0]


def load_dataset(name: str, split: str | None, *args: str, **options: Any) -> Any:
    """One split of a data set, by `datasets.load_dataset`."""
    try:
        import datasets
    except ImportError as error:
        raise ImportError(f'{name} needs the datasets library: pip install "roc4mllm[train]"') from error
    try:
        loaded = datasets.load_dataset(*args, split=split, **options)
    except (datasets.exceptions.DatasetsError, OSError, ValueError) as error:
        raise ValueError(
            f"{name!r} is no file of ratings, and the datasets library cannot load it: {error}"
        ) from error
    return loaded[choose_split(name, list(loaded), None)] if isinstance(loaded, dict) else loaded


__all__ = ["EmbeddedPictures", "RatingSource", "Record", "open_source"]
