"""
Small pictures for a page: each is read within the limits of all reading, made small, and put into the page as text.

One picture is decoded at a time, a JPEG at the smallest scale that suffices. A picture that is gone or cannot be read
gives the reason instead. Nothing is fetched: of a URL there is no thumbnail. No shard is read for each picture.
"""

import base64
import io
from collections.abc import Iterable
from dataclasses import dataclass

from PIL import Image

from ...processing_roc4mllm.image_reading_aesthetics import PictureError, check_size, open_image, read_image
from ..inputs.members import find_member, read_members
from ..tables.score_table import as_path

LONG_EDGE = 320  # pixels; tiles are 120 to 250 wide
QUALITY = 76


@dataclass(frozen=True)
class Thumbnail:
    """A small picture as a `data:` URI with its size in pixels, or the reason why there is none."""

    uri: str | None
    width: int = 4
    height: int = 3
    error: str | None = None


def make_thumbnails(paths: Iterable[str]) -> dict[str, Thumbnail]:
    """
    Make the thumbnails of pictures.

    Args:
        paths (iterable of `str`):
            The `path` of rows of a table: files, URLs, members of tar shards, rows of Parquet files. Relative ones
            start from the current folder.

    Returns:
        `dict[str, Thumbnail]`: by path; each at most 320 pixels wide and high, never enlarged.
    """
    made, members = {}, {}
    for path in paths:
        member = None if is_url(path) else find_member(as_path(path))
        if member is None:
            made[path] = make_thumbnail(as_path(path))
        else:
            members[member] = path
    for member, content, error in read_members(members):
        made[members[member]] = make_thumbnail(content) if error is None else Thumbnail(None, error=error)
    return made


def make_thumbnail(source: str | bytes) -> Thumbnail:
    """The thumbnail of one file, or of its content."""
    if isinstance(source, str) and is_url(source):
        return Thumbnail(None, error="on the web, not fetched")
    try:
        picture = read_small(source)
    except PictureError as error:
        return Thumbnail(None, error=str(error))
    except Exception as error:  # as `read_image`: decoders raise nearly anything, and a report needs no single picture
        return Thumbnail(None, error=f"cannot be read: {error}")
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=QUALITY, optimize=True)
    return Thumbnail("data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii"), *picture.size)


def is_url(path: str) -> bool:
    """Whether a picture lies on the web."""
    return path[:8].lower().startswith(("http://", "https://"))


def read_small(source: str | bytes) -> Image.Image:
    """The picture, upright and RGB, its long edge at most LONG_EDGE."""
    image = open_image(source)
    check_size(*image.size)  # before the draft, which would let a larger file through
    image.draft(None, (2 * LONG_EDGE, 2 * LONG_EDGE))  # a JPEG decodes itself at 1/2, 1/4 or 1/8 for nothing
    picture = read_image(image)
    picture.thumbnail((LONG_EDGE, LONG_EDGE), Image.Resampling.LANCZOS, reducing_gap=2.0)
    return picture
