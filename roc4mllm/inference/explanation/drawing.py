"""
An explanation as a picture: the photograph with its map on the left, score, levels and caption on the right.

Drawn with Pillow, which every installation has; matplotlib is an extra, and nothing here is a chart with axes.
"""

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ..tables.score_table import shown
from .maps import is_flat

if TYPE_CHECKING:
    from .explain import Explanation

PHOTO = 720  # pixels of the photograph's longer edge
PANEL, MARGIN = 360, 28  # pixels
SHORTEST = 96  # pixels of the photograph's shorter edge; a panorama is not drawn as a thread
INK, GREY, PALE, ACCENT = (32, 33, 36), (110, 113, 120), (222, 225, 230), (208, 72, 40)
# From the least to the most: dark blue, violet, red, orange, light yellow. Bright where it matters, also in grey.
HEAT = np.array([(16, 12, 60), (106, 23, 110), (196, 58, 78), (248, 140, 40), (252, 240, 150)], dtype=float)
MOST_LABELS = 11  # levels whose scores are written below their bars


def draw_explanation(explanation: "Explanation") -> Image.Image:
    """The photograph with the map over it, and a panel with score, levels and caption, as an RGB picture."""
    photo = drawn_photo(explanation)
    panel = drawn_panel(explanation)
    height = max(photo.height, panel.height) + 2 * MARGIN
    canvas = Image.new("RGB", (photo.width + panel.width + 3 * MARGIN, height), "white")
    canvas.paste(photo, (MARGIN, MARGIN))
    canvas.paste(panel, (photo.width + 2 * MARGIN, MARGIN))
    return canvas


# The photograph ------------------------------------------------------------------------------------------------------


def drawn_photo(explanation: "Explanation") -> Image.Image:
    """The photograph with heat or points over it, and paler where the model does not see it."""
    picture = explanation.picture
    scale = PHOTO / max(picture.size)
    width, height = (max(SHORTEST, round(length * scale)) for length in picture.size)
    photo = picture.resize((width, height), Image.Resampling.LANCZOS)
    if has_heat(explanation):
        photo = with_heat(photo, explanation)
    if explanation.sampling_points is not None and explanation.reference_points is not None:
        photo = with_points(photo, explanation.sampling_points, explanation.reference_points)
    return without_unseen(photo, pixel_box(explanation, photo.size))


def has_heat(explanation: "Explanation") -> bool:
    """Whether there is a map with something to see in it."""
    return explanation.heatmap is not None and not is_flat(explanation.heatmap)


def pixel_box(explanation: "Explanation", size: tuple[int, int]) -> tuple[int, int, int, int]:
    """What the model sees, in pixels of the drawn photograph; beyond its edges where it is padded."""
    left, upper, right, lower = explanation.box
    return round(left * size[0]), round(upper * size[1]), round(right * size[0]), round(lower * size[1])


def with_heat(photo: Image.Image, explanation: "Explanation") -> Image.Image:
    """The photograph in grey with the heatmap over it: the more, the brighter and the less transparent."""
    heatmap = explanation.heatmap
    assert heatmap is not None
    left, upper, right, lower = pixel_box(explanation, photo.size)  # of what the model sees
    heat = Image.fromarray(stretched(heatmap).astype(np.float32), mode="F")
    # colours are averages over cells, with edges; the others fade
    kind = Image.Resampling.NEAREST if explanation.method == "colours" else Image.Resampling.BICUBIC
    heat = heat.resize((max(1, right - left), max(1, lower - upper)), kind)
    seen = Image.new("F", photo.size, 0.0)
    seen.paste(heat, (left, upper))
    share = np.clip(np.asarray(seen), 0, 1)[..., None]  # (H, W, 1)
    opacity = 0.45 + 0.2 * share
    colours = heat_colours(share[..., 0])  # (H, W, 3)
    grey = np.asarray(photo.convert("L"))[..., None]  # a warm photograph would look like heat
    return Image.fromarray(np.rint(grey * (1 - opacity) + colours * opacity).astype(np.uint8))


def stretched(values: np.ndarray) -> np.ndarray:
    """Values from 0, the least, to 1, the most."""
    return np.asarray((values - values.min()) / np.ptp(values))


