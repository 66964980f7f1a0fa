"""One call from a model's name to a scorer, used by the command line and everything above it."""

import json
import os
from pathlib import Path
from typing import Any

from transformers import AutoModel, AutoProcessor, pipeline
from transformers.utils import cached_file

from ..modeling_roc4mllm.adapter_loading_roc4mllm import find_adapter
from ..modeling_roc4mllm.adapter_roc4mllm import ADAPTER_CONFIG, NAME, named
from ..modeling_roc4mllm.configuration_roc4mllm import ROC4MLLMConfig
from ..processing_roc4mllm.pipeline_image_aesthetics import ImageAestheticsPipeline
from .folder_revision import folder_revision

BUNDLED_CHECKPOINT = Path(__file__).parents[1] / "checkpoints" / "roc4mllm-tiny"


def load_scorer(
    model: Any = None, backbone: Any = None, personal: Any = None, **kwargs: Any
) -> ImageAestheticsPipeline:
    """
    The image-aesthetics pipeline on a model, without trusting any code in the model's folder.

    transformers' own `pipeline` runs the pipeline file of a Hub folder, and asks for trust, even where this package is
    installed; here the installed class is used.

    Args:
        model (`str`, `os.PathLike` or `PreTrainedModel`, *optional*):
            Hub name, folder, adapter or model (then also pass `processor`); the bundled `roc4mllm-tiny` by default.
            ROC4MLLM in its authors' format, as `Ricardo-M/ROC4MLLM`, is converted into the cache when it is first
            asked for.
        backbone (`str`, `os.PathLike` or `PreTrainedModel`, *optional*):
            For an adapter: stands in for the model that it was trained on, where that has moved. One in its authors'
            format is converted as above, whether it is given or named by the adapter.
        personal (`str`, `os.PathLike` or [`PersonalTaste`], *optional*):
            File of one person's taste, as `roc4mllm personalize` writes it: the scores become that person's, and
            records also hold `general_score`.
        **kwargs:
            As in [`~transformers.pipeline`]: `device`, `dtype`, `device_map`, `revision`, `token`,
            `local_files_only`, `cache_dir`, `batch_size`, `num_workers`, `allow_untrained`, …

    The records' `revision` is the commit of a model from the Hub, and of one from a folder a fingerprint of its files,
    `sha256:…`, so that no scores of two models pass for those of one.

    Raises:
        ValueError: If the model cannot score pictures, was never trained to, or lacks its processor, or the taste was
            made for another.
        OSError: If there is no such model, or not the one that an adapter was trained on.
    """
    if personal is not None:
        from .personal.personal_scorer import PersonalScorer  # most scorers are nobody's

        return PersonalScorer(load_scorer(model, backbone, **kwargs), personal)
    if model is None:
        model = BUNDLED_CHECKPOINT
    if isinstance(model, os.PathLike):
        model = os.fspath(model)
    if isinstance(model, str) and (folder := find_adapter(model, **hub_options(kwargs))):
        kwargs = load_adapter_parts(model, folder, backbone, kwargs)
    elif backbone is not None:
        whole = repr(model) if isinstance(model, str) else f"This {type(model).__name__}"
        raise TypeError(f"{whole} is a whole model; `backbone=` is for an adapter.")
    elif isinstance(model, str) and is_original(model, **hub_options(kwargs)):
        return load_converted(model, kwargs)
    else:
        kwargs["model"] = model
        if "cache_dir" in kwargs:  # `pipeline` reads it there alone
            kwargs["model_kwargs"] = {**(kwargs.get("model_kwargs") or {}), "cache_dir": kwargs.pop("cache_dir")}
    scorer: ImageAestheticsPipeline = pipeline("image-aesthetics", pipeline_class=ImageAestheticsPipeline, **kwargs)
    if isinstance(model, str) and os.path.isdir(model):
        scorer.model.folder_revision = folder_revision(model, *folders_below(scorer.model))
    return scorer


def folders_below(model: Any) -> list[str]:
    """The folder of the model that an adapter stands on, if it is one."""
    base = model.peft_config[NAME].base_model_name_or_path if getattr(model, "peft_config", None) else None
    return [base] if base is not None and os.path.isdir(base) else []


