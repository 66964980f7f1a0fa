"""Where ratings stand: from what a user names to a file, a folder or a data set that is read record by record."""

import os
import re
from pathlib import Path
from typing import Any

from .rating_dataset_sources import DatasetSource
from .rating_records import RatingSource
from .rating_text_sources import TEXT_SOURCES

METADATA_FILES = ("metadata.csv", "metadata.jsonl", "metadata.parquet")  # what an ImageFolder calls its table
HUB_NAME = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?")


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
        import datasets  # type: ignore[import-untyped]
    except ImportError as error:
        raise ImportError(f'{name} needs the datasets library: pip install "roc4mllm[train]"') from error
    try:
        loaded = datasets.load_dataset(*args, split=split, **options)
    except (datasets.exceptions.DatasetsError, OSError, ValueError) as error:
        raise ValueError(
            f"{name!r} is no file of ratings, and the datasets library cannot load it: {error}"
        ) from error
    return loaded[choose_split(name, list(loaded), None)] if isinstance(loaded, dict) else loaded


__all__ = ["METADATA_FILES", "open_file", "open_source"]
