"""
Configuration of mPLUG-Owl2 (CVPR 2024), the multimodal LLM below the published ROC4MLLM weights.

The model type is `mplugowl2`. That of the authors' own code, `mplug_owl2`, stays free, so that other people's remote
code for it (Q-Align, DeQA-Score) keeps loading.
"""

from typing import Any

from huggingface_hub.dataclasses import strict
from transformers import LlamaConfig, PreTrainedConfig


@strict
class MPLUGOwl2VisionConfig(PreTrainedConfig):
    r"""
    Args:
        hidden_size (`int`, *optional*, defaults to 1024): Width of the encoder.
        intermediate_size (`int`, *optional*, defaults to 4096): Width inside the MLPs.
        num_hidden_layers (`int`, *optional*, defaults to 24): Number of layers.
        num_attention_heads (`int`, *optional*, defaults to 16): Number of heads.
        num_channels (`int`, *optional*, defaults to 3): Channels of a picture.
        image_size (`int`, *optional*, defaults to 448): Height and width of a picture in pixels; no other size fits.
        patch_size (`int`, *optional*, defaults to 14): Height and width of a patch in pixels.
        hidden_act (`str`, *optional*, defaults to `"quick_gelu"`): Activation of the MLPs.
        layer_norm_eps (`float`, *optional*, defaults to 1e-6): Of all layer norms of the encoder.
        attention_dropout (`float`, *optional*, defaults to 0.0): Dropout of attention weights.
        initializer_range (`float`, *optional*, defaults to 0.02): Standard deviation of fresh weights.
    """

    model_type = "mplugowl2_vision"
    base_config_key = "vision_config"

    hidden_size: int = 1024
    intermediate_size: int = 4096
    num_hidden_layers: int = 24
    num_attention_heads: int = 16
    num_channels: int = 3
    image_size: int = 448
    patch_size: int = 14
    hidden_act: str = "quick_gelu"
    layer_norm_eps: float = 1e-6
    attention_dropout: float | int = 0.0
    initializer_range: float = 0.02

    def validate_architecture(self):
        """Heads and patches divide what they cut."""
        check_heads(self)
        if self.image_size % self.patch_size:
            raise ValueError(f"image_size ({self.image_size}) must be a multiple of patch_size ({self.patch_size}).")


@strict
class MPLUGOwl2AbstractorConfig(PreTrainedConfig):
    r"""
    Args:
        hidden_size (`int`, *optional*, defaults to 1024): Width of the queries, the same as the vision encoder's.
        intermediate_size (`int`, *optional*, defaults to 2816): Width inside the gated MLPs.
        num_hidden_layers (`int`, *optional*, defaults to 6): Number of layers.
        num_attention_heads (`int`, *optional*, defaults to 16): Number of heads.
        num_queries (`int`, *optional*, defaults to 64): Learned queries; a picture becomes one more image token.
        layer_norm_eps (`float`, *optional*, defaults to 1e-6): Of the layer norm inside the MLPs; others have 1e-5.
        attention_dropout (`float`, *optional*, defaults to 0.0): Dropout of attention weights.
        initializer_range (`float`, *optional*, defaults to 0.02): Standard deviation of fresh weights.
    """

    model_type = "mplugowl2_abstractor"
    base_config_key = "abstractor_config"

    hidden_size: int = 1024
    intermediate_size: int = 2816
    num_hidden_layers: int = 6
    num_attention_heads: int = 16
    num_queries: int = 64
    layer_norm_eps: float = 1e-6
    attention_dropout: float | int = 0.0
    initializer_range: float = 0.02

    def validate_architecture(self):
        """Heads divide the width, and its quarters hold the sines and cosines of two coordinates."""
        check_heads(self)
        if self.hidden_size % 4:
            raise ValueError(f"hidden_size ({self.hidden_size}) of the abstractor must be a multiple of 4.")


@strict
class MPLUGOwl2TextConfig(LlamaConfig):
    """Fields and defaults of [`~transformers.LlamaConfig`], which is Llama 2 with 7 billion parameters."""

    model_type = "mplugowl2_text"
    base_config_key = "text_config"
    base_model_tp_plan = None  # Llama's would cut projections whose second copy it does not know
    base_model_pp_plan = None


@strict
class MPLUGOwl2Config(PreTrainedConfig):
    r"""
    Args:
        vision_config (`dict` or [`MPLUGOwl2VisionConfig`], *optional*): The vision encoder.
        abstractor_config (`dict` or [`MPLUGOwl2AbstractorConfig`], *optional*): The visual abstractor.
        text_config (`dict` or [`MPLUGOwl2TextConfig`], *optional*): The language model.
        image_token_id (`int`, *optional*, defaults to 32000):
            Id of an image token in `input_ids`, which hold `num_image_tokens` of them per picture. By default the
            first one beyond the vocabulary: an image token has no embedding and is never predicted, so a row of its
            own in the output embedding would only dilute the softmax over text.
        tie_word_embeddings (`bool`, *optional*, defaults to `False`): Whether input and output embedding are one.

    Raises:
        huggingface_hub.errors.StrictDataclassError: If a field has the wrong type or value; the message names it.
    """

    model_type = "mplugowl2"
    sub_configs = {
        "vision_config": MPLUGOwl2VisionConfig,
        "abstractor_config": MPLUGOwl2AbstractorConfig,
        "text_config": MPLUGOwl2TextConfig,
    }

    vision_config: Any = None  # these are configs once the object is made; dicts when they come from JSON
    abstractor_config: Any = None
    text_config: Any = None
    image_token_id: int = 32000
    tie_word_embeddings: bool = False

    def __post_init__(self, **kwargs):
        for name, config_class in self.sub_configs.items():
            fields = getattr(self, name) or {}
            if isinstance(fields, dict):
                setattr(self, name, config_class(**fields))
        super().__post_init__(**kwargs)

    @property
    def num_image_tokens(self) -> int:
        """Image tokens per picture: one for each query, and the end vector."""
        return self.abstractor_config.num_queries + 1

    def validate_architecture(self):
        """The abstractor reads the vision encoder's states as they are."""
        width, expected = self.abstractor_config.hidden_size, self.vision_config.hidden_size
        if width != expected:
            raise ValueError(f"The abstractor's hidden_size ({width}) must be the vision encoder's ({expected}).")


def check_heads(config) -> None:
    """Refuse a width that the heads do not divide."""
    if config.hidden_size % config.num_attention_heads:
        raise ValueError(
            f"hidden_size ({config.hidden_size}) must be a multiple of num_attention_heads "
            f"({config.num_attention_heads})."
        )


__all__ = ["MPLUGOwl2AbstractorConfig", "MPLUGOwl2Config", "MPLUGOwl2TextConfig", "MPLUGOwl2VisionConfig"]
