"""
A user's download: where its tables and pictures lie, however deep and in whatever folders.

The folder is walked once. Files are found by the end of their path, so that `merge/test.csv` need not stand where the
authors' archive had it. Of pictures only names are kept, a hundred bytes each.
"""

import os
import re
import sys
import unicodedata
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from pathlib import Path, PurePath

from .raw_archives import UNREADABLE, archive_stem, parts_of, unpack

PICTURE_ENDINGS = (
    ".jpg", ".jpeg", ".jfif", ".jp2", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".avif", ".heic", ".heif"
)  # fmt: skip
SPELLINGS = (".jpg", ".JPG", ".jpeg", ".JPEG", ".png", ".PNG", "")  # tried where a name is found under none


class RawFolder:
    """
    Args:
        path (`Path`): The folder, or one file in it.
        unpack_to (`Path`, *optional*): Folder for what is unpacked from archives; without it none is.
        prefer (`tuple[str, ...]`, *optional*): Parts of a path; where a picture lies in several folders, the first of
            these decides, as in `("originalSize", "warp256")`.

    Attributes:
        notes (`list[str]`): What a person should know about what was found, and what was not.
        absent (`dict[str, list[str]]`): Pictures that one file names and another should describe, by what is wrong.
    """

    def __init__(self, path: Path, unpack_to: Path | None = None, prefer: tuple[str, ...] = ()):
        if not path.exists():
            raise FileNotFoundError(f"No such folder: {os.fspath(path)!r}.")
        self.path = path if path.is_dir() else path.parent
        self.notes: list[str] = []
        self.absent: dict[str, list[str]] = {}
        self.files: list[Path] = []
        self.unpacked: set[Path] = set()
        self.folders: list[str] = []
        self.pictures: dict[str, int | tuple[int, ...]] = {}  # numbers of folders by name
        self.rank = {part.casefold(): number for number, part in enumerate(prefer)}
        self._walk(str(self.path))
        if unpack_to is not None:
            for number, archive in enumerate([file for file in self.files if archive_stem(file)]):
                status = archive.stat()  # one that was fetched again is not taken for that of an interrupted run
                name = f"{number}-{archive_stem(archive)}-{status.st_size}-{status.st_mtime_ns}"
                self._unpack(archive, unpack_to / name)
        if path.is_file():
            self.files = [path]

    def _walk(self, root: str) -> None:
        """Note tables and pictures; a folder that is reached twice, by a link, counts once."""
        waiting, seen = [root], set()
        while waiting:
            folder = waiting.pop()
            status = os.stat(folder)
            if (status.st_dev, status.st_ino) in seen:
                continue
            seen.add((status.st_dev, status.st_ino))
            below = []
            with os.scandir(folder) as entries:
                for entry in sorted(entries, key=lambda entry: entry.name):
                    if entry.is_dir():
                        if not entry.name.startswith((".", "__MACOSX")):
                            below.append(entry.path)
                    elif entry.name.startswith("._") or not entry.is_file():
                        continue  # what macOS leaves behind, and what is no file
                    elif entry.name.lower().endswith(PICTURE_ENDINGS):
                        self._add_picture(folder, entry.name)
                    else:
                        self.files.append(Path(entry.path))
            waiting += reversed(below)

    def _add_picture(self, folder: str, name: str) -> None:
        if not self.folders or self.folders[-1] != folder:
            self.folders.append(folder)
        number, known = len(self.folders) - 1, self.pictures.get(name)
        if known is None:
            self.pictures[sys.intern(name)] = number
        else:
            self.pictures[name] = (*(known if isinstance(known, tuple) else (known,)), number)

    def _unpack(self, archive: Path, folder: Path) -> None:
        """Take up what an archive holds, unless it is unpacked beside it already."""
        self.unpacked.update(parts_of(archive))
        if not (archive.parent / str(archive_stem(archive))).is_dir():
            unpack(archive, folder)
            self._walk(str(folder))
            self.notes.append(f"{archive.name} was unpacked")

    # ---- tables -----------------------------------------------------------------------------------------------------

    def find_all(self, pattern: str) -> list[Path]:
        """Files whose path ends like the pattern (`unmerge/*/*.csv`), the highest first; capitals do not matter."""
        parts = PurePath(pattern.casefold()).parts
        found = [
            file
            for file in self.files
            if len(file.parts) >= len(parts)
            and all(map(fnmatchcase, [part.casefold() for part in file.parts[-len(parts) :]], parts))
        ]
        return sorted(found, key=lambda file: (len(file.parts), file))

    def find(self, *patterns: str) -> Path | None:
        """
        The file of the first pattern that finds any.

        Raises:
            ValueError: If it finds several at the same height.
        """
        for pattern in patterns:
            found = self.find_all(pattern)
            if len(found) > 1 and len(found[0].parts) == len(found[1].parts):
                names = [os.path.relpath(file, self.path) for file in found[:2]]
                raise ValueError(f"Which {pattern} is meant? Found {' and '.join(names)}; move one away.")
            if found:
                return found[0]
        return None

    def need(self, *patterns: str) -> Path:
        """
        The file of the first pattern that finds any.

        Raises:
            ValueError: If none does.
        """
        if (found := self.find(*patterns)) is None:
            raise ValueError(f"{os.fspath(self.path)!r} holds no {' or '.join(patterns)}{self.packed()}.")
        return found

    def need_some(self, patterns: Mapping[str, str]) -> Iterator[tuple[str, Path]]:
        """
        Split and file of each split that is there; what is not is noted.

        Raises:
            ValueError: If there is none at all.
        """
        found = {split: self.find(pattern) for split, pattern in patterns.items()}
        if not any(found.values()):
            tried = ", ".join(patterns.values())
            raise ValueError(f"{os.fspath(self.path)!r} holds none of {tried}{self.packed()}.")
        for split, file in found.items():
            if file is None:
                self.notes.append(f"{patterns[split]} is not there, so there are no rows of {split}")
            else:
                yield split, file

    def packed(self) -> str:
        """What is still packed, as the end of a message: formats that are not read, and archives in archives."""
        packed = [file.name for file in self.files if file not in self.unpacked and is_packed(file)]
        return f"; {packed[0]} has to be unpacked by hand first" if packed else ""

    # ---- pictures ---------------------------------------------------------------------------------------------------

    def locate(self, image: str) -> str | None:
        """
        Path of a picture, `None` where there is none.

        Args:
            image (`str`): Its name, with or without ending, and as much of its path as is known.
        """
        return next(iter(self.places(image)), None)

    def places(self, image: str) -> list[str]:
        """
        Paths of a picture, several where nothing tells which of them is meant.

        Args:
            image (`str`): As for [`~RawFolder.locate`].
        """
        image = image.replace("\\", "/")
        if "/" in image and (path := self._inside(image)):
            return [path]
        folder, _, name = image.rpartition("/")
        if (known := self.pictures.get(name)) is None:
            name = next((spelling for spelling in spellings(name) if spelling in self.pictures), name)
            known = self.pictures.get(name)
        if known is None:
            return [path] if (path := self._inside(image)) else []
        numbers = [known] if isinstance(known, int) else self._best(known, folder)
        return [f"{self.folders[number]}/{name}" for number in numbers]

    def _inside(self, image: str) -> str | None:
        """The file that stands exactly there, if that is below the folder."""
        path = os.path.join(self.path, image)
        return path if not is_absolute(image) and ".." not in image.split("/") and os.path.isfile(path) else None

    def _best(self, numbers: tuple[int, ...], wanted: str) -> list[int]:
        """Of several folders: the one that was named, then the preferred one, then those that were met first."""
        order = {number: self._order(self.folders[number], wanted) for number in numbers}
        first = min(order.values())
        return [number for number in numbers if order[number] == first]

    def _order(self, folder: str, wanted: str) -> tuple[bool, int]:
        rank = min((rank for part, rank in self.rank.items() if part in folder.casefold()), default=len(self.rank))
        return not (wanted and folder.endswith(f"/{wanted}")), rank


def is_packed(file: Path) -> bool:
    """Whether a file is an archive, of a kind that is unpacked here or not."""
    return bool({*map(str.lower, file.suffixes)} & UNREADABLE) or archive_stem(file) is not None


def is_absolute(image: str) -> bool:
    """Whether a path, with slashes, is one of a machine."""
    return image.startswith("/") or re.match("[A-Za-z]:/", image) is not None


def spellings(name: str) -> Iterator[str]:
    """What a picture may be called instead: with another ending, in the other form of Unicode that macOS writes."""
    stem, ending = os.path.splitext(name)
    stem = stem if ending.lower() in PICTURE_ENDINGS else name
    for form in dict.fromkeys((stem, *(unicodedata.normalize(form, stem) for form in ("NFC", "NFD")))):
        yield from (form + spelling for spelling in dict.fromkeys((*SPELLINGS, ending)))


__all__ = ["RawFolder", "is_absolute"]
