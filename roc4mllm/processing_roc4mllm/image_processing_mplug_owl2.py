"""
Image processor of mPLUG-Owl2: the whole picture, centred on a square of the mean colour.

What differs from other image processors of transformers: no array as large as the padded picture is ever made, since
the square of a panorama has many times its pixels. The values are the same, bit by bit.
"""

import numpy as np
from PIL import Image
from transformers import BatchFeature
from transformers.image_processing_backends import PilBackend
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD, PILImageResampling

from .image_reading_aesthetics import read_image

STRIP_PIXELS = 1 << 22  # of the padded picture at a time


class MPLUGOwl2ImageProcessor(PilBackend):
    r"""
    Pictures in any mode that [`read_image`] reads, as `pixel_values` of shape `(num_images, 3, height, width)`.

    Args:
        do_pad (`bool`, *optional*, defaults to `True`): Centre a picture on a square of the colour
            `int(255 * image_mean)`; without it, the picture is stretched.
        do_resize (`bool`, *optional*, defaults to `True`): Resize to `size`.
        size (`dict`, *optional*, defaults to `{"height": 448, "width": 448}`): In pixels, what the model was made for.
        resample (`int`, *optional*, defaults to bicubic): A filter of Pillow.
        do_rescale, rescale_factor, do_normalize, image_mean, image_std, do_center_crop, crop_size (*optional*):
            As in every image processor of transformers; mean and standard deviation of CLIP, no crop. Pictures are
            read as 8-bit RGB, arrays of floating point too, so that the factor 1/255 is always right.

    Raises:
        PictureError: If a picture cannot be read.
        ValueError: If `size` is not a height and a width.
    """

    do_pad = True
    do_resize = True
    size = {"height": 448, "width": 448}
    resample = PILImageResampling.BICUBIC
    do_rescale = True
    do_normalize = True
    image_mean = OPENAI_CLIP_MEAN
    image_std = OPENAI_CLIP_STD

    def process_image(self, image, **kwargs) -> Image.Image:
        """The picture upright in RGB, transparent parts on white."""
        return read_image(image)

    def _preprocess(self, images: list[Image.Image], do_rescale, rescale_factor, do_normalize, **kwargs):
        pixel_values = []
        for image in images:
            pixels = np.asarray(self._resized(image, **kwargs)).transpose(2, 0, 1)  # (3, H, W)
            if kwargs["do_center_crop"]:
                pixels = self.center_crop(pixels, kwargs["crop_size"])
            if do_rescale:
                pixels = self.rescale(pixels, rescale_factor)
            if do_normalize:
                pixels = self.normalize(pixels, kwargs["image_mean"], kwargs["image_std"])
            pixel_values.append(pixels)
        return BatchFeature({"pixel_values": pixel_values}, tensor_type=kwargs["return_tensors"])

    def _resized(self, image: Image.Image, do_pad, do_resize, size, resample, image_mean, **kwargs) -> Image.Image:
        if do_resize and not (size.height and size.width):
            raise ValueError(f"size must hold a height and a width, got {dict(size)}.")
        shape = (size.width, size.height) if do_resize else (max(image.size),) * 2
        if do_pad:
            colour = tuple(int(mean * 255) for mean in np.broadcast_to(image_mean, 3))
            return resize_on_square(image, shape, colour, resample)
        return image.resize(shape, resample) if do_resize else image


def resize_on_square(
    image: Image.Image, shape: tuple[int, int], colour: tuple[int, ...], resample: int
) -> Image.Image:
    """
    The picture pasted on the centre of a square and resized, without making the square.

    Pillow resizes each row by itself, rounds to 8 bits, and then resizes each column. So rows of the picture are
    padded and resized a few at a time, and the rows of the square above and below them, which hold one colour, are
    written at their final width.

    Args:
        image (`PIL.Image.Image`): RGB.
        shape (`tuple[int, int]`): Width and height of the result in pixels.
        colour (`tuple[int, ...]`): Of the square, 0 to 255.
        resample (`int`): A filter of Pillow.
    """
    width, height = image.size
    side = max(image.size)
    left, top = (side - width) // 2, (side - height) // 2
    narrowed = Image.new("RGB", (shape[0], side), colour)
    for start in range(0, height, rows := max(1, STRIP_PIXELS // side)):
        strip = Image.new("RGB", (side, min(rows, height - start)), colour)
        strip.paste(image.crop((0, start, width, start + strip.height)), (left, 0))
        narrowed.paste(strip.resize((shape[0], strip.height), resample), (0, top + start))
    return narrowed.resize(shape, resample)


__all__ = ["MPLUGOwl2ImageProcessor"]
