"""
The rated photographs of `roc4mllm-tiny` as the model sees them: whole and as fragments, intact and damaged.

Views are made at native size and then prepared as the processor does it. They depend on their own photograph and on no
other, so folds share them: a fold takes its rows. Cropping keeps to multiples of 16 pixels, so that the blocks of the
JPEG file stay where they would be in a picture that somebody scores.
Names of axes: P photographs, V views of a photograph, T tests, D descriptors, K kinds of damage, N levels.
"""

import math
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from PIL import Image
from tiny_damage import DAMAGES, damage, has_colour, random_damage, signed, undamaged_scores
from tiny_descriptors import COMMENTS, comment, describe, describe_blocks, describe_tones

from roc4mllm.processing_roc4mllm.fragments_aesthetics import BLOCK, fragments
from roc4mllm.processing_roc4mllm.image_reading_aesthetics import read_image

SIZE = 128  # of whole picture and fragments, and of what the tower sees
LEVELS = 7
INTACT, DAMAGED = 16, 24  # views: as it is, mirrored, 14 cropped and recoloured; and cropped and damaged ones
STEPS = (0.2, 0.4, 0.6, 0.8, 1.0)  # strengths whose order is judged, with the photograph itself as a sixth
LADDERS = [(kind, sign) for kind in DAMAGES for sign in ((1, -1) if kind == "exposure" else (1,))]
DRAWS = 2  # photographs with one kind of damage of random strength


class Photographs(NamedTuple):
    """Pictures are uint8, (…, 2, SIZE, SIZE, 3): the whole one and its fragments."""

    views: torch.Tensor  # (P, V, …)
    scores: torch.Tensor  # (P, V, K), known from the damage; NaN where it is not
    sentences: torch.Tensor  # (P, V), index into COMMENTS
    blocks: torch.Tensor  # (P, V, 2, 64, D), descriptors of each patch
    tones: torch.Tensor  # (P, V, D), descriptors of light and dark in the whole picture
    groups: list[torch.Tensor]  # (P, V, D) each, descriptors of the whole picture
    local: torch.Tensor  # (P, INTACT, 64, D), descriptors of the whole picture's patches
    tests: torch.Tensor  # (P, T, …): the ladders, then the draws
    drawn: torch.Tensor  # (P, DRAWS, K), scores of the draws
    coloured: torch.Tensor  # (P,), whether desaturation changes it
    mean: torch.Tensor  # (P,), rated beauty
    shares: torch.Tensor  # (P, N) of the votes for beauty

    def take(self, rows: np.ndarray) -> "Photographs":
        """These photographs only: what a fold may see."""
        index = torch.from_numpy(rows)
        return Photographs(*([part[index] for part in f] if isinstance(f, list) else f[index] for f in self))


def read_ratings(data: Path) -> pd.DataFrame:
    """The ratings in the order of the names, on which the folds stand."""
    return pd.read_csv(data / "ratings.csv").sort_values("image").reset_index(drop=True)


def read_photographs(data: Path, cache: Path | None = None) -> Photographs:
    """Everything that a photograph alone determines is kept in `cache` (outside the repository: it holds crops)."""
    ratings = read_ratings(data)
    if cache is not None and cache.exists():
        stored = torch.load(cache, weights_only=True, mmap=True)
    else:
        made = [make_photograph(data / "images" / name, row) for row, name in enumerate(ratings.image)]
        stored = {name: stack([photograph[name] for photograph in made]) for name in made[0]}
        if cache is not None:
            torch.save(stored, cache)
    votes = torch.tensor(ratings[[f"r{level}" for level in range(1, LEVELS + 1)]].to_numpy(), dtype=torch.float32)
    mean = torch.tensor(ratings["mean"].to_numpy())
    return Photographs(**stored, mean=mean, shares=votes / votes.sum(1, keepdim=True))


def stack(values: list):
    """Tensors of all photographs as one; lists of tensors part by part."""
    if isinstance(values[0], list):
        return [torch.stack(parts) for parts in zip(*values, strict=True)]
    return torch.stack(values)


