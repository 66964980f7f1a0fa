"""
Small pictures for a page: each is read within the limits of all reading, made small, and put into the page as text.

One picture is decoded at a time, a JPEG at the smallest scale that suffices. A picture that is gone or cannot be read
gives the reason instead. Nothing is fetched: of a URL there is no thumbnail.
"""

import base64
import io
from dataclasses import dataclass

from PIL import Image

from ...processing_roc4mllm.image_reading_aesthetics import PictureError, check_size, open_image, read_image
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


def make_thumbnail(path: str) -> Thumbnail:
    """
    Make the thumbnail of a picture.

    Args:
        path (`str`):
            The `path` of a row of a table; relative ones start from the current folder.

    Returns:
        [`Thumbnail`]: at most 320 pixels wide and high, never enlarged.
    """
    if path[:8].lower().startswith(("http://", "https://")):
        return Thumbnail(None, error="on the web, not fetched")
    try:
        picture = read_small(as_path(path))
    except PictureError as error:
        return Thumbnail(None, error=str(error))
    except Exception as error:  # as `read_image`: decoders raise nearly anything, and a report needs no single picture
        return Thumbnail(None, error=f"cannot be read: {error}")
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=QUALITY, optimize=True)
    return Thumbnail("data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii"), *picture.size)


def read_small(path: str) -> Image.Image:
    """The picture, upright and RGB, its long edge at most LONG_EDGE."""
    image = open_image(path)
    check_size(*image.size)  # before the draft, which would let a larger file through
    image.draft(None, (2 * LONG_EDGE, 2 * LONG_EDGE))  # a JPEG decodes itself at 1/2, 1/4 or 1/8 for nothing
    picture = read_image(image)
    picture.thumbnail((LONG_EDGE, LONG_EDGE), Image.Resampling.LANCZOS, reducing_gap=2.0)
    return picture
