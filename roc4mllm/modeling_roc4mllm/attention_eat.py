"""
The attention of EAT: in windows, in shifted windows, and at sampling points that move to where it is interesting.

Papers: "EAT: An Enhancer for Aesthetics-Oriented Transformers", ACM MM 2023; DAT, "Vision Transformer with Deformable
Attention", CVPR 2022; windows as in Swin, ICCV 2021. Written from them and from a description of the authors' code.

What differs from the authors' code:
- a picture has reference points of its own; theirs are a mean over the batch (`config.legacy_batch_mixing`)
- the rule for offsets stays on the device, in the graph of the computation
- features are laid out `(B, H, W, C)` throughout, so that a 1 × 1 convolution is a linear map
Names of axes: B pictures, H and W features, C channels, G groups, K heads, L features of a window, P points = H * W.
"""

import torch
from torch import nn
from torch.nn import functional

from .configuration_eat import EATConfig

ALONG, AGAINST = 1.0, 0.25  # share of an offset that counts, by its direction
OTHER_REGION = -100.0  # added to the attention between features that only the shift brought together


class EATWindowAttention(nn.Module):
    """Attention among the features of each window; `shift` moves the windows by that many features."""

    def __init__(self, config: EATConfig, stage: int, shift: int = 0):
        super().__init__()
        self.window, self.shift = config.window_sizes[stage], shift
        self.num_heads, width = config.num_heads[stage], config.hidden_sizes[stage]
        self.dropout = config.attention_probs_dropout_prob
        self.qkv = nn.Linear(width, 3 * width)
        self.out_proj = nn.Linear(width, width)
        self.relative_position_bias = nn.Parameter(torch.zeros(self.num_heads, *[2 * self.window - 1] * 2))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor]:
        """Attend; `x` and the only result are `(B, H, W, C)`."""
        B, H, W, C = x.shape
        if self.shift:
            x = x.roll((-self.shift, -self.shift), dims=(1, 2))
        windows = to_windows(x, self.window)  # (B, num_windows, L, C)
        count, L = windows.shape[1:3]
        qkv = self.qkv(windows).view(B, count, L, 3, self.num_heads, C // self.num_heads)
        query, key, value = qkv.permute(3, 0, 1, 4, 2, 5).flatten(2, 3)  # each (B, num_windows * K, L, C / K)
        dropout = self.dropout if self.training else 0.0
        mask = self._mask(H, W).to(query.dtype)  # (1, num_windows * K, L, L)
        out = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask, dropout_p=dropout)
        out = out.view(B, count, self.num_heads, L, -1).transpose(2, 3).flatten(3)  # (B, num_windows, L, C)
        out = from_windows(self.out_proj(out), H, W)  # (B, H, W, C)
        return (out.roll((self.shift, self.shift), dims=(1, 2)) if self.shift else out,)

    def _mask(self, height: int, width: int) -> torch.Tensor:
        """What is added to the attention, `(1, num_windows * K, L, L)`."""
        bias = relative_table(self.relative_position_bias)  # (K, L, L)
        count = (height // self.window) * (width // self.window)
        bias = bias.expand(count, -1, -1, -1)  # (num_windows, K, L, L)
        if self.shift:
            bias = bias + shift_mask(height, width, self.window, self.shift, bias.device)[:, None]
        return bias.flatten(0, 1).unsqueeze(0)


class EATDeformableAttention(nn.Module):
    """
    Attention of every feature to sampling points, as many as there are features: each is a reference point, where the
    picture is interesting, moved by an offset that a group of channels reads from its queries.
    """

    def __init__(self, config: EATConfig, stage: int):
        super().__init__()
        self.config = config  # not copied: `legacy_batch_mixing` may be switched on a loaded model
        width, self.num_heads = config.hidden_sizes[stage], config.num_heads[stage]
        self.num_groups, self.range_factor = config.num_groups[stage], config.offset_range_factors[stage]
        self.dropout = config.attention_probs_dropout_prob
        self.q_proj, self.k_proj, self.v_proj, self.out_proj = (nn.Linear(width, width) for _ in range(4))
        per_group, kernel = width // self.num_groups, config.offset_kernel_sizes[stage]
        self.offset_conv = depthwise_conv(per_group, kernel)
        self.offset_norm = nn.LayerNorm(per_group, eps=config.layer_norm_eps)
        self.offset_proj = nn.Linear(per_group, 2, bias=False)
        self.reference_proj = nn.Linear(width, 2)
        self.position_bias = self.position_conv = None
        if config.position_biases[stage] == "table":
            side = 2 * config.table_size(stage) - 1
            self.position_bias = nn.Parameter(torch.zeros(self.num_heads, side, side))
        elif config.position_biases[stage] == "conv":
            self.position_conv = depthwise_conv(width, kernel=3)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """
        Attend.

        Args:
            x (`torch.Tensor` of shape `(B, H, W, C)`): Features.

        Returns:
            `tuple`: Features of the same shape; sampling points and reference points, each `(B, G, H, W, 2)`, as
            (y, x) from −1 at the first to 1 at the last feature, in float32 or wider.
        """
        B, H, W, C = x.shape
        query = self.q_proj(x)  # (B, H, W, C)
        points, reference = self.sampling_points(x, query)
        sampled = sample(self._grouped(x), points.flatten(0, 1)).to(x.dtype)  # (B * G, C / G, H, W)
        sampled = sampled.reshape(B, C, H * W).transpose(1, 2)  # (B, P, C)
        parts = (query.view(B, H * W, C), self.k_proj(sampled), self.v_proj(sampled))
        queries, keys, values = (
            part.view(B, H * W, self.num_heads, -1).transpose(1, 2)  # (B, K, P, C / K)
            for part in parts
        )
        bias = None if self.position_bias is None else self._bias(self.position_bias, points).to(x.dtype)
        dropout = self.dropout if self.training else 0.0
        out = functional.scaled_dot_product_attention(queries, keys, values, attn_mask=bias, dropout_p=dropout)
        out = out.transpose(1, 2).reshape(B, H, W, C)  # (B, K, H * W, C / K) → (B, H, W, C)
        if self.position_conv is not None:
            out = out + convolved(self.position_conv, query)
        return self.out_proj(out), points, reference

    def sampling_points(self, x: torch.Tensor, query: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Sampling points and reference points, each `(B, G, H, W, 2)`, of features and queries `(B, H, W, C)`."""
        B, H, W, _ = x.shape
        # bfloat16 would round points to a twentieth of a feature at 384 pixels
        dtype = torch.promote_types(x.dtype, torch.float32)
        features = self.offset_conv(self._grouped(query)).permute(0, 2, 3, 1)  # (B * G, H, W, C / G)
        offset = self.offset_proj(functional.gelu(self.offset_norm(features))).to(dtype)  # (B * G, H, W, 2)
        if self.range_factor > 0:
            rows, columns = (offset.tanh() * self.range_factor).unbind(-1)
            offset = torch.stack((rows / H, columns / W), dim=-1)
        reference = self.reference_proj(x).to(dtype)  # (B, H, W, 2)
        if self.config.legacy_batch_mixing:
            reference = reference.mean(0, keepdim=True).expand_as(reference)
        reference = reference.tanh().unsqueeze(1).expand(-1, self.num_groups, -1, -1, -1)  # (B, G, H, W, 2)
        offset = offset.view(B, self.num_groups, H, W, 2)
        # an offset away from the centre of the picture, in both directions, counts in full
        is_along = (offset * reference > 0).all(-1, keepdim=True)  # (B, G, H, W, 1)
        points = reference + offset * torch.where(is_along, ALONG, AGAINST).to(dtype)
        return (points.tanh() if self.range_factor < 0 else points), reference

    def _bias(self, table: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
        """Bias `(B, K, H * W, P)` of every feature towards sampling points `(B, G, H, W, 2)`."""
        B, G, H, W, _ = points.shape
        cells = cell_centres(H, W, points.dtype, points.device).view(H * W, 1, 2)
        distance = (cells - points.view(B * G, 1, H * W, 2)) / 2  # (B * G, H * W, P, 2), −1 to 1 within the picture
        # The table spans the picture whatever its size: bilinear sampling interpolates it.
        table = table.view(G, self.num_heads // G, *table.shape[1:])
        table = table.expand(B, -1, -1, -1, -1).flatten(0, 1)  # (B * G, K / G, 2 h − 1, 2 w − 1)
        return sample(table, distance).view(B, self.num_heads, H * W, H * W)

    def _grouped(self, x: torch.Tensor) -> torch.Tensor:
        """Features `(B, H, W, C)` as `(B * G, C / G, H, W)`."""
        B, H, W, _ = x.shape
        return x.view(B, H, W, self.num_groups, -1).permute(0, 3, 4, 1, 2).flatten(0, 1)


# ---- windows --------------------------------------------------------------------------------------------------------


def to_windows(x: torch.Tensor, window: int) -> torch.Tensor:
    """Features `(B, H, W, ...)` by window, `(B, num_windows, L, ...)`, both row by row."""
    B, H, W = x.shape[:3]
    parts = x.view(B, H // window, window, W // window, window, *x.shape[3:]).transpose(2, 3)
    return parts.flatten(3, 4).flatten(1, 2)


def from_windows(windows: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Features `(B, H, W, C)` of windows `(B, num_windows, L, C)`; undoes [`to_windows`]."""
    B, _, L, C = windows.shape
    window = int(L**0.5)
    parts = windows.view(B, height // window, width // window, window, window, C).transpose(2, 3)
    return parts.reshape(B, height, width, C)


def relative_table(table: torch.Tensor) -> torch.Tensor:
    """
    The entry for each pair of features of a window, `(K, L, L)`, from a table by relative position `(K, 2 w − 1,
    2 w − 1)`: that of query (i, j) and key (k, l) is [i − k + w − 1, j − l + w − 1].
    """
    window = (table.shape[-1] + 1) // 2
    pairs = table.unfold(1, window, 1).unfold(2, window, 1)  # [i + w − 1 − k, …] stands at (i, j, w − 1 − k, …)
    return pairs.flip(-2, -1).reshape(len(table), window**2, window**2)


def shift_mask(height: int, width: int, window: int, shift: int, device: torch.device | None = None) -> torch.Tensor:
    """
    0 between features of a window that are neighbours in the picture, −100 between those that only the shift brought
    together: `(num_windows, L, L)`.
    """

    def bands(size: int) -> torch.Tensor:
        position = torch.arange(size, device=device)
        return (position >= size - window).long() + (position >= size - shift).long()  # 0, 1 or 2

    regions = 3 * bands(height).unsqueeze(1) + bands(width)  # (H, W)
    regions = to_windows(regions.unsqueeze(0), window)[0]  # (num_windows, L)
    differ = regions.unsqueeze(1) != regions.unsqueeze(2)  # (num_windows, L, L)
    return torch.where(differ, OTHER_REGION, 0.0)


# ---- points ---------------------------------------------------------------------------------------------------------


def cell_centres(height: int, width: int, dtype: torch.dtype, device: torch.device | None = None) -> torch.Tensor:
    """Centres of a regular grid of cells over the square from −1 to 1, as (y, x): `(H, W, 2)`."""
    rows, columns = (
        (torch.arange(size, dtype=dtype, device=device) + 0.5) * (2 / size) - 1 for size in (height, width)
    )
    return torch.stack(torch.meshgrid(rows, columns, indexing="ij"), dim=-1)


def sample(features: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    """
    Features between the grid's own, bilinear; 0 outside the picture.

    Args:
        features (`torch.Tensor` of shape `(N, C, H, W)`): On a grid whose corners are at −1 and 1.
        points (`torch.Tensor` of shape `(N, I, J, 2)`): As (y, x), in float32 or wider.

    Returns:
        `torch.Tensor` of shape `(N, C, I, J)`, in the dtype of the points.
    """
    return functional.grid_sample(features.to(points.dtype), points.flip(-1), mode="bilinear", align_corners=True)


# ---- convolutions ---------------------------------------------------------------------------------------------------


def depthwise_conv(width: int, kernel: int) -> nn.Conv2d:
    """A convolution of each channel by itself that keeps height and width."""
    return nn.Conv2d(width, width, kernel, padding=kernel // 2, groups=width)


def convolved(conv: nn.Conv2d, x: torch.Tensor) -> torch.Tensor:
    """A convolution of features `(B, H, W, C)`, in that layout."""
    return conv(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


__all__ = [
    "EATDeformableAttention",
    "EATWindowAttention",
    "convolved",
    "depthwise_conv",
    "relative_table",
    "shift_mask",
]