def make_photograph(path: Path, seed: int) -> dict:
    """What `Photographs` holds of one photograph, but for its ratings."""
    generator = np.random.default_rng(seed)
    photograph = read_image(path)
    coloured = has_colour(photograph)
    views, scores = make_views(photograph, generator)
    tests, drawn = make_tests(photograph, generator)
    if not coloured:
        scores[:, DAMAGES.index("colourfulness")] = math.nan
    whole = views[:, 0].permute(0, 3, 1, 2).float() / 255
    described = describe(whole)
    sentences = [COMMENTS.index(line) for line in comment(whole)]
    return {
        "views": views,
        "scores": scores,
        "sentences": torch.tensor(sentences),
        "blocks": describe_blocks(views.flatten(0, 1)).half().unflatten(0, (len(views), 2)),
        "tones": describe_tones(views[:, 0]),
        "groups": described.groups,
        "local": described.local[:INTACT].half(),
        "tests": tests,
        "drawn": drawn,
        "coloured": torch.tensor(coloured),
    }


def make_views(photograph: Image.Image, generator: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Views to learn from, (V, 2, SIZE, SIZE, 3), and their scores, (V, K)."""
    pictures = [photograph, mirrored(photograph.crop((0, 0, photograph.width // BLOCK * BLOCK, photograph.height)))]
    scores = [undamaged_scores({})] * INTACT
    pictures += [recoloured(cropped(photograph, generator), generator) for _ in range(INTACT - 2)]
    for row in range(DAMAGED):
        strengths = random_damage(generator, DAMAGES[row % len(DAMAGES)])
        pictures.append(damage(cropped(photograph, generator), strengths, generator))
        scores.append(undamaged_scores(strengths))
    known = torch.tensor(scores)
    for kind in ("exposure", "colourfulness"):
        known[2:INTACT, DAMAGES.index(kind)] = math.nan  # recolouring is a little of both
    return torch.stack([prepared(picture) for picture in pictures]), known


def make_tests(photograph: Image.Image, generator: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Ladders and draws, (T, 2, SIZE, SIZE, 3), and the scores of the draws, (DRAWS, K)."""
    pictures = [damage(photograph, {kind: sign * step}, generator) for kind, sign in LADDERS for step in STEPS]
    strengths = generator.random((DRAWS, len(DAMAGES)))
    for draw in strengths:
        for kind, strength in zip(DAMAGES, draw, strict=True):
            pictures.append(damage(photograph, {kind: signed(kind, strength, generator)}, generator))
    return torch.stack([prepared(picture) for picture in pictures]), torch.from_numpy(100 * (1 - strengths)).float()


def prepared(picture: Image.Image) -> torch.Tensor:
    """The picture whole and as fragments, as the processor prepares it, (2, SIZE, SIZE, 3) uint8."""
    whole = picture.resize((SIZE, SIZE), Image.Resampling.BICUBIC)
    return torch.from_numpy(np.stack([np.asarray(whole), np.asarray(fragments(picture, SIZE))]))


def mirrored(picture: Image.Image) -> Image.Image:
    """Left and right exchanged."""
    return picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)


def cropped(photograph: Image.Image, generator: np.random.Generator) -> Image.Image:
    """Most of the photograph, mirrored or not; edges stay on multiples of BLOCK."""
    share, stretch = generator.uniform(0.75, 1.0), math.exp(generator.uniform(-0.12, 0.12))
    box = []
    for length, part in zip(photograph.size, (share**0.5 * stretch, share**0.5 / stretch), strict=True):
        size = int(min(length, length * part)) // BLOCK * BLOCK
        start = int(generator.integers(0, (length - size) // BLOCK + 1)) * BLOCK
        box.append((start, start + size))
    crop = photograph.crop((box[0][0], box[1][0], box[0][1], box[1][1]))
    return mirrored(crop) if generator.random() < 0.5 else crop


def recoloured(picture: Image.Image, generator: np.random.Generator) -> Image.Image:
    """Slightly other light and colour."""
    gamma, contrast, colour = np.exp(generator.normal(0, (0.12, 0.1, 0.12))).astype(np.float32)
    curve = ((np.arange(256, dtype=np.float32) / 255) ** gamma - 0.5) * contrast + 0.5
    pixels = curve[np.asarray(picture)]  # (H, W, 3)
    grey = pixels.mean(2, keepdims=True)
    pixels = (grey + (pixels - grey) * colour) * np.exp(generator.normal(0, 0.03, 3)).astype(np.float32)
    return Image.fromarray((pixels.clip(0, 1) * 255).round().astype(np.uint8))
