"""
Visual abstractor of mPLUG-Owl2: learned queries read the states of the vision encoder.

What is peculiar to it, and kept:
- positions are fixed tables of sines and cosines, added to queries and keys in every layer and never to values
- keys and values are the queries' own states followed by the picture's
- the residual stream goes on from the NORMED queries
- a learned end vector follows the last query, so a picture becomes Q + 1 image tokens
Names of axes: B pictures, Q queries, P patches, H hidden, T hidden of the language model.
"""

import torch
from torch import nn
from torch.nn import functional
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.llama.modeling_llama import eager_attention_forward

from .configuration_mplug_owl2 import MPLUGOwl2AbstractorConfig


class MPLUGOwl2AbstractorAttention(nn.Module):
    """Cross-attention of the queries."""

    num_key_value_groups = 1  # asked for by the eager implementation
    is_causal = False

    def __init__(self, config: MPLUGOwl2AbstractorConfig):
        super().__init__()
        self.config = config
        self.head_dim = config.hidden_size // config.num_attention_heads
        self.scaling = self.head_dim**-0.5
        self.q_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.k_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.v_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.out_proj = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        """States `(B, Q, H)` of queries `(B, Q, H)`, keys and values `(B, Q + P + 1, H)`."""
        heads = [
            projection(states).unflatten(-1, (-1, self.head_dim)).transpose(1, 2)  # (B, heads, length, head_dim)
            for projection, states in ((self.q_proj, query), (self.k_proj, key), (self.v_proj, value))
        ]
        attend = ALL_ATTENTION_FUNCTIONS.get_interface(self.config._attn_implementation, eager_attention_forward)
        dropout = self.config.attention_dropout if self.training else 0.0
        context, _ = attend(self, *heads, None, dropout=dropout, scaling=self.scaling)  # (B, Q, heads, head_dim)
        return self.out_proj(context.reshape(query.shape))


class MPLUGOwl2AbstractorMLP(nn.Module):
    """Gated MLP with a layer norm before its last projection."""

    def __init__(self, config: MPLUGOwl2AbstractorConfig):
        super().__init__()
        self.gate_proj = nn.Linear(config.hidden_size, config.intermediate_size)
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size)
        self.layer_norm = nn.LayerNorm(config.intermediate_size, eps=config.layer_norm_eps)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """States `(B, Q, H)`."""
        gated = functional.silu(self.gate_proj(hidden_states)) * self.up_proj(hidden_states)
        return self.down_proj(self.layer_norm(gated))


class MPLUGOwl2AbstractorLayer(GradientCheckpointingLayer):
    """The queries read the picture once. Its own layer norms keep torch's epsilon, 1e-5, whatever the config says."""

    def __init__(self, config: MPLUGOwl2AbstractorConfig):
        super().__init__()
        self.query_norm = nn.LayerNorm(config.hidden_size)
        self.image_norm = nn.LayerNorm(config.hidden_size)
        self.attention = MPLUGOwl2AbstractorAttention(config)
        self.mlp_norm = nn.LayerNorm(config.hidden_size)
        self.mlp = MPLUGOwl2AbstractorMLP(config)

    def forward(
        self, queries: torch.Tensor, image: torch.Tensor, query_positions: torch.Tensor, image_positions: torch.Tensor
    ) -> torch.Tensor:
        """Queries `(B, Q, H)` after reading image states `(B, P + 1, H)`."""
        queries = self.query_norm(queries)
        value = torch.cat([queries, self.image_norm(image)], dim=1)  # (B, Q + P + 1, H)
        key = value + torch.cat([query_positions, image_positions])
        queries = queries + self.attention(queries + query_positions, key, value)
        return queries + self.mlp(self.mlp_norm(queries))


class MPLUGOwl2Abstractor(PreTrainedModel):
    """
    The whole abstractor, with the projection to the language model's width.

    Args:
        config ([`MPLUGOwl2AbstractorConfig`]): Configuration.
        grid_size (`int`): Patches in a row and in a column of a picture.
        output_size (`int`): Width T of the language model.
    """

    config: MPLUGOwl2AbstractorConfig
    main_input_name = "image"
    input_modalities = ("image",)
    supports_gradient_checkpointing = True
    _no_split_modules = ["MPLUGOwl2Abstractor"]  # its queries and end vector are parameters of its own
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    _can_compile_fullgraph = True

    def __init__(self, config: MPLUGOwl2AbstractorConfig, grid_size: int, output_size: int):
        super().__init__(config)
        width = config.hidden_size
        self.grid_size = grid_size
        self.query_embeds = nn.Parameter(torch.zeros(1, config.num_queries, width))
        self.layers = nn.ModuleList([MPLUGOwl2AbstractorLayer(config) for _ in range(config.num_hidden_layers)])
        self.projection = nn.Linear(width, output_size)
        self.end_embed = nn.Parameter(torch.zeros(1, 1, output_size))
        self.register_buffer("query_positions", torch.zeros(config.num_queries, width), persistent=False)
        self.register_buffer("image_positions", torch.zeros(grid_size**2 + 1, width), persistent=False)
        self.post_init()

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Image tokens `(B, Q + 1, T)` of the vision encoder's states `(B, P + 1, H)`."""
        queries = self.query_embeds.expand(len(image), -1, -1)  # (B, Q, H)
        positions = [table.to(image.dtype) for table in (self.query_positions, self.image_positions)]
        for layer in self.layers:
            queries = layer(queries, image, *positions)
        end = self.end_embed.expand(len(image), -1, -1)  # (B, 1, T)
        return torch.cat([self.projection(queries), end], dim=1)  # (B, Q + 1, T)

    @torch.no_grad()
    def _init_weights(self, module):
        super()._init_weights(module)
        if isinstance(module, MPLUGOwl2Abstractor):
            init.normal_(module.query_embeds, std=self.config.initializer_range)
            init.normal_(module.end_embed, std=self.config.initializer_range)
            # no checkpoint holds the tables
            init.copy_(module.query_positions, sine_table(*module.query_positions.shape))
            init.copy_(module.image_positions, grid_table(module.grid_size, module.image_positions.shape[1]))


def sine_table(length: int, width: int) -> torch.Tensor:
    """
    Table `(length, width)` of positions: sines in the first half of the columns, cosines in the second, of wave
    lengths from 2π to 10000 · 2π (Vaswani et al., 2017). In float64: float32 is off by 1e-4 at position 1000.
    """
    exponents = torch.arange(width // 2, dtype=torch.float64, device="cpu") / (width // 2)  # (width / 2,)
    positions = torch.arange(length, dtype=torch.float64, device="cpu").unsqueeze(1)  # (length, 1)
    angles = positions * 10000**-exponents  # (length, width / 2)
    return torch.cat([angles.sin(), angles.cos()], dim=1)


def grid_table(grid_size: int, width: int) -> torch.Tensor:
    """
    Table `(1 + grid_size², width)`: zeros for the class token, then the patches in reading order, each with its column
    in the first half and its row in the second.
    """
    axis = sine_table(grid_size, width // 2)  # (G, width / 2)
    columns = axis.repeat(grid_size, 1)  # (G², width / 2)
    rows = axis.repeat_interleave(grid_size, dim=0)
    return torch.cat([axis.new_zeros(1, width), torch.cat([columns, rows], dim=1)])


__all__ = ["MPLUGOwl2Abstractor", "grid_table", "sine_table"]
