"""
Unpacking the archives of a raw download where nobody has done it yet: .zip (also in parts, .zip.001 …) and .tar.

An archive is somebody else's: only regular files leave it, under a plain relative name, within a limit on bytes that
no archive of pictures reaches and a bomb does.
"""

import io
import os
import re
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path, PurePosixPath
from typing import IO

ARCHIVE = re.compile(r"(.+?)(\.zip|\.zip\.001|\.tar|\.tar\.gz|\.tgz|\.tar\.bz2|\.tar\.xz)", re.IGNORECASE)
UNREADABLE = {".7z", ".rar"}
MAX_RATIO = 30  # unpacked by packed bytes: pictures reach 1.1, tables of numbers 10
FREE_BYTES = 256 * 1024 * 1024  # on top of it, for small archives of tables
PIECE = 1024 * 1024
DAMAGED = (  # what reading a damaged archive raises; an `OSError` may also be a full disk
    zipfile.BadZipFile, tarfile.TarError, zlib.error, io.UnsupportedOperation, EOFError, NotImplementedError,
    RuntimeError,
)  # fmt: skip


def archive_stem(path: Path) -> str | None:
    """The name of an archive without its endings, `None` for any other file."""
    found = ARCHIVE.fullmatch(path.name)
    return found[1] if found else None


def unpack(archive: Path, folder: Path) -> None:
    """
    Write the files of an archive below a new folder, which appears when it is complete.

    Args:
        archive (`Path`): The first part, where there are several.
        folder (`Path`): Where to; nothing is done if it exists.

    Raises:
        ValueError: If the archive is damaged, needs a password, holds more bytes than its size explains, or a name
            that leads out of the folder.
    """
    if folder.is_dir():
        return
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    parts = parts_of(archive)
    if archive.with_suffix(".z01").is_file():
        raise ValueError(
            f"{archive.name} is the end of a zip in pieces; join them: zip -s 0 {archive.name} --out NEW.zip"
        )
    left = MAX_RATIO * sum(part.stat().st_size for part in parts) + FREE_BYTES
    try:
        for name, content in members(archive, parts):
            target = place_in(partial, name, archive.name)
            target.parent.mkdir(parents=True, exist_ok=True)
            with content, target.open("xb") as file:  # x: an archive may name a file twice
                while piece := content.read(PIECE):
                    left -= len(piece)
                    if left < 0:
                        raise ValueError(f"{archive.name} holds far more than pictures would: is it a bomb?")
                    file.write(piece)
    except DAMAGED as error:
        hint = "unpack it by hand with the password of its owners" if "password" in str(error) else "fetch it again"
        raise ValueError(f"{archive.name} cannot be unpacked ({error}); {hint}.") from error
    except FileExistsError as error:
        raise ValueError(f"{archive.name} holds {Path(error.filename).name!r} twice.") from error
    os.replace(partial, folder)


def parts_of(archive: Path) -> list[Path]:
    """The archive, or its parts .001, .002, … in order."""
    if archive.suffix != ".001":
        return [archive]
    parts = [archive]
    while (part := archive.with_suffix(f".{len(parts) + 1:03}")).is_file():
        parts.append(part)
    return parts


def members(archive: Path, parts: Sequence[Path]) -> Iterator[tuple[str, IO[bytes]]]:
    """Name and content of the regular files; links, devices and folders are left out."""
    if ".zip" in archive.name.lower():
        with JoinedParts(parts) as file, zipfile.ZipFile(file) as packed:
            for entry in packed.infolist():
                is_link = entry.external_attr >> 28 == 0xA  # as Unix writes a symbolic link
                if not entry.is_dir() and not is_link:
                    yield entry.filename, packed.open(entry)
    else:
        with tarfile.open(archive, "r|*") as packed_tar:  # as a stream: front to back, nothing kept
            for member in packed_tar:
                content = packed_tar.extractfile(member) if member.isreg() else None
                if content is not None:
                    yield member.name, content


def place_in(folder: Path, name: str, archive: str) -> Path:
    """Where a member goes: below the folder, or nowhere."""
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or ":" in name or "\0" in name or not path.parts:
        raise ValueError(f"{archive} holds {name[:100]!r}, a name that leads out of its folder; do not trust it.")
    return folder.joinpath(*path.parts)


class JoinedParts(io.RawIOBase):
    """Files one after another, read as one."""

    def __init__(self, paths: Sequence[Path]):
        super().__init__()
        self.opened = ExitStack()
        self.files = [self.opened.enter_context(path.open("rb")) for path in paths]
        self.starts = [0]
        for path in paths:
            self.starts.append(self.starts[-1] + path.stat().st_size)
        self.at = 0

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is: the table of a zip stands at its end."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to a position of the whole."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self.at, os.SEEK_END: self.starts[-1]}[whence]
        if base + offset < 0:
            raise io.UnsupportedOperation("it points before its own start")
        self.at = base + offset
        return self.at

    def read(self, size: int = -1) -> bytes:
        """Bytes from the position on, fewer only at the end."""
        wanted = max(self.starts[-1] - self.at, 0) if size is None or size < 0 else size
        pieces = []
        for file, start, end in zip(self.files, self.starts, self.starts[1:], strict=False):
            if wanted and start <= self.at < end:
                file.seek(self.at - start)
                pieces.append(file.read(min(wanted, end - self.at)))
                self.at += len(pieces[-1])
                wanted -= len(pieces[-1])
        return b"".join(pieces)

    def close(self) -> None:
        """Close all parts."""
        self.opened.close()
        super().close()


__all__ = ["UNREADABLE", "archive_stem", "parts_of", "unpack"]
