"""
Adapters of ROC4MLLM: folders of what a LoRA training changed, which name the model that they change.

```
config.json, processor files          as in every ROC4MLLM folder
score_head.safetensors                the score head, whole, float32
adapter/adapter_model.safetensors     peft's files: low-rank weights and the rows of [SCORE]; in its config,
adapter/adapter_config.json           `base_model_name_or_path` and `revision` name the model below
```

The root has no `adapter_config.json`: it would make transformers load the bare backbone. A model with an adapter is
the ordinary class with peft's layers in it, so `save_pretrained` and `from_pretrained` write and read such a folder.
"""

import os
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel
from transformers.dynamic_module_utils import custom_object_save
from transformers.utils import cached_file

ADAPTER = "adapter"  # name of the folder with peft's files
ADAPTER_CONFIG = f"{ADAPTER}/adapter_config.json"
ADAPTER_WEIGHTS = f"{ADAPTER}/adapter_model.safetensors"
SCORE_HEAD_WEIGHTS = "score_head.safetensors"
TRAINED_ON = "trained_on.safetensors"  # hashes of the pictures of the training, beside these files
NAME = "default"  # peft's name of an adapter among several in one model; here there is one
PEFT_PREFIX = "base_model.model."  # of names in peft's files


def import_peft() -> Any:
    """
    The library peft.

    Raises:
        ImportError: If it is missing.
    """
    try:
        import peft
        import peft.functional
    except ImportError as error:
        raise ImportError('LoRA adapters need peft: pip install "roc4mllm[train]", or pip install peft.') from error
    return peft


def has_adapter(model: PreTrainedModel) -> bool:
    """Whether LoRA layers are in place."""
    return model._hf_peft_config_loaded


def is_of_peft(module) -> bool:
    """Whether peft put a module in place."""
    return type(module).__module__.startswith("peft.")


def is_adapter_folder(folder: str | os.PathLike) -> bool:
    """Whether a folder of this machine holds an adapter."""
    return os.path.isfile(os.path.join(folder, ADAPTER_CONFIG))


def named(folder_or_name: str | os.PathLike) -> str:
    """A Hub name as it is, a folder by its absolute path."""
    name = os.fspath(folder_or_name)
    return os.path.abspath(name) if os.path.isdir(name) else name


def origin(model: PreTrainedModel) -> tuple[str | None, str | None]:
    """
    Where the weights of a scorer were loaded from: Hub name or folder of it or its backbone, and the revision; `None`
    for a model made in memory.
    """
    if model.name_or_path:
        return named(model.name_or_path), getattr(model, "loaded_revision", None)
    return named(model.backbone.name_or_path) or None, model.config.backbone_revision


def place_adapter(model: PreTrainedModel, lora_config, base: str | None, revision: str | None) -> None:
    """
    Put fresh LoRA layers in place, float32 whatever the model's dtype. From now on only they, the rows of `[SCORE]`
    and the score head are trained.

    Args:
        model ([`ROC4MLLMForImageAesthetics`]): Changed in place.
        lora_config (`peft.LoraConfig`): Which layers get some.
        base (`str`, *optional*): Hub name or folder of the model as it is now.
        revision (`str`, *optional*): Its revision.
    """
    functional = import_peft().functional
    outputs = model.get_output_embeddings()
    tied = outputs.weight is model.get_input_embeddings().weight
    model.config.tie_word_embeddings = tied  # peft reads the flag and not the weights, and some configs lack it
    model.add_adapter(lora_config, NAME)
    if tied and lora_config.trainable_token_indices and model.get_output_embeddings() is outputs:
        raise ValueError(
            f"{type(model.backbone).__name__} ties its output embedding to its input embedding without saying so in "
            "`_tied_weights_keys`: peft would train one and not the other."
        )
    lora_config.base_model_name_or_path, lora_config.revision = base, revision
    functional.cast_adapter_dtype(model, NAME)
    model.score_head.requires_grad_(True)
    model.train(model.training)  # new layers come with their dropout on


# ---- saving ---------------------------------------------------------------------------------------------------------


def save_adapter(model: PreTrainedModel, folder: str | os.PathLike, state_dict: dict | None = None) -> None:
    """
    Write an adapter folder, all but the processor's files.

    Args:
        model ([`ROC4MLLMForImageAesthetics`]): With an adapter.
        folder (`str` or `os.PathLike`): Made if need be.
        state_dict (`dict`, *optional*): The model's gathered weights, where they are sharded.

    Raises:
        ValueError: If the folder is that of the model below, which could then no longer be read.
    """
    functional = import_peft().functional
    lora_config = model.peft_config[NAME]
    base = lora_config.base_model_name_or_path
    if base is not None and os.path.isdir(base) and os.path.isdir(folder) and os.path.samefile(base, folder):
        raise ValueError(f"{os.fspath(folder)!r} holds the model below this adapter. Save the adapter elsewhere.")
    os.makedirs(os.path.join(folder, ADAPTER), exist_ok=True)
    if model._auto_class is not None:
        custom_object_save(model, folder, config=model.config)
    model.config.dtype = str(model.dtype).removeprefix("torch.")
    model.config.architectures = [type(model).__name__]
    model.config.save_pretrained(folder)
    model.generation_config.save_pretrained(folder)
    head = model.score_head.weight if state_dict is None else state_dict["score_head.weight"]
    write_weights({"weight": head}, folder, SCORE_HEAD_WEIGHTS)
    # "auto" would ask the Hub whether the vocabulary has grown, to save whole embeddings
    weights = functional.get_peft_model_state_dict(model, state_dict, NAME, save_embedding_layers=False)
    write_weights({PEFT_PREFIX + name: weight for name, weight in weights.items()}, folder, ADAPTER_WEIGHTS)
    lora_config.save_pretrained(os.path.join(folder, ADAPTER))


