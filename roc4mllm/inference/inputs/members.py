"""
Pictures inside local shards, found again by the `path` of their rows: `a.tar/cat.jpg`, `b.parquet#7/cat.jpg`.

A shard is read from its beginning for all that is wanted of it, an archive twice; a picture is held at a time.
"""

import io
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from PIL import Image

from ...processing_roc4mllm.image_reading_aesthetics import UNSAFE_FORMATS, PictureError
from ...processing_roc4mllm.picture_batches_aesthetics import describe
from ..tables.score_table import encodable
from .containers import TAR_ENDINGS, read_tar
from .parquet_places import ParquetReader
from .picture_input import PICTURE_ENDINGS, PictureInput

IN_SHARD = re.compile(rf"({'|'.join(map(re.escape, TAR_ENDINGS))})/|(\.parquet)#(\d{{1,15}})(?:/|$)", re.IGNORECASE)
UNSAFE_IN_NAMES = re.compile(r'[\x00-\x1f\x7f<>:"|?*]')
LONGEST_NAME = 200  # bytes; file systems take 255, and a number may come behind it
USUAL_ENDINGS = {"JPEG": ".jpg", "TIFF": ".tif", "JPEG2000": ".jp2"}


@dataclass(frozen=True)
class Member:
    """
    A picture inside a shard.

    Args:
        path (`str`): As the row of a table has it.
        shard (`str`): The tar or Parquet file.
        row (`int`, *optional*): Its row in a Parquet file.
    """

    path: str
    shard: str
    row: int | None = None

    def file_name(self, content: bytes) -> str:
        """A name for a file of its own, which leads to no other folder and ends as pictures of its format do."""
        name = self.path[len(self.shard) + 1 :].replace("\\", "/").rpartition("/")[2]
        if self.row is not None and self.path == f"{self.shard}#{self.row}":
            name = f"{os.path.splitext(os.path.basename(self.shard))[0]}-{self.row}"
        name = UNSAFE_IN_NAMES.sub("_", name).strip(". ") or "picture"
        stem, ending = os.path.splitext(name)
        if ending.lower() not in PICTURE_ENDINGS:
            stem, ending = name, ending_of(content)
        if len(os.fsencode(stem)) > LONGEST_NAME:
            stem = os.fsencode(stem)[:LONGEST_NAME].decode("utf-8", "ignore")
        return stem + ending


def ending_of(content: bytes) -> str:
    """How the name of such a file ends; nothing if that cannot be told."""
    try:
        with Image.open(io.BytesIO(content)) as image:
            kind = image.format or ""
    except Exception:  # as varied as damaged files are
        return ""
    return "" if kind in ("", *UNSAFE_FORMATS) else USUAL_ENDINGS.get(kind, f".{kind.lower()}")


def find_member(path: str) -> Member | None:
    """The picture inside a shard that a path means; `None` if it is a file, or there is no such shard."""
    if os.path.lexists(path):
        return None
    for found in IN_SHARD.finditer(path):
        shard = path[: found.end(2) if found[2] else found.end(1)]
        if os.path.isfile(shard):
            return Member(path, shard, int(found[3]) if found[3] else None)
    return None


def read_members(members: Iterable[Member]) -> Iterator[tuple[Member, bytes, str | None]]:
    """
    Read pictures, shard by shard.

    Yields:
        `tuple[Member, bytes, str | None]`: each with its bytes, or the reason why there are none.
    """
    by_shard: dict[str, list[Member]] = {}
    for member in members:
        by_shard.setdefault(member.shard, []).append(member)
    for wanted in by_shard.values():
        yield from read_of_tar(wanted) if wanted[0].row is None else read_of_parquet(wanted)


def read_of_tar(wanted: Sequence[Member]) -> Iterator[tuple[Member, bytes, str | None]]:
    """Pictures of one archive, read twice: of several of one name, a path does not tell which it means."""
    shard = wanted[0].shard
    by_path: dict[str, list[Member]] = {}
    for member in wanted:
        by_path.setdefault(encodable(member.path), []).append(member)
    counts = Counter(path for item in read_tar(shard) if (path := encodable(item.path)) in by_path)
    why = "it is no longer in the archive"
    for item in read_tar(shard):
        path = encodable(item.path)
        if item.error is not None and item.path == shard:
            why = item.error
        elif counts[path] == 1:
            content, error = bytes_of(item)
            yield from ((member, content, error) for member in by_path[path])
    for path, group in by_path.items():
        if counts[path] != 1:
            reason = f"the archive holds {counts[path]} pictures of this name" if counts[path] else why
            yield from ((member, b"", reason) for member in group)


def read_of_parquet(wanted: Sequence[Member]) -> Iterator[tuple[Member, bytes, str | None]]:
    """Pictures of one Parquet file."""
    reader: ParquetReader | None = None
    for member in sorted(wanted, key=lambda member: member.row or 0):
        try:
            reader = reader or ParquetReader(member.shard)
            item = reader.read(member.row or 0)
        except (ValueError, OSError, LookupError) as error:
            reader = None
            yield member, b"", f"cannot be read: {describe(error)}"
            continue
        changed = encodable(item.path) != encodable(member.path)
        yield (member, b"", f"this row is {item.path} now") if changed else (member, *bytes_of(item))


def bytes_of(item: PictureInput) -> tuple[bytes, str | None]:
    """The bytes of an input, or the reason why there are none."""
    if item.error is not None:
        return b"", item.error
    if isinstance(item.content, bytes):
        return item.content, None
    try:
        return item.content.read_bytes(), None
    except (PictureError, OSError) as error:
        return b"", describe(error)


__all__ = ["Member", "find_member", "read_members"]
