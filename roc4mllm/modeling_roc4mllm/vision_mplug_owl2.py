"""
Vision encoder of mPLUG-Owl2: a pre-norm transformer with a class token, whose states are all kept.

Paper: "mPLUG-Owl2: Revolutionizing Multi-modal Large Language Model with Modality Collaboration", CVPR 2024.
Names of axes: B pictures, P patches, H hidden.
"""

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BaseModelOutput
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.clip.modeling_clip import CLIPMLP
from transformers.models.llama.modeling_llama import eager_attention_forward
from transformers.utils.generic import merge_with_config_defaults
from transformers.utils.output_capturing import capture_outputs

from .configuration_mplug_owl2 import MPLUGOwl2VisionConfig


class MPLUGOwl2VisionEmbeddings(nn.Module):
    """Pixels to one class token and P patch tokens, with learned positions."""

    def __init__(self, config: MPLUGOwl2VisionConfig):
        super().__init__()
        self.image_size = config.image_size
        self.patch_embedding = nn.Conv2d(
            config.num_channels, config.hidden_size, config.patch_size, stride=config.patch_size, bias=False
        )
        num_patches = (config.image_size // config.patch_size) ** 2
        self.class_embedding = nn.Parameter(torch.zeros(1, 1, config.hidden_size))
        self.position_embedding = nn.Parameter(torch.zeros(1, num_patches + 1, config.hidden_size))

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """States `(B, P + 1, H)` of pictures `(B, 3, image_size, image_size)`, the class token first."""
        if not isinstance(pixel_values, torch.Tensor) or not pixel_values.is_floating_point():
            found = pixel_values.dtype if isinstance(pixel_values, torch.Tensor) else type(pixel_values).__name__
            raise TypeError(
                f"pixel_values must be a tensor of floating point numbers, got {found}. Let the processor of this "
                'model prepare the pictures, with return_tensors="pt".'
            )
        expected = (self.patch_embedding.in_channels, self.image_size, self.image_size)
        if pixel_values.ndim != 4 or pixel_values.shape[1:] != expected or not len(pixel_values):
            raise ValueError(
                f"pixel_values must have shape (pictures, {', '.join(map(str, expected))}), got "
                f"{tuple(pixel_values.shape)}: one picture or more, of image_size {self.image_size}, since the tables "
                "of positions fit no other. Let the processor of this model prepare the pictures."
            )
        pixel_values = pixel_values.to(self.patch_embedding.weight.dtype)
        patches = self.patch_embedding(pixel_values).flatten(2).transpose(1, 2)  # (B, P, H)
        class_token = self.class_embedding.expand(len(patches), -1, -1)  # (B, 1, H)
        return torch.cat([class_token, patches], dim=1) + self.position_embedding  # (B, P + 1, H)


class MPLUGOwl2VisionAttention(nn.Module):
    """Self-attention whose one projection holds query, key and value of the first head, then of the second, …."""

    num_key_value_groups = 1  # asked for by the eager implementation
    is_causal = False

    def __init__(self, config: MPLUGOwl2VisionConfig):
        super().__init__()
        self.config = config
        self.head_dim = config.hidden_size // config.num_attention_heads
        self.scaling = self.head_dim**-0.5
        self.qkv = nn.Linear(config.hidden_size, 3 * config.hidden_size)
        self.out_proj = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, hidden_states: torch.Tensor, **kwargs) -> tuple[torch.Tensor, torch.Tensor | None]:
        """States `(B, P + 1, H)` and, with eager attention, weights `(B, heads, P + 1, P + 1)`."""
        shape = hidden_states.shape
        qkv = self.qkv(hidden_states).view(*shape[:-1], -1, 3, self.head_dim)  # (B, P + 1, heads, 3, head_dim)
        query, key, value = qkv.transpose(1, 2).unbind(3)  # each (B, heads, P + 1, head_dim)
        attend = ALL_ATTENTION_FUNCTIONS.get_interface(self.config._attn_implementation, eager_attention_forward)
        dropout = self.config.attention_dropout if self.training else 0.0
        context, weights = attend(self, query, key, value, None, dropout=dropout, scaling=self.scaling, **kwargs)
        return self.out_proj(context.reshape(shape)), weights


class MPLUGOwl2VisionLayer(GradientCheckpointingLayer):
    """Attention and MLP, each behind a layer norm and beside the residual stream."""

    def __init__(self, config: MPLUGOwl2VisionConfig):
        super().__init__()
        self.layer_norm1 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.self_attn = MPLUGOwl2VisionAttention(config)
        self.layer_norm2 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.mlp = CLIPMLP(config)

    def forward(self, hidden_states: torch.Tensor, **kwargs) -> torch.Tensor:
        """States `(B, P + 1, H)`."""
        hidden_states = hidden_states + self.self_attn(self.layer_norm1(hidden_states), **kwargs)[0]
        return hidden_states + self.mlp(self.layer_norm2(hidden_states))


class MPLUGOwl2VisionModel(PreTrainedModel):
    """The whole encoder."""

    config: MPLUGOwl2VisionConfig
    main_input_name = "pixel_values"
    input_modalities = ("image",)
    supports_gradient_checkpointing = True
    _input_embed_layer = "patch_embedding"
    _no_split_modules = ["MPLUGOwl2VisionEmbeddings", "MPLUGOwl2VisionLayer"]
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    _can_compile_fullgraph = True
    _can_record_outputs = {"hidden_states": MPLUGOwl2VisionLayer, "attentions": MPLUGOwl2VisionAttention}

    def __init__(self, config: MPLUGOwl2VisionConfig):
        super().__init__(config)
        self.embeddings = MPLUGOwl2VisionEmbeddings(config)
        self.pre_layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.layers = nn.ModuleList([MPLUGOwl2VisionLayer(config) for _ in range(config.num_hidden_layers)])
        self.post_layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.post_init()

    @merge_with_config_defaults
    @capture_outputs(tie_last_hidden_states=False)
    def forward(self, pixel_values: torch.Tensor, **kwargs) -> BaseModelOutput:
        """
        Args:
            pixel_values (`torch.Tensor` of shape `(num_images, 3, image_size, image_size)`): Normalised pictures.
            **kwargs: `output_hidden_states`, `output_attentions`, `return_dict`.

        Returns:
            [`~transformers.modeling_outputs.BaseModelOutput`]: `last_hidden_state` of shape `(num_images,
            num_patches + 1, hidden_size)`, the class token first.

        Raises:
            TypeError: If the pictures are no tensor of floating point numbers.
            ValueError: If there is none, or they have another size than the config's.
        """
        hidden_states = self.pre_layernorm(self.embeddings(pixel_values))  # (B, P + 1, H)
        for layer in self.layers:
            hidden_states = layer(hidden_states, **kwargs)
        return BaseModelOutput(last_hidden_state=self.post_layernorm(hidden_states))

    @torch.no_grad()
    def _init_weights(self, module):
        super()._init_weights(module)
        if isinstance(module, MPLUGOwl2VisionEmbeddings):
            init.normal_(module.class_embedding, std=self.config.initializer_range)
            init.normal_(module.position_embedding, std=self.config.initializer_range)


__all__ = ["MPLUGOwl2VisionModel"]
