"""
Finds out what an image processor does to pictures of one size, and proves it.

The processor itself tells: it runs once on *places* instead of pixels, numbers that say where a value comes from. Its
resizing is recorded, and what it returns says which resized pixel each input of the model is. An ordinary run on a
test picture then proves that all this is right.
"""

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
import transformers
from PIL import Image
from transformers.image_processing_backends import PilBackend

from ...processing_roc4mllm.image_processing_mplug_owl2 import MPLUGOwl2ImageProcessor
from .preparation import NUM_CONSTANTS, Preparation, Resizing
from .resize import pillow_height_first

Array: TypeAlias = npt.NDArray[Any]

MOST_PIXELS = 1 << 24  # which red, green and blue can number
EXACT, ROUGH = 0.05, 3.0  # 8-bit levels: processors normalise in float32, and torchvision rounds otherwise than Pillow
PROBE_CELLS = 24  # a side, large enough to outlast shrinking


def follow(
    prepare: Callable[..., Any], options: Mapping[str, Any], height: int, width: int, device: torch.device
) -> Preparation:
    """
    How an image processor, or a processor with one inside, prepares pictures of a size.

    Args:
        prepare ([`ROC4MLLMProcessor`] or image processor): As in [`PicturePreparation`].
        options (mapping): Its arguments besides the pictures.
        height, width (`int`): Of the pictures.
        device (`torch.device`): Where pictures will be prepared.

    Raises:
        ValueError: If it cannot be followed; the message names the class and says why.
    """
    if height * width > MOST_PIXELS:
        raise ValueError(f"got pictures of {height} x {width} pixels; at most {MOST_PIXELS} can be told apart")
    processor = image_processor_of(prepare)
    refusal = f"scores with {type(processor).__name__} cannot be differentiated"
    batch = prepare(images=[probe(height, width, seed=0)], **options)
    trace = Trace(3 * height * width, pillow=isinstance(processor, PilBackend))
    try:
        found = traced(prepare, trace)(images=[numbered(height, width)], **options)
        preparation = trace.preparation(found["pixel_values"].numpy(), batch, device)
    except Exception as error:  # whatever a processor's own code raises on numbers that are no pixels
        raise ValueError(f"{refusal}: it cannot be followed ({error})") from error
    picture = probe(height, width, seed=1)  # another one: what was taken for padding may not depend on it
    levels = off_by(preparation, picture, prepare(images=[picture], **options)["pixel_values"])
    if not levels <= (EXACT if trace.pillow else ROUGH):  # NaN is refused too
        raise ValueError(
            f"{refusal}: it does more to a picture than resize, crop, pad, move about, rescale and normalise it (what "
            f"the model sees would be off by {levels:.3g} of 255 levels)"
        )
    return preparation


@dataclass
class Trace:
    """
    What happens to places while an image processor runs.

    The photograph's places are negative meanwhile, so that those of resized pictures stay small: a processor that
    converts to float32 would round large ones.

    Args:
        num_values (`int`): Of the photograph.
        pillow (`bool`): Whether the processor works with Pillow.
    """

    num_values: int
    pillow: bool
    end: int = NUM_CONSTANTS
    resizings: list[Resizing] = field(default_factory=list)
    factor: float = 1.0
    mean: Array = field(default_factory=lambda: np.zeros(3))
    std: Array = field(default_factory=lambda: np.ones(3))

    def photograph(self, picture: Image.Image) -> Array:
        """Places `(3, H, W)` of the pixels of a [`numbered`] picture, however they were moved about."""
        numbers = np.asarray(picture).astype(np.int64) @ (1 << 16, 1 << 8, 1)  # (H, W)
        return (3 * numbers + np.arange(3)[:, None, None] - self.num_values).astype(np.float64)

    def resize(self, places: Array, size: tuple[int, int], resample: int) -> Array:
        """Record it; places `(3, h, w)` of the resized picture."""
        is_photograph = np.array_equal(places.transpose(1, 2, 0).ravel(), np.arange(-self.num_values, 0))
        height_first = self.pillow and pillow_height_first(places.shape[1:], size)
        source = None if is_photograph else torch.from_numpy(self.counted(places))
        self.resizings.append(Resizing(source, size, resample, height_first))
        resized = self.end + np.arange(3.0 * size[0] * size[1]).reshape(*size, 3).transpose(2, 0, 1)
        self.end += resized.size
        return resized

    def counted(self, places: Array) -> Array:
        """Places as [`Preparation`] counts them now."""
        places = np.rint(places).astype(np.int64)
        if places.min() < -self.num_values or places.max() >= self.end:
            raise ValueError(f"values come from {places.min()} to {places.max()}, where there are none")
        return np.where(places < 0, self.end + self.num_values + places, places)

    def preparation(self, found: Array, batch: Mapping[str, torch.Tensor], device: torch.device) -> Preparation:
        """
        What the trace amounts to.

        Args:
            found (`np.ndarray` of shape `(rows, …)`): Places that came out as `pixel_values`.
            batch (mapping from `str` to `torch.Tensor`): What an ordinary run gives; its padding is taken over.
            device (`torch.device`): As in [`follow`].
        """
        places, expected = self.counted(found), batch["pixel_values"].cpu().numpy()
        if places.shape != expected.shape:
            raise ValueError(f"it gives {places.shape} values for one picture and {expected.shape} for another")
        is_padding, channel = places < NUM_CONSTANTS, places % 3
        scale = np.where(is_padding, 0.0, (self.factor / self.std)[channel])
        shift = np.where(is_padding, expected, (-self.mean / self.std)[channel])
        return Preparation(
            [step if step.source is None else replace(step, source=step.source.to(device)) for step in self.resizings],
            torch.from_numpy(places).to(device),
            bool((found < 0).any()),
            torch.from_numpy(scale).to(device),
            torch.from_numpy(shift).to(device),
            {name: value for name, value in batch.items() if name != "pixel_values"},
        )


