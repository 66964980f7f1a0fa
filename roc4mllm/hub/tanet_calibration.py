"""
The statistics that TANet's published weights lack.

In the AVA variant, the original normalises what a picture's weights give by its mean and variance over the batch. Over
a set of pictures, both follow from mean and covariance of their queries, for any weights: so these are measured once,
and a picture's score no longer depends on its batch. Measured on one batch, they give what the original has for the
pictures of that batch under their own weights.
"""

import math
from collections.abc import Iterable

import torch
from PIL import Image
from torch.nn import functional

from ..modeling_roc4mllm.modeling_tanet import TANetForImageAesthetics, logger

ENOUGH = 100  # pictures: with fewer, the covariance of 101 values says little
ALIKE = 1e-8  # share of variance in the mean square of queries, below which they differ by rounding only


@torch.no_grad()
def calibrate(model: TANetForImageAesthetics, batches: Iterable[torch.Tensor]) -> int:
    """
    Measure the statistics of the theme branch and store them in the model.

    Args:
        model ([`TANetForImageAesthetics`]): With `theme_activation="prelu"`. It is left in evaluation mode.
        batches (`Iterable[torch.Tensor]`): Pictures as the model's image processor prepares them, of shape
            `(batch_size, 3, height, width)`; a few hundred of the kind that will be scored.

    Returns:
        `int`: Number of pictures.

    Raises:
        ValueError: If the model uses no statistics, there are fewer than two pictures, all are alike to it, or values
            leave the range of its dtype.
    """
    if model.config.theme_activation != "prelu":
        raise ValueError(
            f"theme_activation is {model.config.theme_activation!r}: this theme branch uses no statistics."
        )
    model.eval()
    size, device = model.config.theme_size + 1, model.device
    count = 0
    total, squares = (torch.zeros(shape, dtype=torch.float64, device=device) for shape in (size, (size, size)))
    for pixel_values in batches:
        queries, _ = model.theme.queries_and_weights(pixel_values.to(device, model.dtype))
        queries = queries.double()  # (B, D + 1)
        count += len(queries)
        total += queries.sum(0)
        squares += queries.mT @ queries
    if count < 2:
        raise ValueError(f"Statistics need at least two pictures, better a few hundred; got {count}.")
    mean, mean_squares = total / count, squares / count
    covariance = mean_squares - mean.outer(mean)
    if not covariance.isfinite().all():
        raise ValueError(f"Values of the theme branch are not finite in {model.dtype}: no statistics can be measured.")
    if covariance.trace() <= ALIKE * mean_squares.trace():
        raise ValueError(
            f"The {count} pictures are all alike to the theme branch, so that there is no variance to normalise by. "
            "Give different ones, a few hundred of the kind that will be scored."
        )
    if count < ENOUGH:
        logger.warning(
            f"Statistics of the theme branch were measured on {count} pictures only; take a few hundred of the kind "
            "that will be scored."
        )
    model.theme.set_statistics(mean, covariance)
    return count


@torch.no_grad()
def effect_against_legacy(model: TANetForImageAesthetics, batches: Iterable[torch.Tensor]) -> dict[str, float]:
    """
    How far the scores are from those that the original gives to the same batches, for the model's card.

    Args:
        model ([`TANetForImageAesthetics`]): It is left in evaluation mode.
        batches (`Iterable[torch.Tensor]`): Prepared pictures of shape `(batch_size, 3, height, width)`, two or more in
            each. The original's numbers depend on the batch size: 32 is usual.

    Returns:
        `dict[str, float]`: `srcc` between both, NaN where one gives all pictures the same score, and `mean_shift`,
        ours minus theirs, in units of the score range; of the main attribute.
    """
    model.eval()
    config = model.config
    before, kinds = config.legacy_batch_mixing, (False, True)
    scores: dict[bool, list[torch.Tensor]] = {kind: [] for kind in kinds}
    logger.disabled = True  # the legacy mode warns, and is meant here
    try:
        for pixel_values in batches:
            for kind in kinds:
                config.legacy_batch_mixing = kind
                scores[kind].append(model(pixel_values.to(model.device, model.dtype)).scores[:, 0])
    finally:
        config.legacy_batch_mixing = before
        logger.disabled = False
    ours, theirs = (torch.cat(scores[kind]).double() for kind in kinds)  # (num_pictures,) each
    # how many pictures score less, minus how many score more: ranks but for scale and place, ties shared
    ranks = torch.stack([(values.unsqueeze(1) - values).sign().sum(1) for values in (ours, theirs)])  # (2, pictures)
    return {"srcc": ranks.corrcoef()[0, 1].item(), "mean_shift": (ours - theirs).mean().item()}


def generated_pictures(count: int = 32, side: int = 256) -> list[Image.Image]:
    """
    Pictures that stand in for photographs where none are given, the same at each call.

    Each is a gradient between two colours, a few soft blobs, and noise whose strength falls with its fineness as that
    of photographs does.

    Args:
        count (`int`, *optional*, defaults to 32): Number of pictures.
        side (`int`, *optional*, defaults to 256): Height and width in pixels.
    """
    random = torch.Generator().manual_seed(0)
    line = torch.linspace(-1, 1, side)
    y, x = torch.meshgrid(line, line, indexing="ij")  # (side, side) each
    pictures = []
    for _ in range(count):
        angle = 2 * math.pi * torch.rand((), generator=random)
        share = (1 + x * angle.cos() + y * angle.sin()).clamp(0, 2) / 2  # (side, side)
        first, second = torch.rand(2, 3, 1, 1, generator=random)
        picture = first + (second - first) * share  # (3, side, side)
        for _ in range(int(torch.randint(1, 6, (), generator=random))):
            colour = torch.rand(3, 1, 1, generator=random)
            across, down, size = torch.rand(3, generator=random)
            distance = (x - 2 * across + 1) ** 2 + (y - 2 * down + 1) ** 2  # (side, side)
            picture = picture.lerp(colour, (-distance / (0.05 + 0.3 * size) ** 2).exp().expand(3, -1, -1))
        roughness = torch.rand((), generator=random)
        for cells in (4, 8, 16, 32, 64):
            noise = torch.randn(1, 3, cells, cells, generator=random) * roughness * 0.8 / cells**0.5
            picture = picture + functional.interpolate(noise, (side, side), mode="bicubic")[0]
        picture = (picture.clamp(0, 1) * 255).round().byte().permute(1, 2, 0)  # (3, side, side) → (side, side, 3)
        pictures.append(Image.fromarray(picture.numpy()))
    return pictures


__all__ = ["calibrate", "effect_against_legacy", "generated_pictures"]
