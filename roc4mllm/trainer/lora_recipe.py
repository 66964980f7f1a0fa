"""
LoRA and QLoRA (Hu et al., ICLR 2022; Dettmers et al., NeurIPS 2023) for a ROC4MLLM model, through peft.

```python
>>> model = ROC4MLLMForImageAesthetics.from_backbone(name, processor=processor)
>>> add_lora(model, r=16)
>>> SplitLossTrainer(model=model, …).train()
>>> model.save_pretrained("out")  # an adapter folder, of tens of megabytes for two billion parameters
>>> scorer = load_scorer("out")
>>> merge_adapter(model).save_pretrained("whole")
```

Trained are low-rank weights beside the linear layers of the language model, the rows of `[SCORE]` in its embeddings,
and the whole score head. For QLoRA the backbone is loaded with a `quantization_config`; nothing else changes.

transformers' plain Trainer trains such a model too, and its checkpoints are adapter folders. It refuses to resume from
one, and only warns that it cannot load the best one: [`load_adapter_weights`] does that, as `SplitLossTrainer` does.
"""

import math
import re
from collections.abc import Collection
from typing import Any

from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D
from transformers.utils import logging

from ..modeling_roc4mllm.adapter_roc4mllm import (
    has_adapter,
    import_peft,
    load_adapter_weights,
    merge_adapter,
    origin,
    place_adapter,
)
from .model_parts import checked_parts, part_of

logger = logging.get_logger(__name__)


def add_lora(
    model: PreTrainedModel,
    r: int = 16,
    alpha: float = 32,
    dropout: float = 0.05,
    parts: Collection[str] = ("language_model",),
    **kwargs: Any,
) -> PreTrainedModel:
    """
    Prepare a model for training an adapter. It stays a [`ROC4MLLMForImageAesthetics`], whose `save_pretrained` writes
    an adapter folder and whose `from_pretrained` reads one.

    Args:
        model ([`ROC4MLLMForImageAesthetics`]): Changed in place.
        r (`int`, *optional*, defaults to 16): Rank of the low-rank weights.
        alpha (`float`, *optional*, defaults to 32): What they add counts `alpha / r`.
        dropout (`float`, *optional*, defaults to 0.05): Dropout of their input in training.
        parts (`list[str]`, *optional*, defaults to `["language_model"]`): Parts whose linear layers get them, among
            `language_model`, `connector` and `vision_tower`. Experts of a mixture are often one fused tensor and no
            linear layer: they stay as they are, unless `target_parameters` names them.
        **kwargs: Further fields of [`~peft.LoraConfig`] (`use_rslora`, `use_dora`, `target_parameters`, …).

    Returns:
        [`ROC4MLLMForImageAesthetics`]: The same model.

    Raises:
        ImportError: If peft is missing.
        ValueError: If the model has an adapter already, no language model, no linear layer in the parts, or r,
            alpha or dropout is out of its range.
    """
    if has_adapter(model):
        raise ValueError(
            "This model has an adapter already. Train on with it, or merge it first: merge_adapter(model)."
        )
    if not hasattr(model.config, "mllm_config"):
        raise ValueError(
            f"{type(model).__name__} has no language model, which low-rank adapters are for: train all its weights, "
            "or freeze parts of it."
        )
    if not isinstance(r, int) or r < 1:
        raise ValueError(f"r must be a positive rank, a whole number, got {r!r}.")
    if not (0 < alpha < math.inf and 0 <= dropout < 1):
        raise ValueError(f"alpha must be above 0 and finite, dropout 0 or more and below 1; got {alpha}, {dropout}.")
    base, revision = origin(model)
    if base is None:
        logger.warning(
            "This model was changed or made in memory, so its adapter cannot name the model below it. Save the model "
            "and load it first, or load the adapter with `backbone=`."
        )
    layers = linear_layers(model, parts)
    lora_config = import_peft().LoraConfig(
        r=r,
        lora_alpha=alpha,
        lora_dropout=dropout,
        target_modules=pattern_of(layers, {name for name, _ in model.named_modules()} - set(layers)),
        trainable_token_indices=score_rows(model) or None,
        **kwargs,
    )
    place_adapter(model, lora_config, base, revision)
    return model


def linear_layers(model: PreTrainedModel, parts: Collection[str]) -> list[str]:
    """Names of the linear layers in some parts; the output embedding is none of them."""
    checked_parts(model, parts)
    prefixes, head = model.part_prefixes, model.get_output_embeddings()
    names = [
        name
        for name, module in model.named_modules()
        if is_linear(module) and module is not head and part_of(name, prefixes) in parts
    ]
    if "score_head" in parts or not names:
        raise ValueError(
            f"LoRA needs linear layers of language_model, connector or vision_tower; got parts {sorted(parts)}. The "
            "score head is always trained, in full."
        )
    return names


def is_linear(module: nn.Module) -> bool:
    """
    Whether a module is a linear layer in whole or few bits, and nothing else: some routers, and the last layer of
    torch's own attention, are one by class, but are not called as one.
    """
    if type(module).__module__.startswith("bitsandbytes."):
        return isinstance(module, nn.Linear)
    return type(module) in (nn.Linear, Conv1D)


def pattern_of(names: list[str], others: set[str]) -> str:
    """
    A regular expression for these names and none of the others. The numbers of layers are `\\d+` in it where that is
    possible: of thousands of layers it stays short and can be read.
    """
    alike: dict[str, list[str]] = {}
    for name in names:
        exact = name.replace(".", r"\.")
        alike.setdefault(re.sub(r"\d+", r"\\d+", exact), []).append(exact)
    patterns = []
    for pattern, exact_names in alike.items():
        patterns += exact_names if any(re.fullmatch(pattern, other) for other in others) else [pattern]
    return "|".join(patterns)


def score_rows(model: PreTrainedModel) -> dict[str, list[int]]:
    """
    The row of `[SCORE]` by name of the embedding: of the input embedding, and of the output embedding unless it is
    tied to the input's; then peft keeps both equal by itself.
    """
    row = model.config.score_token_id
    inputs, outputs = model.get_input_embeddings(), model.get_output_embeddings()
    names = {module: name for name, module in model.named_modules()}
    tied = outputs.weight is inputs.weight
    trained = [module for module in ([inputs] if tied else [inputs, outputs]) if row < len(module.weight)]
    if odd := [module for module in {*trained, outputs} if not has_plain_rows(module)]:
        trained = [] if tied else [module for module in trained if module not in odd]
        logger.warning(
            f"{', '.join(type(module).__name__ for module in odd)}: peft cannot train one row of such an embedding, "
            "so that of [SCORE] keeps its value, the mean of the others. Scores are trained all the same."
        )
    return {names[module]: [row] for module in trained}


def has_plain_rows(embedding: nn.Module) -> bool:
    """Whether an embedding only looks up and scales, or only multiplies: with trained rows, peft does no more."""
    if isinstance(embedding, nn.Embedding):
        return type(embedding).forward is nn.Embedding.forward or hasattr(embedding, "embed_scale")
    return type(embedding) is nn.Linear and embedding.bias is None


__all__ = ["add_lora", "load_adapter_weights", "merge_adapter"]
