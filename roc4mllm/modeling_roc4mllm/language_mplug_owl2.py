"""
Language model of mPLUG-Owl2: Llama with modality-adaptive modules.

In each layer, both RMS norms and the key and value projections exist twice, for text and for image tokens; all else is
Llama's own. Which copy a token gets is told by its *modality*, computed once per pass:

- `None`: all tokens are text, as in every decoding step
- runs, a `tuple` of lengths: where the host knows the ids, so that each copy computes its own tokens only
- a mask `(batch_size, length, 1)`, True on image tokens: where reading the ids would make the host wait for an
  accelerator, or end a compiled graph; then both copies compute all tokens, and `torch.where` picks

Names of axes: B rows, T tokens, H hidden.
"""

from collections.abc import Callable
from itertools import chain, zip_longest

import torch
from torch import nn
from transformers import LlamaModel
from transformers.cache_utils import Cache
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.llama.modeling_llama import (
    LlamaAttention,
    LlamaDecoderLayer,
    LlamaRMSNorm,
    LlamaRotaryEmbedding,
    apply_rotary_pos_emb,
    eager_attention_forward,
)
from transformers.utils import is_tracing

from .configuration_mplug_owl2 import MPLUGOwl2TextConfig

Modality = torch.Tensor | tuple[int, ...] | None


def can_read(values: torch.Tensor) -> bool:
    """Whether the host has the values at hand, and no graph is being recorded that must hold for others."""
    return values.device.type == "cpu" and not is_tracing(values)


def modality_of(is_image: torch.Tensor | None) -> Modality:
    """Modality by where image tokens stand, `(batch_size, length)`, or by `None` if nowhere."""
    if is_image is None:
        return None
    return modality_runs(is_image) if can_read(is_image) else is_image.unsqueeze(-1)


def modality_runs(is_image: torch.Tensor) -> tuple[int, ...] | None:
    """
    Lengths of the runs of text and image tokens that take turns when a batch is read row by row, text first.

    Args:
        is_image (`torch.BoolTensor` of shape `(batch_size, length)`): True on image tokens.

    Returns:
        `tuple[int, ...]`, of sum batch_size · length; `None` if there is no image token.
    """
    flat = is_image.flatten()
    turns = (flat[1:] != flat[:-1]).nonzero().flatten().tolist()  # a run ends at each
    ends = [-1, *turns, len(flat) - 1]
    runs = tuple(end - start for start, end in zip(ends, ends[1:], strict=False))
    if flat[0]:
        runs = (0, *runs)
    return runs if len(runs) > 1 else None


def by_modality(hidden: torch.Tensor, modality: Modality, text: Callable, image: Callable) -> torch.Tensor:
    """
    `text` of the text tokens and `image` of the image tokens, at their places.

    Args:
        hidden (`torch.Tensor` of shape `(batch_size, length, hidden_size)`): States.
        modality: See the beginning of this file.
        text, image (`Callable`): Both copies of a module that treats each token alone.

    Returns:
        `torch.Tensor` of shape `(batch_size, length, out)`.
    """
    if modality is None:
        return text(hidden)
    if isinstance(modality, torch.Tensor):
        return torch.where(modality, image(hidden), text(hidden))
    runs = hidden.flatten(0, 1).split(modality)
    texts = text(torch.cat(runs[::2])).split(modality[::2])
    images = image(torch.cat(runs[1::2])).split(modality[1::2])
    pairs = zip_longest(texts, images, fillvalue=hidden.new_empty(0, texts[0].shape[1]))
    return torch.cat(list(chain.from_iterable(pairs))).unflatten(0, hidden.shape[:2])


class MPLUGOwl2Attention(LlamaAttention):
    """Llama's attention; keys and values of image tokens have projections of their own."""

    def __init__(self, config: MPLUGOwl2TextConfig, layer_idx: int):
        super().__init__(config, layer_idx)
        width = config.num_key_value_heads * self.head_dim
        self.image_k_proj = nn.Linear(config.hidden_size, width, bias=config.attention_bias)
        self.image_v_proj = nn.Linear(config.hidden_size, width, bias=config.attention_bias)

    def forward(
        self,
        hidden_states: torch.Tensor,
        position_embeddings: tuple[torch.Tensor, torch.Tensor],
        attention_mask: torch.Tensor | None = None,
        past_key_values: Cache | None = None,
        modality: Modality = None,
        **kwargs,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """States `(B, T, H)` and, with eager attention, weights `(B, heads, T, keys)`."""
        query, key, value = (
            states.unflatten(-1, (-1, self.head_dim)).transpose(1, 2)  # (B, heads, T, head_dim)
            for states in (
                self.q_proj(hidden_states),
                by_modality(hidden_states, modality, self.k_proj, self.image_k_proj),
                by_modality(hidden_states, modality, self.v_proj, self.image_v_proj),
            )
        )
        query, key = apply_rotary_pos_emb(query, key, *position_embeddings)
        if past_key_values is not None:
            key, value = past_key_values.update(key, value, self.layer_idx)
        attend = ALL_ATTENTION_FUNCTIONS.get_interface(self.config._attn_implementation, eager_attention_forward)
        dropout = self.attention_dropout if self.training else 0.0
        context, weights = attend(
            self, query, key, value, attention_mask, dropout=dropout, scaling=self.scaling, **kwargs
        )
        return self.o_proj(context.flatten(2)), weights  # context: (B, T, heads, head_dim)


class MPLUGOwl2DecoderLayer(LlamaDecoderLayer):
    """Llama's layer with both norms and the attention in two copies."""

    def __init__(self, config: MPLUGOwl2TextConfig, layer_idx: int):
        super().__init__(config, layer_idx)
        self.self_attn = MPLUGOwl2Attention(config, layer_idx)
        self.image_input_layernorm = LlamaRMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.image_post_attention_layernorm = LlamaRMSNorm(config.hidden_size, eps=config.rms_norm_eps)

    def forward(self, hidden_states: torch.Tensor, modality: Modality = None, **kwargs) -> torch.Tensor:
        """States `(B, T, H)`."""
        normed = by_modality(hidden_states, modality, self.input_layernorm, self.image_input_layernorm)
        hidden_states = hidden_states + self.self_attn(normed, modality=modality, **kwargs)[0]
        normed = by_modality(
            hidden_states, modality, self.post_attention_layernorm, self.image_post_attention_layernorm
        )
        return hidden_states + self.mlp(normed)


class MPLUGOwl2TextModel(LlamaModel):
    """
    Llama without head, on other layers. `forward` is Llama's, which hands `modality` on to them.
    """

    config: MPLUGOwl2TextConfig
    _no_split_modules = ["MPLUGOwl2DecoderLayer"]

    def __init__(self, config: MPLUGOwl2TextConfig):
        super(LlamaModel, self).__init__(config)  # not Llama's own, which would make all of its layers first
        self.padding_idx = config.pad_token_id
        self.vocab_size = config.vocab_size
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size, self.padding_idx)
        self.layers = nn.ModuleList(
            [MPLUGOwl2DecoderLayer(config, layer_idx) for layer_idx in range(config.num_hidden_layers)]
        )
        self.norm = LlamaRMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.rotary_emb = LlamaRotaryEmbedding(config)
        self.gradient_checkpointing = False
        self.post_init()


__all__ = ["MPLUGOwl2TextModel", "can_read", "modality_of"]
