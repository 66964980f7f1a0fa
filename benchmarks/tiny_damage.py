"""
Known damage to photographs, the lessons for the technical attributes of `roc4mllm-tiny`.

Each attribute has one kind of damage with a strength from 0 to 1; its score is 100 · (1 − strength), 100 = undamaged.
Damage is applied at a photograph's native size, in the order in which it happens to real pictures: blur in the lens,
light and colour, noise of the sensor, compression of the file.

- sharpness: Gaussian blur, σ = 4 pixels · strength
- exposure: linear light (gamma 2.2) times a constant and clipped at white, such that the mean value moves
  80 % · strength of the way to where 6 stops more, or less, would bring it: the same stops up do less harm to a dark
  picture than to a bright one
- colourfulness: mixed with its own greys, which are all that is left at strength 1
- noise: Gaussian on every channel of every pixel, σ = 40 of 255 · strength
- compression: JPEG whose quantisation steps double with each fifth of strength, from quality 90 to 8
"""

import io
import math

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter
from scipy.optimize import brentq

DAMAGES = ("sharpness", "noise", "exposure", "compression", "colourfulness")
FARTHEST, WAY = 6.0, 0.8  # stops, and share of the way to their effect
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
        curve = exposure_curve(stops_of(picture, exposure)).round().astype(int)
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


def exposure_curve(stops: float) -> np.ndarray:
    """What becomes of the values 0 to 255, (256,)."""
    light = (np.arange(256) / 255) ** 2.2 * 2**stops
    return 255 * light.clip(0, 1) ** (1 / 2.2)


def stops_of(picture: Image.Image, strength: float) -> float:
    """Stops that move the picture's mean value as far as this strength says."""
    counts = np.array(picture.histogram()).reshape(3, 256).sum(0)  # (256,)

    def mean(stops: float) -> float:
        return counts @ exposure_curve(stops) / counts.sum()

    far = math.copysign(FARTHEST, strength)
    target = mean(0) + WAY * abs(strength) * (mean(far) - mean(0))
    return brentq(lambda stops: mean(stops) - target, 0, far) if mean(far) != mean(0) else 0.0


def jpeg_quality(strength: float) -> int:
    """libjpeg's quality for quantisation steps of 20 % · 2^(5 · strength) of its standard tables."""
    steps = 20 * 2 ** (5 * strength)
    return round(100 - steps / 2 if steps <= 100 else 5000 / steps)


def has_colour(picture: Image.Image) -> bool:
    """Whether desaturation would change the picture."""
    values = np.asarray(picture, dtype=np.float32)
    return bool((values.max(2) - values.min(2)).mean() > GREY)
