"""
From what a person types to one record per input: folders, globs and names become an ordered list of pictures, which a
scorer then reads one by one.

Nothing is dropped in silence. A missing file, a folder without pictures and a glob without match each stay in the list
as one input that carries its error, so that the rows of a table can be counted against what was asked for.
"""

import glob
import os
import shutil
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ..processing_roc4mllm.picture_stream_aesthetics import SourceList

# What a folder is searched for; a file named by itself may end in anything. HEIC and AVIF are here although not every
# Pillow reads them: a phone's folder then gives rows that say so, and not an empty table.
PICTURE_ENDINGS = (
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".dib", ".gif", ".tif", ".tiff", ".jp2", ".j2k",
    ".ppm", ".pgm", ".pbm", ".pnm", ".tga", ".avif", ".heic", ".heif",
)  # fmt: skip


@dataclass(frozen=True)
class PictureInput:
    """
    One input: a picture to read, or the reason why there is none.

    Args:
        path (`str`):
            The path or URL, relative where the caller's was; for a failed folder or glob, what the caller gave.
        error (`str`, *optional*):
            Why nothing can be read here.
    """

    path: str
    error: str | None = None


def expand_inputs(paths: Iterable[str], *, recursive: bool = False) -> list[PictureInput]:
    """
    The pictures that names, folders, globs and URLs stand for, in the order given; inside a folder or glob by name.

    A glob is handled as if the shell had expanded it. Hidden files and folders (`.name`) are taken only when named. A
    picture that is reached twice is listed twice.

    Args:
        paths (iterable of `str`):
            Files, folders, globs (`*`, `?`, `[…]`, `**`) and http(s) URLs.
        recursive (`bool`, *optional*, defaults to `False`):
            Search the sub-folders of folders too; symbolic links to folders are not followed.

    Returns:
        `list[PictureInput]`: at least one for each of `paths`.
    """
    inputs: list[PictureInput] = []
    for path in paths:
        if path.startswith(("http://", "https://")):
            inputs.append(PictureInput(path))
        elif glob.has_magic(path) and not os.path.lexists(path):  # `cat[1].jpg` may well be the name of a file
            inputs += _expand_glob(path, recursive)
        else:
            inputs += _expand_path(path, recursive)
    return inputs


def _expand_glob(pattern: str, recursive: bool) -> list[PictureInput]:
    matches = sorted(glob.glob(pattern, recursive=True))
    if "**" in pattern:  # it matches folders and the files in them; expanding the folders would list the files again
        matches = [match for match in matches if not os.path.isdir(match)]
    if not matches:
        return [PictureInput(pattern, "no file matches this pattern")]
    return [found for match in matches for found in _expand_path(match, recursive)]


def _expand_path(path: str, recursive: bool) -> list[PictureInput]:
    if os.path.isdir(path):
        return _expand_folder(path, recursive)
    return [PictureInput(path, _why_unreadable(path))]


def _expand_folder(folder: str, recursive: bool) -> list[PictureInput]:
    found: list[PictureInput] = []

    def unreadable(error: OSError) -> None:
        found.append(PictureInput(str(error.filename), f"the folder cannot be listed: {error.strerror}"))

    subfolders = False
    for parent, folders, files in os.walk(folder, onerror=unreadable):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        subfolders = subfolders or bool(folders)
        if not recursive:
            folders.clear()
        for name in sorted(files):
            if not name.startswith(".") and name.lower().endswith(PICTURE_ENDINGS):
                path = os.path.join(parent, name)
                found.append(PictureInput(path, _why_unreadable(path)))
    if not found:
        hint = "; its sub-folders were not searched, --recursive does" if subfolders and not recursive else ""
        found.append(PictureInput(folder, f"the folder holds no picture ({', '.join(PICTURE_ENDINGS[:6])}, …){hint}"))
    return found


def _why_unreadable(path: str) -> str | None:
    """What can be known without opening the file; None if the scorer should try."""
    try:
        mode = os.stat(path).st_mode
    except OSError as error:
        return "no such file" if isinstance(error, FileNotFoundError) else f"cannot be read: {error.strerror}"
    if not stat.S_ISREG(mode):
        return "not a regular file"  # opening a named pipe would wait for a writer for ever
    return None


def score_inputs(scorer: Any, inputs: Sequence[PictureInput], **options: Any) -> Iterator[dict[str, Any]]:
    """
    Score the inputs as they are read.

    Args:
        scorer (`ImageAestheticsPipeline`):
            What `roc4mllm.load_scorer` returns.
        inputs (sequence of `PictureInput`):
            What `expand_inputs` returns.
        options:
            Passed on to the scorer: `batch_size`, `num_workers`, `attributes`.

    Yields:
        `dict`: the scorer's record for each input, in order; where the input carries an error, a record of that error.
    """
    paths = [item.path for item in inputs if item.error is None]
    # Several workers share out a data set; an iterator, which is read lazily, can only be read by one.
    sources = SourceList(paths) if options.get("num_workers", 0) > 1 else iter(paths)
    records = iter(scorer(sources, **options))
    for item in inputs:
        if item.error is None:
            yield next(records)
        else:
            yield scorer.postprocess({"error": item.error}, source=item.path, attributes=options.get("attributes"))


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
