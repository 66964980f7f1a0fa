"""
Loading an adapter of ROC4MLLM: its folder found, the model below it loaded anew, its layers put in place.

The model below is a backbone, which gets its row of `[SCORE]` again, or a whole scorer that was trained further. What
lies in a folder, and how layers and weights get into a model, stands in `adapter_roc4mllm.py`.
"""

import copy
import os

from transformers import AutoModelForImageTextToText, PreTrainedConfig, PreTrainedModel
from transformers.utils import cached_file, find_adapter_config_file

from .adapter_roc4mllm import (
    ADAPTER,
    ADAPTER_WEIGHTS,
    SCORE_HEAD_WEIGHTS,
    import_peft,
    is_of_peft,
    load_adapter_weights,
    named,
    place_adapter,
)
from .backbone_roc4mllm import add_score_row, adopt_placement, output_embedding_of, refuse_unsuitable

HUB_OPTIONS = ("cache_dir", "force_download", "proxies", "token", "local_files_only")
# What `from_pretrained` was told about the adapter's own folder. Trust in its code is no trust in the backbone's.
OF_THE_ADAPTER = {
    "revision", "subfolder", "code_revision", "trust_remote_code", "variant", "use_safetensors", "adapter_kwargs",
    "adapter_name", "output_loading_info", "_from_auto", "_from_pipeline", "_commit_hash",
}  # fmt: skip
PLACEMENT = (
    "hf_device_map", "hf_quantizer", "is_quantized", "quantization_method", "is_loaded_in_4bit", "is_loaded_in_8bit",
)  # fmt: skip


def find_adapter(name_or_path, subfolder: str = "", revision: str | None = None, **kwargs) -> str | None:
    """
    The folder of an adapter, downloaded if need be; `None` where there is no adapter.

    Args:
        name_or_path (`str` or `os.PathLike`): Hub name or folder.
        subfolder (`str`, *optional*): Folder in it that is the adapter's root.
        revision (`str`, *optional*): Revision on the Hub.
        **kwargs: Options of a download; others are ignored.
    """
    if name_or_path is None:
        return None
    options = {name: kwargs[name] for name in HUB_OPTIONS if kwargs.get(name) is not None} | {"revision": revision}
    name = os.fspath(name_or_path)
    config_file = find_adapter_config_file(name, subfolder=f"{subfolder}/{ADAPTER}".lstrip("/"), **options)
    if config_file is None:
        return None
    for weights in (ADAPTER_WEIGHTS, SCORE_HEAD_WEIGHTS):
        cached_file(name, weights, subfolder=subfolder, **options)
    return os.path.dirname(os.path.dirname(config_file))


def load_adapter(cls, name_or_path, folder: str, backbone=None, config=None, **kwargs) -> PreTrainedModel:
    """
    A scorer with an adapter in place, on the model below, which is loaded anew.

    Args:
        cls (`type`): [`ROC4MLLMForImageAesthetics`].
        name_or_path (`str` or `os.PathLike`): What the user asked for.
        folder (`str`): Where its files lie.
        backbone (`str`, `os.PathLike` or `PreTrainedModel`, *optional*): In place of the model that the adapter names.
        config ([`ROC4MLLMConfig`], *optional*): The adapter's.
        **kwargs: As in `from_pretrained`; what is not about the adapter's folder is for the model below.

    Raises:
        OSError: If the model below is not found.
        TypeError: If options of loading come with a model that is loaded.
        ValueError: If that model does not fit the adapter.
    """
    lora_config = import_peft().PeftConfig.from_pretrained(os.path.join(folder, ADAPTER))
    lora_config.inference_mode = False  # it may be trained on as it is
    is_given = isinstance(config, PreTrainedConfig)
    config = copy.deepcopy(config) if is_given else cls.config_class.from_pretrained(folder)
    config.name_or_path = os.fspath(name_or_path)
    base, revision = lora_config.base_model_name_or_path, lora_config.revision
    options = {name: value for name, value in kwargs.items() if name not in OF_THE_ADAPTER}
    if config._attn_implementation is not None:  # auto classes leave it there, and not among the arguments
        options["attn_implementation"] = config._attn_implementation
    if not isinstance(backbone, PreTrainedModel):
        if backbone is not None:
            base, revision = named(backbone), None
        backbone = load_below(cls, base, revision, os.fspath(name_or_path), config, options)
    elif unused := sorted(name for name in {*options} - {*HUB_OPTIONS} if options[name] not in (None, "auto")):
        raise TypeError(f"{unused} apply to a backbone that is loaded here by name, not to a loaded one.")
    model = scorer_on(cls, backbone, config)
    place_adapter(model, lora_config, base, revision)
    load_adapter_weights(model, folder)
    return model.eval()


