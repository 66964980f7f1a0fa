"""
A checkpoint in the authors' format becomes a native folder, one shard after the other.

Config, tokenizer and the names of all weights are looked at before anything is written. The native folder is written
beside the place where it goes, and gets its name when it is complete.
"""

import json
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors.torch import save_file
from transformers.utils import logging

from ..modeling_roc4mllm.configuration_roc4mllm import ROC4MLLMConfig
from ..processing_roc4mllm.pipeline_image_aesthetics import ImageAestheticsPipeline
from ..processing_roc4mllm.processing_roc4mllm import ROC4MLLMProcessor
from ..processing_roc4mllm.prompt_roc4mllm import SCORE_TOKEN
from .conversion_card import conversion_card
from .convert_original import ROC4MLLMConversion
from .level_words import level_words
from .original_files import SAFETENSORS, find_shards, hub_origin, read_json, read_shard
from .original_tokenizer import original_processor
from .weight_names import DTYPES, refuse_other_dtypes

Parts = tuple[ROC4MLLMConversion, ROC4MLLMProcessor]


def convert_folder(
    family: str,
    source: str | os.PathLike[str],
    destination: str | os.PathLike[str],
    *,
    dtype: str | None = None,
    attribute: str | None = None,
    name: str | None = None,
    revision: str | None = None,
) -> None:
    """
    Write a native folder with the weights of a checkpoint in the authors' format.

    It needs about as much memory as one shard, with another dtype also that of the converted one, and writes one file
    for each.

    Args:
        family (`str`): `"roc4mllm"`, or `"level-words"` for Q-Align, OneAlign and DeQA-Score.
        source (`str` or `os.PathLike`): The checkpoint's folder.
        destination (`str` or `os.PathLike`): The native folder, which must be new or empty.
        dtype (`str`, *optional*): `"float32"`, `"float16"` or `"bfloat16"`; each weight keeps its own by default. The
            score head is always float32.
        attribute (`str`, *optional*): What `"level-words"` asks for: `"aesthetics"` (default) or `"quality"`.
        name (`str`, *optional*): What the card calls the checkpoint; by default its name on the Hub, if the folder
            lies in the Hub's cache, else the folder's name.
        revision (`str`, *optional*): Its commit on the Hub, for the card; by default that of a folder in the cache.

    Raises:
        ValueError: If something about the checkpoint is not as its config describes, or a folder's name cannot be
            used; the message says what. Nothing is left behind then.
        OSError: If the destination holds something, cannot be a new folder, or cannot be written.
    """
    if family not in FAMILIES or dtype not in (None, *DTYPES):
        raise ValueError(f"Got {family!r}, dtype {dtype!r}; known are {list(FAMILIES)} and {list(DTYPES)}.")
    source = named_path(source)
    destination = Path(os.path.realpath(named_path(destination)))  # a link stays, and gets the folder
    refuse_bad_place(destination)
    conversion, processor = read_parts(family, source, attribute)
    shards = find_shards(source)
    dtypes = check_weights(conversion, shards)
    origin, commit = hub_origin(source)
    name, revision = name or origin, revision or commit
    with complete_or_nothing(destination) as folder:
        saved = dtypes["lm_head.weight"] if dtype is None else DTYPES[dtype]
        save_parts(conversion, processor, folder, saved)
        write_weights(conversion, shards, folder, None if dtype is None else DTYPES[dtype], name)
        card = conversion_card(family, conversion.config, name, revision, str(saved).removeprefix("torch."))
        (folder / "README.md").write_text(card, encoding="utf-8")


# ---- what is looked at first ----------------------------------------------------------------------------------------


def named_path(folder: str | os.PathLike[str]) -> Path:
    """The path of a folder. A blank name would mean the current folder, and safetensors opens names of UTF-8 only."""
    name = os.fspath(folder)
    if not name:
        raise ValueError("Got a blank in the place of a folder's name; the current folder is '.'.")
    if os.fsencode(name) != name.encode("utf-8", "ignore"):
        raise ValueError(f"{name!r} is no name in UTF-8, as safetensors needs it; rename the folder.")
    return Path(name)


def refuse_bad_place(destination: Path) -> None:
    """Refuse now where the complete folder could not be put hours later."""
    if os.path.lexists(destination) and not (destination.is_dir() and not any(destination.iterdir())):
        raise FileExistsError(f"{str(destination)!r} is there and not an empty folder; choose another place.")
    if os.path.ismount(destination):
        raise OSError(f"{str(destination)!r} is a mount point; choose a folder in it, which is written beside first.")
    nearest = next(parent for parent in destination.parents if os.path.lexists(parent))
    if not nearest.is_dir():
        raise NotADirectoryError(f"{str(nearest)!r} is no folder, so {str(destination)!r} cannot be made.")


def read_parts(family: str, source: Path, attribute: str | None) -> Parts:
    """Conversion and processor of a checkpoint, which fit each other."""
    config = read_json(source, "config.json")
    if not config:
        raise ValueError(f"{str(source)!r} is no checkpoint: it has no config.json.")
    try:
        conversion, processor = FAMILIES[family](config, source, attribute)
    except (StrictDataclassError, TypeError, ArithmeticError, AssertionError, LookupError) as error:
        raise ValueError(f"config.json of {str(source)!r} cannot be used: {type(error).__name__}: {error}") from error
    check_processor(processor, conversion.config)
    return conversion, processor


