"""
Pictures out of containers: tar shards (WebDataset) and Parquet files.

A container that breaks off ends with one input that says so: its other pictures were not dropped in silence.
"""

import lzma
import os
import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ...processing_roc4mllm.image_reading_aesthetics import PictureError, check_byte_count
from .picture_input import PICTURE_ENDINGS, PictureInput
from .stores import is_stored, open_file, read_range

TAR_ENDINGS = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
PARQUET_ROWS = 32  # read at once
NO_ROW = "the file holds no row"
IMAGE_COLUMNS = ("image", "img", "picture", "jpg", "jpeg", "png", "webp", "bytes", "content")
NAME_COLUMNS = ("path", "__key__", "key", "file_name", "filename", "name", "id", "image_id", "url")
BROKEN_TAR = (tarfile.TarError, OSError, EOFError, ValueError, OverflowError, zlib.error, lzma.LZMAError)


# Tar -----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class TarMember:
    """Where in an uncompressed archive a picture is; read by the process that decodes it."""

    archive: str
    offset: int
    size: int

    def read_bytes(self) -> bytes:
        """
        Its bytes.

        Raises:
            PictureError: If it is too large, or the archive ends within it.
            OSError: If the archive cannot be read.
        """
        check_byte_count(self.size)
        data = read_range(self.archive, self.offset, self.size)
        if len(data) < self.size:
            raise PictureError(f"the archive ends {self.size - len(data)} bytes before the end of this picture")
        return data


class StrictTarInfo(tarfile.TarInfo):
    """A header that says so where it is damaged: `tarfile` takes it for the end of the archive."""

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> "StrictTarInfo":
        """
        The header at which an archive stands.

        Raises:
            tarfile.ReadError: If it is damaged or cut off.
        """
        try:
            return super().fromtarfile(archive)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
            raise
        except tarfile.EmptyHeaderError:  # type: ignore[attr-defined]
            raise tarfile.ReadError("it has no end mark, so that it may have been cut off") from None
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(f"damaged header: {error}") from None


def read_tar(path: str) -> Iterator[PictureInput]:
    """The pictures of an archive in its order; nothing is unpacked to a file."""
    count = 0
    try:
        whole = path.lower().endswith(".tar")
        with (
            open_file(path) as file,
            tarfile.open(path, "r:" if whole else "r|*", file, tarinfo=StrictTarInfo) as archive,
        ):
            for member in archive:
                archive.members = []  # type: ignore[attr-defined]  # else it keeps all of them
                if not member.isdir() and member.name.lower().endswith(PICTURE_ENDINGS):
                    count += 1
                    yield tar_input(path, archive, member)
    except BROKEN_TAR as error:
        yield PictureInput(path, f"the archive breaks off after {count} pictures: {error}")
        return
    if not count:
        yield PictureInput(path, f"the archive holds no picture ({', '.join(PICTURE_ENDINGS[:6])}, …)")


def tar_input(path: str, archive: tarfile.TarFile, member: tarfile.TarInfo) -> PictureInput:
    """A member as an input: by its place where it lies in one piece, else by its bytes."""
    name = f"{path}/{member.name}"
    if not member.isreg():
        is_link = member.issym() or member.islnk()
        return PictureInput(name, f"a link to {member.linkname!r}, not followed" if is_link else "not a regular file")
    if path.lower().endswith(".tar") and member.sparse is None:
        return PictureInput(name, content=TarMember(path, member.offset_data, member.size))
    try:
        check_byte_count(member.size)
    except PictureError as error:
        return PictureInput(name, str(error))
    file = archive.extractfile(member)
    return PictureInput(name, content=b"" if file is None else file.read())


def count_tar(path: str) -> int | None:
    """How many inputs an archive gives; None if that takes decompressing it."""
    return sum(1 for _ in read_tar(path)) if path.lower().endswith(".tar") else None


# Parquet -------------------------------------------------------------------------------------------------------------


