"""
A picture of native-resolution pieces, to be looked at beside the whole picture.

Resizing destroys what technical quality consists of: noise, traces of compression, fine blur. After "FAST-VQA:
Efficient End-to-end Video Quality Assessment with Fragment Sampling" (ECCV 2022), grid mini-patch sampling: the
picture is divided into equal cells, and the piece in the middle of each is kept as it is. What differs: the place of a
piece is fixed rather than random, and a multiple of 16 pixels, so that the blocks of a JPEG file keep their grid.
"""

import numpy as np
from PIL import Image

PIECE = 32  # pixels, side of a piece
BLOCK = 16  # pixels of a JPEG block with half the colour resolution


def fragments(picture: Image.Image, size: int) -> Image.Image:
    """
    A square mosaic of unscaled pieces from all over a picture.

    Args:
        picture (`PIL.Image.Image`): RGB, of any size; one with an edge below `size` goes on mirrored.
        size (`int`): Side of the mosaic in pixels, a multiple of 32.
    """
    pixels = np.asarray(picture)  # (H, W, 3)
    missing = [(0, max(0, size - length)) for length in pixels.shape[:2]]
    if any(after for _, after in missing):
        pixels = np.pad(pixels, (*missing, (0, 0)), mode="symmetric")
    tops, lefts = (piece_starts(length, size // PIECE) for length in pixels.shape[:2])
    rows = [np.concatenate([pixels[y : y + PIECE, x : x + PIECE] for x in lefts], axis=1) for y in tops]
    return Image.fromarray(np.concatenate(rows))  # (size, size, 3)


def piece_starts(length: int, count: int) -> list[int]:
    """Where the pieces begin along an edge: in the middle of each of `count` cells, moved back to a block's edge."""
    return [int((cell + 0.5) * length / count - PIECE / 2) // BLOCK * BLOCK for cell in range(count)]


def check_fragment_size(size: int | None) -> None:
    """Refuse a mosaic that whole pieces do not fill; `None` stands for no mosaic."""
    if size is not None and (not isinstance(size, int) or size < PIECE or size % PIECE):
        raise ValueError(f"fragment_size must be a multiple of {PIECE}, at least {PIECE}; got {size!r}.")


__all__ = ["check_fragment_size", "fragments"]
