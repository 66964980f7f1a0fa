"""
What all families do with the values of their score head: scores, losses, training against the long tail of ratings.

Names of axes: B pictures of the batch, A attributes, N levels, C features, S rated pairs of picture and attribute with
those of tail mixup behind them.
"""

from typing import Any, NamedTuple

import torch
from transformers.utils import logging

from .long_tail_aesthetics import checked_mixup, draw_pairs, mix, on_one_to_ten, similarity_loss
from .loss_aesthetics import (
    distribution_cross_entropy,
    earth_movers_distance,
    mean_loss,
    smooth_l1,
    two_hot_distribution,
    votes_to_distribution,
)
from .modeling_outputs_aesthetics import AestheticsOutput, expected_score, level_values, score_std

logger = logging.get_logger(__name__)

LOSSES = ("smooth_l1", "ce", "emd")  # of each score; `text` and `similarity` are known too


class Rated(NamedTuple):
    """What has a target: what the head reads `(S, C)` and says `(S, N)`, score `(S,)`, shares of votes `(S, N)`."""

    features: torch.Tensor
    logits: torch.Tensor
    target: torch.Tensor
    shares: torch.Tensor
    attributes: torch.Tensor  # (S,), index


class AestheticsMixin:
    """
    Base of the models, beside `PreTrainedModel`; their config is an [`AestheticsConfig`].

    A family says by [`~AestheticsMixin.head_values`] what its head makes of features, and its `default_loss_weights`.
    """

    config: Any
    training: bool

    def head_values(self, features: torch.Tensor, attributes: torch.Tensor) -> torch.Tensor:
        """Values `(S, N)` of the score head for features `(S, C)`, each for one attribute `(S,)`."""
        raise NotImplementedError

    @property
    def default_loss_weights(self) -> dict[str, float]:
        """Weight of each loss where `forward` is told none."""
        raise NotImplementedError

    # ---- scores -------------------------------------------------------------------------------------------------

    def levels(self, like: torch.Tensor, num_levels: int | None = None) -> torch.Tensor:
        """Level scores `(A, N)` on the device and in the dtype of `like`."""
        config = self.config
        count = config.num_levels if num_levels is None else num_levels
        return level_values(config.score_range, count, len(config.attributes), device=like.device, dtype=like.dtype)

    def _ends(self, like: torch.Tensor) -> torch.Tensor:
        """Lowest and highest score of each attribute, `(2, A)`, on the device and in the dtype of `like`."""
        return self.levels(like, 2).T

    def read_levels(self, logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """
        Scores, `(B, A)`, and the distribution, `(B, A, N)` or `None`, of the head's values `(B, A, N)`.

        With `config.raw_head` the score is Σ s_i o_i of the values o as they stand, or the one value as a place in the
        range, and may leave the range; the distribution is the positive part of the values, divided by its sum. Where
        the values are nearly shares, as training makes them, its mean is nearly the score.
        """
        raw = self.config.raw_head
        if self.config.num_levels == 1:
            low, high = self._ends(logits)  # (A,)
            return low + (high - low) * (logits[..., 0] if raw else logits[..., 0].sigmoid()), None
        shares = logits.clamp(min=0) + torch.finfo(logits.dtype).tiny  # all alike where nothing is positive
        distribution = shares / shares.sum(-1, keepdim=True) if raw else logits.softmax(-1)
        return expected_score(logits if raw else distribution, self.levels(logits)), distribution

    def scored(self, logits: torch.Tensor, mask: torch.Tensor) -> AestheticsOutput:
        """The output for values of the head `(B, A, N)`, NaN where `mask` `(B, A)` says that there are none."""
        values, distribution = self.read_levels(logits)
        return AestheticsOutput(
            scores=values.clamp(*self._ends(values)),  # which a raw head may leave, and rounding
            distribution=distribution,
            # its root has no gradient at 0, and no loss needs one
            std=None if distribution is None else score_std(distribution.detach(), self.levels(logits)),
            score_mask=mask,
            logits=logits,
        )

    def warn_if_untrained(self) -> None:
        """Say once that the scores of this model mean nothing, if so."""
        if not (self.config.score_head_trained or self.training or torch.compiler.is_compiling()):
            logger.warning_once(
                "The score head of this model was never trained: its scores mean nothing. "
                "After training set `model.config.score_head_trained = True`."
            )

    # ---- losses -------------------------------------------------------------------------------------------------

    @property
    def head_losses(self) -> tuple[str, ...]:
        """Those of [`LOSSES`] that this head has: one value has no distribution, and raw shares have no logits."""
        if self.config.num_levels == 1:
            return ("smooth_l1",)
        return ("smooth_l1", "emd") if self.config.raw_head else LOSSES

    def checked_weights(self, loss_weights: dict[str, float] | None) -> dict[str, float]:
        """
        The default weights, overwritten by those given.

        Raises:
            ValueError: If a weight is of no known loss, or of one that this head does not have.
        """
        known = ["text", *LOSSES, "similarity"]
        if unknown := set(loss_weights or {}) - set(known):
            raise ValueError(f"Unknown loss weights {sorted(unknown)}; known are {known}.")
        weights = dict.fromkeys(known, 0.0) | self.default_loss_weights | (loss_weights or {})
        if absent := [name for name in LOSSES if weights[name] and name not in self.head_losses]:
            kind = "one value" if self.config.num_levels == 1 else "raw shares of the levels (raw_head)"
            raise ValueError(
                f"There is a weight for {', '.join(absent)}, and a head of {kind} has no such loss: give weight to "
                f"{' or '.join(self.head_losses)} alone."
            )
        return weights

    def score_losses(
        self,
        output: Any,
        features: torch.Tensor,
        scores: torch.Tensor | None,
        votes: torch.Tensor | None,
        weights: dict[str, float],
        tail_mixup: dict[str, float] | None,
    ) -> dict[str, torch.Tensor]:
        """
        The losses that this head has, unreduced, `(S,)`. In training rows of tail mixup stand behind those of the
        batch, and `similarity` is among the losses if it has a weight.

        Args:
            output ([`AestheticsOutput`]): What [`~AestheticsMixin.scored`] made.
            features (`torch.Tensor` of shape `(batch_size, num_attributes, num_features)`): What the head read.
            scores, votes (`torch.Tensor`, *optional*): Targets, see `forward`.
            weights (`dict`): Those of [`~AestheticsMixin.checked_weights`].
            tail_mixup (`dict`, *optional*): Options, see [`checked_mixup`].
        """
        target, shares = self.targets(output.logits, scores, votes)  # (B, A), (B, A, N)
        known = output.score_mask & ~target.isnan()  # (B, A)
        features = features.to(torch.promote_types(features.dtype, torch.float32))
        rated = Rated(
            features[known.to(features.device)], output.logits[known], target[known], shares[known],
            attributes=known.nonzero()[:, 1],
        )  # fmt: skip
        mixup = checked_mixup(tail_mixup)
        if self.training and mixup is not None:
            rated = self.with_mixed(rated, mixup)
        losses = self.losses_of(rated)
        if self.training and weights["similarity"]:
            losses["similarity"] = similarity_losses(rated)
        return losses

    def losses_of(self, rated: Rated) -> dict[str, torch.Tensor]:
        """The losses `(S,)` that compare one score with its target."""
        each = (torch.arange(len(rated.target), device=rated.logits.device), rated.attributes)
        # as if each were of every attribute, whose levels differ
        values, distribution = self.read_levels(rated.logits.unsqueeze(1).expand(-1, len(self.config.attributes), -1))
        losses = {"smooth_l1": smooth_l1(values[each], rated.target, reduction="none")}
        if distribution is None:
            return losses
        distribution = distribution[each]  # (S, A, N) → (S, N)
        predicted = rated.logits if self.config.raw_head else distribution  # raw values keep a gradient below 0
        losses["emd"] = earth_movers_distance(predicted, rated.shares, reduction="none")
        if not self.config.raw_head:
            losses["ce"] = distribution_cross_entropy(rated.logits, rated.shares, reduction="none")
        return losses

    def targets(
        self, logits: torch.Tensor, scores: torch.Tensor | None, votes: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Rated scores `(B, A)` and shares of votes `(B, A, N)`, NaN where there are none."""
        target, shares = torch.full_like(logits[..., 0], torch.nan), torch.full_like(logits, torch.nan)
        if votes is not None and self.config.num_levels == 1:
            raise ValueError("Got votes, but this model has no levels (num_levels=1); give scores.")
        if votes is not None:
            check_target("votes", votes, tuple(shares.shape))
            shares = votes_to_distribution(votes.to(shares))
        if scores is not None:
            check_target("scores", scores, tuple(target.shape))
            target = scores.to(target)
            check_range(target, *self._ends(target))
        if self.config.num_levels > 1:
            levels = self.levels(logits)  # (A, N)
            target = torch.where(target.isnan(), expected_score(shares, levels), target)
            two_hot = two_hot_distribution(target.flatten(), levels.repeat(len(target), 1)).view_as(shares)
            shares = torch.where(shares.isnan(), two_hot, shares)
        return target, shares

    def with_mixed(self, rated: Rated, mixup: dict[str, float]) -> Rated:
        """
        Rated rows with those of tail mixup behind them: pairs of pictures with the same attribute, their features and
        targets mixed alike.
        """
        low, high = self._ends(rated.target)[:, rated.attributes]  # (S,)
        scores = on_one_to_ten(rated.target, low, high)
        drawn = []
        for attribute in range(len(self.config.attributes)):
            index = (rated.attributes == attribute).nonzero().squeeze(1)  # (R,)
            if len(index) > 1:
                first, second, share = draw_pairs(scores[index], int(mixup["pairs"]), mixup["tau_1"], mixup["tau_2"])
                drawn.append((index[first], index[second], share))
        if not drawn:
            return rated
        first, second, share = (torch.cat(parts) for parts in zip(*drawn, strict=True))  # (M,) each
        there = rated.features.device  # of a model on several devices
        features = mix(rated.features, first.to(there), second.to(there), share.to(there))  # (M, C)
        target, shares = (mix(values, first, second, share) for values in (rated.target, rated.shares))
        logits = self.head_values(features, rated.attributes[first]).to(rated.logits.device)
        mixed = Rated(features, logits, target, shares, rated.attributes[first])
        return Rated(*(torch.cat(pair) for pair in zip(rated, mixed, strict=True)))


def similarity_losses(rated: Rated) -> torch.Tensor:
    """[`similarity_loss`] of each row with those of the same attribute, `(S,)` in the order of the attributes."""
    losses = [rated.target.new_zeros(0)]
    for attribute in rated.attributes.unique().tolist():
        of_it = rated.attributes == attribute  # (S,)
        features = rated.features[of_it.to(rated.features.device)]
        losses.append(similarity_loss(features, rated.target[of_it].to(features.device), reduction="none"))
    return torch.cat([part.to(rated.target.device) for part in losses])


def add_loss(output: Any, parts: dict, weights: dict[str, float], counts: dict) -> None:
    """Fill `output.loss` and its parts; text tokens and scores are averaged apart, each over its own count."""
    loss = output.scores.new_zeros(())
    for name, values in parts.items():
        part = mean_loss(values, counts.get("text" if name == "text" else "scores"))
        if weights[name]:
            loss = loss + weights[name] * part.to(loss.device)
        output[f"{name}_loss"] = part.detach()
    output.loss = loss


def check_target(name: str, target: torch.Tensor, expected: tuple[int, ...]) -> None:
    """Refuse a target of another shape, with both shapes in the message."""
    if tuple(target.shape) != expected:
        axes = "(batch, attributes, num_levels)" if len(expected) == 3 else "(batch, attributes)"
        raise ValueError(f"{name} must have shape {expected} = {axes}, got {tuple(target.shape)}.")


def check_range(target: torch.Tensor, low: torch.Tensor, high: torch.Tensor) -> None:
    """
    Refuse rated scores `(B, A)` outside the range of their attribute; NaN, for no score, passes. They come in float32,
    which may lie beyond an end of the range in float64.
    """
    outside = (target.float() < low.float()) | (target.float() > high.float())  # (B, A)
    if outside.any():
        score, lowest, highest = (values.expand_as(target)[outside][0].item() for values in (target, low, high))
        raise ValueError(f"Got a score of {score:g}; the score range is {lowest:g} to {highest:g}.")


def remember_revision(loaded, options: dict):
    """The model that `from_pretrained` returned, which knows the revision that it was loaded by."""
    model = loaded[0] if isinstance(loaded, tuple) else loaded  # a tuple with output_loading_info
    revision = options.get("revision")  # huggingface_hub keeps the commit beside the name that was asked for
    model.loaded_revision = getattr(revision, "resolved", revision)
    return model


__all__ = ["AestheticsMixin", "add_loss", "remember_revision"]
