"""Configuration of EAT (ACM MM 2023): a transformer whose attention goes to points of interest in a picture."""

from huggingface_hub.dataclasses import strict

from .configuration_image_scorer import ImageScorerConfig

# The sizes of DAT (CVPR 2022, table 10), on which EAT is built.
SMALL = {
    "hidden_sizes": (96, 192, 384, 768),
    "num_heads": (3, 6, 12, 24),
    "num_groups": (1, 1, 3, 6),
    "stage_blocks": ("LS", "LS", "LD" * 9, "LD"),
    "drop_path_rate": 0.3,
}
BASE = SMALL | {
    "hidden_sizes": (128, 256, 512, 1024),
    "num_heads": (4, 8, 16, 32),
    "num_groups": (1, 1, 4, 8),
    "drop_path_rate": 0.5,
}
SIZES = {
    "tiny": SMALL | {"stage_blocks": ("LS", "LS", "LD" * 3, "LD"), "drop_path_rate": 0.2},
    "small": SMALL,
    "base": BASE,
    "base-384": BASE | {"image_size": 384, "window_sizes": (12, 12, 12, 12)},
}


@strict
class EATConfig(ImageScorerConfig):
    r"""
    The defaults are those of the tiny size; the others come from [`~EATConfig.of_size`].

    A block is `L` (attention in local windows), `S` (in shifted windows) or `D` (deformable). What only deformable
    blocks have stands in the lists for the other stages too, and means nothing there.

    Args:
        image_size (`int`, *optional*, defaults to 224):
            Height and width in pixels that the tables of positions are made for. Pictures may have any other size
            whose features the windows divide; the tables are interpolated then.
        num_channels (`int`, *optional*, defaults to 3): Channels of a picture.
        patch_size (`int`, *optional*, defaults to 4): Height and width in pixels that become one feature.
        stem_size (`int`, *optional*): Width behind the patches; that of the first stage when missing.
        hidden_sizes (`list[int]`, *optional*, defaults to `(96, 192, 384, 768)`): Width of each stage.
        stage_blocks (`list[str]`, *optional*, defaults to `("LS", "LS", "LDLDLD", "LD")`): A letter for each block.
        num_heads (`list[int]`, *optional*, defaults to `(3, 6, 12, 24)`): Attention heads of each stage.
        window_sizes (`list[int]`, *optional*, defaults to `(7, 7, 7, 7)`): Features along the side of a window.
        num_groups (`list[int]`, *optional*, defaults to `(1, 1, 3, 6)`):
            Groups of channels that move their sampling points apart from each other.
        offset_range_factors (`list[float]`, *optional*, defaults to `(2, 2, 2, 2)`):
            How far a point may move at most in each direction, in halves of a feature. With 0 or less there is no
            limit; below 0 the moved point is brought back into the picture by a tanh.
        offset_kernel_sizes (`list[int]`, *optional*, defaults to `(9, 7, 5, 3)`):
            Kernel of the convolution that the offsets are read from.
        position_biases (`list[str]`, *optional*, defaults to `("none", "none", "table", "table")`):
            What a deformable block knows of positions: `"table"`, a bias sampled at the distance of query and point,
            `"conv"`, a depth-wise convolution of the queries added to the result, or `"none"`.
        use_conv_patches (`bool`, *optional*, defaults to `False`):
            Whether the convolutions that make patches and halve the features overlap.
        use_conv_mlps (`list[bool]`, *optional*, defaults to all `False`):
            Whether the MLPs of a stage hold a depth-wise convolution.
        mlp_ratio (`int`, *optional*, defaults to 4): Width inside the MLPs, as a multiple of the stage's.
        hidden_dropout_prob (`float`, *optional*, defaults to 0.0): Dropout behind projections and MLPs.
        attention_probs_dropout_prob (`float`, *optional*, defaults to 0.0): Dropout of attention weights.
        drop_path_rate (`float`, *optional*, defaults to 0.2):
            Rate at which the last block is skipped in training; it grows from 0 from the first block on.
        layer_norm_eps (`float`, *optional*, defaults to 1e-5): Of all layer norms.
        initializer_range (`float`, *optional*, defaults to 0.02): Standard deviation of fresh weights.
        legacy_batch_mixing (`bool`, *optional*, defaults to `False`):
            Take the mean of the reference points over the batch, as the authors' code does: a score then depends on
            the pictures beside it. For comparison with their numbers only.
        **kwargs: `num_levels`, `raw_head`, `score_range`, `attributes`, …, see [`ImageScorerConfig`].

    Raises:
        huggingface_hub.errors.StrictDataclassError: If a field has the wrong type or value; the message names it.
    """

    model_type = "eat"

    image_size: int = 224
    num_channels: int = 3
    patch_size: int = 4
    stem_size: int | None = None
    hidden_sizes: list[int] | tuple[int, ...] = (96, 192, 384, 768)
    stage_blocks: list[str] | tuple[str, ...] = ("LS", "LS", "LDLDLD", "LD")
    num_heads: list[int] | tuple[int, ...] = (3, 6, 12, 24)
    window_sizes: list[int] | tuple[int, ...] = (7, 7, 7, 7)
    num_groups: list[int] | tuple[int, ...] = (1, 1, 3, 6)
    offset_range_factors: list[float | int] | tuple[float | int, ...] = (2, 2, 2, 2)
    offset_kernel_sizes: list[int] | tuple[int, ...] = (9, 7, 5, 3)
    position_biases: list[str] | tuple[str, ...] = ("none", "none", "table", "table")
    use_conv_patches: bool = False
    use_conv_mlps: list[bool] | tuple[bool, ...] = (False, False, False, False)
    mlp_ratio: int = 4
    hidden_dropout_prob: float | int = 0.0
    attention_probs_dropout_prob: float | int = 0.0
    drop_path_rate: float | int = 0.2
    layer_norm_eps: float = 1e-5
    initializer_range: float = 0.02
    legacy_batch_mixing: bool = False

    def __post_init__(self, **kwargs):
        for name in PER_STAGE:
            setattr(self, name, list(getattr(self, name)))  # as JSON knows them
        self.stem_size = self.stem_size or self.hidden_sizes[0]
        super().__post_init__(**kwargs)

    @classmethod
    def of_size(cls, size: str, **kwargs) -> "EATConfig":
        """
        The configuration of a published size.

        Args:
            size (`str`): `"tiny"`, `"small"`, `"base"` (224 pixels) or `"base-384"`.
            **kwargs: Fields that differ.

        Raises:
            ValueError: If there is no such size.
        """
        if size not in SIZES:
            raise ValueError(f"Unknown size {size!r}; known are {', '.join(SIZES)}.")
        return cls(**{**SIZES[size], **kwargs})

    @property
    def hidden_size(self) -> int:
        """Width of the features that the head reads."""
        return self.hidden_sizes[-1]

    def table_size(self, stage: int) -> int:
        """Features along the side of a picture of `image_size` in a stage, counted from 0."""
        return self.image_size // self.patch_size // 2**stage

    def validate_stages(self):
        """Every list has an entry for each stage, and each entry is one of those that exist."""
        counts = {name: len(getattr(self, name)) for name in PER_STAGE}
        if len(set(counts.values())) != 1:
            raise ValueError(f"These must have one entry per stage, but their lengths differ: {counts}.")
        for blocks in self.stage_blocks:
            if not blocks or set(blocks) - set("LSD"):
                raise ValueError(f"stage_blocks must be made of the letters L, S and D, got {blocks!r}.")
        if unknown := set(self.position_biases) - {"none", "table", "conv"}:
            raise ValueError(f"position_biases must be 'none', 'table' or 'conv', got {sorted(unknown)}.")

    def validate_sizes(self):
        """Sizes are at least 1, kernels keep height and width, and no block is skipped for certain."""
        for name in ("image_size", "patch_size", "hidden_sizes", "window_sizes"):
            sizes = getattr(self, name)
            if min(sizes if isinstance(sizes, list) else [sizes]) < 1:
                raise ValueError(f"{name} must be at least 1, got {sizes}.")
        for kernel, blocks in zip(self.offset_kernel_sizes, self.stage_blocks, strict=False):
            if "D" in blocks and (kernel < 1 or kernel % 2 == 0):
                raise ValueError(f"offset_kernel_sizes must be odd where there are D blocks, got {kernel}.")
        if not 0 <= self.drop_path_rate < 1:
            raise ValueError(f"drop_path_rate must be at least 0 and below 1, got {self.drop_path_rate}.")

    def validate_widths(self):
        """Heads and groups divide the width, and groups the heads where a bias is theirs."""
        for stage, blocks in enumerate(self.stage_blocks):
            width, heads, groups = (getattr(self, name)[stage] for name in ("hidden_sizes", "num_heads", "num_groups"))
            if heads < 1 or width % heads:
                raise ValueError(f"hidden_sizes[{stage}] ({width}) must be a multiple of num_heads ({heads}).")
            if "D" not in blocks:
                continue
            if groups < 1 or width % groups:
                raise ValueError(f"hidden_sizes[{stage}] ({width}) must be a multiple of num_groups ({groups}).")
            if self.position_biases[stage] == "table" and heads % groups:
                raise ValueError(f"num_heads[{stage}] ({heads}) must be a multiple of num_groups ({groups}).")


PER_STAGE = (
    "hidden_sizes", "stage_blocks", "num_heads", "window_sizes", "num_groups", "offset_range_factors",
    "offset_kernel_sizes", "position_biases", "use_conv_mlps",
)  # fmt: skip

__all__ = ["EATConfig"]