def load_adapter_parts(name: str, folder: str, backbone: Any, kwargs: dict[str, Any]) -> dict[str, Any]:
    """
    What `pipeline` needs for an adapter, whose files lie in `folder`: loaded here, because it hides in pages of
    tracebacks why a model was not found, and would hand the backbone to the processor too.
    """
    hub = hub_options(kwargs)
    converted = convert_below(folder, backbone, hub)
    options = {"backbone": converted[0] if converted else backbone, **(kwargs.get("model_kwargs") or {}), **hub}
    options |= {option: kwargs[option] for option in ("dtype", "device_map") if option in kwargs}
    config = ROC4MLLMConfig.from_pretrained(name, **hub)
    model = AutoModel.from_pretrained(name, config=config, **options)
    if converted:  # saved again, it names the original once more, and no place in this machine's cache
        lora_config = model.peft_config[NAME]
        _, lora_config.base_model_name_or_path, lora_config.revision = converted
    processor = kwargs.get("processor") or AutoProcessor.from_pretrained(name, **hub)
    done = {*hub, "model_kwargs", "dtype", "device_map"}
    rest = {option: value for option, value in kwargs.items() if option not in done}
    return rest | {"model": model, "processor": processor}


def convert_below(folder: str, backbone: Any, hub: dict[str, Any]) -> tuple[Path, str, str | None] | None:
    """
    Native folder, name and commit of the model below an adapter, if that is in its authors' format.

    Args:
        folder (`str`): The adapter's.
        backbone: Stands in for the model that the adapter names, unless `None`.
        hub (`dict`): Options of the Hub; the revision among them is the adapter's.
    """
    entries = json.loads(Path(folder, ADAPTER_CONFIG).read_text(encoding="utf-8"))
    name, revision = entries.get("base_model_name_or_path"), entries.get("revision")
    if backbone is not None:
        name, revision = named(backbone) if isinstance(backbone, str | os.PathLike) else None, None
    options = hub | {"revision": revision}
    if name is None or not is_original(name, **options):
        return None
    from ..hub.converted_cache import native_folder  # most scorers need no conversion

    return native_folder(name, **options)


def is_original(name: str, **hub: Any) -> bool:
    """
    Whether a model is in the format of mPLUG-Owl2's authors, told by its config.

    Raises:
        OSError: If it is a folder without a config.
    """
    from ..hub.mplug_owl2_keys import is_mplug_owl2  # most scorers need no conversion
    from ..hub.original_files import read_json

    try:
        found = cached_file(name, "config.json", **hub)
    except OSError:
        return False  # what is wrong is told where the model is loaded
    if found is None:
        raise FileNotFoundError(f"there is no config.json in the folder {name!r}, so it is no model")
    path = Path(found)
    return is_mplug_owl2(read_json(path.parent, path.name))


def load_converted(name: str, kwargs: dict[str, Any]) -> ImageAestheticsPipeline:
    """A scorer on the native folder of an original one, whose records name the original."""
    from ..hub.converted_cache import native_folder  # most scorers need no conversion

    hub = hub_options(kwargs)
    folder, name, revision = native_folder(name, **hub)
    scorer = load_scorer(folder, **{option: value for option, value in kwargs.items() if option not in hub})
    model = scorer.model
    # also of the model, so that an adapter that is trained on it can be loaded where this cache is not
    model.name_or_path = model.config.name_or_path = named(name)
    model.loaded_revision = revision
    if revision is not None:
        model.folder_revision = None  # the commit tells more than the folder in the cache
    return scorer


def hub_options(kwargs: dict[str, Any]) -> dict[str, Any]:
    """Which of the options of a pipeline say where on the Hub, or in which cache, a model lies."""
    given = kwargs | (kwargs.get("model_kwargs") or {})
    return {name: given[name] for name in ("revision", "token", "local_files_only", "cache_dir") if name in given}


__all__ = ["BUNDLED_CHECKPOINT", "load_scorer"]
