"""
Output files that are whole or absent: written under another name beside the final one, and moved there at the end.
"""

import contextlib
import itertools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any


def check_writable(path: str | os.PathLike[str]) -> Path:
    """
    Make sure, before hours of work, that a file can be written.

    Args:
        path (`str` or path):
            The file to be written.

    Returns:
        `Path`: the file, symbolic links followed.

    Raises:
        OSError: If the file cannot be written there.
    """
    file = Path(os.path.realpath(path))
    if file.exists() and not (file.is_file() and os.access(file, os.W_OK)):  # a pipe would be replaced by a file
        raise PermissionError(
            f"cannot write {str(path)!r}: it is a folder, a pipe or a device, or has no write permission; name a file"
        )
    try:
        create_partial(file).unlink()
    except OSError as error:
        reason = f"{error.strerror}; name a file in a folder that exists and that you may write to"
        raise OSError(f"cannot write {str(path)!r}: {reason}") from None
    return file


def create_partial(path: Path) -> Path:
    """A new file beside `path`; not by `tempfile`, whose files stay closed to other users after they are renamed."""
    for number in itertools.count(1):
        partial = path.with_name(f"{path.name}.partial{number}")
        with contextlib.suppress(FileExistsError):
            partial.open("x").close()
            break
    return partial


@contextlib.contextmanager
def whole_file(path: str | os.PathLike[str], mode: str = "w", **options: Any) -> Iterator[IO[Any]]:
    """
    A file that is open for writing, and takes the place of what is there when it is closed; not if that fails.

    Args:
        path (`str` or path):
            The file to be written.
        mode (`str`, *optional*, defaults to `"w"`):
            As in `open`, with its further options.

    Raises:
        OSError: If the file cannot be written there.
    """
    file = check_writable(path)
    partial = create_partial(file)
    try:
        with partial.open(mode, **options) as opened:
            yield opened
        os.replace(partial, file)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def write_whole(path: str | os.PathLike[str], content: bytes) -> None:
    """
    Write a file, or leave what is there.

    Raises:
        OSError: If the file cannot be written there.
    """
    with whole_file(path, "wb") as file:
        file.write(content)


__all__ = ["check_writable", "create_partial", "whole_file", "write_whole"]
