"""
What a score rests on, read from the model: attention, sampling points, similarity of colours, or a gradient.

Names of axes: T tokens, K heads, h and w cells of a map, H and W pixels, G groups, P cells of a colour grid.
"""

import math
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch.nn import functional

from ...modeling_roc4mllm.slots_roc4mllm import find_slots

Array: TypeAlias = npt.NDArray[np.float64]
Box: TypeAlias = tuple[float, float, float, float]

# Backbones that hand on the tokens of a square picture row by row; others resample them, or cut it into tiles.
ROW_BY_ROW = ("llava", "paligemma", "gemma3", "internvl")
WHOLE: Box = (0.0, 0.0, 1.0, 1.0)
GRADIENT_CELLS = 16  # a side, over which single pixels' gradients, which are noise, are averaged
FLAT = 1e-4  # of the largest value: a map whose values differ by less shows how numbers are rounded
PROBE_PIXELS = 1024  # longer edge of the pictures that ask an image processor which part it keeps
SHORTEST_PROBE = 32  # pixels: the outermost half of a pixel, where nothing can be interpolated, must not count


class NoPlacesError(ValueError):
    """A model's tokens or inputs cannot be laid over the picture; the message says why."""


# ROC4MLLM ------------------------------------------------------------------------------------------------------------


