"""
Whether a model has seen the pictures that it is tested on.

The pictures of a training travel with the model as hashes of 8 bytes, at most two for each:

- of the **name**, where the data set is known (column `source`): without ending, and without folders in the data sets
  that have a script, whose names come from a pool that several may share. EVA's pictures are AVA's; those of TAD66K
  and ICAA have Flickr's names. It finds a picture that was resized or encoded anew. Without a source names say
  nothing: everybody has an IMG_0001.
- of the **content**: length, first and last bytes of the file. It finds a copy under any name, in any table.

A copy that was renamed and encoded anew is found by neither. By chance a picture seems known with a probability of
(hashes of the training) / 2^64: for the 20 000 pictures of AVA's test against 230 000, that any of them does, 1 in
10^9.
"""

import hashlib
import json
import math
import os
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.numpy import save

from ..whole_files import write_whole
from .registry import DATA_SETS

Hashes: TypeAlias = NDArray[np.uint64]

GUARD_FILE = "trained_on.safetensors"
EDGE_BYTES = 16 * 1024  # of either end of a file: no two photographs share them, and a gigabyte need not be read
PICTURE_ENDING = re.compile(r"\.(jpe?g|jfif|jp2|png|bmp|webp|gif|tiff?|avif|hei[cf])$", re.IGNORECASE)
FIRST_NAMES = 5
UNNAMED = "csv"  # what tables are called whose owner gave no name
NONE = 0  # stands for no hash, and is left out of comparisons


class LeakError(ValueError):
    """
    A test that holds pictures of the training.

    Args:
        message (`str`): How many, and what to do.
        overlap ([`Overlap`]): The same, counted.
    """

    def __init__(self, message: str, overlap: "Overlap"):
        super().__init__(message)
        self.overlap = overlap


@dataclass(frozen=True)
class Overlap:
    """
    What a test shares with a training; false if nothing.

    Args:
        pictures (`int`): Rows of the test.
        shared (`int`): Those of them whose picture the training held.
        first (`tuple[str, ...]`): Names of the first of them.
        trained_on, tested_on (`tuple[str, ...]`): Protocol and split of either side, as far as they are known.
    """

    pictures: int
    shared: int
    first: tuple[str, ...]
    trained_on: tuple[str, ...]
    tested_on: tuple[str, ...]

    def __bool__(self) -> bool:
        return bool(self.shared)

    def __str__(self) -> str:
        sides = [", ".join(names) or "data without a protocol" for names in (self.trained_on, self.tested_on)]
        text = (
            f"{self.shared} of {self.pictures} test pictures were trained on (trained: {sides[0]}; test: {sides[1]})"
        )
        return text + (f"; the first: {', '.join(self.first)}" if self.first else "")


# Hashes --------------------------------------------------------------------------------------------------------------


def picture_name(image_id: str) -> str:
    """A name as it is compared: without ending, in one form of Unicode, capitals alike."""
    name = image_id.replace("\\", "/").strip()
    return unicodedata.normalize("NFC", PICTURE_ENDING.sub("", name)).casefold()


def as_text(cell: Any) -> str | None:
    """A name as a table of texts has it: Parquet and JSON hold those of AVA as numbers, or NaN where there is none."""
    if isinstance(cell, float):
        cell = int(cell) if cell.is_integer() else cell if math.isfinite(cell) else None
    return None if cell is None else str(cell)


def name_hash(image_id: str | None, source: str | None) -> int:
    """Hash of a name in the pool of its data set, `NONE` where the data set is not known."""
    if not image_id or not source or source == UNNAMED:
        return NONE
    name, pool = picture_name(image_id), source
    if found := DATA_SETS.get(source):
        pool, name = found.pictures_of or found.name, name.rpartition("/")[2]  # folders differ from copy to copy
    return as_number(f"{pool}\0{name}".encode(errors="surrogatepass"))


def protocol_name(columns: Mapping[str, Any]) -> str | None:
    """`<split_protocol>/<split>` of a row, `None` where it has no protocol."""
    protocol = columns.get("split_protocol")
    return f"{protocol}/{columns.get('split') or 'all'}" if protocol else None


