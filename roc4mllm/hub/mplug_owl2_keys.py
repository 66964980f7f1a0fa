"""
The authors' names of mPLUG-Owl2 weights and config fields, and ours; the checkpoints of several scorers share them.

All shapes are alike. `*` stands for the number of a layer, and `.weight` or `.bias` is left out.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from transformers.activations import ACT2FN
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from ..modeling_roc4mllm.abstractor_mplug_owl2 import grid_table, sine_table
from ..modeling_roc4mllm.configuration_mplug_owl2 import MPLUGOwl2Config

LANGUAGE = "model.language_model"
VISION = "model.vision_model.encoder.layers.*"
VISION_LAYER = "model.vision_tower.layers.*"
ABSTRACTOR = "model.visual_abstractor.encoder.layers.*.crossattention"
ABSTRACTOR_LAYER = "model.abstractor.layers.*"

NATIVE_STEMS = {
    "lm_head": "lm_head",
    "model.embed_tokens": f"{LANGUAGE}.embed_tokens",
    "model.norm": f"{LANGUAGE}.norm",
    # each `multiway` holds two copies: 0 for text, which is Llama's own module here, and 1 for image tokens
    "model.layers.*.input_layernorm.multiway.0": f"{LANGUAGE}.layers.*.input_layernorm",
    "model.layers.*.input_layernorm.multiway.1": f"{LANGUAGE}.layers.*.image_input_layernorm",
    "model.layers.*.self_attn.q_proj": f"{LANGUAGE}.layers.*.self_attn.q_proj",
    "model.layers.*.self_attn.k_proj.multiway.0": f"{LANGUAGE}.layers.*.self_attn.k_proj",
    "model.layers.*.self_attn.k_proj.multiway.1": f"{LANGUAGE}.layers.*.self_attn.image_k_proj",
    "model.layers.*.self_attn.v_proj.multiway.0": f"{LANGUAGE}.layers.*.self_attn.v_proj",
    "model.layers.*.self_attn.v_proj.multiway.1": f"{LANGUAGE}.layers.*.self_attn.image_v_proj",
    "model.layers.*.self_attn.o_proj": f"{LANGUAGE}.layers.*.self_attn.o_proj",
    "model.layers.*.post_attention_layernorm.multiway.0": f"{LANGUAGE}.layers.*.post_attention_layernorm",
    "model.layers.*.post_attention_layernorm.multiway.1": f"{LANGUAGE}.layers.*.image_post_attention_layernorm",
    "model.layers.*.mlp.gate_proj": f"{LANGUAGE}.layers.*.mlp.gate_proj",
    "model.layers.*.mlp.up_proj": f"{LANGUAGE}.layers.*.mlp.up_proj",
    "model.layers.*.mlp.down_proj": f"{LANGUAGE}.layers.*.mlp.down_proj",
    "model.vision_model.embeddings.cls_token": "model.vision_tower.embeddings.class_embedding",
    "model.vision_model.embeddings.patch_embed": "model.vision_tower.embeddings.patch_embedding",
    "model.vision_model.embeddings.position_embedding": "model.vision_tower.embeddings.position_embedding",
    "model.vision_model.embeddings.pre_layernorm": "model.vision_tower.pre_layernorm",
    f"{VISION}.input_layernorm": f"{VISION_LAYER}.layer_norm1",
    f"{VISION}.self_attn.query_key_value": f"{VISION_LAYER}.self_attn.qkv",
    f"{VISION}.self_attn.dense": f"{VISION_LAYER}.self_attn.out_proj",
    f"{VISION}.post_attention_layernorm": f"{VISION_LAYER}.layer_norm2",
    f"{VISION}.mlp.fc1": f"{VISION_LAYER}.mlp.fc1",
    f"{VISION}.mlp.fc2": f"{VISION_LAYER}.mlp.fc2",
    "model.vision_model.post_layernorm": "model.vision_tower.post_layernorm",
    "model.visual_abstractor.query_embeds": "model.abstractor.query_embeds",
    f"{ABSTRACTOR}.norm1": f"{ABSTRACTOR_LAYER}.query_norm",
    f"{ABSTRACTOR}.normk": f"{ABSTRACTOR_LAYER}.image_norm",
    f"{ABSTRACTOR}.attention.query": f"{ABSTRACTOR_LAYER}.attention.q_proj",
    f"{ABSTRACTOR}.attention.key": f"{ABSTRACTOR_LAYER}.attention.k_proj",
    f"{ABSTRACTOR}.attention.value": f"{ABSTRACTOR_LAYER}.attention.v_proj",
    f"{ABSTRACTOR}.output.out_proj": f"{ABSTRACTOR_LAYER}.attention.out_proj",
    f"{ABSTRACTOR}.output.norm2": f"{ABSTRACTOR_LAYER}.mlp_norm",
    f"{ABSTRACTOR}.output.mlp.w1": f"{ABSTRACTOR_LAYER}.mlp.gate_proj",
    f"{ABSTRACTOR}.output.mlp.w3": f"{ABSTRACTOR_LAYER}.mlp.up_proj",
    f"{ABSTRACTOR}.output.mlp.ffn_ln": f"{ABSTRACTOR_LAYER}.mlp.layer_norm",
    f"{ABSTRACTOR}.output.mlp.w2": f"{ABSTRACTOR_LAYER}.mlp.down_proj",
    "model.visual_abstractor.visual_fc": "model.abstractor.projection",
    "model.visual_abstractor.vit_eos": "model.abstractor.end_embed",
}
ORIGINAL_STEMS = {native: original for original, native in NATIVE_STEMS.items()}
INV_FREQ = "model.layers.*.self_attn.rotary_emb.inv_freq"
QUERY_POSITIONS = f"{ABSTRACTOR}.attention.q_pos_embed"
IMAGE_POSITIONS = f"{ABSTRACTOR}.attention.k_pos_embed"
TABLES = {INV_FREQ, QUERY_POSITIONS, IMAGE_POSITIONS}  # each of their layers stores them, ours computes them once
UNUSED = {"learned_weight"}  # of an abandoned way to weigh losses
TEXT_FIELDS = (
    "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
    "num_key_value_heads", "hidden_act", "max_position_embeddings", "initializer_range", "rms_norm_eps", "use_cache",
    "pad_token_id", "bos_token_id", "eos_token_id", "rope_theta", "rope_scaling", "attention_bias",
    "attention_dropout",
)  # fmt: skip
VISION_FIELDS = (
    "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_channels", "image_size",
    "patch_size", "hidden_act", "layer_norm_eps", "attention_dropout", "initializer_range",
)  # fmt: skip
ABSTRACTOR_FIELDS = {
    "hidden_size": "hidden_size",
    "intermediate_size": "intermediate_size",
    "num_hidden_layers": "num_hidden_layers",
    "num_attention_heads": "num_attention_heads",
    "num_learnable_queries": "num_queries",
    "layer_norm_eps": "layer_norm_eps",
    "attention_probs_dropout_prob": "attention_dropout",
    "initializer_range": "initializer_range",
}
# Without these a config would silently become that of the published 7-billion model.
REQUIRED = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
# Each of these counts something, in any part of a config.
COUNTS = {
    *(*REQUIRED, "num_key_value_heads", "image_size", "patch_size"),
    *("num_learnable_queries", "encoder_hidden_size", "grid_size", "max_position_embeddings"),
}


def native_config(config: Mapping[str, Any], vocab_size: int) -> MPLUGOwl2Config:
    """
    Our config of an original one.

    Args:
        config (`Mapping`): Content of the original's `config.json`.
        vocab_size (`int`): Rows of the embeddings that are kept, the first ones. The id of an image token, which is
            −200 in the original, becomes the first one behind them.

    Raises:
        ValueError: If it is not that of an mPLUG-Owl2 model, or contradicts itself.
    """
    refuse_other_models(config)
    refuse_missing("config", config, REQUIRED)
    vision, abstractor = (config["visual_config"][name] for name in ("visual_model", "visual_abstractor"))
    refuse_missing("visual_config.visual_model", vision, ("hidden_size", "image_size", "patch_size"))
    refuse_missing("visual_config.visual_abstractor", abstractor, ("hidden_size", "num_learnable_queries"))
    for place, fields in (("", config), ("visual_model.", vision), ("visual_abstractor.", abstractor)):
        refuse_bad_values(place, fields, vocab_size)
    grid_size = vision["image_size"] // vision["patch_size"]
    if abstractor.get("grid_size", grid_size) != grid_size:
        raise ValueError(
            f"The abstractor's grid_size is {abstractor['grid_size']}, but pictures of {vision['image_size']} pixels "
            f"have {grid_size} patches of {vision['patch_size']} a side."
        )
    text = {name: config[name] for name in TEXT_FIELDS if name in config}
    return MPLUGOwl2Config(
        vision_config={name: vision[name] for name in VISION_FIELDS if name in vision},
        abstractor_config={ours: abstractor[name] for name, ours in ABSTRACTOR_FIELDS.items() if name in abstractor},
        text_config=text | {"vocab_size": vocab_size},
        image_token_id=vocab_size,
        tie_word_embeddings=config.get("tie_word_embeddings", False),
    )


def refuse_bad_values(place: str, fields: Mapping[str, Any], vocab_size: int) -> None:
    """Raise a `ValueError` for a value that torch would refuse without naming it; types are the config's business."""
    for name, value in fields.items():
        if name in COUNTS and isinstance(value, int) and value < 1:
            raise ValueError(f"{place}{name} of config.json is {value}; expected at least 1.")
        if name == "hidden_act" and value not in ACT2FN:
            raise ValueError(f"{place}hidden_act of config.json is {value!r}, which transformers does not know.")
        if name == "pad_token_id" and isinstance(value, int) and not -vocab_size <= value < vocab_size:
            raise ValueError(f"{place}pad_token_id of config.json is {value}; expected one below {vocab_size}.")


