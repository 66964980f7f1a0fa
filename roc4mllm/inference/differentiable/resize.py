"""
Resizing as Pillow does it, in torch and with a gradient.

Pillow resizes along one axis, rounds and clips to 8 bits, then along the other; its filters grow with the factor by
which a picture shrinks, so that every pixel counts, and their weights have 22 binary places. In float64 all this is
exact. The gradient takes no notice of the rounding (a straight-through estimator).
"""

import functools
from collections.abc import Callable

import numpy as np
import torch
from PIL import Image

WEIGHT_UNIT = 2.0**-22
TIE = 1e-9  # far less than that unit: what lies half-way between two levels is rounded up, as Pillow does


def resize(
    levels: torch.Tensor, size: tuple[int, int], resample: int, height_first: bool = False, rounded: bool = True
) -> torch.Tensor:
    """
    Args:
        levels (`torch.Tensor` of shape `(batch_size, 3, height, width)`): Pixels in float64, from 0 to 255.
        size (`tuple[int, int]`): New height and width.
        resample (`int`): A filter of Pillow: bilinear, bicubic or Lanczos.
        height_first (`bool`, *optional*, defaults to `False`): Which axis goes first, see [`pillow_height_first`].
        rounded (`bool`, *optional*, defaults to `True`): Round to whole levels where Pillow does.

    Returns:
        `torch.Tensor` of shape `(batch_size, 3, *size)`.

    Raises:
        ValueError: If the filter is another one.
    """
    rows, columns = (
        resize_matrix(length, new, resample).to(levels) for length, new in zip(levels.shape[-2:], size, strict=True)
    )  # (h, H), (w, W)
    if height_first:
        return clip(clip(rows @ levels, rounded) @ columns.T, rounded)  # (B, 3, h, W), then (B, 3, h, w)
    return clip(rows @ clip(levels @ columns.T, rounded), rounded)  # (B, 3, H, w), then (B, 3, h, w)


def clip(levels: torch.Tensor, rounded: bool = True) -> torch.Tensor:
    """
    Levels as 8 bits can hold them: without what a filter shot beyond black and white, and `rounded`.

    Clipping leaves room for rounding, so that white does not lose its gradient to the last bit of a sum.
    """
    clipped = levels.clamp(-0.5, 255.5)
    if not rounded:
        return clipped
    whole = (clipped.detach() + (0.5 + TIE)).floor().clamp(0, 255)
    return clipped + (whole - clipped).detach()


def pillow_height_first(old: tuple[int, int], new: tuple[int, int]) -> bool:
    """
    Which axis this Pillow resizes first, which decides what is clipped; a size is height and width.

    It used to be the width; with Pillow 13.0 it is the height where that shrinks by more than twice what the width
    does. No document says so: the rule was found, and is tested, by resizing pictures of all shapes.
    """
    return old[0] > new[0] and old[0] - new[0] > 2 * (old[1] - new[1]) and knows_height_first()


@functools.cache
def knows_height_first() -> bool:
    """Whether this Pillow ever begins with the height, seen from what it clips of a tall picture of noise."""
    noise = np.random.default_rng(0).integers(0, 2, (64, 8, 3), dtype=np.uint8) * 255
    resized = Image.fromarray(noise).resize((6, 16), Image.Resampling.LANCZOS)
    levels, expected = (
        torch.from_numpy(np.array(image, np.float64)).permute(2, 0, 1)[None] for image in (noise, resized)
    )
    return torch.allclose(resize(levels, (16, 6), Image.Resampling.LANCZOS, height_first=True), expected)


def resize_matrix(length: int, new_length: int, resample: int) -> torch.Tensor:
    """What each new pixel along an edge takes of each old one, `(new_length, length)` in float64; rows sum to 1."""
    if resample not in FILTERS:
        known = ", ".join(Image.Resampling(kind).name for kind in FILTERS)
        raise ValueError(f"the filter must be one of {known}; got {Image.Resampling(resample).name}")
    factor = length / new_length
    old = torch.arange(length, dtype=torch.float64) + 0.5  # centres of pixels
    new = (torch.arange(new_length, dtype=torch.float64) + 0.5) * factor
    weights = FILTERS[resample]((old - new[:, None]) / max(factor, 1.0))
    return (weights / weights.sum(1, keepdim=True) / WEIGHT_UNIT).round() * WEIGHT_UNIT


def bilinear(distance: torch.Tensor) -> torch.Tensor:
    """A triangle of 1 pixel to each side."""
    return (1 - distance.abs()).clamp(min=0)


def bicubic(distance: torch.Tensor) -> torch.Tensor:
    """Keys' cubic convolution with a = −1/2, of 2 pixels to each side."""
    x = distance.abs()
    near, far = (1.5 * x - 2.5) * x * x + 1, ((-0.5 * x + 2.5) * x - 4) * x + 2
    return torch.where(x < 1, near, torch.where(x < 2, far, 0.0))


def lanczos(distance: torch.Tensor) -> torch.Tensor:
    """A sinc under the middle of a wider sinc, of 3 pixels to each side."""
    return torch.where(distance.abs() < 3, distance.sinc() * (distance / 3).sinc(), 0.0)


FILTERS: dict[int, Callable[[torch.Tensor], torch.Tensor]] = {
    Image.Resampling.BILINEAR: bilinear,
    Image.Resampling.BICUBIC: bicubic,
    Image.Resampling.LANCZOS: lanczos,
}

__all__ = ["clip", "pillow_height_first", "resize"]
