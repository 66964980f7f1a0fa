"""
Losses on text and on score distributions, as pure functions.

The text loss and the score losses are kept apart (ROC4MLLM, AAAI 2026: "loss decoupling"): a score never costs a text
token and the text softmax never sees a level. Weights are options of training, not of the model.
Names of axes: S score slots or samples, N levels, M supervised text tokens, V vocabulary.
"""

import torch
from torch.nn import functional


def mean_loss(values: torch.Tensor, count: torch.Tensor | int | None = None) -> torch.Tensor:
    """
    Sum of per-sample `values` of shape `(num_samples,)` over their number, or over `count`, that of a larger batch of
    which these are a part.

    The mean over no sample is 0 and keeps its graph: a batch without scores must not turn the loss into NaN, and
    distributed training needs a gradient, if only zeros, for every parameter.
    """
    count = values.numel() if count is None else count
    if isinstance(count, torch.Tensor):
        return values.sum() / count.to(values.device).clamp(min=1)
    return values.sum() / max(count, 1)


def reduce_loss(values: torch.Tensor, reduction: str) -> torch.Tensor:
    """Per-sample `values` of shape `(num_samples,)` as they are (`"none"`) or their [`mean_loss`] (`"mean"`)."""
    if reduction == "none":
        return values
    if reduction == "mean":
        return mean_loss(values)
    raise ValueError(f"Unknown reduction {reduction!r}; expected 'mean' or 'none'.")


def check_level_count(predicted: torch.Tensor, target: torch.Tensor) -> None:
    """
    Refuse a target whose number of levels differs from the prediction's.
    """
    if predicted.shape != target.shape:
        raise ValueError(
            f"The target has {target.shape[-1]} levels in shape {tuple(target.shape)}, the model predicts "
            f"{predicted.shape[-1]} in shape {tuple(predicted.shape)}. Give votes over "
            f"num_levels={predicted.shape[-1]}, or build the model with num_levels={target.shape[-1]}."
        )


def text_cross_entropy(logits: torch.Tensor, labels: torch.Tensor, reduction: str = "mean") -> torch.Tensor:
    """
    −log softmax(logits)[label], over supervised tokens only, in float32 or wider.

    Args:
        logits (`torch.Tensor` of shape `(num_supervised, vocab_size)`): Logits that predict each supervised token.
        labels (`torch.Tensor` of shape `(num_supervised,)`): Ids of those tokens, `[SCORE]` included; −100 does not
            count.
        reduction (`str`, *optional*, defaults to `"mean"`): `"mean"` or `"none"`.

    Returns:
        `torch.Tensor` of shape `()`, or `(num_counted,)` for `"none"`, in nats.
    """
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    values = functional.cross_entropy(logits, labels, ignore_index=-100, reduction="none")  # (M,)
    return reduce_loss(values[labels != -100], reduction)


def smooth_l1(
    predicted: torch.Tensor, target: torch.Tensor, beta: float = 1.0, reduction: str = "mean"
) -> torch.Tensor:
    """
    Smooth-L1 (Huber) between scores: d²/(2β) where d = |predicted − target| < β, else d − β/2.

    The regression loss of ROC4MLLM (β = 1, in units of the score range).

    Args:
        predicted (`torch.Tensor` of shape `(num_samples,)`): Predicted scores.
        target (`torch.Tensor` of shape `(num_samples,)`): Rated scores, in the same units.
        beta (`float`, *optional*, defaults to 1.0): Where the square turns into a line, in units of the scores.
        reduction (`str`, *optional*, defaults to `"mean"`): `"mean"` or `"none"`.

    Returns:
        `torch.Tensor` of shape `()`, or `(num_samples,)` for `"none"`.
    """
    if predicted.shape != target.shape:
        raise ValueError(f"Got predicted scores {tuple(predicted.shape)} and target scores {tuple(target.shape)}.")
    return reduce_loss(functional.smooth_l1_loss(predicted, target, beta=beta, reduction="none"), reduction)


def distribution_cross_entropy(logits: torch.Tensor, target: torch.Tensor, reduction: str = "mean") -> torch.Tensor:
    """
    −Σ_i q_i log softmax(logits)_i against a distribution q of votes.

    ROC4MLLM uses it on AVA, beside smooth-L1.

    Args:
        logits (`torch.Tensor` of shape `(num_samples, num_levels)`): Level logits, before any softmax.
        target (`torch.Tensor` of shape `(num_samples, num_levels)`): Share of votes per level; each row sums to 1.
        reduction (`str`, *optional*, defaults to `"mean"`): `"mean"` or `"none"`.

    Returns:
        `torch.Tensor` of shape `()`, or `(num_samples,)` for `"none"`, in nats.

    Raises:
        ValueError: If the number of levels differs.
    """
    check_level_count(logits, target)
    return reduce_loss(-(target * logits.log_softmax(-1)).sum(-1), reduction)


