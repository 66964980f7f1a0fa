"""Configuration of ELTA (ICML 2024): a Swin Transformer V2 with a head, taught against the long tail of ratings."""

from typing import Any

from huggingface_hub.dataclasses import strict
from transformers import Swinv2Config

from .configuration_image_scorer import ImageScorerConfig

# Swin V2, base, for pictures of 256 pixels and windows of 16 features: the published size.
SWIN_BASE = {
    "image_size": 256,
    "embed_dim": 128,
    "depths": [2, 2, 18, 2],
    "num_heads": [4, 8, 16, 32],
    "window_size": 16,
}


@strict
class ELTAConfig(ImageScorerConfig):
    r"""
    The defaults are those of the head of ten levels, for votes as AVA has them. The head of one value, for mean scores
    as TAD66K has them, is `num_levels=1`; its labels were scores divided by 10, so that `score_range=(0, 10)` gives
    scores in units of the data set.

    Args:
        swin_config (`dict` or [`~transformers.Swinv2Config`], *optional*):
            Network that the head reads; fields that a `dict` lacks are those of base size for 256 pixels. Pictures may
            have any size.
        head_size (`int`, *optional*, defaults to 64):
            Width between the two linear maps of the head of levels. A head of one value is a single map.
        num_levels, raw_head, score_range, attributes, higher_is_better, score_head_trained (*optional*):
            As in [`ImageScorerConfig`].

    Raises:
        huggingface_hub.errors.StrictDataclassError: If a field has the wrong type or value; the message names it.
    """

    model_type = "elta"
    sub_configs = {"swin_config": Swinv2Config}

    swin_config: Any = None
    head_size: int = 64

    def __post_init__(self, **kwargs):
        if not isinstance(self.swin_config, Swinv2Config):
            fields = SWIN_BASE | (self.swin_config or {})
            fields.pop("model_type", None)
            self.swin_config = Swinv2Config(**fields)
        super().__post_init__(**kwargs)

    @property
    def num_channels(self) -> int:
        """Channels of a picture."""
        return self.swin_config.num_channels

    def validate_head(self):
        """The head has a width."""
        if self.head_size < 1:
            raise ValueError(f"head_size must be at least 1, got {self.head_size}.")


__all__ = ["ELTAConfig"]
