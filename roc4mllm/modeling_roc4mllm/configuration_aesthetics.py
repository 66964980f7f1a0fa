"""What the configurations of all families say about their scores."""

import math

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig


@strict
class AestheticsConfig(PreTrainedConfig):
    r"""
    Args:
        num_levels (`int`, *optional*, defaults to 10):
            Number N of levels that the score head rates, equally spaced over the score range.
        score_range (pair of `float`, or one pair per attribute, *optional*, defaults to `(1, 10)`):
            Lowest and highest score.
        attributes (`list[str]`, *optional*, defaults to `["aesthetics"]`):
            What is scored, the main attribute first.
        higher_is_better (`bool`, *optional*, defaults to `True`):
            Direction of the score.
        score_head_trained (`bool`, *optional*, defaults to `False`):
            Whether training or conversion has set the score head. Until then pipeline and command refuse the model.
    """

    # what a plain Trainer would gather beside the scores
    keys_to_ignore_at_inference = [
        "distribution", "std", "score_mask", "logits",
        "text_loss", "smooth_l1_loss", "ce_loss", "emd_loss", "similarity_loss",
    ]  # fmt: skip
    fewest_levels = 2
    raw_head = False  # shares of the levels are the softmax of the head's values

    num_levels: int = 10
    score_range: list | tuple = (1.0, 10.0)
    attributes: list[str] | tuple[str, ...] = ("aesthetics",)
    higher_is_better: bool = True
    score_head_trained: bool = False

    def __post_init__(self, **kwargs):
        self.score_range = as_lists(self.score_range)
        self.attributes = list(self.attributes)
        super().__post_init__(**kwargs)

    def validate_levels(self):
        """As many levels as the family needs at least."""
        if self.num_levels < self.fewest_levels:
            raise ValueError(f"num_levels must be at least {self.fewest_levels}, got {self.num_levels}.")

    def validate_attributes(self):
        """Attribute names are distinct, none is blank, and there is at least one."""
        distinct = {name for name in self.attributes if name.strip()}
        if not distinct or len(distinct) != len(self.attributes):
            raise ValueError(f"attributes must be distinct names, at least one; got {list(self.attributes)}.")

    def validate_score_range(self):
        """One `(min, max)`, or one per attribute, each with min < max."""
        pairs = self.score_range
        if len(pairs) and not isinstance(pairs[0], list | tuple):
            pairs = [pairs] * len(self.attributes)
        if len(pairs) != len(self.attributes):
            raise ValueError(
                f"score_range must be one (min, max) or one per attribute ({len(self.attributes)}), got {pairs}."
            )
        for pair in pairs:
            numbers = all(isinstance(end, int | float) and math.isfinite(end) for end in pair)
            if len(pair) != 2 or not numbers or not pair[0] < pair[1]:
                raise ValueError(f"score_range must be (min, max), finite, with min < max, got {pair}.")


def as_lists(score_range) -> list:
    """The score range as JSON knows it: lists of floats."""
    return [as_lists(item) if isinstance(item, list | tuple) else item for item in score_range]


__all__ = ["AestheticsConfig"]