def read_parquet(path: str) -> Iterator[PictureInput]:
    """
    The pictures of a file's column of bytes, or of `{"bytes", "path"}` as the `datasets` library has it.

    Arrow holds the column of a whole row group: a hundred pictures as `datasets` writes them, all as pandas does.
    """
    row = 0
    try:
        with open_parquet(path) as file:
            image, name = picture_columns(file.schema_arrow)
            for batch in file.iter_batches(PARQUET_ROWS, columns=[image, *([name] if name else [])]):
                for entry in batch.to_pylist():
                    yield row_input(f"{path}#{row}", entry[image], entry.get(name) if name else None)
                    row += 1
        if not row:
            yield PictureInput(path, NO_ROW)
    except (ValueError, OSError) as error:  # pyarrow's own errors among them
        yield PictureInput(path, f"the file breaks off after {row} pictures: {error}" if row else str(error))


def count_parquet(path: str) -> int:
    """How many inputs a file gives, from its footer."""
    try:
        with open_parquet(path) as file:
            picture_columns(file.schema_arrow)
            return max(int(file.metadata.num_rows), 1)
    except (ValueError, OSError):
        return 1  # the error


def open_parquet(path: str) -> Any:
    """
    A `pyarrow.parquet.ParquetFile`.

    Raises:
        ImportError: If pyarrow is not installed.
        ValueError: If it is none.
    """
    try:
        import pyarrow.parquet  # type: ignore[import-untyped]
    except ImportError as error:
        raise ImportError(f"{path!r} needs pyarrow: pip install 'roc4mllm[data]'") from error
    place = open_file(path) if is_stored(path) else path
    return pyarrow.parquet.ParquetFile(place, pre_buffer=False)  # which would read several row groups ahead


def picture_columns(schema: Any) -> tuple[str, str | None]:
    """
    The column of pictures and that of their names.

    Raises:
        ValueError: If there is none, or several of which nothing tells which is meant.
    """
    from pyarrow import types

    binary = (types.is_binary, types.is_large_binary, types.is_binary_view, types.is_fixed_size_binary)

    def is_bytes(kind: Any) -> bool:
        return any(is_kind(kind) for is_kind in binary)

    def holds_bytes(kind: Any) -> bool:
        return is_bytes(kind) or (
            types.is_struct(kind) and any(part.name == "bytes" and is_bytes(part.type) for part in kind)
        )

    def is_name(field: Any) -> bool:
        return field.name != image and not types.is_nested(field.type) and not types.is_temporal(field.type)

    found = [field.name for field in schema if holds_bytes(field.type)]
    known = [name for name in IMAGE_COLUMNS if name in found]
    if not known and len(found) != 1:
        raise ValueError(
            f"expected a column of picture bytes, called {', '.join(IMAGE_COLUMNS[:3])}, … where there are several; "
            f"the columns are {', '.join(schema.names)}"
        )
    image = (known or found)[0]
    names = [field.name for field in schema if is_name(field)]
    return image, next((name for name in NAME_COLUMNS if name in names), None)


def row_input(place: str, value: Any, name: Any) -> PictureInput:
    """One row as an input, called after its place and its name. A file that a row points to is not read."""
    if isinstance(value, dict):
        name = os.path.basename(text_of(value.get("path"))) or name
        value = value.get("bytes")
    path = place if name is None else f"{place}/{text_of(name)}"
    return PictureInput(path, content=value) if value is not None else PictureInput(path, "this row holds no picture")


def text_of(cell: Any) -> str:
    """A name as text, whatever type it was stored as; some programs write texts as bytes."""
    if cell is None:
        return ""
    return os.fsdecode(cell) if isinstance(cell, bytes) else str(cell)


__all__ = [
    "NO_ROW",
    "PARQUET_ROWS",
    "TAR_ENDINGS",
    "TarMember",
    "count_parquet",
    "count_tar",
    "open_parquet",
    "picture_columns",
    "read_parquet",
    "read_tar",
    "row_input",
]
