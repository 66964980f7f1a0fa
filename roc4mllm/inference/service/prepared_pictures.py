"""
Joining pictures that were prepared one by one into one batch for the model.

A processor prepares a batch by preparing each picture and padding: so batches of one can be made wherever a thread is
free, and joined when the model is. What they hold is told by shape. A value per token, shaped as `input_ids`, is
padded on the right as `ROC4MLLMProcessor` pads; anything else is joined along its first axis (pictures, or patches of
all pictures), which asks that the other axes agree.
Names of axes: B pictures, T tokens.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from transformers import BatchFeature

from ...processing_roc4mllm.picture_batches_aesthetics import Batch
from ...processing_roc4mllm.processing_roc4mllm import pad_rows

Kind = tuple[Any, ...]


def kind_of(inputs: Mapping[str, Any]) -> Kind:
    """What two pictures must have in common to be joined; equal to nothing else where they cannot be joined at all."""
    parts: list[Any] = []
    for name, value in inputs.items():
        if not torch.is_tensor(value) or not value.ndim:
            return (id(inputs),)
        axes = "tokens" if per_token(inputs, value) else tuple(value.shape[1:])
        parts.append((name, value.dtype, axes))
    return tuple(sorted(parts, key=lambda part: str(part[0])))


def join(pictures: Sequence[Mapping[str, Any]], pad_token_id: int = 0) -> Batch:
    """
    One batch of pictures of one kind, without errors.

    Args:
        pictures (sequence of mappings): The inputs of a batch of one each.
        pad_token_id (`int`, *optional*, defaults to 0): What fills up `input_ids`; masks and types are filled with 0.
    """
    sources = [None] * len(pictures)
    if len(pictures) == 1:
        return Batch(sources, [None], BatchFeature(dict(pictures[0])))
    joined = {}
    for name, first in pictures[0].items():
        values = [inputs[name] for inputs in pictures]
        if per_token(pictures[0], first):
            fill = pad_token_id if name == "input_ids" else 0
            joined[name] = pad_rows([row for value in values for row in value], fill, "right")  # (B, T)
        else:
            joined[name] = torch.cat(values)  # (B, …), or (patches of all pictures, …)
    return Batch(sources, [None] * len(pictures), BatchFeature(joined))


def per_token(inputs: Mapping[str, Any], value: torch.Tensor) -> bool:
    """Whether a tensor holds one value for each token of a text."""
    ids = inputs.get("input_ids")
    return ids is not None and value.shape == ids.shape and not value.is_floating_point()


__all__ = ["Kind", "join", "kind_of"]
