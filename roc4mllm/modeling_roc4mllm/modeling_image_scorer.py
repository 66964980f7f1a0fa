"""
What all families share that score a picture alone: a float32 head, scores from its values, losses, loading.

A family subclasses [`ImageScorer`], calls [`~ImageScorer.add_score_head`] when its own parts are made, and says by
[`~ImageScorer.aesthetic_features`] what the head reads.
Names of axes: B pictures, A attributes, N levels, C features, S rated pairs of picture and attribute.
"""

import torch
from transformers import PreTrainedModel
from transformers.utils import can_return_tuple

from .modeling_aesthetics_mixin import AestheticsMixin, add_loss, remember_revision
from .modeling_outputs_aesthetics import AestheticsOutput
from .score_head_aesthetics import ScoreHead


class ImageScorer(AestheticsMixin, PreTrainedModel):
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
        self.score_head = ScoreHead(num_features, len(self.config.attributes) * self.config.num_levels)

    def aesthetic_features(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """What the head reads, `(B, num_features)`, of prepared pictures `(B, 3, H, W)`."""
        raise NotImplementedError

    def after_loading(self) -> None:
        """Called by `from_pretrained`."""

    def before_training(self) -> None:
        """Called by the Trainer when it is settled what is trained."""

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

    @can_return_tuple
    def forward(
        self,
        pixel_values: torch.Tensor,
        scores: torch.Tensor | None = None,
        votes: torch.Tensor | None = None,
        loss_weights: dict[str, float] | None = None,
        loss_counts: dict[str, torch.Tensor | int] | None = None,
        tail_mixup: dict[str, float] | None = None,
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
            loss_weights (`dict`, *optional*): Weights of the parts `smooth_l1`, `ce` and `emd`, by default those of
                `default_loss_weights`, and in training of `similarity` (0). A weight of `text` is left to models that
                write.
            loss_counts (`dict`, *optional*): Number of `scores` that the sums of the losses are divided by; that of
                this batch, mixed rows included, by default.
            tail_mixup (`dict`, *optional*): In training, also learn from mixed pairs of pictures: `pairs` per
                attribute, `tau_1`, `tau_2`. Their losses count as those of other pictures; the output has none of
                them.

        Raises:
            ValueError: If pictures or targets have the wrong shape, a score lies outside the range, or a weight is
                for a loss that this head does not have; the message says what came and what was expected.
        """
        self.warn_if_untrained()
        check_pictures(pixel_values, getattr(self.config, "num_channels", 3))
        features = self.aesthetic_features(pixel_values.to(self.dtype))  # (B, C)
        logits = self._by_attribute(self.score_head(features))  # (B, A, N)
        output = self.scored(logits, torch.ones_like(logits[..., 0], dtype=torch.bool))
        if scores is not None or votes is not None:
            weights = self.checked_weights(loss_weights)
            features = features.unsqueeze(1).expand(-1, logits.shape[1], -1)  # (B, A, C)
            parts = self.score_losses(output, features, scores, votes, weights, tail_mixup)
            add_loss(output, parts, weights, loss_counts or {})
        return output

    def head_values(self, features: torch.Tensor, attributes: torch.Tensor) -> torch.Tensor:
        """Values `(S, N)` of the score head for features `(S, C)`, each for one attribute `(S,)`."""
        values = self._by_attribute(self.score_head(features))  # (S, A, N)
        return values[torch.arange(len(values), device=values.device), attributes.to(values.device)]

    def _by_attribute(self, values: torch.Tensor) -> torch.Tensor:
        """The head's values `(B, A * N)` as `(B, A, N)`."""
        return values.view(-1, len(self.config.attributes), self.config.num_levels)

    # ---- loading ------------------------------------------------------------------------------------------------

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, *args, **kwargs):
        """As in the parent, from safetensors only; remembers the revision for the records of the pipeline."""
        kwargs["use_safetensors"] = True
        model = super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)
        remember_revision(model, kwargs).after_loading()
        return model


def check_pictures(pixel_values: torch.Tensor, num_channels: int) -> None:
    """Refuse what is no batch of pictures with that many channels."""
    if pixel_values.ndim != 4 or pixel_values.shape[1] != num_channels:
        raise ValueError(
            f"pixel_values must have shape (batch, {num_channels}, height, width), got {tuple(pixel_values.shape)}."
        )


__all__ = ["ImageScorer"]