def is_mplug_owl2(config: Mapping[str, Any]) -> bool:
    """Whether a config is that of an mPLUG-Owl2 model in its authors' format."""
    visual = config.get("visual_config")
    parts = ("visual_model", "visual_abstractor")
    return isinstance(visual, Mapping) and all(isinstance(visual.get(part), Mapping) for part in parts)


def refuse_other_models(config: Mapping[str, Any]) -> None:
    """Raise a `ValueError` if a config is not that of an mPLUG-Owl2 model in the authors' format."""
    if not is_mplug_owl2(config):
        raise ValueError(
            f"This config (model_type {config.get('model_type')!r}) has no visual_config with visual_model and "
            "visual_abstractor, so it is not that of an mPLUG-Owl2 model in the authors' format."
        )


def refuse_missing(place: str, fields: Mapping[str, Any], names: Iterable[str]) -> None:
    """Raise a `ValueError` that names the fields which `fields` lacks."""
    if missing := [name for name in names if name not in fields]:
        raise ValueError(f"{place} lacks {', '.join(missing)}.")


def with_stars(name: str) -> tuple[str, str, str]:
    """A weight's name as the tables above write it, the number of its layer, and `.weight`, `.bias` or nothing."""
    stem = name.removesuffix(".weight").removesuffix(".bias")
    layer = re.search(r"(?<=\.layers\.)\d+(?=\.)", stem)
    number = layer.group() if layer else ""
    return stem.replace(f".layers.{number}.", ".layers.*."), number, name[len(stem) :]