def load_below(cls, base: str | None, revision: str | None, name: str, config, options: dict) -> PreTrainedModel:
    """
    The model that the adapter `name` stands on, in the dtype and the bits of its training unless `options` say other.
    One in the format of mPLUG-Owl2's authors is refused: these files travel without what converts it.
    """
    remedy = f"pass `backbone=`, a Hub name, a folder or a loaded model: load_scorer({name!r}, backbone=…)."
    if base is None:
        raise OSError(f"The adapter {name!r} does not name the model that it was trained on; {remedy}")
    hub = {option: options[option] for option in HUB_OPTIONS if option in options}
    try:
        fields, _ = PreTrainedConfig.get_config_dict(base, revision=revision, **hub)
    except OSError as error:
        raise OSError(
            f"The model {base!r}, on which the adapter {name!r} was trained, is not found. Put it back, or {remedy}"
        ) from error
    if isinstance(visual := fields.get("visual_config"), dict) and "visual_abstractor" in visual:
        raise ValueError(
            f"The model {base!r}, on which the adapter {name!r} was trained, is in its authors' format, which only "
            f"roc4mllm.load_scorer({name!r}) converts. Load the adapter so, or {remedy}"
        )
    if options.get("dtype") in (None, "auto"):
        options = options | {"dtype": config.dtype}
    if "quantization_config" not in fields:
        options = {"quantization_config": getattr(config, "quantization_config", None)} | options
    loader = cls if fields.get("model_type") == config.model_type else AutoModelForImageTextToText
    return loader.from_pretrained(base, revision=revision, use_safetensors=True, **options)


def scorer_on(cls, below: PreTrainedModel, config) -> PreTrainedModel:
    """A scorer as `config` describes it on the model below, which gets a row of `[SCORE]` unless it has one."""
    is_scorer = hasattr(below, "score_head")
    backbone = below.backbone if is_scorer else below
    refuse_misfit(backbone, below.config.score_token_id if is_scorer else None, config)
    if not is_scorer:
        refuse_unsuitable(backbone)
        add_score_row(backbone, config.score_token_id)
    config.mllm_config = backbone.config
    vars(config).pop("quantization_config", None)  # that of the training
    model = cls(config, backbone=backbone)
    model.score_head.to(output_embedding_of(backbone).weight.device)
    if not is_scorer:
        adopt_placement(model)
        return model
    vars(model).update({name: vars(below)[name] for name in PLACEMENT if name in vars(below)})
    if quantization_config := getattr(below.config, "quantization_config", None):
        config.quantization_config = quantization_config
    return model


def refuse_misfit(backbone: PreTrainedModel, score_token_id: int | None, config) -> None:
    """Raise a `ValueError` where an adapter with this config was not trained on such a model."""
    wanted, found = config.mllm_config.model_type, backbone.config.model_type
    if found != wanted:
        raise ValueError(f"The adapter was trained on a {wanted} model; the one given for it is a {found} model.")
    if score_token_id not in (None, config.score_token_id):
        raise ValueError(
            f"[SCORE] is token {config.score_token_id} in the adapter, {score_token_id} in the scorer below it. Give "
            "the scorer that it was trained on."
        )
    if any(is_of_peft(module) for module in backbone.modules()):
        raise ValueError("The model given for the adapter carries an adapter already. Give each a model of its own.")


__all__ = ["find_adapter", "load_adapter"]
