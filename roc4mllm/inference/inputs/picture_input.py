"""One input of a run: a picture to read, or the reason why there is none."""

from dataclasses import dataclass
from typing import Any

from ...processing_roc4mllm.picture_batches_aesthetics import Unreadable

# What a folder or an archive is searched for; a file named by itself may end in anything. HEIC and AVIF are here
# although not every Pillow reads them: a phone's folder then gives rows that say so, and not an empty table.
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
            The path or URL, relative where the caller's was; `shard.tar/name.jpg` in an archive; for a failed folder
            or glob, what the caller gave.
        error (`str`, *optional*):
            Why nothing can be read here.
        content (*optional*):
            Where the picture is, if not at `path`: its bytes, or something with `read_bytes()`.
    """

    path: str
    error: str | None = None
    content: Any = None

    @property
    def source(self) -> Any:
        """What a scorer takes."""
        if self.error is not None:
            return Unreadable(self.error)
        return self.path if self.content is None else self.content


def is_picture_name(name: str) -> bool:
    """Whether a search of a folder takes a file of this name."""
    return not name.startswith(".") and name.lower().endswith(PICTURE_ENDINGS)


def empty_folder(folder: str, *, unsearched: bool, containers: int = 0) -> PictureInput:
    """A folder without pictures; its sub-folders may not have been searched, its shards not been named."""
    hint = "; its sub-folders were not searched, --recursive does" if unsearched else ""
    hint += f"; name its {containers} tar or Parquet files to have what is in them" if containers else ""
    return PictureInput(folder, f"the folder holds no picture ({', '.join(PICTURE_ENDINGS[:6])}, …){hint}")


__all__ = ["PICTURE_ENDINGS", "PictureInput", "empty_folder", "is_picture_name"]
