"""
The rated photographs for `roc4mllm-tiny`, with cropped and recoloured views of each.

Views and descriptors depend on no rating and on no other photograph, so folds share them: a fold takes its rows.
Names of axes: P photographs, V views of a photograph, B pictures, D descriptors, N levels.
"""

import math
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from PIL import Image
from tiny_descriptors import describe

from roc4mllm.processing_roc4mllm.image_reading_aesthetics import read_image

SIZE = 112  # of a view, and of what the model sees
LEVELS = 7
VIEWS = 16  # of a photograph: as it is, mirrored, and 14 cropped and recoloured


class Photographs(NamedTuple):
    """Views (P, V, SIZE, SIZE, 3) uint8, their descriptors (groups (P, V, D), local (P, V, 64, D)), ratings."""

    views: np.ndarray
    groups: list[torch.Tensor]
    local: torch.Tensor
    mean: np.ndarray  # (P,)
    shares: torch.Tensor  # (P, N) of the votes

    def take(self, rows: np.ndarray) -> "Photographs":
        """These photographs only: what a fold may see."""
        index = torch.from_numpy(rows)
        groups = [group[index] for group in self.groups]
        return Photographs(self.views[rows], groups, self.local[index], self.mean[rows], self.shares[index])


def read_ratings(data: Path) -> pd.DataFrame:
    """The ratings in the order of the names, on which the folds stand."""
    return pd.read_csv(data / "ratings.csv").sort_values("image").reset_index(drop=True)


def read_photographs(data: Path, cache: Path | None = None) -> Photographs:
    """Photographs, views and descriptors; kept in `cache` (outside the repository: it holds crops) if given."""
    ratings = read_ratings(data)
    votes = torch.tensor(ratings[[f"r{level}" for level in range(1, LEVELS + 1)]].to_numpy(), dtype=torch.float32)
    if cache is not None and cache.exists():
        stored = torch.load(cache, weights_only=True)
    else:
        views = np.stack(
            [make_views(read_image(data / "images" / name), row) for row, name in enumerate(ratings.image)]
        )
        parts = [
            describe(to_pictures(chunk)) for chunk in np.array_split(views.reshape(-1, SIZE, SIZE, 3), len(views))
        ]
        stored = {"views": torch.from_numpy(views), "local": torch.cat([part.local for part in parts]).half()}
        stored |= {"groups": [torch.cat(group) for group in zip(*(part.groups for part in parts), strict=True)]}
        if cache is not None:
            torch.save(stored, cache)
    shape = stored["views"].shape[:2]
    groups = [group.unflatten(0, shape) for group in stored["groups"]]
    local = stored["local"].unflatten(0, shape)
    return Photographs(
        stored["views"].numpy(), groups, local, ratings["mean"].to_numpy(), votes / votes.sum(1, keepdim=True)
    )


def make_views(photograph: Image.Image, seed: int) -> np.ndarray:
    """The photograph as it is scored, mirrored, and cropped and recoloured, (V, SIZE, SIZE, 3) uint8."""
    generator = np.random.default_rng(seed)
    plain = np.asarray(photograph.resize((SIZE, SIZE), Image.Resampling.BICUBIC))
    return np.stack([plain, plain[:, ::-1], *(augmented(photograph, generator) for _ in range(VIEWS - 2))])


def augmented(photograph: Image.Image, generator: np.random.Generator) -> np.ndarray:
    """A crop of most of the photograph, mirrored or not, with slightly other light and colour."""
    width, height = photograph.size
    share, stretch = generator.uniform(0.75, 1.0), math.exp(generator.uniform(-0.12, 0.12))
    w, h = min(width, width * share**0.5 * stretch), min(height, height * share**0.5 / stretch)
    x, y = generator.uniform(0, width - w), generator.uniform(0, height - h)
    crop = photograph.resize((SIZE, SIZE), Image.Resampling.BICUBIC, box=(x, y, x + w, y + h))
    picture = np.asarray(crop)[:, :: generator.choice((-1, 1))] / 255.0
    picture = picture ** math.exp(generator.normal(0, 0.12))
    picture = (picture - 0.5) * math.exp(generator.normal(0, 0.1)) + 0.5
    grey = picture.mean(2, keepdims=True)
    picture = grey + (picture - grey) * math.exp(generator.normal(0, 0.12))
    picture = picture * np.exp(generator.normal(0, 0.03, 3))
    return (picture.clip(0, 1) * 255).round().astype(np.uint8)


def to_pictures(views: np.ndarray) -> torch.Tensor:
    """(B, SIZE, SIZE, 3) uint8 to (B, 3, SIZE, SIZE) in 0–1."""
    return torch.from_numpy(np.ascontiguousarray(views)).permute(0, 3, 1, 2).float() / 255