def write_weights(weights: dict[str, torch.Tensor], folder: str | os.PathLike, name: str) -> None:
    """Write a safetensors file, which has its name only when it is whole."""
    path = os.path.join(folder, name)
    weights = {key: weight.detach().contiguous() for key, weight in weights.items()}
    save_file(weights, f"{path}.unfinished", {"format": "pt"})
    os.replace(f"{path}.unfinished", path)


def drop_adapter(folder: str | os.PathLike) -> None:
    """Remove what makes a folder that of an adapter, once a whole model was saved over it."""
    for name in (ADAPTER_CONFIG, ADAPTER_WEIGHTS, SCORE_HEAD_WEIGHTS):
        if os.path.isfile(path := os.path.join(folder, name)):
            os.remove(path)
    if os.path.isdir(path := os.path.join(folder, ADAPTER)) and not os.listdir(path):
        os.rmdir(path)


@torch.no_grad()
def load_adapter_weights(model: PreTrainedModel, folder: str | os.PathLike) -> None:
    """
    Give a model with an adapter the weights of an adapter folder: to resume a training, or to end it with the best
    checkpoint.

    Args:
        model ([`ROC4MLLMForImageAesthetics`]): Changed in place; its adapter must have the same shape.
        folder (`str` or `os.PathLike`): An adapter folder, such as a checkpoint.

    Raises:
        ValueError: If the folder holds the weights of another adapter.
    """
    functional = import_peft().functional
    weights = load_file(os.path.join(folder, ADAPTER_WEIGHTS))
    weights = {name.removeprefix(PEFT_PREFIX): weight for name, weight in weights.items()}
    head = load_file(os.path.join(folder, SCORE_HEAD_WEIGHTS))["weight"]
    places = functional.get_peft_model_state_dict(model, None, NAME, save_embedding_layers=False)
    found = shapes(weights | {"score_head.weight": head})
    expected = shapes(places | {"score_head.weight": model.score_head.weight})
    if different := sorted({name for name, _ in found ^ expected}):
        raise ValueError(
            f"{os.fspath(folder)!r} holds another adapter than the model has: {len(different)} weights differ in name "
            f"or shape, such as {different[0]}. Were r, the parts or the backbone changed?"
        )
    functional.set_peft_model_state_dict(model, weights, NAME)
    model.score_head.weight.copy_(head)


def shapes(weights: dict[str, torch.Tensor]) -> set[tuple[str, tuple[int, ...]]]:
    """Names and shapes."""
    return {(name, tuple(weight.shape)) for name, weight in weights.items()}


# ---- merging --------------------------------------------------------------------------------------------------------


@torch.no_grad()
def merge_adapter(model: PreTrainedModel) -> PreTrainedModel:
    """
    Make a model with an adapter an ordinary one that gives the same scores, in the same memory; `save_pretrained` then
    writes a whole model.

    Weights keep their dtype, and bfloat16 rounds what is merged into them: for equal scores, load in float32.

    Args:
        model ([`ROC4MLLMForImageAesthetics`]): With an adapter; changed in place.

    Returns:
        [`ROC4MLLMForImageAesthetics`]: The same model.

    Raises:
        ValueError: If there is no adapter, or the model is quantised.
    """
    if not has_adapter(model):
        raise ValueError(f"This {type(model).__name__} has no adapter to merge.")
    if getattr(model, "is_quantized", False):
        raise ValueError(
            "Weights of few bits would round away what is merged into them. Load the adapter on whole weights first: "
            "from_pretrained(folder, quantization_config=None, dtype=torch.float32)."
        )
    replaced = "no module"
    for name, layer in list(model.named_modules()):
        if is_of_peft(layer) and not name.startswith(f"{replaced}."):
            model.set_submodule(name, merged_layer(layer))
            replaced = name
    del model.peft_config
    model.trained_on = read_trained_on(model)
    model._hf_peft_config_loaded = False
    model.name_or_path = model.backbone.name_or_path = ""  # what lies there is another model now
    return model.requires_grad_(True)


def read_trained_on(model: PreTrainedModel) -> bytes | None:
    """What lies beside an adapter about the pictures of its training, to be saved with a model it is merged into."""
    if not model.name_or_path:
        return None
    revision = getattr(model, "loaded_revision", None)
    try:
        cached_file(model.name_or_path, ADAPTER_CONFIG, revision=revision)  # a fresh adapter bears the name below it
        with open(cached_file(model.name_or_path, TRAINED_ON, revision=revision), "rb") as file:
            return file.read()
    except OSError:
        return None


def save_trained_on(model: PreTrainedModel, folder: str | os.PathLike) -> None:
    """Write what [`read_trained_on`] found; nothing for a model that no adapter was merged into."""
    if content := getattr(model, "trained_on", None):
        with open(os.path.join(folder, TRAINED_ON), "wb") as file:
            file.write(content)


def merged_layer(layer):
    """The plain layer that does what one of peft's does."""
    if hasattr(layer, "unload_and_optionally_merge_module"):  # of embeddings
        return layer.unload_and_optionally_merge_module(merge=True, safe_merge=True, adapter_names=None)
    layer.merge(safe_merge=True)
    return layer.get_base_layer()


__all__ = [
    "has_adapter",
    "is_adapter_folder",
    "load_adapter_weights",
    "merge_adapter",
    "origin",
    "place_adapter",
    "save_adapter",
    "save_trained_on",
]
