"""
Training against the long tail of ratings, as pure functions: most pictures are rated near the mean, few far from it.

Paper: "ELTA: An Enhancer against Long-Tail for Aesthetics-oriented Models", ICML 2024. Written from the paper and a
description of the authors' code. What differs from that code:
- pairs are drawn in log space: equal scores and a `tau_2` of 10 give probabilities, where the original overflows
- the similarity of labels is 1 where all scores are equal, where the original divides by 0; it needs scores and no
  distributions; nothing leaves the device
Scores are on 1 to 10 wherever a temperature or `beta` meets them; [`on_one_to_ten`] brings others there.
Names of axes: R rated pictures, C features, N levels, P drawn pairs.
"""

import math

import torch
from torch.nn import functional

MIXUP = {"pairs": 1, "tau_1": 0.5, "tau_2": 5.0}
LARGEST_EXPONENT = 80.0  # of e, in float32


def on_one_to_ten(scores: torch.Tensor, low: torch.Tensor | float, high: torch.Tensor | float) -> torch.Tensor:
    """Scores of a range from `low` to `high` on a range from 1 to 10, which temperatures are stated for."""
    return 1 + 9 * (scores - low) / (high - low)


# ---- tail mixup -----------------------------------------------------------------------------------------------------


def checked_mixup(options: dict[str, float] | None) -> dict[str, float] | None:
    """
    The options of tail mixup with their defaults, `None` where no pair is asked for.

    Args:
        options (`dict`, *optional*): `pairs`, how many rows are made of each attribute's in each forward pass (1);
            `tau_1` (0.5) and `tau_2` (5.0), see [`first_log_probabilities`] and [`second_log_probabilities`].

    Raises:
        ValueError: If an option is unknown or not in its range.
    """
    if options is None:
        return None
    if unknown := set(options) - set(MIXUP):
        raise ValueError(f"Unknown options of tail mixup {sorted(unknown)}; known are {sorted(MIXUP)}.")
    checked = MIXUP | options
    if not 0 <= checked["pairs"] < math.inf or checked["pairs"] != int(checked["pairs"]):
        raise ValueError(f"Tail mixup needs a whole number of pairs, at least 0; got {checked['pairs']}.")
    if not (0 < checked["tau_1"] < math.inf and 0 <= checked["tau_2"] < math.inf):
        raise ValueError(
            f"Tail mixup needs tau_1 above 0 and tau_2 of at least 0; got {checked['tau_1']} and {checked['tau_2']}."
        )
    return checked if checked["pairs"] else None


def mixed_count(rated: torch.Tensor, options: dict[str, float] | None) -> torch.Tensor:
    """
    How many rows tail mixup makes of a batch: a number of pairs for each attribute with two ratings or more.

    Args:
        rated (`torch.Tensor` of shape `(batch_size, num_attributes)`, bool): What has a target.
        options (`dict`, *optional*): Those of [`checked_mixup`].

    Returns:
        `torch.Tensor` of shape `()`, whole.
    """
    options = checked_mixup(options)
    return (rated.sum(0) > 1).sum() * (0 if options is None else int(options["pairs"]))


def first_log_probabilities(scores: torch.Tensor, tau_1: float) -> torch.Tensor:
    """
    log p(i) with p(i) ∝ exp(|mean(s) − s_i| / tau_1): the first picture of a pair mostly comes from the tails.

    Args:
        scores (`torch.Tensor` of shape `(R,)`): Rated scores, from 1 to 10.
        tau_1 (`float`): Temperature above 0; the smaller, the more only tails are drawn.

    Returns:
        `torch.Tensor` of shape `(R,)`.
    """
    return ((scores.mean() - scores).abs() / tau_1).log_softmax(-1)


def second_log_probabilities(scores: torch.Tensor, first: torch.Tensor, tau_2: float) -> torch.Tensor:
    """
    log p(j | i) with p(j | i) ∝ exp(tau_2 / (|s_i − s_j| + 0.01)), j ≠ i: the second picture is rated like the first.

    Args:
        scores (`torch.Tensor` of shape `(R,)`): Rated scores, from 1 to 10; two at least.
        first (`torch.LongTensor` of shape `(P,)`): Index of the first picture of each pair.
        tau_2 (`float`): At least 0; the larger, the more only the nearest in score is drawn.

    Returns:
        `torch.Tensor` of shape `(P, R)`, −inf for the first picture itself.
    """
    weights = tau_2 / ((scores[first].unsqueeze(1) - scores).abs() + 0.01)  # (P, R)
    return weights.scatter(1, first.unsqueeze(1), -torch.inf).log_softmax(-1)


