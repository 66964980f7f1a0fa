"""
Output files that are whole or absent: written under another name beside the final one, and moved there at the end.
"""

import contextlib
import itertools
import os
from pathlib import Path


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
    if file.is_dir() or (file.exists() and not os.access(file, os.W_OK)):
        raise PermissionError(f"cannot write {str(path)!r}: it is a folder or a file without write permission")
    try:
        create_partial(file).unlink()
    except OSError as error:
        reason = f"{error.strerror}; name a file in a folder that exists and that you may write to"
        raise OSError(f"cannot write {str(path)!r}: {reason}") from None
    return file


def create_partial(path: Path) -> Path:
    """A new file beside `path`; not by `tempfile`, whose files stay closed to other users after they are renamed."""
    for number in itertools.count(1):
        partial = path.with_name(f"{path.stem}.partial{number}{path.suffix}")
        with contextlib.suppress(FileExistsError):
            partial.open("x").close()
            break
    return partial


def write_whole(path: str | os.PathLike[str], content: bytes) -> None:
    """
    Write a file, or leave what is there.

    Raises:
        OSError: If the file cannot be written there.
    """
    file = check_writable(path)
    partial = create_partial(file)
    try:
        partial.write_bytes(content)
        os.replace(partial, file)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


__all__ = ["check_writable", "create_partial", "write_whole"]
