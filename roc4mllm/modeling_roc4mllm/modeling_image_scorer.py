"""
What all families share that score a picture alone: a float32 head, scores from its values, losses, loading.

A family subclasses [`ImageScorer`], calls [`~ImageScorer.add_score_head`] when its own parts are made, and says by
[`~ImageScorer.aesthetic_features`] what the head reads.
Names of axes: B pictures, A attributes, N levels, S rated pairs of picture and attribute.
"""

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.utils import logging

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

LOSSES = ("smooth_l1", "ce", "emd")


class ImageScoreHead(nn.Linear):
    """Linear map from features to values of levels; stays in float32 or wider whatever the model is cast to."""

    def __init__(self, hidden_size: int, num_values: int):
        super().__init__(hidden_size, num_values, dtype=torch.float32)

    def _apply(self, fn, recurse=True):
        before = {name: value.detach() for name, value in self.named_parameters()}
        super()._apply(fn, recurse)
        for name, value in self.named_parameters():
            if value.dtype in (torch.float16, torch.bfloat16):
                # `.half()` or `.to(bfloat16)` went through the whole model: keep the move, undo the rounding
                kept = before[name]
                kept = torch.empty_like(kept, device=value.device) if kept.is_meta else kept.to(value.device)
                setattr(self, name, nn.Parameter(kept, requires_grad=value.requires_grad))
        return self

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Values `(..., A * N)` of features `(..., C)`."""
        dtype = torch.promote_types(features.dtype, self.weight.dtype)
        with torch.autocast(features.device.type, enabled=False):  # autocast would round the readout to bfloat16
            return nn.functional.linear(features.to(dtype), self.weight.to(dtype), self.bias.to(dtype))


class ImageScorer(PreTrainedModel):
    """
    Base of the families that score a picture alone.
    """

    main_input_name = "pixel_values"
    input_modalities = ("image",)
    _keep_in_fp32_modules = ["score_head"]  # read by the quantisers, and for float16
    _keep_in_fp32_modules_strict = ["score_head"]  # for bfloat16
    supports_gradient_checkpointing = True
    accepts_loss_kwargs = False  # the loss is a mean: the Trainer divides it by its accumulation steps

    # ---- what a family says ---------------------------------------------------------------------------------------

    def add_score_head(self, num_features: int) -> None:
        """Make `score_head`, for as many features of a picture; before `post_init`."""
        self.score_head = ImageScoreHead(num_features, len(self.config.attributes) * self.config.num_levels)

    def aesthetic_features(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """What the head reads, `(B, num_features)`, of prepared pictures `(B, 3, H, W)`."""
        raise NotImplementedError

    def after_loading(self) -> None:
        """Called by `from_pretrained`."""

    @property
    def default_loss_weights(self) -> dict[str, float]:
        """Weights where `forward` gets none: the earth mover's distance for levels, smooth-L1 for one value."""
        has_levels = self.config.num_levels > 1
        return {"smooth_l1": float(not has_levels), "ce": 0.0, "emd": float(has_levels)}

    @property
    def part_prefixes(self) -> dict[str, str]:
        """
        Parts that may get a learning rate of their own or be frozen, by the beginning of their parameters' names.
        """
        return {self.base_model_prefix: "backbone", "score_head": "score_head"}

    # ---- scores -------------------------------------------------------------------------------------------------

    def forward(
        self,
        pixel_values: torch.Tensor,
        scores: torch.Tensor | None = None,
        votes: torch.Tensor | None = None,
        loss_weights: dict[str, float] | None = None,
        loss_counts: dict[str, torch.Tensor | int] | None = None,
        **kwargs,
    ) -> AestheticsOutput:
        """
        Scores of a batch of pictures.

        Args:
            pixel_values (`torch.Tensor` of shape `(batch_size, num_channels, height, width)`): Prepared pictures.
            scores (`torch.Tensor` of shape `(batch_size, num_attributes)`, *optional*): Rated scores in
                `config.score_range`; NaN where there is none.
            votes (`torch.Tensor` of shape `(batch_size, num_attributes, num_levels)`, *optional*): Votes per level,
                counts or shares; NaN where there are none. Where only a score is known, a two-hot distribution of
                that mean stands in.
            loss_weights (`dict`, *optional*): Weights of the parts `smooth_l1`, `ce` and `emd`; by default those of
                `default_loss_weights`. A weight of `text` is left to models that write.
            loss_counts (`dict`, *optional*): Number of `scores` that the sums of the losses are divided by; that of
                this batch by default.

        Raises:
            ValueError: If pictures or targets have the wrong shape, a score lies outside the range, or a weight is
                for a loss that this head does not have; the message says what came and what was expected.
        """
        self._warn_if_untrained()
        check_pictures(pixel_values, getattr(self.config, "num_channels", 3))
        logits = self.score_head(self.aesthetic_features(pixel_values))  # (B, A * N)
        logits = logits.view(-1, len(self.config.attributes), self.config.num_levels)  # (B, A, N)
        values, distribution = self.read_levels(logits)
        output = AestheticsOutput(
            scores=self._within_range(values),
            distribution=distribution,
            # its root has no gradient at 0, and no loss needs one
            std=None if distribution is None else score_std(distribution.detach(), self.levels(logits)),
            score_mask=torch.ones_like(values, dtype=torch.bool),
            logits=logits,
        )
        if scores is not None or votes is not None:
            parts = self._score_losses(logits, values, distribution, scores, votes)
            add_loss(output, parts, self._checked_weights(loss_weights, parts), (loss_counts or {}).get("scores"))
        return output

    def read_levels(self, logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """
        Scores, `(B, A)`, and the distribution, `(B, A, N)` or `None`, of the head's values `(B, A, N)`.

        With `config.raw_head` the score is Σ s_i o_i of the values o as they stand, or the one value, and may leave
        the range; the distribution is the positive part of the values, divided by its sum. Where the values are nearly
        shares, as training makes them, its mean is nearly the score.
        """
        raw = self.config.raw_head
        if self.config.num_levels == 1:
            low, high = self._ends(logits)  # (A,)
            return (logits[..., 0] if raw else low + (high - low) * logits[..., 0].sigmoid()), None
        shares = logits.clamp(min=0) + torch.finfo(logits.dtype).tiny  # all alike where nothing is positive
        distribution = shares / shares.sum(-1, keepdim=True) if raw else logits.softmax(-1)
        return expected_score(logits if raw else distribution, self.levels(logits)), distribution

    def levels(self, like: torch.Tensor) -> torch.Tensor:
        """Level scores `(num_attributes, num_levels)` on the device and in the dtype of `like`."""
        config = self.config
        return level_values(
            config.score_range, config.num_levels, len(config.attributes), device=like.device, dtype=like.dtype
        )

    def _ends(self, like: torch.Tensor) -> torch.Tensor:
        """Lowest and highest score of each attribute, `(2, A)`, on the device and in the dtype of `like`."""
        config = self.config
        return level_values(config.score_range, 2, len(config.attributes), device=like.device, dtype=like.dtype).T

    def _within_range(self, values: torch.Tensor) -> torch.Tensor:
        """Scores `(B, A)`, limited to the range of their attribute, which a raw head may leave, and rounding."""
        low, high = self._ends(values)
        return values.clamp(low, high)

    def _warn_if_untrained(self) -> None:
        if not (self.config.score_head_trained or self.training or torch.compiler.is_compiling()):
            logger.warning_once(
                "The score head of this model was never trained: its scores mean nothing. "
                "After training set `model.config.score_head_trained = True`."
            )

    # ---- loss ---------------------------------------------------------------------------------------------------

    def _score_losses(self, logits, values, distribution, scores, votes) -> dict[str, torch.Tensor]:
        """The losses that this head has, unreduced, `(S,)`, of each pair of picture and attribute that is rated."""
        target, shares = self._targets(logits, scores, votes)  # (B, A), (B, A, N)
        known = ~target.isnan()  # (B, A)
        losses = {"smooth_l1": smooth_l1(values[known], target[known], reduction="none")}
        if self.config.num_levels == 1:
            return losses
        predicted = logits if self.config.raw_head else distribution  # raw values keep a gradient below 0
        losses["emd"] = earth_movers_distance(predicted[known], shares[known], reduction="none")
        if not self.config.raw_head:
            losses["ce"] = distribution_cross_entropy(logits[known], shares[known], reduction="none")
        return losses

    def _targets(self, logits, scores, votes) -> tuple[torch.Tensor, torch.Tensor]:
        """Rated scores `(B, A)` and shares of votes `(B, A, N)`, NaN where there are none."""
        target, shares = torch.full_like(logits[..., 0], float("nan")), torch.full_like(logits, float("nan"))
        if votes is not None and self.config.num_levels == 1:
            raise ValueError("Got votes, but this model has no levels (num_levels=1); give scores.")
        if votes is not None:
            check_target("votes", votes, tuple(shares.shape))
            shares = votes_to_distribution(votes.to(shares))
        if scores is not None:
            check_target("scores", scores, tuple(target.shape))
            target = scores.to(target)
            self._check_range(target)
        if self.config.num_levels > 1:
            levels = self.levels(logits)  # (A, N)
            target = torch.where(target.isnan(), expected_score(shares, levels), target)
            two_hot = two_hot_distribution(target.flatten(), levels.repeat(len(target), 1)).view_as(shares)
            shares = torch.where(shares.isnan(), two_hot, shares)
        return target, shares

    def _check_range(self, target: torch.Tensor) -> None:
        """Refuse rated scores `(B, A)` outside the range of their attribute; NaN, for no score, passes."""
        low, high = (end.expand_as(target) for end in self._ends(target))  # (B, A)
        outside = (target < low) | (target > high)  # (B, A)
        if outside.any():
            score, low, high = (value[outside][0].item() for value in (target, low, high))
            raise ValueError(f"Got a score of {score:g}; the score range is {low:g} to {high:g}.")

    def _checked_weights(self, loss_weights: dict[str, float] | None, parts) -> dict[str, float]:
        """The default weights, overwritten by those given."""
        if unknown := set(loss_weights or {}) - {*LOSSES, "text"}:
            raise ValueError(f"Unknown loss weights {sorted(unknown)}; known are {[*LOSSES, 'text']}.")
        weights = self.default_loss_weights | (loss_weights or {})
        if absent := [name for name in LOSSES if weights[name] and name not in parts]:
            raise ValueError(f"This head has no loss {', '.join(absent)}; its losses are {', '.join(parts)}.")
        return weights

    # ---- loading ------------------------------------------------------------------------------------------------

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, *args, **kwargs):
        """As in the parent, from safetensors only; remembers the revision for the records of the pipeline."""
        kwargs["use_safetensors"] = True
        model = super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)
        loaded = model[0] if isinstance(model, tuple) else model  # a tuple with output_loading_info
        revision = kwargs.get("revision")  # huggingface_hub keeps the commit beside the name that was asked for
        loaded.loaded_revision = getattr(revision, "resolved", revision)
        loaded.after_loading()
        return model


