"""What conversions of TANet, EAT and ELTA do alike: each weight is known by name, and of the shape that it needs."""

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import torch
from transformers import ViTImageProcessorPil
from transformers.image_utils import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

from ..modeling_roc4mllm.configuration_image_scorer import ImageScorerConfig
from .weight_names import refuse_differences, refuse_other_dtypes


class ImageScorerConversion:
    """
    Base of the conversions of families that score a picture alone.

    A family names its `model_class`, and calls [`~ImageScorerConversion.describe`] when its config is known.

    Attributes:
        config ([`ImageScorerConfig`]): The native model's.
        shapes (`dict[str, torch.Size]`): Shapes of the native model's weights by name.
        names (`dict[str, list[str]]`): Our names by theirs; several where one weight of theirs holds several of ours,
            one below the other in this order.
    """

    model_class: Any

    def describe(self, config: ImageScorerConfig, original_name: Callable[[str], str]) -> None:
        """Set the attributes; `original_name` gives the authors' name of one of our weights."""
        self.config: Any = config
        with torch.device("meta"):
            empty = self.model_class(config)
        self.shapes = {name: weight.shape for name, weight in empty.state_dict().items()}
        self.names: dict[str, list[str]] = defaultdict(list)
        for name in self.shapes:
            self.names[original_name(name)].append(name)

    # ---- what a family says -------------------------------------------------------------------------------------

    def is_left_out(self, name: str) -> bool:
        """Whether a weight of theirs is computed or not used here."""
        raise NotImplementedError

    def check_table(self, name: str, values: torch.Tensor) -> None:
        """Refuse a table that is left out and has other values than are computed here: it is of another model."""

    def native_layout(self, name: str, weight: torch.Tensor, like: torch.Size) -> torch.Tensor:
        """An original's weight as ours is laid out, of shape `like` if all is well."""
        return weight

    # ---- names and weights --------------------------------------------------------------------------------------

    def check_names(self, names: Iterable[str]) -> None:
        """
        Raise a `ValueError` that names weights of a checkpoint which the model does not have, or which are missing.

        Args:
            names (`Iterable[str]`): Names of all weights.
        """
        refuse_differences({name for name in names if not self.is_left_out(name)}, self.names)

    def convert(self, name: str, weight: torch.Tensor) -> dict[str, torch.Tensor]:
        """
        Our weights that one of the original's becomes; none for what is computed or not used here.

        Args:
            name (`str`): The original's name.
            weight (`torch.Tensor`): The original's weight.

        Raises:
            ValueError: If the name is unknown, or the weight has another shape or dtype than expected, or is a table
                of other values.
        """
        if self.is_left_out(name):
            self.check_table(name, weight)
            return {}
        if name not in self.names:
            raise ValueError(f"Unknown weight {name!r}.")
        refuse_other_kinds(name, weight.dtype)
        ours = self.names[name]
        expected = self.shapes[ours[0]]
        if len(ours) > 1:
            expected = torch.Size([len(ours) * expected[0], *expected[1:]])
        value = self.native_layout(name, weight, expected)
        if value.shape != expected:
            raise ValueError(
                f"{name} has shape {tuple(weight.shape)}; the config describes {tuple(expected)} for "
                f"{', '.join(ours)}."
            )
        parts = [part.clone() for part in value.chunk(len(ours))] if len(ours) > 1 else [value]
        return dict(zip(ours, parts, strict=True))


def refuse_other_kinds(name: str, dtype: torch.dtype) -> None:
    """Refuse a weight that is quantised or in double precision, and a count of batches that is no whole number."""
    if not name.endswith("num_batches_tracked"):
        refuse_other_dtypes({name: dtype})
    elif dtype.is_floating_point:
        raise ValueError(f"{name} has dtype {dtype}; expected a whole number of batches.")


def whole_picture(side: int, **options: Any) -> ViTImageProcessorPil:
    """Stretches the whole picture to a square of that many pixels, and takes the statistics of ImageNet."""
    return ViTImageProcessorPil(
        size={"height": side, "width": side},
        image_mean=IMAGENET_DEFAULT_MEAN,
        image_std=IMAGENET_DEFAULT_STD,
        **options,
    )


__all__ = ["ImageScorerConversion", "whole_picture"]
