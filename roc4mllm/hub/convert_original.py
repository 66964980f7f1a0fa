"""
The authors' own checkpoints as native models.

```python
>>> model = load_original("roc4mllm", state_dict, json.load(open("config.json")))
>>> model = load_original("tanet", torch.load("tanet.pth", weights_only=True))
```

A conversion looks at all names first and then at one weight at a time, so that a large checkpoint can go through it
shard by shard.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from transformers import PreTrainedModel

from ..modeling_roc4mllm.configuration_roc4mllm import ROC4MLLMConfig
from ..modeling_roc4mllm.modeling_roc4mllm import ROC4MLLMForImageAesthetics
from . import eat_keys, elta_keys, tanet_keys
from .eat_keys import EATConversion
from .elta_keys import ELTAConversion
from .mplug_owl2_keys import (
    computed_tables,
    is_left_out,
    native_config,
    native_name,
    original_name,
    refuse_missing,
    refuse_other_models,
    with_stars,
)
from .tanet_keys import TANetConversion
from .weight_names import refuse_differences, refuse_other_dtypes, without_wrapper


def load_original(
    family: str, state_dict: Mapping[str, torch.Tensor], config: Mapping[str, Any] | None = None
) -> PreTrainedModel:
    """
    A native model with an original's weights, in their dtype.

    Args:
        family (`str`): `"roc4mllm"`, `"eat"`, `"elta"` or `"tanet"`.
        state_dict (`Mapping[str, torch.Tensor]`): The original's weights by its own names.
        config (`Mapping`, *optional*): Content of its `config.json`, which a ROC4MLLM needs; of the other families
            fields that differ from what the weights tell, as `{"variant": "TAD66K"}` or `{"score_range": (0, 1)}`.

    Returns:
        `PreTrainedModel`: The family's, in evaluation mode; its score head counts as trained.

    Raises:
        ValueError: If the family is unknown, the config is that of another model, or a weight is unknown, missing or
            of another shape than the config describes; the message names it.
        huggingface_hub.errors.StrictDataclassError: If a field of the config has the wrong type or value.
    """
    if family not in CONVERSIONS:
        raise ValueError(f"Unknown family {family!r}; known are {sorted(CONVERSIONS)}.")
    state_dict = without_wrapper(state_dict)
    return native_model(conversion_of(family, state_dict, **(config or {})), state_dict)


def conversion_of(family: str, state_dict: Mapping[str, torch.Tensor], /, **fields: Any) -> Any:
    """A family's conversion of these weights; `fields` of its config that they do not tell."""
    config_from_weights = CONFIGS.get(family)
    return CONVERSIONS[family](config_from_weights(state_dict, **fields) if config_from_weights else fields)


def native_model(conversion: Any, state_dict: Mapping[str, torch.Tensor]) -> PreTrainedModel:
    """The native model of a conversion, in evaluation mode, with these weights of the original."""
    conversion.check_names(state_dict)
    weights = {
        name: weight
        for original, value in state_dict.items()
        for name, weight in conversion.convert(original, value).items()
    }
    model: PreTrainedModel = conversion.model_class.from_pretrained(None, config=conversion.config, state_dict=weights)
    return model.eval()