def translated(name: str, table: Mapping[str, str]) -> str | None:
    """A weight's name by a table of stems; `None` if it has none there."""
    stem, layer, ending = with_stars(name)
    return table[stem].replace("*", layer) + ending if stem in table else None


def native_name(name: str) -> str | None:
    """Our name of an original weight; `None` if it has none, as tables and unused weights."""
    return translated(name, NATIVE_STEMS)


def original_name(name: str) -> str:
    """The original's name of one of our weights."""
    return translated(name, ORIGINAL_STEMS) or name


def is_left_out(name: str) -> bool:
    """Whether an original weight is a table, which is computed here, or one that nothing uses."""
    return name in UNUSED or with_stars(name)[0] in TABLES


def computed_tables(config: MPLUGOwl2Config) -> dict[str, torch.Tensor]:
    """Our values of their tables, by stem."""
    vision, abstractor = config.vision_config, config.abstractor_config
    return {
        INV_FREQ: LlamaRotaryEmbedding(config.text_config).inv_freq,
        QUERY_POSITIONS: sine_table(abstractor.num_queries, abstractor.hidden_size),
        IMAGE_POSITIONS: grid_table(vision.image_size // vision.patch_size, abstractor.hidden_size),
    }


__all__ = [
    "computed_tables",
    "is_left_out",
    "is_mplug_owl2",
    "native_config",
    "native_name",
    "original_name",
    "refuse_missing",
    "refuse_other_models",
    "with_stars",
]
