"""
Targets that `roc4mllm-tiny` is taught, from descriptors, damage and votes of the photographs of one training.

Names of axes: P photographs, V views of a photograph, B pictures, D descriptors, C components, K kinds of damage,
N levels.
"""

from typing import NamedTuple

import numpy as np
import torch
from tiny_descriptors import Teacher
from tiny_photographs import INTACT, Photographs

TEACHER_SHARE = 0.5  # of the target; the rest are the photograph's own votes
LOCAL_COMPONENTS, GLOBAL_COMPONENTS = 32, 96  # of colour histograms per patch; of all descriptors per picture


class Lessons(NamedTuple):
    """Targets of every view of the training photographs; the last two of the intact views only."""

    scores: torch.Tensor  # (P, V, K), of the technical attributes
    blocks: torch.Tensor  # (P, V, 2, 64, D), float16
    tones: torch.Tensor  # (P, V, D)
    whole: torch.Tensor  # (P, V, C), components of the global descriptors, with a mean variance of 1
    patches: torch.Tensor  # (P, INTACT, 64, D), float16
    votes: torch.Tensor  # (P, INTACT, N), shares


@torch.no_grad()
def make_lessons(photos: Photographs) -> Lessons:
    """What the views of these photographs teach; every constant is fitted to these photographs."""
    scales = [(group[:, 0].mean(0), group[:, 0].std(0) + 1e-6) for group in photos.groups]
    groups = [(group - mean) / std for group, (mean, std) in zip(photos.groups, scales, strict=True)]
    rows = np.repeat(np.arange(len(photos.shares)), 2)
    teacher = Teacher([group[:, :2].flatten(0, 1) for group in groups], photos.shares.repeat_interleave(2, 0), rows)
    taught = torch.stack([teacher.predict([group[:, view] for group in groups]) for view in range(INTACT)], dim=1)
    joined = torch.cat([group / group.shape[-1] ** 0.5 for group in groups], dim=-1)  # (P, V, D)
    whole = components(joined.flatten(0, 1), GLOBAL_COMPONENTS)  # (P · V, C)
    blocks = photos.blocks.float()
    return Lessons(
        photos.scores,
        standardized(blocks, blocks.mean((0, 1, 3), keepdim=True), blocks.std((0, 1, 3), keepdim=True)).half(),
        standardized(photos.tones, photos.tones.mean((0, 1)), photos.tones.std((0, 1))),
        (whole / whole.var(0).mean().sqrt()).unflatten(0, joined.shape[:2]),
        patch_targets(photos.local),
        TEACHER_SHARE * taught + (1 - TEACHER_SHARE) * photos.shares[:, None],
    )


def standardized(values: torch.Tensor, mean: torch.Tensor, std: torch.Tensor) -> torch.Tensor:
    """Mean 0 and spread 1, without far outliers."""
    return ((values - mean) / (std + 1e-6)).clamp(-4, 4)


def components(values: torch.Tensor, count: int) -> torch.Tensor:
    """Principal components (B, C), scaled by the root of their spread: the strong ones count more, but not alone."""
    covariance = torch.cov(values.T.double())
    directions = torch.linalg.eigh(covariance).eigenvectors[:, -count:].float()
    projected = (values - values.mean(0)) @ directions
    spread = projected.std(0)
    return (projected / (spread * spread.max()).sqrt()).clamp(-4, 4)


def patch_targets(local: torch.Tensor) -> torch.Tensor:
    """Standardised local descriptors, the colour histogram of a patch as components, (P, INTACT, 64, D) float16."""
    flat = local.flatten(0, 2).float()  # (P · INTACT · 64, D)
    plain, colours = flat[:, :-144], flat[:, -144:]
    targets = torch.cat([standardized(plain, plain.mean(0), plain.std(0)), components(colours, LOCAL_COMPONENTS)], 1)
    return targets.half().unflatten(0, local.shape[:3])
