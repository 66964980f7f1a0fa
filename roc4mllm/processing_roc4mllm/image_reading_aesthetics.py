"""
Reading a picture from whatever a user has, or saying clearly why it cannot be read.

Every picture ends as an upright 8-bit RGB `PIL.Image`: the EXIF rotation is applied, 16-bit greys are scaled rather
than clipped, transparent parts stand on white, an animation gives its first frame. Colour profiles are left alone, as
the models were trained. Where two readings are possible, the picture is refused. Files are opened for reading only.
"""

import io
import os
import stat
import time
import urllib.parse
import urllib.request
from http.client import HTTPException

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

MAX_PIXELS = 178_956_970  # where Pillow itself calls a file a decompression bomb
MAX_BYTES = 256 * 1024 * 1024  # of one encoded picture
MAX_ASPECT_RATIO = 2000  # 1 x 65000, its short edge resized to 336, would be 7 gigapixels
URL_TIMEOUT = 30  # seconds for a whole download
UNSAFE_FORMATS = ("EPS", "PCX")  # Pillow runs Ghostscript for the one, and reads half of the other without complaint
HEIF_STARTS = (b"ftypheic", b"ftypheix", b"ftypmif1", b"ftypmsf1")  # phones write them
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class PictureError(ValueError):
    """A picture that cannot be read; the message says what came and what was expected."""


def read_image(source) -> Image.Image:
    """
    Args:
        source (`str`, `os.PathLike`, `bytes`, `PIL.Image.Image`, `numpy.ndarray`, `torch.Tensor` or `dict`):
            A path, an http(s) URL, the bytes of a file, a picture, an array of shape `(H, W)`, `(H, W, 1|3|4)` or
            `(1|3|4, H, W)`, or a `{"bytes", "path"}` record of the `datasets` library. Arrays and tensors are uint8,
            or floating point from 0 to 1. Where both ends of a shape could be the channels, they are the last axis of
            an array and the first of a tensor.

    Returns:
        `PIL.Image.Image`: upright, RGB.

    Raises:
        PictureError: If it cannot be read as a picture within the limits on bytes, pixels and aspect ratio.
    """
    try:
        return to_rgb(open_image(source))
    except PictureError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise PictureError(f"too many pixels: {error}") from error
    except MemoryError as error:
        raise PictureError("not enough memory to decode it") from error
    except (OSError, ValueError) as error:
        raise PictureError(f"cannot be read: {error}") from error
    except Exception as error:  # on damaged files decoders raise nearly anything; one file must not stop thousands
        raise PictureError(f"cannot be read: {error!r}") from error


def open_image(source) -> Image.Image:
    """`source` as a PIL image, not yet decoded where it is a file."""
    if isinstance(source, Image.Image):
        return source
    if isinstance(source, dict):
        source = content_of(source)
    if isinstance(source, str | os.PathLike):
        path = os.fsdecode(source)
        is_url = path[:8].lower().startswith(("http://", "https://"))
        return open_bytes(download(path) if is_url else read_file(path))
    if isinstance(source, bytes | bytearray | memoryview):
        return open_bytes(bytes(source))
    if hasattr(source, "read_bytes"):  # a member of an archive, a file of another file system
        return open_bytes(source.read_bytes())
    if isinstance(source, np.ndarray):
        return from_array(source)
    if hasattr(source, "requires_grad"):  # a torch tensor; torch itself is not needed here
        return from_tensor(source)
    raise PictureError(
        f"got {type(source).__name__}; expected a path, URL, bytes, PIL image, numpy array or torch tensor"
    )


def content_of(record: dict):
    """Bytes or path of a record of the `datasets` library."""
    content = record.get("path") if record.get("bytes") is None else record["bytes"]
    if not isinstance(content, str | os.PathLike | bytes | bytearray | memoryview):
        raise PictureError(
            f"got a dict with keys {list(record)}; expected bytes or a path under 'bytes' or 'path', as the "
            "`datasets` library has them"
        )
    return content


# ---- files and downloads --------------------------------------------------------------------------------------------


