"""
From what a person types to one input per picture: folders, globs, names, tar shards, Parquet files and the lines of
stdin become one stream of pictures in a fixed order.

Nothing is dropped in silence. A missing file, a folder without pictures and a glob without match each stay in the
stream as one input that carries its error, so that the rows of a table can be counted against what was asked for.
"""

import codecs
import glob
import os
import stat
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import BinaryIO

from .containers import TAR_ENDINGS, count_parquet, count_tar, read_parquet, read_tar
from .parquet_places import name_parquet_rows
from .picture_input import PictureInput, empty_folder, is_picture_name
from .stores import is_stored, search_store

STDIN = "-"


def expand_inputs(
    paths: Iterable[str], *, recursive: bool = False, separator: bytes = b"\n", by_place: bool = False
) -> Iterator[PictureInput]:
    """
    The pictures that names stand for, in the order given; inside a folder or glob by name. They are looked for as
    they are asked for.

    A glob is handled as if the shell had expanded it. Hidden files and folders (`.name`) are taken only when named. A
    picture that is reached twice is listed twice.

    Args:
        paths (iterable of `str`):
            Files, folders, globs (`*`, `?`, `[…]`, `**`), http(s) URLs, tar shards (`.tar`, `.tar.gz`, …), Parquet
            files with bytes of pictures, and `-` for names on stdin; all but stdin also as URLs for fsspec.
        recursive (`bool`, *optional*, defaults to `False`):
            Search the sub-folders of folders too; symbolic links to folders are not followed.
        separator (`bytes`, *optional*, defaults to `b"\\n"`):
            What ends a name on stdin.
        by_place (`bool`, *optional*, defaults to `False`):
            Name the rows of Parquet files by their place and leave the bytes to whoever scores them.

    Yields:
        `PictureInput`: at least one for each of `paths` but `-`.
    """
    for item in find_names(paths, recursive, separator):
        if item.error is not None or not is_container(item.path):
            yield item
        elif item.path.lower().endswith(".parquet"):
            yield from name_parquet_rows(item.path) if by_place else read_parquet(item.path)
        else:
            yield from read_tar(item.path)


def count_inputs(paths: Sequence[str], *, recursive: bool = False) -> int | None:
    """How many inputs `expand_inputs` gives, without reading a picture; None if only reading or a store tells."""
    if STDIN in paths or any(map(is_stored, paths)):
        return None
    count = 0
    for item in find_names(paths, recursive, b""):
        inside = 1 if item.error is not None or not is_container(item.path) else count_container(item.path)
        if inside is None:
            return None
        count += inside
    return count


def find_names(paths: Iterable[str], recursive: bool, separator: bytes) -> Iterator[PictureInput]:
    """Pictures and containers, the latter unopened."""
    for path in paths:
        if path == STDIN:
            for name in read_names(sys.stdin.buffer, separator):
                yield from _expand_path(name, recursive)
        elif not is_stored(path) and is_glob(path):
            yield from _expand_glob(path, recursive)
        else:
            yield from _expand_path(path, recursive)


def is_container(path: str) -> bool:
    """Whether pictures are to be looked for inside a file."""
    return path.lower().endswith((*TAR_ENDINGS, ".parquet")) and not is_url(path)


def count_container(path: str) -> int | None:
    """How many inputs it gives, if that can be told without decompressing it."""
    return count_parquet(path) if path.lower().endswith(".parquet") else count_tar(path)


def is_url(path: str) -> bool:
    """Whether the scorer is to fetch it."""
    return path[:8].lower().startswith(("http://", "https://"))


def is_glob(path: str) -> bool:
    """Whether it stands for the files that match; `cat[1].jpg` may well be the name of a file."""
    return glob.has_magic(path) and not os.path.lexists(path) and not is_url(path)


def read_names(file: BinaryIO, separator: bytes) -> Iterator[str]:
    """The names in a file, as they come; empty ones are left out, and what Windows puts round lines of text."""
    for number, name in enumerate(split_names(file, separator)):
        if separator == b"\n" and not os.path.lexists(name):
            name = name.removesuffix(b"\r")
            name = name.removeprefix(codecs.BOM_UTF8) if number == 0 else name
        if name:
            yield os.fsdecode(name)


def split_names(file: BinaryIO, separator: bytes) -> Iterator[bytes]:
    """What stands between separators, as it comes."""
    rest = b""
    while piece := file.read1(65536):  # type: ignore[attr-defined]
        *names, rest = (rest + piece).split(separator)
        yield from names
    yield rest


def _expand_glob(pattern: str, recursive: bool) -> Iterator[PictureInput]:
    matches = sorted(glob.glob(pattern, recursive=True))
    if "**" in pattern:  # it matches folders and the files in them; expanding the folders would list the files again
        matches = [match for match in matches if not os.path.isdir(match)]
    if not matches:
        yield PictureInput(pattern, "no file matches this pattern")
    for match in matches:
        yield from _expand_path(match, recursive)


def _expand_path(path: str, recursive: bool) -> Iterator[PictureInput]:
    if is_url(path):
        yield PictureInput(path)
    elif is_stored(path):
        yield from search_store(path, recursive)
    elif os.path.isdir(path):
        yield from _expand_folder(path, recursive)
    else:
        yield PictureInput(path, _why_unreadable(path))


def _expand_folder(folder: str, recursive: bool) -> Iterator[PictureInput]:
    failed: list[PictureInput] = []

    def unreadable(error: OSError) -> None:
        failed.append(PictureInput(str(error.filename), f"the folder cannot be listed: {error.strerror}"))

    seen, containers, subfolders = 0, 0, False
    for parent, folders, files in os.walk(folder, onerror=unreadable):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        subfolders = subfolders or bool(folders)
        if not recursive:
            folders.clear()
        for name in sorted(files):
            if is_picture_name(name):
                path = os.path.join(parent, name)
                seen += 1
                yield PictureInput(path, _why_unreadable(path))
            containers += name.lower().endswith((*TAR_ENDINGS, ".parquet"))
        seen += len(failed)
        yield from failed
        failed.clear()
    seen += len(failed)
    yield from failed
    if not seen:
        yield empty_folder(folder, unsearched=subfolders and not recursive, containers=containers)


def _why_unreadable(path: str) -> str | None:
    """What can be known without opening the file; None if the scorer should try."""
    try:
        mode = os.stat(path).st_mode
    except ValueError:
        return "a NUL in the name: if names end with NUL, as of find -print0, say --null"
    except OSError as error:
        return "no such file" if isinstance(error, FileNotFoundError) else f"cannot be read: {error.strerror}"
    if not stat.S_ISREG(mode):
        return "not a regular file"  # opening a named pipe would wait for a writer for ever
    return None


__all__ = ["STDIN", "count_inputs", "expand_inputs"]