def heat_colours(shares: np.ndarray) -> np.ndarray:
    """Colours `(..., 3)`, 0 to 255, of shares from 0 to 1."""
    stops = np.linspace(0, 1, len(HEAT))
    return np.stack([np.interp(shares, stops, channel) for channel in HEAT.T], axis=-1)


def with_points(photo: Image.Image, sampling: np.ndarray, reference: np.ndarray) -> Image.Image:
    """The photograph, darker, with a dot at each sampling point and a line from where it was moved."""
    twice = (2 * photo.width, 2 * photo.height)  # drawn at double size: Pillow's lines are jagged
    canvas = Image.blend(photo, Image.new("RGB", photo.size, "black"), 0.35).resize(twice)
    draw = ImageDraw.Draw(canvas)
    groups = len(sampling)
    for group in range(groups):
        colour = tuple(int(value) for value in heat_colours(np.array(0.45 + 0.55 * (group + 1) / groups)))
        for start, end in zip(reference[group].reshape(-1, 2), sampling[group].reshape(-1, 2), strict=True):
            (x, y), (u, v) = start * twice, end * twice
            draw.line((x, y, u, v), fill=colour, width=2)
        for u, v in sampling[group].reshape(-1, 2) * twice:
            draw.ellipse((u - 7, v - 7, u + 7, v + 7), fill=colour, outline="black", width=2)
    return canvas.resize(photo.size, Image.Resampling.LANCZOS)


def without_unseen(photo: Image.Image, box: tuple[int, int, int, int]) -> Image.Image:
    """The photograph, nearly white outside the box."""
    pale = Image.blend(photo, Image.new("RGB", photo.size, "white"), 0.75)
    left, upper, right, lower = (max(0, edge) for edge in box)
    pale.paste(photo.crop((left, upper, min(right, photo.width), min(lower, photo.height))), (left, upper))
    return pale


# The panel -----------------------------------------------------------------------------------------------------------


def drawn_panel(explanation: "Explanation") -> Image.Image:
    """Score, levels, legend and caption, one below the other."""
    parts = [drawn_score(explanation), *drawn_levels(explanation), *drawn_legend(explanation)]
    parts += [*drawn_similarity(explanation), drawn_text(explanation.caption, 15, INK), drawn_origin(explanation)]
    panel = Image.new("RGB", (PANEL, sum(part.height for part in parts) + 18 * (len(parts) - 1)), "white")
    top = 0
    for part in parts:
        panel.paste(part, (0, top))
        top += part.height + 18
    return panel


def drawn_score(explanation: "Explanation") -> Image.Image:
    """Attribute, score and range."""
    record = explanation.record
    low, high = record["score_range"]
    direction = "higher is better" if record["higher_is_better"] else "lower is better"
    image = Image.new("RGB", (PANEL, 106), "white")
    draw = ImageDraw.Draw(image)
    draw.text((0, 0), shown(next(iter(record["attributes"]))), fill=GREY, font=font(18))
    number = f"{record['score']:.2f}"
    draw.text((0, 22), number, fill=INK, font=font(52))
    of = draw.textlength(number, font=font(52)) + 14
    draw.text((of, 50), f"of {low:g} to {high:g}", fill=INK, font=font(20))
    spread = "" if record["std"] is None else f", spread {record['std']:.2f}"
    draw.text((0, 86), direction + spread, fill=GREY, font=font(15))
    return image


def drawn_levels(explanation: "Explanation") -> Iterable[Image.Image]:
    """The distribution as bars, and a mark at the score; nothing for a model without levels."""
    shares = explanation.record["distribution"]
    if shares is None:
        return
    (low, high), count = explanation.record["score_range"], len(shares)
    height, base = 176, 150
    image = Image.new("RGB", (PANEL, height), "white")
    draw = ImageDraw.Draw(image)
    step = PANEL / count
    labelled = max(1, math.ceil((count - 1) / (MOST_LABELS - 1)))
    for level, share in enumerate(shares):
        left, right = level * step + 0.1 * step, (level + 1) * step - 0.1 * step
        top = base - 112 * share / max(shares)
        draw.rectangle((left, min(top, base - 1), right, base), fill=(92, 112, 160))
        if level % labelled == 0:
            label = f"{low + (high - low) * level / (count - 1):.3g}"
            draw.text(((left + right) / 2, base + 5), label, fill=GREY, font=font(14), anchor="ma")
    draw.line((0, base, PANEL, base), fill=PALE)
    place = (explanation.record["normalized"] * (count - 1) + 0.5) * step
    draw.line((place, 22, place, base), fill=ACCENT, width=2)
    draw.text((0, 0), f"share of each level, highest {max(shares):.0%}", fill=GREY, font=font(14))
    yield image


