"""
What a source of ratings gives, record by record, as often as needed: it is never held in memory.

Each record knows its number: the line of a text file on which it begins, as an editor shows it, or the row of a data
set, counted from 1.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PICTURE_COLUMNS = ("path", "image", "file_name", "filename", "image_path", "img", "image_name")
SPLIT_COLUMN = "split"
ATTRIBUTE_FIELDS = ("score", "score_range", "std", "votes")


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


__all__ = ["ATTRIBUTE_FIELDS", "PICTURE_COLUMNS", "RatingSource", "Record"]
