"""Every kind of picture that users have, against the pixels it should have; and what is not a picture."""

import contextlib
import io
import itertools
import struct
import warnings

import numpy as np
import pictures
import pytest
import torch
from pictures import GREY, GREY_ALPHA, RGB, RGB_ALPHA, difference, encoded, half, png
from PIL import Image, features
from tiny import photo

from roc4mllm.processing_roc4mllm.image_reading_aesthetics import PictureError, read_image

PHOTO = photo(0)
PIXELS = np.asarray(PHOTO)
GREYS = np.asarray(PHOTO.convert("L"))
DEEP = GREYS.astype(np.uint16) * 257  # the same greys in 16 bits


def on_white(rgb: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """The definition of "on white", in floating point."""
    alpha = alpha[:, :, None] / 255
    return np.rint(rgb * alpha + 255 * (1 - alpha)).astype(int)


ALPHA = np.tile(np.linspace(0, 255, 64).astype(np.uint8), (48, 1))
RGBA = np.dstack([PIXELS, ALPHA])
PALETTE = PHOTO.quantize(16)
BITS = PHOTO.convert("1")
FRAMES = [photo(seed).quantize(32) for seed in range(3)]
WITHOUT_PIXEL_0 = np.where((np.asarray(PALETTE) == 0)[:, :, None], 255, np.asarray(PALETTE.convert("RGB")))


class TestPixels:
    @pytest.mark.parametrize(
        "data, expected, tolerance",
        [
            pytest.param(encoded(PHOTO, "PNG"), PIXELS, 0, id="PNG"),
            pytest.param(encoded(PHOTO, "WEBP", lossless=True), PIXELS, 0, id="WebP"),
            pytest.param(encoded(PHOTO, "BMP"), PIXELS, 0, id="BMP"),
            pytest.param(encoded(PHOTO, "TIFF", compression="tiff_lzw"), PIXELS, 0, id="TIFF"),
            pytest.param(encoded(PHOTO, "JPEG", quality=100, subsampling=0), PIXELS, 4, id="JPEG"),
            pytest.param(encoded(PHOTO, "JPEG", quality=100, subsampling=0, progressive=True), PIXELS, 4, id="steps"),
            pytest.param(encoded(PHOTO.convert("L"), "PNG"), GREYS, 0, id="grey"),
            pytest.param(encoded(BITS, "PNG"), BITS.convert("L"), 0, id="1-bit PNG"),
            pytest.param(encoded(BITS, "TIFF"), BITS.convert("L"), 0, id="1-bit TIFF"),
            pytest.param(encoded(PALETTE, "PNG"), PALETTE.convert("RGB"), 0, id="palette"),
            pytest.param(encoded(PHOTO.convert("CMYK"), "TIFF"), PIXELS, 0, id="CMYK TIFF"),
            pytest.param(encoded(PHOTO.convert("LAB"), "TIFF"), PHOTO.convert("LAB").convert("RGB"), 0, id="LAB"),
            pytest.param(encoded(PHOTO.crop((5, 5, 6, 6)), "PNG"), PIXELS[5:6, 5:6], 0, id="1x1"),
        ],
    )
    def test_common_files(self, data, expected, tolerance):
        assert difference(data, expected) <= tolerance

    @pytest.mark.parametrize("marker", ["Adobe", "none"])
    def test_cmyk_jpeg(self, marker):
        """Adobe stores the inks upside down, and every writer of CMYK JPEG followed."""
        data = encoded(PHOTO.convert("CMYK"), "JPEG", quality=100)
        assert b"Adobe" in data
        data = data if marker == "Adobe" else pictures.without_adobe_marker(data)
        assert (b"Adobe" in data) == (marker == "Adobe")
        assert difference(data, PIXELS) <= 6

    @pytest.mark.parametrize(
        "data",
        [
            pytest.param(encoded(Image.fromarray(DEEP), "PNG"), id="PNG"),
            pytest.param(encoded(Image.fromarray(DEEP), "TIFF"), id="TIFF"),
            pytest.param(encoded(Image.fromarray(DEEP.astype(">u2")), "TIFF"), id="big-endian TIFF"),
            pytest.param(encoded(Image.fromarray(DEEP), "JPEG2000"), id="JPEG 2000"),
            pytest.param(b"P5 64 48 65535\n" + DEEP.astype(">u2").tobytes(), id="PGM"),
            pytest.param(b"P5 64 48 1023\n" + (DEEP >> 6).astype(">u2").tobytes(), id="10-bit PGM"),
            pytest.param(pictures.tiff(pictures.twelve_bits(DEEP >> 4), 64, 48, 12), id="12-bit TIFF"),
            pytest.param(pictures.tiff((65535 - DEEP).tobytes(), 64, 48, 16, white_is_zero=True), id="negative TIFF"),
            pytest.param(encoded(Image.fromarray((GREYS / 255).astype(np.float32)), "TIFF"), id="float TIFF"),
            pytest.param(Image.fromarray(DEEP), id="PIL I;16"),
            pytest.param(Image.fromarray(DEEP.astype(np.int32)), id="PIL I"),
            pytest.param(png(DEEP, GREY), id="PNG by hand"),
        ],
    )
    def test_deep_greys_are_scaled(self, data):
        assert difference(data, GREYS) <= 1

    def test_deep_greys_keep_their_fine_levels(self):
        fine = np.minimum(DEEP.astype(int) + np.arange(64) * 2, 65535).astype(np.uint16)
        assert difference(png(fine, GREY), np.rint(fine / 257)) <= 1

    def test_dark_deep_greys_stay_dark(self):
        """Nothing brighter than 255 of 65535: black, and not a bright picture of 8 bits."""
        dark = DEEP // 258
        assert dark.max() > 200
        for data in (png(dark, GREY), b"P5 64 48 65535\n" + dark.astype(">u2").tobytes()):
            assert difference(data, np.zeros_like(GREYS)) <= 1

    @pytest.mark.parametrize(
        "picture, message",
        [
            (Image.fromarray(GREYS.astype(np.int32)), "may be a picture of 8 or of 16 bits; convert it to mode L"),
            (Image.fromarray(DEEP.astype(np.int32) - 9999), "greys from -[0-9]+ to"),
            (Image.fromarray(DEEP.astype(np.int32) * 2), "expected 8 or 16 bits, 0 to 65535"),
            (Image.fromarray(GREYS.astype(np.float32)), "expected 0 to 1"),
        ],
    )
    def test_ambiguous_greys_are_refused(self, picture, message):
        with pytest.raises(PictureError, match=message):
            read_image(picture)

    def test_deep_colours(self):
        deep = PIXELS.astype(np.uint16) * 257
        assert difference(png(deep, RGB), PIXELS) <= 1
        alpha = ALPHA.astype(np.uint16) * 257
        assert difference(png(np.dstack([deep, alpha]), RGB_ALPHA), on_white(PIXELS, ALPHA)) <= 1
        expected = on_white(GREYS[:, :, None].repeat(3, 2), ALPHA)
        assert difference(png(np.dstack([DEEP, alpha]), GREY_ALPHA), expected) <= 1

    @pytest.mark.parametrize(
        "data, expected",
        [
            pytest.param(encoded(Image.fromarray(RGBA), "PNG"), on_white(PIXELS, ALPHA), id="RGBA PNG"),
            pytest.param(
                encoded(Image.fromarray(RGBA), "WEBP", lossless=True, exact=True), on_white(PIXELS, ALPHA), id="WebP"
            ),
            pytest.param(encoded(Image.fromarray(RGBA), "TIFF"), on_white(PIXELS, ALPHA), id="RGBA TIFF"),
            pytest.param(Image.fromarray(RGBA).convert("RGBa"), on_white(PIXELS, ALPHA), id="premultiplied"),
            pytest.param(
                encoded(Image.merge("LA", (PHOTO.convert("L"), Image.fromarray(ALPHA))), "PNG"),
                on_white(GREYS[:, :, None].repeat(3, 2), ALPHA),
                id="LA",
            ),
            pytest.param(
                Image.merge("LA", (PHOTO.convert("L"), Image.fromarray(ALPHA))).convert("La"),
                on_white(GREYS[:, :, None].repeat(3, 2), ALPHA),
                id="premultiplied grey",
            ),
            pytest.param(encoded(PALETTE, "PNG", transparency=0), WITHOUT_PIXEL_0, id="palette"),
            pytest.param(encoded(PALETTE, "PNG", transparency=bytes([0])), WITHOUT_PIXEL_0, id="palette of alphas"),
            pytest.param(encoded(PALETTE, "GIF", transparency=0), WITHOUT_PIXEL_0, id="GIF"),
        ],
    )
    def test_transparent_parts_stand_on_white(self, data, expected):
        assert difference(data, expected) <= 3  # premultiplied pixels lose up to three levels
        assert (np.asarray(expected) == 255).all(axis=2).any()

    def test_transparent_colours_of_deep_pngs(self):
        key = struct.pack(">H", DEEP[0, 0])
        grey = png(DEEP, GREY, pictures.chunk(b"tRNS", key))
        assert difference(grey, np.where(GREYS[0, 0] == GREYS, 255, GREYS)) <= 1
        deep = PIXELS.astype(np.uint16) * 256 + 7
        key = struct.pack(">HHH", *deep[0, 0])
        there = (PIXELS[0, 0] == PIXELS).all(axis=2, keepdims=True)
        assert difference(png(deep, RGB, pictures.chunk(b"tRNS", key)), np.where(there, 255, PIXELS)) <= 1

    @pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
    def test_an_animation_gives_its_first_frame(self, kind):
        options = {"WEBP": {"lossless": True}}.get(kind, {})
        data = pictures.animation(
            [frame.convert("RGB") if kind != "GIF" else frame for frame in FRAMES], kind, **options
        )
        assert Image.open(io.BytesIO(data)).n_frames == 3
        assert difference(data, FRAMES[0].convert("RGB")) == 0


class TestOrientation:
    @pytest.mark.parametrize("orientation", range(1, 9))
    @pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF", "JPEG"])
    def test_all_orientations(self, orientation, kind):
        options = {"WEBP": {"lossless": True}, "JPEG": {"quality": 100, "subsampling": 0}}.get(kind, {})
        data = pictures.rotated(PHOTO, orientation, kind, **options)
        assert difference(data, PIXELS) <= (4 if kind == "JPEG" else 0)

    def test_a_read_picture_is_not_turned_again(self):
        once = read_image(pictures.rotated(PHOTO, 6))
        assert difference(once, PIXELS) == 0
        assert not once.info

    @pytest.mark.parametrize("exif", [b"garbage!", b"II*\0", b"MM\0*\xff\xff\xff\xff" + bytes(9)])
    def test_damaged_exif_says_nothing(self, exif):
        data = encoded(PHOTO, "JPEG", quality=100, subsampling=0, exif=b"Exif\0\0" + exif)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of it
            assert difference(data, PIXELS) <= 4

    def test_unknown_orientation(self):
        exif = Image.Exif()
        exif[274] = 99
        assert difference(encoded(PHOTO, "PNG", exif=exif), PIXELS) == 0

    def test_a_deep_grey_is_turned_too(self):
        exif = Image.Exif()
        exif[274] = 6
        stored = np.ascontiguousarray(np.rot90(DEEP, 1))
        for kind in ("PNG", "TIFF"):
            assert difference(encoded(Image.fromarray(stored), kind, exif=exif), GREYS) <= 1

    def test_a_picture_of_the_callers_stays_as_it_is(self):
        picture = Image.open(io.BytesIO(pictures.rotated(PHOTO, 6)))
        before = np.asarray(picture).copy()
        assert difference(picture, PIXELS) == 0
        assert (np.asarray(picture) == before).all()
        assert picture.getexif()[274] == 6


TRUNCATED = {
    "JPEG": encoded(PHOTO, "JPEG"),
    "progressive JPEG": encoded(PHOTO, "JPEG", progressive=True),
    "PNG": encoded(PHOTO, "PNG"),
    "GIF": encoded(PALETTE, "GIF"),
    "WebP": encoded(PHOTO, "WEBP"),
    "BMP": encoded(PHOTO, "BMP"),
    "TIFF": encoded(PHOTO, "TIFF", compression="tiff_deflate"),
    "JPEG 2000": encoded(PHOTO, "JPEG2000"),
} | ({"AVIF": encoded(PHOTO, "AVIF")} if features.check("avif") else {})


class TestDamage:
    @pytest.mark.parametrize("name", TRUNCATED)
    def test_truncated_anywhere(self, name):
        """An error or all the pixels, never half a picture."""
        whole = TRUNCATED[name]
        expected, errors = np.asarray(read_image(whole)), 0
        for length in {*np.linspace(1, len(whole) - 1, 40).astype(int), len(whole) - 2, len(whole) // 2}:
            try:
                picture = read_image(whole[:length])
            except PictureError:
                errors += 1
            else:
                assert (np.asarray(picture) == expected).all(), f"{length} of {len(whole)} bytes"
        assert errors > 30

    def test_any_damage_is_a_picture_error(self):
        """Decoders raise nearly anything: RuntimeError, AttributeError, AssertionError, struct.error …"""
        random = np.random.RandomState(0)
        for data, _ in itertools.product(TRUNCATED.values(), range(100)):
            damaged = np.frombuffer(data, np.uint8).copy()
            damaged[random.randint(0, min(len(data), 300), 4)] = random.randint(0, 256, 4)
            with warnings.catch_warnings(), contextlib.suppress(PictureError):
                warnings.simplefilter("ignore")
                read_image(damaged.tobytes())

    @pytest.mark.parametrize(
        "data, message",
        [
            (b"", "the file is empty"),
            (b"not a picture at all", "not a picture in a format that Pillow reads; it begins with b'not a pictur'"),
            (b"\0\0\0\x18ftypheic" + bytes(40), "HEIF, which Pillow reads only with pillow-heif"),
            (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n", "EPS files are not read"),
            (half(encoded(photo(0, 256, 192), "JPEG")), "cannot be read: image file is truncated"),
            (half(TRUNCATED["PNG"]), "cannot be read: image file is truncated"),
        ],
    )
    def test_message(self, data, message):
        with pytest.raises(PictureError, match=message):
            read_image(data)

    @pytest.mark.parametrize("size", [(0, 4), (4, 0)])
    def test_no_pixels(self, size):
        with pytest.raises(PictureError, match=f"{size[0]} x {size[1]} pixels, which is empty"):
            read_image(Image.new("RGB", size))

    def test_a_closed_file_of_a_lazy_picture(self, tmp_path):
        PHOTO.save(tmp_path / "a.png")
        with Image.open(tmp_path / "a.png") as lazy:
            pass
        with pytest.raises(PictureError, match="cannot be read"):
            read_image(lazy)


class TestArrays:
    @pytest.mark.parametrize("wrap", [lambda array: array, lambda array: torch.from_numpy(np.array(array))])
    def test_shapes(self, wrap):
        first = PIXELS.transpose(2, 0, 1)  # (3, H, W)
        for array in (
            PIXELS,
            first,
            PIXELS / 255,
            (first / 255).astype(np.float32),
            (PIXELS / 255).astype(np.float16),
        ):
            assert difference(wrap(array), PIXELS) == 0
        for array in (GREYS, GREYS[:, :, None], GREYS[None], GREYS / 255):
            assert difference(wrap(array), GREYS) == 0
        for array in (RGBA, RGBA.transpose(2, 0, 1)):
            assert difference(wrap(array), on_white(PIXELS, ALPHA)) <= 1

    def test_tensors_have_their_channels_first(self):
        narrow = PIXELS[:, :3]  # (48, 3, 3)
        assert difference(torch.from_numpy(narrow.transpose(2, 0, 1).copy()), narrow) == 0
        assert difference(narrow, narrow) == 0

    def test_tensors_of_models(self):
        tensor = torch.from_numpy(PIXELS.copy()).permute(2, 0, 1) / 255
        assert difference(tensor.requires_grad_(), PIXELS) == 0
        assert difference(tensor.bfloat16(), PIXELS) <= 1
        for unreadable in (tensor.to("meta"), tensor.detach().to_sparse()):
            with pytest.raises(PictureError, match="cannot be read"):
                read_image(unreadable)

    def test_odd_layouts_of_memory(self):
        for array in (PIXELS[::-1, ::-1], np.asfortranarray(PIXELS), PIXELS[::2, ::3], PIXELS.astype(">f8") / 255):
            expected = array if array.dtype == np.uint8 else PIXELS
            assert difference(array, expected) == 0
        assert difference(memoryview(encoded(PHOTO, "PNG")), PIXELS) == 0
        assert difference(bytearray(encoded(PHOTO, "PNG")), PIXELS) == 0

    def test_rounding_errors_are_forgiven(self):
        floats, expected = PIXELS / 255, PIXELS.copy()
        floats[0, 0], expected[0, 0] = 1.0015, 255
        floats[0, 1], expected[0, 1] = -0.0015, 0
        assert difference(floats, expected) == 0

    @pytest.mark.parametrize(
        "array, message",
        [
            (np.zeros(7, np.uint8), r"got an array of shape \(7,\); expected \(H, W\), \(H, W, 3\) or \(3, H, W\)"),
            (np.zeros((5, 6, 2), np.uint8), r"shape \(5, 6, 2\)"),
            (np.zeros((2, 3, 8, 8), np.uint8), r"shape \(2, 3, 8, 8\)"),
            (np.zeros((0, 6, 3), np.uint8), r"shape \(0, 6, 3\)"),
            (np.array(7, np.uint8), r"shape \(\)"),
            (PIXELS.astype(np.int64), "got an array of int64; expected uint8, or floating point from 0 to 1"),
            (PIXELS.astype(np.uint16), "array of uint16"),
            (PIXELS > 9, "array of bool"),
            (PIXELS.astype(complex), "array of complex128"),
            (PIXELS.astype(object), "array of object"),
            (PIXELS.astype(float), "floating point values from .* to 2.*; expected 0 to 1, or uint8"),
            (PIXELS / 255 - 0.5, "floating point values from -0.*expected 0 to 1"),
            (np.where(PIXELS > 200, np.nan, 0.5), "NaN or infinity"),
            (np.where(PIXELS > 200, np.inf, 0.5), "NaN or infinity"),
        ],
    )
    def test_wrong_arrays(self, array, message):
        with pytest.raises(PictureError, match=message):
            read_image(array)

    @pytest.mark.parametrize("source", [None, 3, 1.5, ["a.jpg"], {"a.jpg"}, object(), io.BytesIO(b"x"), int])
    def test_what_is_no_picture(self, source):
        name = type(source).__name__
        with pytest.raises(PictureError, match=f"got {name}; expected a path, URL, bytes, PIL image, numpy array"):
            read_image(source)