def drawn_legend(explanation: "Explanation") -> Iterable[Image.Image]:
    """The colours of the heatmap and what their ends stand for."""
    if not has_heat(explanation):
        return
    assert explanation.heatmap is not None
    image = Image.new("RGB", (PANEL, 34), "white")
    ramp = np.broadcast_to(heat_colours(np.linspace(0, 1, PANEL)), (12, PANEL, 3))
    image.paste(Image.fromarray(np.rint(ramp).astype(np.uint8)), (0, 0))
    draw = ImageDraw.Draw(image)
    low, high = ends(explanation.method, explanation.heatmap)
    draw.text((0, 16), low, fill=GREY, font=font(14))
    draw.text((PANEL, 16), high, fill=GREY, font=font(14), anchor="ra")
    yield image


def ends(method: str, heatmap: np.ndarray) -> tuple[str, str]:
    """The least and the most of a heatmap, in words."""
    low, high = heatmap.min(), heatmap.max()
    if method == "attention":
        return f"{low:.2%} of all attention", f"{high:.2%}"
    if method == "colours":
        return f"unlike the others, {low:.2f}", f"alike, {high:.2f}"
    return "weak", "strong"


def drawn_similarity(explanation: "Explanation") -> Iterable[Image.Image]:
    """The mean colours of the cells, and how alike each is to each, as two small squares."""
    if explanation.similarity is None:
        return
    cells, side = math.isqrt(len(explanation.similarity)), 170
    size = explanation.picture.size
    edges = [edge * size[axis % 2] for axis, edge in enumerate(explanation.box)]
    seen = explanation.picture.resize((cells, cells), Image.Resampling.BOX, box=inside(edges, size))
    similar = np.rint(heat_colours((explanation.similarity + 1) / 2)).astype(np.uint8)  # of cosines from -1 to 1
    image = Image.new("RGB", (PANEL, side + 22), "white")
    image.paste(seen.resize((side, side), Image.Resampling.NEAREST), (0, 0))
    image.paste(Image.fromarray(similar).resize((side, side), Image.Resampling.BOX), (PANEL - side, 0))
    draw = ImageDraw.Draw(image)
    draw.text((0, side + 4), f"{cells} by {cells} mean colours", fill=GREY, font=font(14))
    draw.text((PANEL - side, side + 4), "each with each, -1 to 1", fill=GREY, font=font(14))
    yield image


def inside(edges: Sequence[float], size: tuple[int, int]) -> tuple[float, float, float, float]:
    """Left, upper, right and lower edge of a part of a picture, without what lies beyond the picture."""
    left, upper, right, lower = edges
    return max(0, left), max(0, upper), min(size[0], right), min(size[1], lower)


def drawn_origin(explanation: "Explanation") -> Image.Image:
    """Where the score comes from."""
    record = explanation.record
    revision = f", revision {record['revision'][:19]}" if record["revision"] else ""
    return drawn_text(f"{record['model']}{revision}; roc4mllm {record['version']}", 13, GREY)


def drawn_text(text: str, size: int, colour: tuple[int, int, int]) -> Image.Image:
    """A paragraph as wide as the panel."""
    lines = wrapped(shown(text).split(" "), font(size))
    height = size + 6
    image = Image.new("RGB", (PANEL, height * len(lines)), "white")
    draw = ImageDraw.Draw(image)
    for index, line in enumerate(lines):
        draw.text((0, index * height), line, fill=colour, font=font(size))
    return image


def wrapped(words: Sequence[str], face: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> list[str]:
    """Lines that fit the panel; a word that alone is too long runs out of it."""
    lines = [""]
    for word in words:
        longer = f"{lines[-1]} {word}".strip()
        if face.getlength(longer) <= PANEL or not lines[-1]:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


def font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Pillow's own font, which travels with it."""
    return ImageFont.load_default(size)


__all__ = ["draw_explanation"]
