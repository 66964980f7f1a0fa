"""Configuration of ROC4MLLM (AAAI 2026): any multimodal LLM, one `[SCORE]` token and a head of N level logits."""

from typing import Any

from huggingface_hub.dataclasses import strict
from transformers import CONFIG_MAPPING, AutoConfig, PreTrainedConfig

from .configuration_aesthetics import AestheticsConfig
from .configuration_mplug_owl2 import MPLUGOwl2Config

# Here and not where the package registers its names: a folder of ROC4MLLM is read without the package too, and then
# transformers starts with this file. What is registered stays: a folder's copy must not take the package's place.
if "mplugowl2" not in CONFIG_MAPPING:
    AutoConfig.register("mplugowl2", MPLUGOwl2Config)


@strict
class ROC4MLLMConfig(AestheticsConfig):
    r"""
    Args:
        mllm_config (`dict` or `PreTrainedConfig`):
            Configuration of the backbone, any image-text-to-text model of transformers.
        score_token_id (`int`):
            Id of the position token `[SCORE]` in the backbone's embedding.
        backbone_name_or_path (`str`, *optional*):
            Hub name of the backbone that this model was built from; a local path is not kept.
        backbone_revision (`str`, *optional*):
            Revision of that backbone.
        **kwargs: `num_levels`, `score_range`, `attributes`, `higher_is_better` and `score_head_trained`, see
            [`AestheticsConfig`]. Slot attributes are indices into `attributes`.

    Raises:
        huggingface_hub.errors.StrictDataclassError: If a field has the wrong type or value; the message names it.
    """

    model_type = "roc4mllm"
    sub_configs = {"mllm_config": AutoConfig}

    mllm_config: Any = None  # a PreTrainedConfig once the object is made; a dict when it comes from JSON
    score_token_id: int | None = None
    backbone_name_or_path: str | None = None
    backbone_revision: str | None = None

    def __post_init__(self, **kwargs):
        mllm_config = self.mllm_config
        if mllm_config is None:
            # transformers asks for a config without arguments when it writes only what differs from the defaults
            mllm_config = AutoConfig.for_model("llava")
        elif isinstance(mllm_config, dict):
            fields = dict(mllm_config)
            mllm_config = AutoConfig.for_model(fields.pop("model_type"), **fields)
        kwargs.pop("tie_word_embeddings", None)
        # The parent sets its attention and expert implementations on all parts, `None` included. On the config of a
        # loaded backbone that silently ends causal masking, so the part is absent meanwhile.
        self.mllm_config = None
        super().__post_init__(**kwargs)
        self.mllm_config = mllm_config
        for name in ("attn_implementation", "experts_implementation"):
            if kwargs.get(name) is not None:
                setattr(self, f"_{name}", kwargs[name])
        # peft reads this flag of the outer config; a wrong one makes a merged adapter change the scores
        self.tie_word_embeddings = bool(getattr(mllm_config, "tie_word_embeddings", False))

    def validate_score_token(self):
        """The position token is none of the special tokens of the backbone."""
        if self.score_token_id is None or self.mllm_config is None:
            return
        for name, value in special_token_ids(self.mllm_config):
            if value == self.score_token_id:
                raise ValueError(
                    f"score_token_id {self.score_token_id} is already {name} of the backbone. "
                    "Give [SCORE] an id of its own."
                )

    def to_dict(self) -> dict:
        """As in the parent, without the folders that the backbone and its parts were loaded from."""
        fields = super().to_dict()
        fields["mllm_config"] = without_paths(fields["mllm_config"])
        return fields

    def get_text_config(self, *args, **kwargs) -> PreTrainedConfig:
        """The backbone's text config: resizing, caches and `generate` ask for it."""
        return self.mllm_config.get_text_config(*args, **kwargs)


def without_paths(fields: dict) -> dict:
    """The nested dict without `_name_or_path`, which may name a folder of the machine that saved it."""
    return {
        name: without_paths(value) if isinstance(value, dict) else value
        for name, value in fields.items()
        if name != "_name_or_path"
    }


def special_token_ids(config) -> list[tuple[str, int]]:
    """
    `(name, id)` of every token id that a backbone's config and its text config name (`pad_token_id`,
    `image_token_index`, …).
    """
    found = []
    for part in (config, config.get_text_config()):
        for name, value in vars(part).items():
            if name.endswith(("_token_id", "_token_index", "_token_ids")):
                values = value if isinstance(value, list | tuple) else [value]
                found += [(name, item) for item in values if isinstance(item, int)]
    return found


__all__ = ["ROC4MLLMConfig", "special_token_ids"]
