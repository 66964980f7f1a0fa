"""
The statistics that TANet's published weights lack.

In the AVA variant, the original normalises what a picture's weights give by its mean and variance over the batch. Over
a set of pictures, both follow from mean and covariance of their queries, for any weights: so these are measured once,
and a picture's score no longer depends on its batch. Measured on one batch, they give what the original has for the
pictures of that batch under their own weights.
"""

from collections.abc import Iterable

import torch

from ..modeling_roc4mllm.modeling_tanet import TANetForImageAesthetics, logger


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
        ValueError: If the model uses no statistics, or there are fewer than two pictures.
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
    mean = total / count
    model.theme.set_statistics(mean, squares / count - mean.outer(mean))
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
        `dict[str, float]`: `srcc` between both, of scores without ties, and `mean_shift`, ours minus theirs, in units
        of the score range; of the main attribute.
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
    ranks = torch.stack([values.argsort().argsort().double() for values in (ours, theirs)])  # (2, num_pictures)
    return {"srcc": ranks.corrcoef()[0, 1].item(), "mean_shift": (ours - theirs).mean().item()}


__all__ = ["calibrate", "effect_against_legacy"]