def content_hash(picture: Any) -> int:
    """
    Hash of the content of a picture, `NONE` where it cannot be read.

    Args:
        picture (`str` or `dict`): A path, or a `{"bytes", "path"}` record of the `datasets` library.
    """
    if isinstance(picture, dict):
        if picture["bytes"] is not None:
            data = picture["bytes"]
            return as_number(edges(len(data), data[:EDGE_BYTES], data[-EDGE_BYTES:]))
        picture = picture["path"]
    try:
        with open(picture, "rb") as file:
            size, first = os.fstat(file.fileno()).st_size, file.read(EDGE_BYTES)
            file.seek(max(size - EDGE_BYTES, 0))
            return as_number(edges(size, first, file.read(EDGE_BYTES)))
    except (OSError, TypeError, ValueError):
        return NONE


def edges(size: int, first: bytes, last: bytes) -> bytes:
    """What stands for the content of a file."""
    return size.to_bytes(8, "little") + first + last


def as_number(key: bytes) -> int:
    """Eight bytes of a digest."""
    return int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "little")


def id_set_hash(image_ids: Iterable[str]) -> str:
    """What two splits have in common if and only if they hold the same ids, in whatever order."""
    digest = hashlib.blake2b(digest_size=16)
    for image_id in sorted(set(image_ids)):
        digest.update(image_id.encode() + b"\0")
    return digest.hexdigest()


# Sets of pictures ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class PictureSet:
    """
    The pictures of some rows, by their hashes.

    Args:
        names, contents (`np.ndarray` of shape `(rows,)`, uint64):
            In the order of the rows, `NONE` where there is none.
        protocols (`tuple[str, ...]`): `<split_protocol>/<split>` of the rows, as far as they are known.
        sources (`tuple[str, ...]`): Names of their data sets, as far as they are known.
        unknown (`tuple[str, ...]`): Models below this one of which nothing tells what they were trained on.
        labels (sequence of `str`): Names of the rows, for messages; not saved.
    """

    names: Hashes
    contents: Hashes
    protocols: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()
    labels: Sequence[str] = ()

    @classmethod
    def of(cls, rows: Iterable[Mapping[str, Any]]) -> "PictureSet":
        """
        The pictures of rows as [`~roc4mllm.read_ratings`] gives them; its `outlines()` spare reading them once more.

        Args:
            rows (iterable of `dict`):
                Each with `image`, or its `content` (hash), and `columns` with `image_id`, `source`, `split_protocol`
                and `split` as far as they are known.
        """
        names, contents, labels = [], [], []
        protocols, sources = set(), set()
        for number, row in enumerate(rows, start=1):
            columns, image = row["columns"], row["image"]
            path = image["path"] if isinstance(image, Mapping) else image
            name, source = as_text(columns.get("image_id")) or path, as_text(columns.get("source"))
            names.append(name_hash(name, source))
            contents.append(row["content"] if "content" in row else content_hash(image))
            labels.append(os.path.basename(name) if name else f"row {number}")
            protocols.add(protocol_name(columns))
            sources.add(source if source != UNNAMED else None)
        return cls(as_hashes(names), as_hashes(contents), known(protocols), known(sources), labels=labels)

    @classmethod
    def empty(cls, unknown: Iterable[str] = ()) -> "PictureSet":
        """No pictures, for a model of which nothing tells what it was trained on."""
        return cls(as_hashes([]), as_hashes([]), unknown=known(unknown))

    def __len__(self) -> int:
        return len(self.names)

    def __or__(self, other: "PictureSet") -> "PictureSet":
        """Both, as for a model that was trained on from another."""
        names, contents = (
            np.concatenate(pair) for pair in ((self.names, other.names), (self.contents, other.contents))
        )
        told = [known((*getattr(self, name), *getattr(other, name))) for name in ("protocols", "sources", "unknown")]
        return PictureSet(names, contents, *told)

    def digest(self) -> str:
        """What stands in a model's card: equal for equal sets, in whatever order."""
        digest = hashlib.blake2b(digest_size=16)
        for hashes in (self.names, self.contents):
            found = distinct(hashes)
            digest.update(len(found).to_bytes(8, "little") + found.astype("<u8").tobytes())
        return digest.hexdigest()

    def shared(self, test: "PictureSet") -> NDArray[np.bool_]:
        """Which rows `(rows,)` of a test show pictures of this training."""
        return is_in(test.names, self.names) | is_in(test.contents, self.contents)

    def overlap(self, test: "PictureSet") -> Overlap:
        """What a test shares with this training."""
        rows = np.flatnonzero(self.shared(test))
        first = tuple(test.labels[row] for row in rows[:FIRST_NAMES]) if test.labels else ()
        return Overlap(len(test), len(rows), first, self.protocols, test.protocols)

    def save(self, folder: str | os.PathLike[str]) -> None:
        """
        Write `trained_on.safetensors`, sorted and each hash once: the order of the rows does not travel. Its header
        tells the digest, the protocols, the models of which nothing is known, and what a card says of the data sets.
        """
        tensors = {"names": distinct(self.names), "contents": distinct(self.contents)}
        told = {
            "protocols": self.protocols,
            "unknown": self.unknown,
            "data": [described(name) for name in self.sources],
        }
        header = {name: json.dumps(value, ensure_ascii=False) for name, value in told.items()}
        write_whole(Path(folder, GUARD_FILE), save(tensors, metadata=header | {"digest": self.digest()}))

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> "PictureSet | None":
        """
        What a model was trained on, `None` where nothing tells.

        Raises:
            ValueError: If the file is damaged.
        """
        path = Path(folder, GUARD_FILE)
        if not path.is_file():
            return None
        try:
            with safe_open(path, framework="numpy") as file:
                told = file.metadata() or {}
                found = cls(
                    file.get_tensor("names"),
                    file.get_tensor("contents"),
                    tuple(json.loads(told["protocols"])),
                    tuple(entry["name"] for entry in json.loads(told.get("data", "[]"))),
                    tuple(json.loads(told.get("unknown", "[]"))),
                )
        except Exception as error:  # safetensors raises a class of its own, which it does not export everywhere
            raise ValueError(f"{path.name} cannot be read, so nothing tells what was trained on: {error}") from error
        if found.digest() != told.get("digest"):
            raise ValueError(f"{path.name} is damaged: its hashes are not those that it was written with.")
        return found


