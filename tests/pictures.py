"""Encoded pictures, damaged ones and ones that Pillow only reads, for the tests of reading; and how they compare."""

import contextlib
import io
import signal
import struct
import zlib

import numpy as np
from PIL import Image

from roc4mllm.processing_roc4mllm.image_reading_aesthetics import read_image

# How a camera stores an upright picture A (rows, columns) under each EXIF orientation: where the standard says the
# stored row 0 and column 0 are in the scene.
STORED = {
    1: lambda a: a,  # top, left
    2: lambda a: a[:, ::-1],  # top, right
    3: lambda a: a[::-1, ::-1],  # bottom, right
    4: lambda a: a[::-1],  # bottom, left
    5: lambda a: a.transpose(1, 0, 2),  # left, top
    6: lambda a: np.rot90(a, 1),  # right, top
    7: lambda a: a.transpose(1, 0, 2)[::-1, ::-1],  # right, bottom
    8: lambda a: np.rot90(a, -1),  # left, bottom
}
GREY, RGB, GREY_ALPHA, RGB_ALPHA = 0, 2, 4, 6  # colour types of PNG


def encoded(picture: Image.Image, kind: str, **options) -> bytes:
    """The bytes of a picture file."""
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def rotated(picture: Image.Image, orientation: int, kind: str = "PNG", **options) -> bytes:
    """A file that shows `picture` when its EXIF orientation is obeyed."""
    exif = Image.Exif()
    exif[274] = orientation
    stored = Image.fromarray(np.ascontiguousarray(STORED[orientation](np.asarray(picture))))
    return encoded(stored, kind, exif=exif, **options)


def animation(frames: list[Image.Image], kind: str, **options) -> bytes:
    return encoded(frames[0], kind, save_all=True, append_images=frames[1:], duration=50, **options)


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(rows: np.ndarray, colour: int, *chunks: bytes) -> bytes:
    """A PNG of the depth of `rows`, `(H, W)` or `(H, W, channels)`, uint8 or uint16."""
    head = struct.pack(">IIBBBBB", rows.shape[1], rows.shape[0], 8 * rows.itemsize, colour, 0, 0, 0)
    data = b"".join(b"\0" + row.astype(rows.dtype.newbyteorder(">")).tobytes() for row in rows)
    parts = [chunk(b"IHDR", head), *chunks, chunk(b"IDAT", zlib.compress(data)), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def bomb(width: int, height: int) -> bytes:
    """A PNG of a few bytes that says how large it is, with one row of pixels behind it."""
    head = struct.pack(">IIBBBBB", width, height, 8, RGB, 0, 0, 0)
    parts = [chunk(b"IHDR", head), chunk(b"IDAT", zlib.compress(bytes(1 + 3 * width))), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def tiff(
    data: bytes, width: int, height: int, bits: int, white_is_zero: bool = False, sample_format: int = 1
) -> bytes:
    """An uncompressed grey TIFF."""
    data += b"\0" * (len(data) % 2)
    entries = {256: width, 257: height, 258: bits, 259: 1, 262: int(not white_is_zero), 273: 8, 277: 1, 278: height}
    entries |= {279: len(data), 339: sample_format}
    directory = struct.pack("<H", len(entries))
    directory += b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in sorted(entries.items()))
    return b"II*\0" + struct.pack("<I", 8 + len(data)) + data + directory + bytes(4)


def twelve_bits(rows: np.ndarray) -> bytes:
    """Values 0 to 4095 packed two in three bytes."""
    first, second = rows.reshape(-1, 2).astype(int).T
    packed = np.stack([first >> 4, (first & 15) << 4 | second >> 8, second & 255], axis=1)
    return packed.astype(np.uint8).tobytes()


def without_adobe_marker(jpeg: bytes) -> bytes:
    """A CMYK JPEG without the segment that tells who wrote it."""
    start = jpeg.index(b"\xff\xee")
    length = int.from_bytes(jpeg[start + 2 : start + 4], "big")
    return jpeg[:start] + jpeg[start + 2 + length :]


def half(data: bytes) -> bytes:
    return data[: len(data) // 2]


@contextlib.contextmanager
def time_limit(seconds: int):
    """Ends what waits for ever, as opening a pipe does, so that it fails and does not stop the tests."""

    def stop(*signal_and_frame):
        raise TimeoutError(f"not done within {seconds} seconds")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def difference(source, expected) -> int:
    """The largest difference from the expected picture, in levels of 255."""
    picture = read_image(source)
    assert (type(picture), picture.mode) == (Image.Image, "RGB")
    expected = np.asarray(expected)
    if expected.ndim == 2:
        expected = np.repeat(expected[:, :, None], 3, axis=2)
    assert np.asarray(picture).shape == expected.shape
    return int(np.abs(np.asarray(picture).astype(int) - expected).max())