class ROC4MLLMConversion:
    """
    ROC4MLLM (AAAI 2026) on mPLUG-Owl2.

    The original's vocabulary ends with `num_tokens` level tokens. Their output rows become the score head, and their
    embeddings are dropped, since no text holds them. Logits of all other rows, `[SCORE]` among them, stay as they are.

    Args:
        config (`Mapping`): Content of the original's `config.json`.

    Attributes:
        config ([`ROC4MLLMConfig`]): The native model's.
        shapes (`dict[str, torch.Size]`): Shapes of the native model's weights by name.

    Raises:
        ValueError: If the config is that of another model, or contradicts itself.
        huggingface_hub.errors.StrictDataclassError: If a field of it has the wrong type or value.
    """

    model_class: Any = ROC4MLLMForImageAesthetics

    def __init__(self, config: Mapping[str, Any]):
        refuse_other_models(config)
        refuse_missing(
            "The config of a ROC4MLLM checkpoint",
            config,
            ("vocab_size", "num_tokens", "score_id", "min_score", "max_score"),
        )
        num_levels, score_id = config["num_tokens"], config["score_id"]
        if config.get("img_token_num", num_levels) != num_levels:
            raise ValueError(
                f"num_tokens is {num_levels}, img_token_num is {config['img_token_num']}; both count levels."
            )
        rows = config["vocab_size"] - num_levels
        if not 0 <= score_id < rows:
            raise ValueError(
                f"score_id is {score_id}, expected a number below {rows}: the last {num_levels} of "
                f"{config['vocab_size']} rows are levels."
            )
        score_range = (float(config["min_score"]), float(config["max_score"]))
        self._describe(config, rows, score_token_id=score_id, num_levels=num_levels, score_range=score_range)

    def _describe(self, config: Mapping[str, Any], rows: int, **fields: Any) -> None:
        """Set what is known of the native model, whose embeddings have so many rows; `fields` are of its config."""
        self.rows = rows
        self.backbone_config = native_config(config, vocab_size=rows)
        self.config = ROC4MLLMConfig(mllm_config=self.backbone_config, score_head_trained=True, **fields)
        with torch.device("meta"):
            empty = self.model_class(self.config)
        self.shapes = {name: weight.shape for name, weight in empty.state_dict().items()}
        self.tables = computed_tables(self.backbone_config)

    def check_names(self, names: Iterable[str]) -> None:
        """
        Raise a `ValueError` that names weights of a checkpoint which the model does not have, or which are missing.

        Args:
            names (`Iterable[str]`): Names of all weights, as the index of a checkpoint lists them.
        """
        found = {name for name in names if not is_left_out(name)}
        expected = {original_name(name.removeprefix("backbone.")) for name in self.shapes} - {"score_head.weight"}
        refuse_differences(found, expected)

    def convert(self, name: str, weight: torch.Tensor) -> dict[str, torch.Tensor]:
        """
        Our weights that one of the original's becomes: one, two for the output embedding, none for what is computed.

        Args:
            name (`str`): The original's name.
            weight (`torch.Tensor`): The original's weight.

        Raises:
            ValueError: If the name is unknown, or the weight has another shape or dtype than expected, or is a table
                of other values.
        """
        if is_left_out(name):
            self._check_table(name, weight)
            return {}
        native = native_name(name)
        if native is None:
            raise ValueError(f"Unknown weight {name!r}.")
        refuse_other_dtypes({name: weight.dtype})
        converted = {f"backbone.{native}": weight}
        if name in ("lm_head.weight", "model.embed_tokens.weight"):
            converted[f"backbone.{native}"], levels = self.split_rows(weight)
            if name == "lm_head.weight":
                converted["score_head.weight"] = levels.clone()  # saved apart from what it is a slice of
        for ours, value in converted.items():
            if ours not in self.shapes or value.shape != self.shapes[ours]:
                expected = tuple(self.shapes.get(ours, ()))
                raise ValueError(
                    f"{name} has shape {tuple(weight.shape)}; the config describes {expected} for {ours}."
                )
        return converted

    def split_rows(self, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Rows of an embedding of theirs that stay, and those of the levels."""
        return weight[: self.rows], weight[self.rows :]

    def _check_table(self, name: str, values: torch.Tensor) -> None:
        """
        Refuse a table of other values than are computed here: its model would be another one. Tables that were stored
        in bfloat16 pass.
        """
        table = self.tables.get(with_stars(name)[0])
        if table is None:
            return
        if values.shape != table.shape or not torch.allclose(values.to(table), table, rtol=1e-2, atol=5e-3):
            raise ValueError(f"{name} is not the table of positions that the config describes.")


CONVERSIONS: dict[str, Any] = {
    "roc4mllm": ROC4MLLMConversion,
    "eat": EATConversion,
    "elta": ELTAConversion,
    "tanet": TANetConversion,
}
# Families whose weights tell their config.
CONFIGS: dict[str, Callable[..., dict[str, Any]]] = {
    "eat": eat_keys.config_from_weights,
    "elta": elta_keys.config_from_weights,
    "tanet": tanet_keys.config_from_weights,
}


__all__ = ["ROC4MLLMConversion", "conversion_of", "load_original", "native_model"]
