"""
Known damage to photographs, the lessons for the technical attributes of `roc4mllm-tiny`.

Each attribute has one kind of damage with a strength from 0 to 1; its score is 100 · (1 − strength), 100 = undamaged.
Damage is applied at a photograph's native size, in the order in which it happens to real pictures: blur in the lens,
light and colour, noise of the sensor, compression of the file.

- sharpness: Gaussian blur, σ = 4 pixels · strength
- exposure: 4 stops · strength, up or down, in linear light (gamma 2.2), clipped at black and white
- colourfulness: mixed with its own greys, which are all that is left at strength 1
- noise: Gaussian on every channel of every pixel, σ = 40 of 255 · strength
- compression: JPEG whose quantisation steps double with each fifth of strength, from quality 90 to 8
"""

import io

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter

DAMAGES = ("sharpness", "noise", "exposure", "compression", "colourfulness")
GREY = 2.0  # mean difference between the channels below which a photograph has no colour to lose


def random_damage(generator: np.random.Generator, first: str) -> dict[str, float]:
    """Strengths of one kind of damage, half of the time of a second too; the weakest and the strongest come often."""
    kinds = [first] if generator.random() < 0.5 else [first, DAMAGES[generator.integers(len(DAMAGES))]]
    return {kind: signed(kind, generator.beta(0.6, 0.6), generator) for kind in kinds}


def signed(kind: str, strength: float, generator: np.random.Generator) -> float:
    """Over- or under-exposure at random; other damage has one direction."""
    return float(strength * generator.choice((-1, 1)) if kind == "exposure" else strength)


def undamaged_scores(strengths: dict[str, float]) -> list[float]:
    """The score of each kind of damage."""
    return [100 * (1 - abs(strengths.get(kind, 0.0))) for kind in DAMAGES]


def damage(picture: Image.Image, strengths: dict[str, float], generator: np.random.Generator) -> Image.Image:
    """
    The picture with damage of these strengths; a negative strength of exposure is under-exposure.
    """
    if blur := strengths.get("sharpness"):
        picture = picture.filter(ImageFilter.GaussianBlur(4 * blur))
    if exposure := strengths.get("exposure"):
        light = (np.arange(256) / 255) ** 2.2 * 2 ** (4 * exposure)
        curve = (255 * light ** (1 / 2.2)).clip(0, 255).round().astype(int)
        picture = picture.point([*curve, *curve, *curve])
    if colour := strengths.get("colourfulness"):
        picture = ImageEnhance.Color(picture).enhance(1 - colour)
    if noise := strengths.get("noise"):
        grain = generator.standard_normal((picture.height, picture.width, 3), dtype=np.float32) * (40 * noise)
        picture = Image.fromarray((np.asarray(picture) + grain).round().clip(0, 255).astype(np.uint8))
    if compression := strengths.get("compression"):
        file = io.BytesIO()
        picture.save(file, "JPEG", quality=jpeg_quality(compression))
        picture = Image.open(file).convert("RGB")
    return picture


def jpeg_quality(strength: float) -> int:
    """libjpeg's quality for quantisation steps of 20 % · 2^(5 · strength) of its standard tables."""
    steps = 20 * 2 ** (5 * strength)
    return round(100 - steps / 2 if steps <= 100 else 5000 / steps)


def has_colour(picture: Image.Image) -> bool:
    """Whether desaturation would change the picture."""
    values = np.asarray(picture, dtype=np.float32)
    return bool((values.max(2) - values.min(2)).mean() > GREY)