def described(source: str) -> dict[str, str]:
    """What a card says of a data set; of one without a script, its name."""
    found = DATA_SETS.get(source)
    return {"name": source} | (
        {"title": found.title, "terms": found.terms, "citation": found.citation} if found else {}
    )


def known(texts: Iterable[str | None]) -> tuple[str, ...]:
    """Sorted, each once, without what is not known."""
    return tuple(sorted({text for text in texts if text}))


def as_hashes(numbers: Sequence[int]) -> Hashes:
    """Numbers as an array."""
    return np.array(numbers, dtype=np.uint64)


def distinct(hashes: Hashes) -> Hashes:
    """Sorted, each once, without `NONE`."""
    found: Hashes = np.unique(hashes[hashes != NONE])
    return found


def is_in(wanted: Hashes, known: Hashes) -> NDArray[np.bool_]:
    """Whether each of `wanted` occurs in `known`; `NONE` does not."""
    found: NDArray[np.bool_] = np.isin(wanted, known) & (wanted != NONE)
    return found


def check_leak(trained: PictureSet, test: PictureSet, *, allow_leak: bool = False) -> Overlap:
    """
    Compare a test with what a model was trained on.

    Args:
        trained, test ([`PictureSet`]):
            The pictures of either side.
        allow_leak (`bool`, *optional*, defaults to `False`):
            Return an overlap instead of raising it, for a result that says so.

    Returns:
        [`Overlap`]

    Raises:
        LeakError: If the test holds pictures of the training.
    """
    overlap = trained.overlap(test)
    if overlap and not allow_leak:
        raise LeakError(f"{overlap}. Test on other pictures, or allow_leak for a result that is marked.", overlap)
    return overlap


__all__ = ["GUARD_FILE", "LeakError", "Overlap", "PictureSet", "check_leak", "content_hash", "id_set_hash"]