def roc4mllm(config: Mapping[str, Any], folder: Path, attribute: str | None = None) -> Parts:
    """Conversion and processor of a ROC4MLLM checkpoint, in the wording of its authors."""
    if attribute not in (None, "aesthetics"):
        raise ValueError(f"A ROC4MLLM checkpoint scores aesthetics, not {attribute}; an attribute is for level-words.")
    conversion = ROC4MLLMConversion(config)
    if SCORE_TOKEN not in read_json(folder, "added_tokens.json"):
        raise ValueError(
            f"added_tokens.json has no {SCORE_TOKEN}; the tokenizer is not that of a ROC4MLLM checkpoint."
        )
    backbone = conversion.config.mllm_config
    backbone_processor = original_processor(folder, backbone.num_image_tokens, backbone.vision_config.image_size)
    processor = ROC4MLLMProcessor(
        backbone_processor=backbone_processor,
        question="Please rate the aesthetics of the image.",
        answer=f"The aesthetic rate of the image is {SCORE_TOKEN}.",
    )
    return conversion, processor


FAMILIES: dict[str, Callable[..., Parts]] = {"roc4mllm": roc4mllm, "level-words": level_words}


def check_processor(processor: ROC4MLLMProcessor, config: ROC4MLLMConfig) -> None:
    """Refuse tokenizer and preprocessor files that are not those of the config."""
    backbone = config.mllm_config
    found, expected = processor.score_token_id, config.score_token_id
    if found != expected:
        raise ValueError(f"{SCORE_TOKEN} is token {found} in the tokenizer, {expected} in config.json.")
    found, expected = processor.backbone_processor.image_token_id, backbone.image_token_id
    if found != expected:
        raise ValueError(f"The tokenizer has {found} tokens, levels not counted; config.json describes {expected}.")
    found, expected = processor.image_processor.size["height"], backbone.vision_config.image_size
    if found != expected:
        raise ValueError(
            f"preprocessor_config.json makes pictures of {found} pixels a side; config.json describes {expected}."
        )


def check_weights(conversion: ROC4MLLMConversion, shards: Sequence[Path]) -> dict[str, torch.dtype]:
    """Dtype of each weight by name; names and dtypes that are not those of the model are refused."""
    dtypes: dict[str, torch.dtype] = {}
    for path in shards:
        found = {name: weight.dtype for name, weight in read_shard(path).items()}
        if twice := sorted(found.keys() & dtypes.keys()):
            raise ValueError(f"{path.name} holds {twice[0]}, as another file does; each weight must stand in one.")
        dtypes |= found
    conversion.check_names(dtypes)
    refuse_other_dtypes(dtypes)
    return dtypes


# ---- what is written ------------------------------------------------------------------------------------------------


@contextmanager
def complete_or_nothing(destination: Path) -> Iterator[Path]:
    """A folder that becomes `destination` when all went well, and disappears otherwise."""
    near = next(parent for parent in destination.parents if parent.is_dir())
    with tempfile.TemporaryDirectory(prefix=".converting-", dir=near) as unfinished:
        folder = Path(unfinished, destination.name)  # not the temporary folder itself, which others may not read
        folder.mkdir()
        yield folder
        destination.parent.mkdir(parents=True, exist_ok=True)
        if destination.is_dir():
            destination.rmdir()  # it was empty; what another process wrote there since then stays
        folder.rename(destination)


def save_parts(conversion: ROC4MLLMConversion, processor: ROC4MLLMProcessor, folder: Path, dtype: torch.dtype) -> None:
    """All but the weights, as any scorer is saved: config, processor, and sources for those without this package."""
    with torch.device("meta"):
        model = conversion.model_class._from_config(conversion.config, dtype=dtype)
    scorer: Any = ImageAestheticsPipeline(model=model, processor=processor, device="meta")
    with without_progress_bar():  # of no weights
        scorer.save_pretrained(folder, state_dict={})


@contextmanager
def without_progress_bar() -> Iterator[None]:
    """transformers' bars off for a while."""
    was_on = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if was_on:
            logging.enable_progress_bar()


def write_weights(
    conversion: ROC4MLLMConversion, shards: Sequence[Path], folder: Path, dtype: torch.dtype | None, name: str
) -> None:
    """One safetensors file for each shard, and their index where there are several."""
    weight_map: dict[str, str] = {}
    total_size = 0
    size = sum(path.stat().st_size for path in shards)
    with logging.tqdm(total=size, unit="B", unit_scale=True, desc=f"Converting {name}") as bar:
        for number, path in enumerate(shards, start=1):
            file = SAFETENSORS if len(shards) == 1 else f"model-{number:05d}-of-{len(shards):05d}.safetensors"
            sizes = write_shard(conversion, path, folder / file, dtype)
            weight_map |= dict.fromkeys(sizes, file)
            total_size += sum(sizes.values())
            bar.update(path.stat().st_size)
    if len(shards) > 1:
        index = {"metadata": {"total_size": total_size}, "weight_map": weight_map}
        (folder / f"{SAFETENSORS}.index.json").write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def write_shard(conversion: ROC4MLLMConversion, path: Path, file: Path, dtype: torch.dtype | None) -> dict[str, int]:
    """Bytes of each weight that was written. A shard is in memory only in here."""
    weights: dict[str, torch.Tensor] = {}
    storages = set()
    for original, value in read_shard(path).items():
        for name, weight in conversion.convert(original, value.detach()).items():
            kept = torch.float32 if name == "score_head.weight" else dtype or weight.dtype
            weight = weight.to(kept).contiguous()
            if weight.untyped_storage().data_ptr() in storages:
                weight = weight.clone()  # tied in the .bin; safetensors takes no two weights of one storage
            storages.add(weight.untyped_storage().data_ptr())
            weights[name] = weight
    save_file(weights, file, metadata={"format": "pt"})
    return {name: weight.nbytes for name, weight in weights.items()}


__all__ = ["DTYPES", "convert_folder"]
