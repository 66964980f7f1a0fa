"""
Pictures of a row group, one behind the other as Arrow keeps them: each file is read to its place and copied no more.

What is judged here is whether a picture can be read, and whether it is too large. A JPEG that ends as one should is
judged by its header, everything else by decoding it.
"""

import io
import os
from typing import Any

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped]
from PIL import Image

from ..processing_roc4mllm.image_reading_aesthetics import (
    PictureError,
    check_byte_count,
    check_size,
    open_image,
    read_image,
)

JPEG_QUALITY = 95
JPEG_START, JPEG_END = b"\xff\xd8", b"\xff\xd9"
PLAIN_FRAMES = (0xC0, 0xC1, 0xC2)  # markers of the kinds of JPEG that every reader decodes
PLAIN_BITS = 8  # of a channel


class PictureBuffer:
    """
    Args:
        capacity (`int`): Bytes to begin with; it grows where that is too little.
    """

    def __init__(self, capacity: int):
        self.data = np.empty(capacity, np.uint8)
        self.ends = [0]

    @property
    def size(self) -> int:
        """Bytes of all pictures."""
        return self.ends[-1]

    def __getitem__(self, index: int) -> memoryview:
        """An encoded picture."""
        return self.data.data[self.ends[index] : self.ends[index + 1]]

    def read(self, file: str, max_side: int | None = None) -> bool:
        """
        Read a picture behind the others: its bytes untouched, unless a side is longer than `max_side`.

        Returns:
            `bool`: Whether it was made smaller.

        Raises:
            PictureError: If it cannot be read; nothing is added then.
        """
        try:
            with open(file, "rb", buffering=0) as opened:
                size = os.fstat(opened.fileno()).st_size
                check_byte_count(size)
                place = self._reserve(size)
                if opened.readinto(place) != size:
                    raise PictureError("cannot be read: it changes while it is read")
        except OSError as error:
            raise PictureError(f"cannot be read: {error.strerror}") from error
        pixels = jpeg_size(place) or read_image(bytes(place)).size
        check_size(*pixels)
        if max_side is None or max(pixels) <= max_side:
            self.ends.append(self.size + size)
            return False
        self.add(made_smaller(bytes(place), max_side))
        return True

    def add(self, picture: bytes | memoryview) -> None:
        """Put an encoded picture behind the others."""
        self._reserve(len(picture))[:] = picture
        self.ends.append(self.size + len(picture))

    def _reserve(self, size: int) -> memoryview:
        """Room behind the last picture."""
        if self.size + size > len(self.data):
            larger = np.empty(max(2 * len(self.data), self.size + size), np.uint8)
            larger[: self.size] = self.data[: self.size]
            self.data = larger
        return self.data.data[self.size : self.size + size]

    def to_arrow(self) -> Any:
        """The pictures as a binary array on the same memory."""
        ends = np.array(self.ends, np.int32)
        return pa.Array.from_buffers(pa.binary(), len(ends) - 1, [None, pa.py_buffer(ends), pa.py_buffer(self.data)])

    def clear(self) -> None:
        """Begin anew in the same memory, which is what makes it fast: new memory is zeroed by the system first."""
        self.ends = [0]


def jpeg_size(data: bytes | memoryview) -> tuple[int, int] | None:
    """
    Width and height of a JPEG of a plain kind that ends as one should; `None` where decoding has to tell.

    This is what nearly all pictures are, and it takes a thousandth of the time: a file that was cut off lacks its end.
    """
    if data[:2] != JPEG_START or data[-2:] != JPEG_END:
        return None
    at = 2
    while at + 10 <= len(data) and data[at] == 0xFF:
        kind = data[at + 1]
        if kind in PLAIN_FRAMES:
            plain = data[at + 4] == PLAIN_BITS
            height, width = int.from_bytes(data[at + 5 : at + 7]), int.from_bytes(data[at + 7 : at + 9])
            return (width, height) if plain and width and height else None
        if kind in (0x00, 0x01, 0xFF) or (0xC0 <= kind <= 0xDA and kind not in (0xC4, 0xCC)):
            return None  # no segment, another kind of JPEG, or pixels without a frame
        at += 2 + int.from_bytes(data[at + 2 : at + 4])
    return None


def made_smaller(data: bytes, max_side: int) -> bytes:
    """A picture as a JPEG whose longer side has so many pixels; upright, with the colour profile it had."""
    image = read_image(data)
    scale = max_side / max(image.size)
    width, height = (max(round(side * scale), 1) for side in image.size)
    smaller, encoded = image.resize((width, height), Image.Resampling.LANCZOS), io.BytesIO()
    smaller.save(encoded, "JPEG", quality=JPEG_QUALITY, subsampling=0, icc_profile=rgb_profile(data))
    return encoded.getvalue()


def rgb_profile(data: bytes) -> bytes | None:
    """The colour profile of a picture whose values stay those of its channels."""
    with open_image(data) as image:
        return image.info.get("icc_profile") if image.mode == "RGB" else None


__all__ = ["JPEG_START", "PictureBuffer", "jpeg_size"]
