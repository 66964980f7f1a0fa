"""
ELTA (ICML 2024): scores from a Swin Transformer V2.

Paper: "ELTA: An Enhancer against Long-Tail for Aesthetics-oriented Models", ICML 2024. Written from it and from a
description of the authors' code. What is new in it is how it is taught; its mixing of features takes place on what
`score_head` reads, the mean of the last features.
"""

import torch
from transformers import Swinv2Model

from .configuration_elta import ELTAConfig
from .modeling_image_scorer import ImageScorer
from .score_head_aesthetics import ScoreHead


class ELTAScoreHead(ScoreHead):
    """Two linear maps with a ReLU between them, both in float32 or wider; `weight` and `bias` are the second's."""

    def __init__(self, num_features: int, hidden_size: int, num_values: int):
        super().__init__(hidden_size, num_values)
        self.hidden = ScoreHead(num_features, hidden_size)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Values `(..., A * N)` of features `(..., C)`."""
        return super().forward(self.hidden(features).relu())


class ELTAForImageAesthetics(ImageScorer):
    """
    ELTA with a score head: level logits, or one value for `num_levels=1`, whose sigmoid is the score.

    Args:
        config ([`ELTAConfig`]): Configuration.
    """

    config_class = ELTAConfig
    base_model_prefix = "swin"

    def __init__(self, config: ELTAConfig):
        super().__init__(config)
        self.swin = Swinv2Model(config.swin_config)
        self.add_score_head(config.swin_config.hidden_size)
        self.post_init()

    def add_score_head(self, num_features: int) -> None:
        """Make `score_head`: of two maps for levels, else of one."""
        super().add_score_head(num_features)
        if self.config.num_levels > 1:
            self.score_head = ELTAScoreHead(num_features, self.config.head_size, self.score_head.out_features)

    def aesthetic_features(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Mean of the last features, `(B, hidden_size)`, of prepared pictures `(B, 3, H, W)`."""
        return self.swin(pixel_values).pooler_output


__all__ = ["ELTAForImageAesthetics"]