class Traced(PilBackend):  # type: ignore[misc]
    """
    Stands between an image processor's class and transformers' own, whose operations on pixels it takes over.
    """

    trace: Trace

    def process_image(self, image: Image.Image, **kwargs: Any) -> Array:
        """Places of a picture's pixels."""
        return self.trace.photograph(image)

    def resize(self, image: Array, size: Any, resample: int | None = None, **kwargs: Any) -> Array:
        """Places of the resized pixels; the parent says how many there are."""
        _, height, width = super().resize(np.zeros(image.shape, np.uint8), size, resample, **kwargs).shape
        return self.trace.resize(image, (height, width), Image.Resampling.BILINEAR if resample is None else resample)

    def rescale(self, image: Array, scale: float, **kwargs: Any) -> Array:
        """The same places."""
        self.trace.factor = scale
        return image

    def normalize(self, image: Array, mean: Any, std: Any, **kwargs: Any) -> Array:
        """The same places."""
        self.trace.mean, self.trace.std = (np.broadcast_to(np.float64(value), 3).copy() for value in (mean, std))
        return image


class TracedSquare:
    """In front of mPLUG-Owl2's image processor, which resizes by a way of its own."""

    trace: Trace

    def process_image(self, image: Image.Image, **kwargs: Any) -> Array:
        """Places of a picture's pixels."""
        return self.trace.photograph(image)

    def _resized(
        self, image: Array, do_pad: bool, do_resize: bool, size: Any, resample: int, image_mean: Any, **kwargs: Any
    ) -> Array:
        if do_pad:
            image = on_square(image, np.array([int(mean * 255) for mean in np.broadcast_to(image_mean, 3)]))
        if do_resize:
            image = self.trace.resize(image, (size.height, size.width), resample)
        return image.transpose(1, 2, 0)  # (h, w, 3)


def on_square(places: Array, colour: Array) -> Array:
    """Places `(3, H, W)` on the centre of a square of a colour `(3,)`, which are constants."""
    _, height, width = places.shape
    side = max(height, width)
    top, left = (side - height) // 2, (side - width) // 2
    square = np.broadcast_to(colour[:, None, None], (3, side, side)).astype(np.float64)
    square[:, top : top + height, left : left + width] = places
    return square


def traced(prepare: Any, trace: Trace) -> Any:
    """A copy that writes down what it does."""
    if not hasattr(prepare, "backbone_processor"):
        return traced_image_processor(prepare, trace)
    prepare, backbone = copy.copy(prepare), copy.copy(prepare.backbone_processor)
    backbone.image_processor = traced_image_processor(backbone.image_processor, trace)
    prepare.backbone_processor = backbone
    return prepare


def traced_image_processor(processor: Any, trace: Trace) -> Any:
    """A copy of an image processor whose operations are those of [`Traced`]."""
    processor = with_pillow(processor)
    first = (TracedSquare,) if isinstance(processor, MPLUGOwl2ImageProcessor) else ()
    # in the order of bases: what the processor's class does itself, then Traced, then PilBackend
    kind: Any = type(type(processor).__name__, (*first, type(processor), Traced), {})
    copied = kind.__new__(kind)
    copied.__dict__.update(processor.__dict__, trace=trace)
    return copied


def with_pillow(processor: Any) -> Any:
    """The image processor's twin that works with Pillow, where torchvision is installed and it works with that."""
    if isinstance(processor, PilBackend):
        return processor
    name = type(processor).__name__
    if not hasattr(transformers, f"{name}Pil"):
        raise ValueError(f"transformers has no {name}Pil")
    return getattr(transformers, f"{name}Pil").from_dict(processor.to_dict())


def image_processor_of(prepare: Any) -> Any:
    """The image processor inside a processor, or itself."""
    return getattr(getattr(prepare, "backbone_processor", prepare), "image_processor", prepare)


# Pictures that prove it ----------------------------------------------------------------------------------------------


def numbered(height: int, width: int) -> Image.Image:
    """A picture whose red, green and blue are the digits of each pixel's number."""
    numbers = np.arange(height * width).reshape(height, width, 1)
    return Image.fromarray((numbers >> (16, 8, 0) & 255).astype(np.uint8))


def probe(height: int, width: int, seed: int) -> Image.Image:
    """A picture in which every part differs from every other: coloured cells with noise, the same for a seed."""
    random = np.random.default_rng(seed)
    cells = Image.fromarray(random.integers(0, 256, (PROBE_CELLS, PROBE_CELLS, 3), dtype=np.uint8))
    coarse = np.asarray(cells.resize((width, height), Image.Resampling.NEAREST)).astype(np.int64)  # (H, W, 3)
    return Image.fromarray(np.clip(coarse + random.integers(-40, 41, coarse.shape), 0, 255).astype(np.uint8))


def off_by(preparation: Preparation, picture: Image.Image, expected: torch.Tensor) -> float:
    """How far a preparation's `pixel_values` of a picture are off, in 8-bit levels."""
    pixels = torch.from_numpy(np.asarray(picture) / 255).permute(2, 0, 1)[None]  # (1, 3, H, W)
    difference = (preparation.pixel_values(pixels).cpu() - expected.double().cpu()).abs()
    return float((difference / preparation.scale.cpu().abs().clamp(min=1e-6)).max())


__all__ = ["follow"]