def earth_movers_distance(predicted: torch.Tensor, target: torch.Tensor, reduction: str = "mean") -> torch.Tensor:
    """
    sqrt(mean_i (CDF_p(i) − CDF_q(i))² + 1e-12) per sample, then the mean over samples (NIMA, 2018, eq. 1, r = 2).

    The 1e-12 keeps the gradient finite where prediction and target agree. `reduction="batch_root"` takes one root
    over the mean of all samples and levels, as the authors' training code does under the name "samplewise"; it does
    not split into samples and exists for comparison with their numbers only.

    Args:
        predicted (`torch.Tensor` of shape `(num_samples, num_levels)`): Probabilities; each row sums to 1.
        target (`torch.Tensor` of shape `(num_samples, num_levels)`): Share of votes per level; each row sums to 1.
        reduction (`str`, *optional*, defaults to `"mean"`): `"mean"`, `"none"` or `"batch_root"`.

    Returns:
        `torch.Tensor` of shape `()`, or `(num_samples,)` for `"none"`: 1e-6 for equal distributions, below 1.

    Raises:
        ValueError: If the number of levels differs.
    """
    check_level_count(predicted, target)
    squares = (predicted.cumsum(-1) - target.cumsum(-1)) ** 2  # (S, N)
    if reduction == "batch_root":
        return (squares.mean() + 1e-12).sqrt()
    return reduce_loss((squares.mean(-1) + 1e-12).sqrt(), reduction)


def votes_to_distribution(votes: torch.Tensor) -> torch.Tensor:
    """
    Share of votes per level, from counts (or shares) per level.

    Args:
        votes (`torch.Tensor` of shape `(..., num_levels)`): Counts, not negative; a row of NaN stays NaN (no votes).

    Returns:
        `torch.Tensor` of shape `(..., num_levels)`; each row sums to 1.

    Raises:
        ValueError: If a count is negative, a row sums to zero or holds NaN beside numbers.
    """
    total = votes.sum(-1, keepdim=True)  # (..., 1)
    if (total.isnan() & ~votes.isnan().all(-1, keepdim=True)).any():
        raise ValueError("A row of votes is known for some levels only; expected one number per level, or all NaN.")
    if (votes < 0).any() or (total == 0).any():
        raise ValueError("Votes must not be negative and must not sum to zero; leave a row without votes as NaN.")
    return votes / total


def two_hot_distribution(scores: torch.Tensor, levels: torch.Tensor) -> torch.Tensor:
    """
    The distribution on the two levels next to each score whose mean is the score: a stand-in where votes are unknown.

    Args:
        scores (`torch.Tensor` of shape `(num_samples,)`): Scores within the range of the levels.
        levels (`torch.Tensor` of shape `(num_samples, num_levels)`): Equally spaced level scores.

    Returns:
        `torch.Tensor` of shape `(num_samples, num_levels)`; each row sums to 1.
    """
    step = levels[:, 1:2] - levels[:, :1]  # (S, 1)
    return (1 - (scores.unsqueeze(-1) - levels).abs() / step).clamp(min=0)  # (S, N)


def gaussian_distribution(scores: torch.Tensor, std: torch.Tensor, levels: torch.Tensor) -> torch.Tensor:
    """
    A normal density of the given mean and std, taken at the levels and normalised: a stand-in where only the mean and
    the spread of the votes are known.

    Args:
        scores (`torch.Tensor` of shape `(num_samples,)`): Mean scores.
        std (`torch.Tensor` of shape `(num_samples,)`): Standard deviations in units of the scores, above 0.
        levels (`torch.Tensor` of shape `(num_samples, num_levels)`): Level scores.

    Returns:
        `torch.Tensor` of shape `(num_samples, num_levels)`; each row sums to 1.

    Raises:
        ValueError: If a standard deviation is not above 0.
    """
    if not (std > 0).all():
        raise ValueError(f"Standard deviations must be above 0, got {std.tolist()}.")
    return (-0.5 * ((levels - scores.unsqueeze(-1)) / std.unsqueeze(-1)) ** 2).softmax(-1)  # (S, N)


__all__ = [
    "distribution_cross_entropy",
    "earth_movers_distance",
    "gaussian_distribution",
    "mean_loss",
    "reduce_loss",
    "smooth_l1",
    "text_cross_entropy",
    "two_hot_distribution",
    "votes_to_distribution",
]
