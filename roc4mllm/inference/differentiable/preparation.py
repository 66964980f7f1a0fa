"""
How pictures of one size are prepared for a model, as data, and done in torch with a gradient.

All that image processors do between reading a picture and the model is resizing, moving pixels about (crops, padding,
tiles, patches, fragments) and an affine map of each channel. What of it one does, [`follow`] finds out.
"""

from dataclasses import dataclass

import torch

from .resize import clip, resize

NUM_CONSTANTS = 258  # a place below 256 is that 8-bit value, as padding has it; and three values make a pixel


@dataclass(frozen=True)
class Resizing:
    """Resize what stands at `source`, places `(3, H, W)`; the photograph as it is where that is `None`."""

    source: torch.Tensor | None
    size: tuple[int, int]
    resample: int
    height_first: bool


@dataclass(frozen=True)
class Preparation:
    """
    How pictures of one size are prepared.

    Places count through constants, then each picture that was resized so far, then the photograph; through a picture
    row by row, with red, green and blue of a pixel together.

    Args:
        resizings (`list[Resizing]`): In order; a later one may start from the result of an earlier one.
        places (`torch.Tensor` of shape `(rows, …)`): Where each value of one picture's `pixel_values` comes from.
        unresized (`bool`): Whether some come from the photograph as it is.
        scale, shift (`torch.Tensor` of that shape): By what a level, from 0 to 255, is multiplied, and what is added.
        others (`dict[str, torch.Tensor]`): The model's other inputs for one picture: text, masks, sizes.
    """

    resizings: list[Resizing]
    places: torch.Tensor
    unresized: bool
    scale: torch.Tensor
    shift: torch.Tensor
    others: dict[str, torch.Tensor]

    def inputs(self, pixels: torch.Tensor, rounded: bool = True) -> dict[str, torch.Tensor]:
        """The model's inputs for pictures `(B, 3, H, W)` from 0 to 1, `rounded` to 8 bits where the processor does."""
        repeated = {name: value.repeat(len(pixels), *[1] * (value.ndim - 1)) for name, value in self.others.items()}
        return repeated | {"pixel_values": self.pixel_values(pixels, rounded)}

    def pixel_values(self, pixels: torch.Tensor, rounded: bool = True) -> torch.Tensor:
        """Those of pictures `(B, 3, H, W)` from 0 to 1, of shape `(B * rows, …)` in float64."""
        photographs = clip(pixels.to(self.scale) * 255, rounded)
        constants = torch.arange(NUM_CONSTANTS, device=self.scale.device, dtype=self.scale.dtype)
        values = [constants.expand(len(pixels), -1)]
        for step in self.resizings:
            found = photographs if step.source is None else take([*values, flat(photographs)], step.source)
            values.append(flat(resize(found, step.size, step.resample, step.height_first, rounded)))  # (B, 3, h, w)
        if self.unresized:
            values.append(flat(photographs))
        prepared = take(values, self.places) * self.scale + self.shift  # (B, rows, …)
        return prepared.flatten(0, 1)


def flat(pictures: torch.Tensor) -> torch.Tensor:
    """Pictures `(B, 3, H, W)` as `(B, H * W * 3)`."""
    return pictures.permute(0, 2, 3, 1).flatten(1)


def take(values: list[torch.Tensor], places: torch.Tensor) -> torch.Tensor:
    """What stands at places of any shape in `values`, each `(B, _)`: `(B, …)`."""
    return torch.cat(values, dim=1).index_select(1, places.flatten()).view(-1, *places.shape)


__all__ = ["NUM_CONSTANTS", "Preparation", "Resizing"]
