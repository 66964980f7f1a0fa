"""Pictures copied or linked into a folder, without ever overwriting one."""

import contextlib
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import BinaryIO

from .inputs.members import find_member, read_members


def place_files(
    sources: Iterable[str], folder: str, *, link: bool = False
) -> Iterator[tuple[str, str | None, str | None]]:
    """
    Copy or link pictures into one folder without ever overwriting.

    A name that is taken, by an earlier source or by what the folder held, gets a number: `cat.jpg`, `cat-2.jpg`.

    Args:
        sources (iterable of `str`):
            Files, then also members of tar shards and rows of Parquet files by the `path` of their rows, which come
            after the files, shard by shard. A missing one is reported and the rest goes on.
        folder (`str`):
            An existing folder.
        link (`bool`, *optional*, defaults to `False`):
            Make symbolic links to files; what lies inside a shard is reported.

    Yields:
        `tuple[str, str | None, str | None]`: source, its place in the folder, and the error instead of a place.
    """
    numbers: dict[str, int] = {}
    members = []
    for source in sources:
        member = find_member(source)
        if "://" in source and not os.path.lexists(source):
            yield source, None, "it lies in a store or on the web, from which nothing is fetched"
        elif member is None:
            put = partial(link_file if link else copy_file, source)
            yield source, *place(os.path.basename(source), folder, numbers, put)
        elif link:
            yield source, None, "no link can lead to a picture inside a shard; --copy-to copies it"
        else:
            members.append(member)
    for member, content, error in read_members(members):
        if error is not None:
            yield member.path, None, error
        else:
            yield member.path, *place(member.file_name(content), folder, numbers, partial(write_file, content))


def place(
    name: str, folder: str, numbers: dict[str, int], put: Callable[[str], None]
) -> tuple[str | None, str | None]:
    """Make a file by `put` under the first free name: its place, or the error instead."""
    stem, ending = os.path.splitext(name)
    number = numbers.get(name, 1)
    while True:
        target = os.path.join(folder, name if number == 1 else f"{stem}-{number}{ending}")
        number += 1
        try:
            put(target)
        except FileExistsError:
            continue
        except (OSError, ValueError) as error:  # ValueError: of a name that no file can have
            return None, "no such file" if isinstance(error, FileNotFoundError) else str(error)
        numbers[name] = number
        return target, None


def copy_file(source: str, target: str) -> None:
    """
    Copy content, times and permissions to a new file.

    Raises:
        OSError: If the source cannot be read or the target cannot be written; FileExistsError if the target exists.
    """
    with open(source, "rb") as reader, new_file(target) as writer:
        shutil.copyfileobj(reader, writer)
    shutil.copystat(source, target)


def write_file(content: bytes, target: str) -> None:
    """
    Write a new file.

    Raises:
        OSError: If it cannot be written; FileExistsError if it exists.
    """
    with new_file(target) as writer:
        writer.write(content)


@contextlib.contextmanager
def new_file(target: str) -> Iterator[BinaryIO]:
    """A new file that is gone again if it cannot be written to its end: half a picture would be taken for a whole."""
    os.close(os.open(target, os.O_CREAT | os.O_EXCL, 0o666))
    try:
        with open(target, "wb") as writer:  # which at its end writes what is still in its buffer
            yield writer
    except BaseException:
        os.unlink(target)
        raise


def link_file(source: str, target: str) -> None:
    """
    Make a symbolic link to a file; it holds the absolute path, so that it stays valid from any folder.

    Raises:
        OSError: If the source is missing or the link cannot be made; FileExistsError if the target exists.
    """
    if not os.path.isfile(source):
        raise FileNotFoundError(source)
    os.symlink(os.path.abspath(source), target)


__all__ = ["place_files"]