def read_file(path: str) -> bytes:
    """The bytes of a regular file within the limit. A pipe is not opened: it would wait for a writer for ever."""
    try:
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):
            raise PictureError("a folder, not a file" if stat.S_ISDIR(status.st_mode) else "not a regular file")
        check_byte_count(status.st_size)
        with open(path, "rb") as file:
            data = file.read(status.st_size + 1)  # the limit itself would be reserved anew for each picture
            return data if len(data) <= status.st_size else data + file.read(MAX_BYTES + 1 - len(data))  # it grew
    except (FileNotFoundError, NotADirectoryError) as error:
        hint = "; of URLs only http and https are read" if "://" in path else ""
        raise PictureError(f"no such file{hint}") from error
    except PermissionError as error:
        raise PictureError("no permission to read the file") from error
    except OSError as error:
        raise PictureError(f"cannot be read: {error.strerror}") from error  # its text would repeat the path


def download(url: str) -> bytes:
    """The bytes behind an http(s) URL within the limits on bytes and time; a redirect leads to http(s) only."""
    opener = urllib.request.OpenerDirector()  # `urlopen` would also follow a redirect to ftp
    for name in ("Proxy", "HTTP", "HTTPS", "HTTPDefaultError", "HTTPRedirect", "Unknown"):
        opener.add_handler(getattr(urllib.request, f"{name}Handler")())
    opener.add_handler(urllib.request.HTTPErrorProcessor())
    address = urllib.parse.quote(url, safe="!#$%&'()*+,/:;=?@[]~")
    request = urllib.request.Request(address, headers={"User-Agent": "roc4mllm"})
    deadline = time.monotonic() + URL_TIMEOUT
    try:
        with opener.open(request, timeout=URL_TIMEOUT) as response:
            return read_response(response, deadline)
    except TimeoutError as error:
        raise PictureError(f"cannot be downloaded within {URL_TIMEOUT} seconds") from error
    except (OSError, HTTPException) as error:
        if hasattr(error, "close"):
            error.close()  # an HTTPError holds the connection
        raise PictureError(f"cannot be downloaded: {error}") from error


def read_response(response, deadline: float) -> bytes:
    """The whole body of an `http.client.HTTPResponse`, piece by piece: a server may send a byte a second."""
    check_byte_count(response.length or 0)
    pieces, size = [], 0
    while piece := response.read1(65536):
        pieces.append(piece)
        size += len(piece)
        check_byte_count(size)
        if time.monotonic() > deadline:
            raise TimeoutError
    if response.length:
        raise PictureError(f"cannot be downloaded: the connection broke off {response.length} bytes before the end")
    return b"".join(pieces)


def check_byte_count(count: int) -> None:
    """Refuse what is larger than any picture should be."""
    if count > MAX_BYTES:
        raise PictureError(f"too large: {count} bytes or more, at most {MAX_BYTES} are read")


def open_bytes(data: bytes) -> Image.Image:
    """Open an encoded picture; nothing is decoded yet."""
    if not data:
        raise PictureError("the file is empty")
    check_byte_count(len(data))
    try:
        image = Image.open(io.BytesIO(data))
    except UnidentifiedImageError as error:
        heif = " (HEIF, which Pillow reads only with pillow-heif)" if data[4:12] in HEIF_STARTS else ""
        raise PictureError(
            f"not a picture in a format that Pillow reads; it begins with {data[:12]!r}{heif}"
        ) from error
    if image.format in UNSAFE_FORMATS:
        raise PictureError(f"{image.format} files are not read; convert it to PNG first")
    return image


# ---- arrays ---------------------------------------------------------------------------------------------------------


def from_tensor(tensor) -> Image.Image:
    """A torch tensor on any device as a picture."""
    tensor = tensor.detach().cpu()
    if tensor.is_floating_point():
        tensor = tensor.float()  # numpy has no bfloat16
    array = tensor.numpy()
    if array.ndim == 3 and array.shape[0] in (1, 3, 4):
        array = array.transpose(1, 2, 0)  # (H, W, 1|3|4)
    return from_array(array)


def from_array(array: np.ndarray) -> Image.Image:
    """An array of shape `(H, W)`, `(H, W, 1|3|4)` or `(1|3|4, H, W)` as a picture."""
    shape = array.shape
    if array.ndim == 3 and shape[0] in (1, 3, 4) and shape[2] not in (1, 3, 4):
        array = array.transpose(1, 2, 0)  # (H, W, 1|3|4)
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]  # (H, W)
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (3, 4)) or 0 in shape:
        raise PictureError(f"got an array of shape {shape}; expected (H, W), (H, W, 3) or (3, H, W)")
    if np.issubdtype(array.dtype, np.floating):
        array = as_levels(array)
    if array.dtype != np.uint8:
        raise PictureError(f"got an array of {array.dtype}; expected uint8, or floating point from 0 to 1")
    return Image.fromarray(np.ascontiguousarray(array))


