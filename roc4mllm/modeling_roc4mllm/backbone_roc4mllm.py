"""
What ROC4MLLM asks of a backbone: the input of its output embedding, one more embedding row, and a text decoder.

Nothing here names a backbone. Names of axes: B rows, T tokens, H hidden, N levels, M supervised tokens, V vocabulary.
"""

import os
import re
import threading
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from transformers import GenerationMixin, PreTrainedModel

from .configuration_roc4mllm import special_token_ids

# children of a vision tower that face the text
CONNECTOR = re.compile("merger|projector|connector|aligner|abstractor")


class HeadInput:
    """
    What one forward pass hands to the output embedding, taken and trimmed by [`reading_head_input`].

    `hidden` is `(B, T', H)` with T' ≥ T: a few backbones put image states in front of the text.
    """

    def __init__(self, text_rows: tuple[torch.Tensor, torch.Tensor], length: int):
        self.rows, self.positions = text_rows
        self.length = length
        self.hidden: torch.Tensor | None = None

    def take(self, hidden: torch.Tensor) -> torch.Tensor:
        """Keep the hidden states, return those that need text logits, `(1, M, H)`."""
        if hidden.shape[1] < self.length:
            raise ValueError(
                f"The backbone's output embedding reads {hidden.shape[1]} positions for {self.length} input ids, so "
                "score positions cannot be found. This backbone is not supported."
            )
        self.hidden = hidden
        return self.at(self.rows, self.positions).unsqueeze(0)  # (1, M, H)

    def at(self, rows: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        """Hidden states `(K, H)` of K pairs of row and position in `input_ids`."""
        if self.hidden is None:
            raise ValueError("The backbone never called its output embedding. This backbone is not supported.")
        ahead = self.hidden.shape[1] - self.length  # image states that stand in front of the text
        device = self.hidden.device
        return self.hidden[rows.to(device), positions.to(device) + ahead]  # (K, H)


@contextmanager
def reading_head_input(output_embedding: nn.Module, head_input: HeadInput):
    """
    While active, calls of `output_embedding` on this thread give their input to `head_input` and compute only the
    rows that it returns. Scaling and soft caps that the backbone applies to logits act on those rows as always.
    """
    thread = threading.get_ident()  # two threads may score with one model

    def take(module, args):
        if threading.get_ident() == thread:
            return (head_input.take(args[0]), *args[1:])
        return None

    handle = output_embedding.register_forward_pre_hook(take)
    try:
        yield head_input
    finally:
        handle.remove()


def head_owner(backbone: PreTrainedModel) -> Any:
    """
    The model that owns the output embedding: the backbone, or where it does not delegate, the part that writes text;
    `None` if there is none.
    """
    parts = (part for part in backbone.modules() if isinstance(part, PreTrainedModel))  # the backbone comes first
    return next((part for part in parts if part.get_output_embeddings() is not None), None)


def output_embedding_of(backbone: PreTrainedModel) -> Any:
    """The module that maps hidden states to text logits; `None` if there is none."""
    owner = head_owner(backbone)
    return None if owner is None else owner.get_output_embeddings()


def refuse_unsuitable(backbone: PreTrainedModel) -> None:
    """
    Raise a `ValueError` with the reason where a backbone cannot carry a score position.
    """
    if not isinstance(backbone, PreTrainedModel):
        raise TypeError(f"Got {type(backbone).__name__}; expected a Hub name, a folder or a model of transformers.")
    name = type(backbone).__name__
    if hasattr(backbone, "score_head"):
        raise ValueError(f"{name} has a score head already; load it with from_pretrained.")
    parts = [part for part in backbone.modules() if isinstance(part, PreTrainedModel)]
    if any(part.config.is_encoder_decoder for part in parts):
        raise ValueError(
            f"{name} is an encoder-decoder model; ROC4MLLM needs a decoder that reads picture and answer."
        )
    if not isinstance(backbone, GenerationMixin):  # diffusion and action models
        raise ValueError(f"{name} does not write text token by token, so it has no position that predicts [SCORE].")
    if "image" not in backbone.input_modalities:
        raise ValueError(f"{name} takes no picture, only {backbone.input_modalities}.")
    if output_embedding_of(backbone) is None:
        raise ValueError(f"{name} has no output embedding whose input could be read for the score.")


def free_token_id(backbone: PreTrainedModel) -> int:
    """The first id beyond the embedding that the config does not name: an image token may have its id there."""
    token_id = len(backbone.get_input_embeddings().weight)
    named = {value for _, value in special_token_ids(backbone.config)}
    while token_id in named:
        token_id += 1
    return token_id


@torch.no_grad()
def add_score_row(backbone: PreTrainedModel, score_token_id: int) -> None:
    """
    Give `[SCORE]` the mean of the existing rows, in the input and the output embedding. Embeddings only ever grow.
    """
    refuse_row(backbone, score_token_id)
    embedding = backbone.get_input_embeddings()
    known = min(score_token_id, embedding.weight.shape[0])  # rows from the new token on may be padding
    if score_token_id >= embedding.weight.shape[0]:
        head_owner(backbone).resize_token_embeddings(score_token_id + 1, mean_resizing=False)
        embedding = backbone.get_input_embeddings()
    for module in (embedding, output_embedding_of(backbone)):
        for parameter in (module.weight, getattr(module, "bias", None)):
            if parameter is not None and len(parameter) > score_token_id:  # an output row is needed for text only
                parameter[score_token_id] = parameter[:known].float().mean(0).to(parameter.dtype)


def refuse_row(backbone: PreTrainedModel, score_token_id: int) -> None:
    """
    Raise a `ValueError` where a new embedding row cannot be written, or would be taken for something else.
    """
    if backbone.get_input_embeddings().weight.is_meta or output_embedding_of(backbone).weight.is_meta:
        raise ValueError(
            "The embedding or the head of this backbone is offloaded, so [SCORE] cannot be added. Build the scorer "
            "with both in memory, save it, and load that folder with a device_map."
        )
    parts = (part.config for part in backbone.modules() if isinstance(part, PreTrainedModel))
    offsets = [offset for config in parts if (offset := getattr(config, "vocab_offset", 0))]
    if offsets and score_token_id >= min(offsets):
        raise ValueError(
            f"{type(backbone).__name__} reads ids from {min(offsets)} on as another modality, so the new id "
            f"{score_token_id} is no text token. Pass a processor whose score_token_id is an unused id below."
        )


def adopt_placement(model: PreTrainedModel) -> None:
    """
    Tell the outer model where a dispatched or quantised backbone lies: pipelines and Trainer ask the outer one, and
    would move it to one device, or save it as if it were not quantised.
    """
    backbone = model.backbone
    if device_map := getattr(backbone, "hf_device_map", None):
        placed = {f"backbone.{name}".removesuffix("."): device for name, device in device_map.items()}
        model.hf_device_map = placed | {"score_head": model.score_head.weight.device}
    if quantization_config := getattr(backbone.config, "quantization_config", None):
        model.config.quantization_config = quantization_config
        for name in ("hf_quantizer", "is_quantized", "quantization_method", "is_loaded_in_4bit", "is_loaded_in_8bit"):
            if hasattr(backbone, name):
                setattr(model, name, getattr(backbone, name))


def restore_rows(backbone: PreTrainedModel, score_token_id: int | None) -> None:
    """
    Give a backbone that was just made from its config the rows that it was saved with: some make more input rows than
    `vocab_size` says, until they have been resized.
    """
    rows = backbone.config.get_text_config().vocab_size
    if score_token_id == rows - 1 and len(backbone.get_input_embeddings().weight) != rows:
        backbone.resize_token_embeddings(rows, mean_resizing=False)


def backbone_parts(backbone: PreTrainedModel) -> dict[str, str]:
    """
    `vision_tower`, `language_model` or `connector` by the beginning of parameter names; the longest one wins. What is
    neither tower nor language model connects them, and so does a merger at the end of a tower.
    """
    names = {module: name for name, module in backbone.named_modules()}
    parts = {"": "connector"}
    tower = backbone.get_encoder(modality="image")
    language = [backbone.get_decoder(), backbone.get_input_embeddings(), output_embedding_of(backbone)]
    for module in language:
        if module in names:
            parts[names[module]] = "language_model"
    if tower in names and tower is not backbone:
        parts[names[tower]] = "vision_tower"
        for name, _ in tower.named_children():
            if CONNECTOR.search(name):
                parts[f"{names[tower]}.{name}"] = "connector"
    return parts


def hub_name(name: str | None) -> str | None:
    """`name` if it is a Hub name, `None` for a folder: a path of this machine means nothing elsewhere."""
    return None if name is None or os.path.isdir(name) else name


__all__ = [
    "HeadInput",
    "add_score_row",
    "adopt_placement",
    "backbone_parts",
    "free_token_id",
    "head_owner",
    "hub_name",
    "output_embedding_of",
    "reading_head_input",
    "refuse_unsuitable",
    "restore_rows",
]
