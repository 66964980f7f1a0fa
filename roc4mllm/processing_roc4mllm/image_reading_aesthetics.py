"""
Reading a picture from whatever a user has, or saying clearly why it cannot be read.

Every picture ends as an upright 8-bit RGB `PIL.Image`: the EXIF rotation is applied, 16-bit greys are scaled rather than
clipped, transparent parts stand on white, an animation gives its first frame. Files are opened for reading only.
"""

import io
import os
import urllib.request
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

MAX_PIXELS = 178_956_970  # where Pillow itself calls a file a decompression bomb
MAX_BYTES = 256 * 1024 * 1024  # of one encoded picture
URL_TIMEOUT = 30  # seconds


class PictureError(ValueError):
    """A picture that cannot be read; the message says what came and what was expected."""


def read_image(source) -> Image.Image:
    """
    Args:
        source (`str`, `os.PathLike`, `bytes`, `PIL.Image.Image`, `numpy.ndarray`, `torch.Tensor` or `dict`):
            A path, an http(s) URL, the bytes of a file, a picture, an array of shape `(H, W)`, `(H, W, 1|3|4)` or
            `(3, H, W)`, or a `{"bytes", "path"}` record of the `datasets` library. Arrays and tensors are uint8, or
            floating point from 0 to 1.

    Returns:
        `PIL.Image.Image`: upright, RGB.

    Raises:
        PictureError: If it cannot be read as a picture within the limits on bytes and pixels.
    """
    try:
        return to_rgb(open_image(source))
    except PictureError:
        raise
    except UnidentifiedImageError as error:
        raise PictureError("not a picture in a format that Pillow reads") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise PictureError(f"too many pixels: {error}") from error
    except (OSError, SyntaxError, ValueError, EOFError) as error:  # what Pillow's decoders raise on damaged files
        raise PictureError(f"cannot be read: {error}") from error


def open_image(source) -> Image.Image:
    """`source` as a PIL image, not yet decoded where it is a file."""
    if isinstance(source, Image.Image):
        return source
    if isinstance(source, dict):
        source = source.get("bytes") or source.get("path")
    if isinstance(source, str) and source.startswith(("http://", "https://")):
        return open_bytes(download(source))
    if isinstance(source, str | os.PathLike):
        return open_bytes(read_file(Path(source)))
    if isinstance(source, bytes | bytearray | memoryview):
        return open_bytes(bytes(source))
    if hasattr(source, "detach"):  # a torch tensor; torch itself is not needed here
        source = source.detach().cpu().numpy()
    if isinstance(source, np.ndarray):
        return from_array(source)
    raise PictureError(
        f"got {type(source).__name__}; expected a path, URL, bytes, PIL image, numpy array or torch tensor"
    )


def read_file(path: Path) -> bytes:
    """The bytes of a file within the limit."""
    if not path.exists():
        raise PictureError("no such file")
    if not path.is_file():
        raise PictureError("not a file")
    try:
        with path.open("rb") as file:
            return checked_bytes(file.read(MAX_BYTES + 1))
    except PermissionError as error:
        raise PictureError("no permission to read the file") from error


def download(url: str) -> bytes:
    """The bytes behind an http(s) URL within the limits on bytes and time."""
    request = urllib.request.Request(url, headers={"User-Agent": "roc4mllm"})
    try:
        with urllib.request.urlopen(request, timeout=URL_TIMEOUT) as response:  # noqa: S310 - scheme checked by caller
            return checked_bytes(response.read(MAX_BYTES + 1))
    except OSError as error:
        raise PictureError(f"cannot be downloaded: {error}") from error


def checked_bytes(data: bytes) -> bytes:
    """Refuse empty and oversized files."""
    if not data:
        raise PictureError("the file is empty")
    if len(data) > MAX_BYTES:
        raise PictureError(f"more than {MAX_BYTES // 2**20} MiB")
    return data


def open_bytes(data: bytes) -> Image.Image:
    """Open an encoded picture and check its size before any pixel is decoded."""
    image = Image.open(io.BytesIO(checked_bytes(data)))
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise PictureError(f"too many pixels: {width} x {height}, at most {MAX_PIXELS} are read")
    return image


def from_array(array: np.ndarray) -> Image.Image:
    """An array of shape `(H, W)`, `(H, W, 1|3|4)` or `(3, H, W)` as a picture."""
    if array.ndim == 3 and array.shape[0] == 3 and array.shape[2] not in (1, 3, 4):
        array = array.transpose(1, 2, 0)  # (H, W, 3)
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]  # (H, W)
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (3, 4)) or 0 in array.shape:
        raise PictureError(f"got an array of shape {array.shape}; expected (H, W), (H, W, 3) or (3, H, W)")
    if np.issubdtype(array.dtype, np.floating):
        if not (np.isfinite(array).all() and array.min() >= 0 and array.max() <= 1):
            raise PictureError(
                f"got a floating point array from {array.min():.4g} to {array.max():.4g}; expected 0 to 1, or uint8"
            )
        array = np.rint(array.astype(np.float64) * 255).astype(np.uint8)
    if array.dtype != np.uint8:
        raise PictureError(f"got an array of {array.dtype}; expected uint8, or floating point from 0 to 1")
    return Image.fromarray(array)


def to_rgb(image: Image.Image) -> Image.Image:
    """Decode, turn upright, and convert to 8-bit RGB."""
    image = ImageOps.exif_transpose(image)  # also decodes; a truncated file fails here
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        image = scale_grey(image)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")


def scale_grey(image: Image.Image) -> Image.Image:
    """
    A 16- or 32-bit grey picture as 8-bit grey; Pillow's own conversion clips everything above 255 to white.
    """
    values = np.asarray(image).astype(np.float64)  # (H, W)
    if image.mode == "F":
        if not (np.isfinite(values).all() and values.min() >= 0 and values.max() <= 255):
            raise PictureError(
                f"floating point greys from {values.min():.4g} to {values.max():.4g}; expected 0 to 255"
            )
        return Image.fromarray(np.rint(values).astype(np.uint8))
    top = 65535 if values.max() > 255 else 255  # mode I also holds 8-bit greys
    return Image.fromarray(np.rint(values.clip(0, top) * (255 / top)).astype(np.uint8))


__all__ = ["PictureError", "read_image"]