def as_levels(values: np.ndarray) -> np.ndarray:
    """Floating point values from 0 to 1 as uint8; rounding errors of half a level are forgiven."""
    if not np.isfinite(values).all():
        raise PictureError("got floating point values with NaN or infinity among them; expected 0 to 1")
    low, high = float(values.min()), float(values.max())
    if low < -0.5 / 255 or high > 255.5 / 255:
        raise PictureError(f"got floating point values from {low:.6g} to {high:.6g}; expected 0 to 1, or uint8")
    return np.rint(values.astype(np.float32) * 255).clip(0, 255).astype(np.uint8)


# ---- to 8-bit RGB ---------------------------------------------------------------------------------------------------


def to_rgb(image: Image.Image) -> Image.Image:
    """Decode, convert to 8-bit RGB, and turn upright. A picture of the caller's stays as it is."""
    check_size(*image.size)
    image.load()  # a truncated file fails here
    turn = turn_of(image)
    image = flatten(eight_bit(image))
    image.info = {}  # nothing is left that would turn it a second time
    return image if turn is None else image.transpose(turn)


def check_size(width: int, height: int) -> None:
    """Refuse a size that decoding or resizing could not bear."""
    if not width * height:
        raise PictureError(f"got a picture of {width} x {height} pixels, which is empty")
    if width * height > MAX_PIXELS:
        raise PictureError(f"too many pixels: {width} x {height}, at most {MAX_PIXELS} are read")
    if max(width, height) > MAX_ASPECT_RATIO * min(width, height):
        raise PictureError(f"too long: {width} x {height} pixels, the aspect ratio is at most {MAX_ASPECT_RATIO}")


def turn_of(image: Image.Image) -> Image.Transpose | None:
    """What turns the picture upright. Damaged EXIF says nothing, and nothing about the pixels."""
    try:
        return TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # Pillow's parser raises SyntaxError, struct.error, KeyError, …; the pixels may be whole
        return None


def eight_bit(image: Image.Image) -> Image.Image:
    """16-bit and floating point greys as 8-bit greys; every other picture as it is."""
    if image.mode == "F":
        return Image.fromarray(as_levels(np.asarray(image) if not white_is_zero(image) else 1 - np.asarray(image)))
    if image.mode != "I" and not image.mode.startswith("I;16"):
        return image
    values = np.asarray(image).astype(np.int32)  # (H, W)
    top = grey_range(image, int(values.min()), int(values.max()))
    levels = np.rint(values * (255 / top)).astype(np.uint8)
    grey = Image.fromarray(255 - levels if white_is_zero(image) else levels)
    if isinstance(key := image.info.get("transparency"), int):  # PNG names one grey as transparent
        grey.putalpha(Image.fromarray(np.where(values == key, 0, 255).astype(np.uint8)))
    return grey


def grey_range(image: Image.Image, low: int, high: int) -> int:
    """The value that stands for white; Pillow's own conversion clips everything above 255."""
    if image.mode != "I":
        bits = getattr(image, "tag_v2", {}).get(258)  # a TIFF of 12 bits comes as 16
        return 4095 if bits == (12,) else 65535
    if low < 0 or high > 65535:
        raise PictureError(f"got greys from {low} to {high}; expected 8 or 16 bits, 0 to 65535")
    if 0 < high <= 255 and image.format != "PPM":  # in mode I, Pillow holds 8-bit and 16-bit greys alike
        raise PictureError(
            f"got 32-bit greys from {low} to {high}, which may be a picture of 8 or of 16 bits; convert it to mode L "
            "or I;16"
        )
    return 65535


def white_is_zero(image: Image.Image) -> bool:
    """Whether a TIFF of more than 8 bits counts from white; Pillow turns only the others round."""
    return getattr(image, "tag_v2", {}).get(262) == 0


def flatten(image: Image.Image) -> Image.Image:
    """A copy in RGB, transparent parts on white."""
    key = image.info.get("transparency")
    if image.mode == "RGB" and isinstance(key, tuple) and max(key) > 255:  # of a 16-bit PNG; the pixels have 8 bits
        image = image.copy()
        image.info["transparency"] = tuple(value >> 8 for value in key)
    if image.mode == "La":
        image = image.convert("LA")  # the only way out of premultiplied greys
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")


__all__ = ["PictureError", "read_image"]