def add_loss(output: AestheticsOutput, parts: dict, weights: dict[str, float], count) -> None:
    """Fill `output.loss` and its parts, each averaged over `count` scores, or over those of this batch."""
    loss = parts["smooth_l1"].new_zeros(())  # which every head has
    for name, values in parts.items():
        part = mean_loss(values, count)
        if weights[name]:
            loss = loss + weights[name] * part
        output[f"{name}_loss"] = part.detach()
    output.loss = loss


def check_pictures(pixel_values: torch.Tensor, num_channels: int) -> None:
    """Refuse what is no batch of pictures with that many channels."""
    if pixel_values.ndim != 4 or pixel_values.shape[1] != num_channels:
        raise ValueError(
            f"pixel_values must have shape (batch, {num_channels}, height, width), got {tuple(pixel_values.shape)}."
        )


def check_target(name: str, target: torch.Tensor, expected: tuple[int, ...]) -> None:
    """Refuse a target of another shape, with both shapes in the message."""
    if tuple(target.shape) != expected:
        axes = "(batch, attributes, num_levels)" if len(expected) == 3 else "(batch, attributes)"
        raise ValueError(f"{name} must have shape {expected} = {axes}, got {tuple(target.shape)}.")


__all__ = ["ImageScoreHead", "ImageScorer"]
