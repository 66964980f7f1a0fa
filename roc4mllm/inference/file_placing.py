"""Pictures copied or linked into a folder, without ever overwriting one."""

import os
import shutil
from collections.abc import Callable, Iterable, Iterator


def place_files(
    sources: Iterable[str], folder: str, put: Callable[[str, str], None]
) -> Iterator[tuple[str, str | None, str | None]]:
    """
    Copy or link files into one folder without ever overwriting.

    A name that is taken, by an earlier source or by what the folder held, gets a number: `cat.jpg`, `cat-2.jpg`.

    Args:
        sources (iterable of `str`):
            Files; a missing one is reported and the rest goes on.
        folder (`str`):
            An existing folder.
        put (`Callable[[str, str], None]`):
            `copy_file` or `link_file`: makes the second from the first, FileExistsError if the second exists.

    Yields:
        `tuple[str, str | None, str | None]`: source, its place in the folder, and the error instead of a place.
    """
    next_number: dict[str, int] = {}
    for source in sources:
        name = os.path.basename(source)
        stem, ending = os.path.splitext(name)
        number = next_number.get(name, 1)
        while True:
            target = os.path.join(folder, name if number == 1 else f"{stem}-{number}{ending}")
            number += 1
            try:
                put(source, target)
            except FileExistsError:
                continue
            except OSError as error:
                yield source, None, "no such file" if isinstance(error, FileNotFoundError) else str(error)
            else:
                next_number[name] = number
                yield source, target, None
            break


def copy_file(source: str, target: str) -> None:
    """
    Copy content, times and permissions to a new file.

    Raises:
        OSError: If the source cannot be read or the target cannot be written; FileExistsError if the target exists.
    """
    with open(source, "rb") as reader, open(target, "xb") as writer:
        try:
            shutil.copyfileobj(reader, writer)
        except BaseException:
            os.unlink(target)  # half a picture would be taken for a whole one
            raise
    shutil.copystat(source, target)


def link_file(source: str, target: str) -> None:
    """
    Make a symbolic link to a file; it holds the absolute path, so that it stays valid from any folder.

    Raises:
        OSError: If the source is missing or the link cannot be made; FileExistsError if the target exists.
    """
    if not os.path.isfile(source):
        raise FileNotFoundError(source)
    os.symlink(os.path.abspath(source), target)


__all__ = ["copy_file", "link_file", "place_files"]