def attention_map(model: Any, inputs: Mapping[str, torch.Tensor], column: int = 0, num_pictures: int = 1) -> Array:
    """
    How the score position attends to the picture: mean over heads and over the later half of the layers.

    The state that the score head reads is that of the position before `[SCORE]`. The pass runs with eager attention,
    the only kind that gives weights away; no other thread should use the model meanwhile.

    Args:
        model ([`ROC4MLLMForImageAesthetics`]): The model.
        inputs (mapping from `str` to `torch.Tensor`): One picture, prepared.
        column (`int`, *optional*, defaults to 0): Which of the model's attributes.
        num_pictures (`int`, *optional*, defaults to 1): How often it is shown: 2 where its fragments follow it.

    Returns:
        `np.ndarray` of shape `(h, w)`: shares of all attention, the rest of which goes to text. Of a picture that is
        shown a second time in fragments, the map of the whole one.

    Raises:
        NoPlacesError: If it is not known where in the picture the tokens of this backbone lie.
    """
    config = model.config
    slots = find_slots(
        inputs["input_ids"], inputs.get("slot_attributes"), config.score_token_id, len(config.attributes)
    )
    position = int(slots.positions[slots.attributes == column][0]) - 1
    tokens = (inputs["input_ids"][0] == image_token_id(config.mllm_config)).nonzero().flatten()  # (T',)
    rows, columns = token_grid(config.mllm_config, inputs, len(tokens), num_pictures)
    with torch.no_grad(), reading_attention(model.get_decoder(), position) as layers:
        model(**inputs)
    if not layers:
        raise NoPlacesError(f"{type(model.get_decoder()).__name__} gives no attention weights away")
    later = torch.stack(layers[len(layers) // 2 :]).mean(0)  # (T,)
    return as_array(later[tokens[: rows * columns].cpu()].view(rows, columns))


def image_token_id(config: Any) -> int:
    """Id that stands for a picture's tokens in a backbone's input."""
    found = getattr(config, "image_token_id", None)
    return int(config.image_token_index if found is None else found)


def token_grid(
    config: Any, inputs: Mapping[str, torch.Tensor], num_tokens: int, num_pictures: int = 1
) -> tuple[int, int]:
    """
    Rows and columns of the first picture's tokens.

    Args:
        config (`PreTrainedConfig`): The backbone's.
        inputs (mapping from `str` to `torch.Tensor`): Of one row.
        num_tokens (`int`): Image tokens in it, of all its pictures.
        num_pictures (`int`, *optional*, defaults to 1): As in [`attention_map`].

    Raises:
        NoPlacesError: If they are not known.
    """
    merge = getattr(config.vision_config, "spatial_merge_size", None)
    if "image_grid_thw" in inputs and merge:
        _, rows, columns = inputs["image_grid_thw"][0].tolist()
        return rows // merge, columns // merge
    side = math.isqrt(num_tokens // num_pictures)
    is_square = side * side * num_pictures == num_tokens
    if config.model_type in ROW_BY_ROW and is_square and is_whole(inputs["pixel_values"], num_pictures):
        return side, side
    raise NoPlacesError(
        f"it is not known where in the picture the {num_tokens} image tokens of {config.model_type} lie"
    )


def is_whole(pixel_values: torch.Tensor, num_pictures: int) -> bool:
    """Whether a backbone's input is each picture as a whole, and not in patches or tiles."""
    return pixel_values.ndim == 4 and len(pixel_values) == num_pictures


@contextmanager
def reading_attention(decoder: Any, position: int) -> Iterator[list[torch.Tensor]]:
    """
    While active, the decoder attends eagerly, and the list takes up of each of its layers the weights `(T,)` of a
    position of the first row, averaged over heads. All other weights are freed layer by layer.
    """
    thread, layers = threading.get_ident(), []

    def keep(module: Any, args: Any, output: Any) -> None:
        weights = output[1] if isinstance(output, tuple) and len(output) > 1 else None
        if isinstance(weights, torch.Tensor) and threading.get_ident() == thread:
            layers.append(weights[0, :, position].float().mean(0).cpu())  # (B, K, T, T) → (T,)

    attentions = [module for module in decoder.modules() if type(module).__name__.endswith("Attention")]
    handles = [module.register_forward_hook(keep) for module in attentions]
    before = decoder.config._attn_implementation
    decoder.set_attn_implementation("eager")
    try:
        yield layers
    finally:
        decoder.set_attn_implementation(before)
        for handle in handles:
            handle.remove()


# Families that see the picture alone ---------------------------------------------------------------------------------


def moved_points(model: Any, pixel_values: torch.Tensor) -> tuple[Array, Array]:
    """
    Where the last deformable block of an EAT looked.

    Returns:
        `tuple` of two `np.ndarray` of shape `(G, h, w, 2)`: sampling points, and reference points that they were moved
        from; as (x, y), from 0 at the left and upper edge of what the model sees to 1 at the other.
    """
    with torch.no_grad():
        output = model.eat(pixel_values)
    if not output.sampling_points:
        raise NoPlacesError("this EAT has no deformable block")
    sampling, reference = (as_array(points[-1][0]) for points in (output.sampling_points, output.reference_points))
    sizes = np.array(sampling.shape[1:3])  # features along y and x; −1 and 1 are the centres of the outermost
    sampling, reference = (((points + 1) / 2 * (sizes - 1) + 0.5) / sizes for points in (sampling, reference))
    return sampling[..., ::-1], reference[..., ::-1]  # (y, x) → (x, y)


def colour_similarity(model: Any, pixel_values: torch.Tensor) -> Array:
    """Cosine similarity, `(P, P)`, of the mean colours of a TANet's grid; P goes row by row."""
    with torch.no_grad():
        return as_array(model.colour.similarity(pixel_values)[0])


def gradient_map(model: Any, inputs: Mapping[str, torch.Tensor], column: int, num_pictures: int = 1) -> Array:
    """
    How strongly the score of an attribute reacts to each part of the picture: the size of its gradient by pixel,
    averaged over 16 by 16 cells. It needs nothing but a model that can be differentiated.

    Raises:
        NoPlacesError: If the model's input is not a picture but a list of patches or tiles.
    """
    if not is_whole(inputs["pixel_values"], num_pictures):
        raise NoPlacesError("the model takes patches or tiles instead of the picture")
    pixels = inputs["pixel_values"].detach().clone().requires_grad_()
    with torch.enable_grad():
        output = model(**{**inputs, "pixel_values": pixels})
        # a score at the end of its range has no gradient; the value behind it has
        scores = model.read_levels(output.logits)[0] if hasattr(model, "read_levels") else output.scores
        (gradient,) = torch.autograd.grad(scores[0, column], pixels)
    strength = gradient[:1].float().abs().sum(1, keepdim=True)  # (1, 1, H, W), of the whole picture before fragments
    cells = functional.adaptive_avg_pool2d(strength, GRADIENT_CELLS)
    return as_array(functional.avg_pool2d(functional.pad(cells, (1, 1, 1, 1), mode="replicate"), 3, stride=1)[0, 0])


def is_flat(heatmap: Array) -> bool:
    """Whether a map is the same everywhere but for rounding."""
    return bool(np.ptp(heatmap) <= FLAT * np.abs(heatmap).max())


def as_array(values: torch.Tensor) -> Array:
    """A tensor as float64 on the CPU."""
    return values.detach().double().cpu().numpy()


# What part of a picture a model sees ---------------------------------------------------------------------------------


def seen_box(prepare: Callable[..., Any], size: tuple[int, int]) -> Box:
    """
    The part of a picture that an image processor keeps, whatever it crops, stretches or pads.

    It is asked with three pictures of that shape, or of 32 to 1 where it is thinner than that: a black and a white
    one, which differ wherever there is picture and not padding, and one whose red and green say how far right and
    down a pixel lies.

    Args:
        prepare (`Callable`): An image processor.
        size (`tuple[int, int]`): Width and height of the picture.

    Returns:
        `tuple` of four `float`: left, upper, right and lower edge of what the model sees, in shares of the picture's
        width and height; below 0 and above 1 where it is padded.
    """
    width, height = (max(SHORTEST_PROBE, round(length * PROBE_PIXELS / max(size))) for length in size)
    probe = np.zeros((height, width, 3))
    probe[..., 0], probe[..., 1] = np.linspace(0, 255, width), np.linspace(0, 255, height)[:, None]
    pictures = [Image.fromarray(np.rint(array).astype(np.uint8)) for array in (probe, 0 * probe, 0 * probe + 255)]
    values = [np.asarray(prepare(images=[picture], return_tensors="pt")["pixel_values"]) for picture in pictures]
    if values[0].ndim != 4:
        return WHOLE  # patches: their processors only resize
    ramp, black, white = (value[0].astype(np.float64) for value in values)  # (3, H, W)
    contrast = np.abs(white - black)  # less where picture and padding mix, none in the padding
    with np.errstate(divide="ignore", invalid="ignore"):
        shares = np.where(contrast > contrast.max() / 2, (ramp - black) / (white - black), np.nan)
    left, right = edges(shares[0].T, width)
    upper, lower = edges(shares[1], height)
    return left, upper, right, lower


def edges(shares: Array, length: int) -> tuple[float, float]:
    """
    Where a model's first and last row lie in the picture.

    Args:
        shares (`np.ndarray` of shape `(rows, _)`): How far along the picture's edge the pixel behind each value lies,
            from 0 at the first pixel to 1 at the last; NaN in the padding.
        length (`int`): Pixels of the edge.
    """
    inside = np.isfinite(shares)
    rows = inside.any(1)
    places = np.array([np.median(values[is_in]) for values, is_in in zip(shares[rows], inside[rows], strict=True)])
    centres = (np.flatnonzero(rows) + 0.5) / len(shares)
    if len(centres) < 2:
        return 0.0, 1.0
    slope, start = np.polyfit(centres, (places * (length - 1) + 0.5) / length, 1)
    return round(float(start), 2), round(float(start + slope), 2)  # 8-bit colours tell no more


__all__ = [
    "NoPlacesError",
    "attention_map",
    "colour_similarity",
    "gradient_map",
    "is_flat",
    "moved_points",
    "seen_box",
]
