"""Pictures without ratings, for self-training: found in a folder or a table, without those that are rated."""

import os
from collections.abc import Iterator
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Any

from PIL import Image
from torch.utils.data import Dataset

from ..datasets_scripts.split_guard import PictureSet
from ..processing_roc4mllm.image_reading_aesthetics import read_image
from .rating_checks import picture_folder
from .rating_records import PICTURE_COLUMNS
from .rating_rows import is_missing
from .rating_sources import METADATA_FILES, open_source


class UnlabelledPictures(Dataset):
    """Rows of pictures alone, of paths."""

    def __init__(self, paths: list[str]):
        self.paths = paths

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"image": self.paths[index], "where": self.paths[index]}


def read_unlabelled(source: str, pictures: str | None, rated: PictureSet, notes: list[str]) -> list[str]:
    """
    Paths of the pictures of a folder, or of a table with a column of paths, that can be read and are not rated: those
    to judge on must stay unseen.

    Args:
        source (`str`): A folder, which is searched with its sub-folders, or a file as for ratings.
        pictures (`str`, *optional*): Folder that relative paths of a table start from.
        rated ([`PictureSet`]): Pictures that are left out, also copies under another name.
        notes (`list[str]`): Takes what a person should know.

    Raises:
        ValueError, OSError: If there are none.
    """
    found = list(dict.fromkeys(paths_in(source, pictures)))
    is_rated = rated.shared(PictureSet.of({"image": path, "columns": {}} for path in found))
    unknown = [path for path, known in zip(found, is_rated, strict=True) if not known]
    with ThreadPool(os.cpu_count()) as readers:
        found_problems = list(readers.imap(why_unusable, unknown, chunksize=16))
    problems = {path: problem for path, problem in zip(unknown, found_problems, strict=True) if problem}
    if len(unknown) < len(found):
        notes.append(f"{len(found) - len(unknown)} of the unlabelled pictures are rated, and left out there")
    if problems:
        notes.append(f"{len(problems)} unlabelled pictures cannot be used, the first: {next(iter(problems.values()))}")
    good = [path for path in unknown if path not in problems]
    if not good:
        raise ValueError(f"{source}: none of {len(found)} pictures can be read and has no rating")
    return good


def why_unusable(path: str) -> str | None:
    """Why a round cannot take a picture: decoded whole, since one that is cut short would end the rounds."""
    try:
        path.encode()  # for the table of what is picked
        read_image(path)
    except UnicodeEncodeError:
        return f"its name is no text in UTF-8, rename it: {path!r}"
    except ValueError as error:
        return f"{error}: {path}"
    return None


def paths_in(source: str, pictures: str | None) -> Iterator[str]:
    """Absolute paths of the pictures of a folder or table, in its order; of a folder by name."""
    folder = Path(source)
    if folder.is_dir() and not any((folder / name).is_file() for name in METADATA_FILES):
        endings = Image.registered_extensions()
        files = (path for path in sorted(folder.rglob("*")) if endings.get(path.suffix.lower()) in Image.OPEN)
        yield from (os.path.abspath(path) for path in files)
        return
    opened = open_source(source)
    column = next((name for name in opened.columns if name.casefold() in PICTURE_COLUMNS), None)
    if opened.pictures is not None or column is None:
        raise ValueError(f"{opened.name}: expected a column of paths, one of {', '.join(PICTURE_COLUMNS)}")
    names = [name for record in opened if isinstance(name := record.fields.get(column), str) and not is_missing(name)]
    start = picture_folder(names, opened.folder, pictures)
    yield from (os.path.normpath(os.path.join(start, name)) for name in names)


__all__ = ["UnlabelledPictures", "read_unlabelled"]
