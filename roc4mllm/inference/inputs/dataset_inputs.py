"""Pictures of the data sets that the `datasets` library loads, streamed."""

import os
from collections.abc import Iterator
from typing import Any

from .containers import row_input
from .picture_input import PictureInput
from .stores import StoredFile


class DatasetInputs:
    """
    The pictures of a data set, called `NAME/SPLIT#ROW/FILE`, with a config `NAME/CONFIG/SPLIT#ROW/FILE`, of a revision
    `NAME@REVISION/…`.

    Args:
        name (`str`): A name on the Hub, or a folder.
        split (`str`, *optional*): One of its splits; not needed if there is one.
        config (`str`, *optional*): One of its configs; not needed if there is one.
        revision (`str`, *optional*): Branch, tag or commit on the Hub.

    Attributes:
        count (`int`, *optional*): How many there are, if the data set says so.

    Raises:
        ImportError: If `datasets` is not installed.
        ValueError: If there is no such split or config, or no column of pictures.
    """

    def __init__(
        self, name: str, split: str | None = None, config: str | None = None, revision: str | None = None
    ) -> None:
        self.name = name
        splits = load_splits(name, config, revision)
        if split is None and len(splits) == 1:
            (split,) = splits
        if split not in splits:
            raise ValueError(f"the data set {name!r} has the splits {', '.join(splits)}; name one with --split")
        self.pictures = picture_column(splits[split], name)
        self.place = "/".join(filter(None, [f"{name}@{revision}" if revision else name, config, str(split)]))
        known = (splits[split].info.splits or {}).get(split)
        self.count: int | None = (known and known.num_examples) or None

    def __iter__(self) -> Iterator[PictureInput]:
        for row, entry in enumerate(self.pictures):
            (value,) = entry.values()
            place = f"{self.place}#{row}"
            if value and value.get("bytes") is None and value.get("path"):
                file = os.path.basename(value["path"].partition("::")[0])
                yield file_input(f"{place}/{file}", value["path"], self.name)
            else:
                yield row_input(place, value, None)


def load_splits(name: str, config: str | None, revision: str | None) -> Any:
    """The splits of a data set by their names, not yet read."""
    try:
        from datasets import load_dataset  # type: ignore[import-untyped]
    except ImportError as error:
        raise ImportError("--dataset needs the datasets library: pip install 'roc4mllm[data]'") from error
    try:
        return load_dataset(name, config, revision=revision, streaming=True)
    except ValueError as error:
        reason, remedy = str(error).strip().splitlines()[0], "; name one with --config"
        raise ValueError(f"the data set {name!r}: {reason}{remedy if 'config' in reason.lower() else ''}") from error


def picture_column(rows: Any, name: str) -> Any:
    """The column of pictures of a split, undecoded."""
    from datasets import Image

    columns = [column for column, feature in (rows.features or {}).items() if isinstance(feature, Image)]
    if not columns:
        raise ValueError(f"the data set {name!r} has no column of pictures among {', '.join(rows.features or {})}")
    column = "image" if "image" in columns else columns[0]
    return rows.select_columns([column]).cast_column(column, Image(decode=False))


def file_input(place: str, path: str, name: str) -> PictureInput:
    """A picture that a data set keeps as a file, maybe in a zip: on the Hub, or in its folder. Others are not read."""
    inside, _, file = path.rpartition("::")  # as in zip://a.jpg::hf://datasets/user/name/a.zip
    if not inside or inside.startswith("zip://"):
        folder = os.path.realpath(name)
        if file.startswith("hf://"):
            return PictureInput(place, content=StoredFile(path))
        if os.path.isdir(folder) and os.path.commonpath([folder, os.path.realpath(file)]) == folder:
            return PictureInput(place, content=StoredFile(path) if inside else path)
    return PictureInput(place, "the data set points to a file outside of itself, which is not read")


__all__ = ["DatasetInputs"]
