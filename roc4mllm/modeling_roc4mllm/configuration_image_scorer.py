"""What the configurations of all families say that score a picture alone, without a language model."""

from huggingface_hub.dataclasses import strict

from .configuration_aesthetics import AestheticsConfig


@strict
class ImageScorerConfig(AestheticsConfig):
    r"""
    Args:
        num_levels (`int`, *optional*, defaults to 10):
            Number N of levels that the head rates, equally spaced over the score range; 1 for a head of one value
            per score.
        raw_head (`bool`, *optional*, defaults to `False`):
            Whether the head's values are the shares of the levels as they stand, or the score's place in its range (0
            lowest, 1 highest), as in weights whose authors trained them so. Otherwise the shares are their softmax,
            and the place is the sigmoid of a single value.
        **kwargs: `score_range`, `attributes`, `higher_is_better` and `score_head_trained`, see [`AestheticsConfig`].
    """

    fewest_levels = 1

    raw_head: bool = False


__all__ = ["ImageScorerConfig"]