def mixing_shares(log_probabilities: torch.Tensor, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """λ = p(i) / (p(i) + p(j)) of each pair `(P,)`, both from the probabilities `(R,)` to be drawn first."""
    return (log_probabilities[first] - log_probabilities[second]).sigmoid()


def draw_pairs(
    scores: torch.Tensor, pairs: int, tau_1: float, tau_2: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """
    First and second pictures of pairs, and the share λ of the first in their mix; each `(P,)`.

    Drawn by torch's own generator on the device of `scores` `(R,)`, which are two at least.
    """
    log_probabilities = first_log_probabilities(scores, tau_1)
    first = torch.multinomial(log_probabilities.exp(), pairs, replacement=True)  # (P,)
    second = torch.multinomial(second_log_probabilities(scores, first, tau_2).exp(), 1).squeeze(1)  # (P,)
    return first, second, mixing_shares(log_probabilities, first, second)


def mix(values: torch.Tensor, first: torch.Tensor, second: torch.Tensor, share: torch.Tensor) -> torch.Tensor:
    """λ v_i + (1 − λ) v_j of values `(R, ...)`, `(P, ...)`."""
    share = share.to(values.dtype).view(-1, *[1] * (values.ndim - 1))  # (P, 1, …)
    return share * values[first] + (1 - share) * values[second]


# ---- similarity of features and labels ------------------------------------------------------------------------------


def feature_similarity(features: torch.Tensor) -> torch.Tensor:
    """Cosine similarities `(R, R)` of features `(R, ...)`, each flattened."""
    directions = functional.normalize(features.flatten(1), dim=-1, eps=1e-6)  # (R, C)
    return directions @ directions.T


def label_similarity(scores: torch.Tensor) -> torch.Tensor:
    """1 − |s_i − s_j| / (max(s) − min(s)), `(R, R)`, of scores `(R,)` in any unit; 1 where all are equal."""
    distances = (scores.unsqueeze(1) - scores).abs()  # (R, R)
    spread = distances.amax()
    return 1 - distances / torch.where(spread > 0, spread, 1)


def similarity_loss(features: torch.Tensor, scores: torch.Tensor, reduction: str = "mean") -> torch.Tensor:
    """
    Mean squared difference between the similarities of features and of labels: pictures rated alike shall look alike
    to the head.

    Args:
        features (`torch.Tensor` of shape `(R, ...)`): What the head reads, of one picture at least.
        scores (`torch.Tensor` of shape `(R,)`): Rated scores, in any unit.
        reduction (`str`, *optional*, defaults to `"mean"`): `"mean"`, or `"none"` for the mean of each picture with
            all of the batch.

    Returns:
        `torch.Tensor` of shape `()`, or `(R,)` for `"none"`.
    """
    with torch.autocast(features.device.type, enabled=False):  # which would multiply in bfloat16
        difference = feature_similarity(features) - label_similarity(scores)  # (R, R)
    rows = difference.square().mean(-1)  # (R,)
    return rows if reduction == "none" else rows.mean()


# ---- self-training --------------------------------------------------------------------------------------------------


def sharpen(logits: torch.Tensor, scores: torch.Tensor, beta: float) -> torch.Tensor:
    """
    softmax(z_r · exp(beta · |mean(s) − s_r|)): the further a prediction lies from the mean, the sharper it becomes,
    since a scorer is less sure of the tails.

    Args:
        logits (`torch.Tensor` of shape `(R, num_levels)`): Level logits, or logarithms of probabilities.
        scores (`torch.Tensor` of shape `(R,)`): The predicted scores that belong to them, from 1 to 10.
        beta (`float`): At least 0, which leaves all as they are.

    Returns:
        `torch.Tensor` of shape `(R, num_levels)`; each row sums to 1.
    """
    factors = (beta * (scores.mean() - scores).abs()).clamp(max=LARGEST_EXPONENT).exp()  # (R,)
    return ((logits - logits.amax(-1, keepdim=True)) * factors.unsqueeze(-1)).softmax(-1)  # the largest stays 0


def pick(sharpened: torch.Tensor, threshold: float) -> torch.Tensor:
    """Which rows `(R,)` of sharpened distributions `(R, num_levels)` have a level above `threshold`."""
    return sharpened.amax(-1) > threshold


__all__ = [
    "checked_mixup",
    "draw_pairs",
    "feature_similarity",
    "first_log_probabilities",
    "label_similarity",
    "mix",
    "mixed_count",
    "mixing_shares",
    "on_one_to_ten",
    "pick",
    "second_log_probabilities",
    "sharpen",
    "similarity_loss",
]
