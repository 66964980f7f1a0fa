"""
Pictures in stores that fsspec opens: `s3://`, `gs://`, `hf://`, `memory://` and the like. They are listed here, and
read where they are scored.

Which library a store needs fsspec says itself: s3fs for `s3://`, gcsfs for `gs://`.
"""

import glob
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

import fsspec  # type: ignore[import-untyped]  # huggingface_hub needs it too
from fsspec.core import url_to_fs  # type: ignore[import-untyped]

from ...processing_roc4mllm.image_reading_aesthetics import PictureError, check_byte_count
from ...processing_roc4mllm.picture_batches_aesthetics import describe
from .picture_input import PictureInput, empty_folder, is_picture_name

READ_AHEAD = 4 << 20  # of archives, whose members are mostly smaller; left to s3fs it would be 50 MB


@dataclass(frozen=True)
class StoredFile:
    """A picture in a store."""

    url: str

    def read_bytes(self) -> bytes:
        """
        Its bytes.

        Raises:
            PictureError: If it is too large, or no file.
            Exception: Whatever the store's own library raises.
        """
        store, path = url_to_fs(self.url)
        check_byte_count(size_of_file(store, path))
        return bytes(store.cat_file(path))


def is_stored(path: str) -> bool:
    """Whether a name is a URL for fsspec; http(s) URLs are pictures, which are downloaded one by one."""
    return "://" in path and not path[:8].lower().startswith(("http://", "https://"))


def check_store(url: str) -> None:
    """
    Make sure, before anything is listed, that fsspec opens such URLs.

    Raises:
        ImportError: If the library that it needs for them is not installed.
        ValueError: If it knows none.
    """
    fsspec.get_filesystem_class(url.partition("://")[0])


def open_file(path: str) -> BinaryIO:
    """
    A local file or one in a store.

    Raises:
        OSError: If it cannot be opened.
        PictureError: If it is no file.
    """
    if not is_stored(path):
        return open(path, "rb")
    store, name = url_to_fs(path)
    size_of_file(store, name)
    file: BinaryIO = store.open(name, "rb", block_size=READ_AHEAD)
    return file


def size_of_file(store: Any, path: str) -> int:
    """
    How many bytes a file holds; 0 where a store does not tell.

    Raises:
        PictureError: If it is no file. Opening a named pipe, as behind file://, would wait for a writer for ever.
    """
    entry = store.info(path)
    if entry["type"] == "other":
        raise PictureError("not a regular file")
    return entry.get("size") or 0


def read_range(path: str, start: int, size: int) -> bytes:
    """
    Bytes of a local file or of one in a store, of which no others are fetched; fewer where it ends.

    Raises:
        OSError: If it cannot be read.
    """
    if not is_stored(path):
        with open(path, "rb") as file:
            file.seek(start)
            return file.read(size)
    store, name = url_to_fs(path)
    return bytes(store.cat_file(name, start=start, end=start + size))


def search_store(url: str, recursive: bool) -> Iterator[PictureInput]:
    """
    What a URL stands for: files that are named or matched, pictures of folders, or the reason for none.

    Folders and globs are handled as local ones are: by name, without hidden files.
    """
    try:
        store, path = url_to_fs(url)
        if glob.has_magic(path) and not store.exists(path):
            yield from matches_in(store, path, url, recursive)
        elif store.isdir(path):
            yield from pictures_in(store, path, path, url, recursive)
        else:
            yield stored_input(url) if store.exists(path) else PictureInput(url, "no such file")
    except Exception as error:  # whatever a store's library raises, as when its server is away
        yield PictureInput(url, f"cannot be listed: {describe(error)}")


def matches_in(store: Any, pattern: str, url: str, recursive: bool) -> Iterator[PictureInput]:
    """What a glob matches; `**` matches the files in folders too, so that these are not searched again."""
    count = 0
    for name, entry in sorted(store.glob(pattern, detail=True).items()):
        if "/." in name and "/." not in pattern:
            continue
        if entry["type"] != "directory":
            yield stored_input(url_of(url, pattern, name))
        elif "**" not in pattern:
            yield from pictures_in(store, name, pattern, url, recursive)
        else:
            continue
        count += 1
    if not count:
        yield PictureInput(url, "no file matches this pattern")


def pictures_in(store: Any, folder: str, asked: str, url: str, recursive: bool) -> Iterator[PictureInput]:
    """The pictures of a folder, those of its sub-folders after its own; `asked` is what the URL is in the store."""
    seen, subfolders = 0, False
    for parent, folders, files in store.walk(folder, on_error="raise"):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        subfolders = subfolders or bool(folders)
        if not recursive:
            folders.clear()
        for name in sorted(files):
            if is_picture_name(name):
                seen += 1
                yield stored_input(url_of(url, asked, f"{parent.rstrip('/')}/{name}"))
    if not seen:
        place = url if folder == asked else url_of(url, asked, folder)
        yield empty_folder(place, unsearched=subfolders and not recursive)


def stored_input(url: str) -> PictureInput:
    """A file in a store as an input."""
    return PictureInput(url, content=StoredFile(url))


def url_of(url: str, asked: str, path: str) -> str:
    """
    A path of a store as a URL: what stores leave out of their paths, as the host of `ftp://host/folder`, is in that of
    `asked`, from which the path was found.
    """
    first, *chain = url.split("::")  # as in zip://*.jpg::s3://bucket/a.zip
    protocol, _, rest = first.partition("://")
    parts, known = rest.rstrip("/").split("/"), asked.rstrip("/").split("/")
    while parts and known and parts[-1] == known[-1]:
        parts.pop()
        known.pop()
    return "::".join([f"{protocol}://{'/'.join([*parts, *path.split('/')[len(known) :]])}", *chain])


__all__ = ["StoredFile", "check_store", "is_stored", "open_file", "read_range", "search_store"]
