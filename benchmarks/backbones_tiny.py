"""
A tiny random model of every architecture in transformers' image-text-to-text mapping, in memory.

The default config of an architecture is shrunk by rules on the names of its fields; `EXCEPTIONS` holds, as data, the
few fields that depend on each other in a way no rule sees. Sizes: hidden 32, 2 layers, 4 heads, 512 tokens, pictures
of 32 × 32 in patches of 8.

Used by `backbones.py`; `python benchmarks/backbones_tiny.py` lists the number of parameters of each model.
"""

import re

import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForImageTextToText,
    Gemma3nVisionConfig,
    PreTrainedModel,
    TimmWrapperConfig,
)
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

ARCHITECTURES = list(MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES)
VOCAB, LAYERS = 512, 2
FIRST_SPECIAL_ID = 400  # image, video, start and end tokens; the ids below are free for text

FIELDS_OF_SIZE = {
    512: "vocab_size vocab_size_per_layer_input",
    192: "patch_embed_hidden_size",
    64: "intermediate_size ffn_dim mlp_dim d_ff encoder_ffn_dim alignment_intermediate_size "
    "projection_intermediate_size projector_input_dim projector_output_dim position_embedding_size "
    "num_embeddings codebook_size",
    32: "hidden_size d_model embed_dim out_hidden_size projection_dim text_hidden_size projector_hidden_size "
    "projection_hidden_size projection_hidden_dim vision_hidden_size moe_hidden_size adapter_in_dim "
    "adapter_out_dim adapter_input_size word_embed_proj_dim output_channels moe_intermediate_size "
    "moe_shared_expert_intermediate_size shared_intermediate_size shared_experts_intermediate_size image_size "
    "max_img_size base_channels",
    16: "q_lora_rank num_position_embeddings vision_soft_tokens_per_image",
    8: "head_dim index_head_dim qk_nope_head_dim qk_rope_head_dim v_head_dim hidden_size_per_layer_input "
    "downsample_hidden_size patch_size",
    4: "num_attention_heads num_heads encoder_attention_heads swa_num_attention_heads linear_num_heads "
    "linear_num_value_heads mamba_num_heads n_routed_experts num_local_experts num_experts latent_query_num "
    "num_query_tokens mm_tokens_per_image pos_emb_height",
    2: "depth encoder_layers layers n_layers num_layers num_decoder_layers num_key_value_heads "
    "swa_num_key_value_heads linear_num_key_heads index_n_heads n_groups num_experts_per_tok",
    1: "resampler_depth num_res_blocks n_group topk_group max_num_tiles",
    0: "insert_layer_id",
}
SIZES = {field: size for size, fields in FIELDS_OF_SIZE.items() for field in fields.split()}
TOKEN_ID = re.compile(r"_(id|token_index)$")
KNOWN_IDS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
LAYER_INDICES = re.compile(r"ind[ei]|idx|moe_layers|kv_source|cross_attention_layers|rope_scaling_layers")

# head_dim 8 leaves 4 rotary pairs to share out; the defaults share out 64
MROPE = {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 1.0, "mrope_section": [2, 1, 1]}
TEXT_MROPE = {"text_config.rope_parameters": MROPE}
NO_GROUPS = {"text_config.num_key_value_heads": 4}
IMAGE_ID = {"image_token_id": FIRST_SPECIAL_ID}
ONE_TILE = {"image_grid_pinpoints": [[32, 32]]}


def image_vocabulary(codes: list[str]) -> dict:
    """The 64 picture codes of a VQ tokenizer as text tokens."""
    return {"<image>": FIRST_SPECIAL_ID, **{code: 300 + number for number, code in enumerate(codes)}}


LETTER_CODES = ["IMGIMG" + "".join(chr(ord("A") + int(digit)) for digit in str(n)) + "Z" for n in range(64)]
NUMBER_CODES = ["<|extra_200|>"] + [f"<|visual token {n:06d}|>" for n in range(64)]

EXCEPTIONS = {
    "aria": {"projector_patch_to_query_dict": {"16": 4}},
    "blip-2": {"image_token_index": FIRST_SPECIAL_ID},
    "chameleon": {"vocabulary_map": image_vocabulary(LETTER_CODES)},
    "cohere_compass": {
        "text_config.rope_parameters": {"full_attention": MROPE, "sliding_attention": MROPE},
    },
    "cosmos3_edge": TEXT_MROPE,
    "deepseek_ocr2": {
        "text_config.mlp_layer_types": ["dense", "sparse"],
        "text_config.num_experts_per_tok": 2,
        "vision_config.sam_config.downsample_channels": [32, 32],
    },
    "diffusion_gemma": {
        "text_config.num_experts": 4,
        "text_config.moe_intermediate_size": 32,
    },
    "dots3_note": {
        "text_config.per_layer_config": {1: {"kv_lora_rank": 16, "qk_nope_head_dim": 8}},
        "text_config.head_dim": 16,
        **NO_GROUPS,
    },
    "emu3": {"vocabulary_map": image_vocabulary(NUMBER_CODES), "vq_config.hidden_size": 128},
    "ernie4_5_vl_moe": {
        "text_config.rope_parameters": MROPE | {"mrope_section": [1, 1, 2]},
        "text_config.moe_intermediate_size": [32, 16],
    },
    # its last text ids are those of sound, as in the published model
    "gemma3n": {
        "audio_config.vocab_size": 64,
        "audio_config.vocab_offset": 448,
        "text_config.num_kv_shared_layers": 0,
    },
    "gemma4": {
        "vision_config": {
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": LAYERS,
            "num_attention_heads": 4,
            "num_key_value_heads": 4,
            "head_dim": 8,
            "patch_size": 8,
            "pooling_kernel_size": 2,
            "position_embedding_size": 16,
        },
    },
    "gemma4_unified": {
        "vision_config": {
            "patch_size": 8,
            "pooling_kernel_size": 2,
            "mm_embed_dim": 32,
            "mm_posemb_size": 16,
            "output_proj_dims": 32,
        },
    },
    "glm46v": TEXT_MROPE,
    "glm4v": TEXT_MROPE,
    "glm4v_moe": TEXT_MROPE,
    "glm5_next": NO_GROUPS,
    "glm_ocr": TEXT_MROPE,
    "glmga": TEXT_MROPE,
    "granite4_vision": {
        "downsample_rate": "1/2",
        "deepstack_layer_map": [[-1, 0]],
        "vision_config.hidden_size": 64,
        **ONE_TILE,
    },
    "hunyuan_vl": {"text_config.head_dim": 8, **TEXT_MROPE},
    "inkling2": {"text_config.unpadded_vocab_size": 500},
    "instructblip": {"image_token_index": FIRST_SPECIAL_ID},
    "kimi_k25": NO_GROUPS,
    "llama4": {"vision_config.intermediate_size": 128, "vision_config.vision_output_dim": 64},
    "llava_next": ONE_TILE,
    "llava_next_video": ONE_TILE,
    "llava_onevision": ONE_TILE,
    "minicpm_ocr": IMAGE_ID,
    "minicpmv4_6": IMAGE_ID,
    "minicpmv4_7": IMAGE_ID,
    "mistral_large4": NO_GROUPS,
    "mllama": {"text_config.cross_attention_layers": [1], "vision_config.vision_output_dim": 96},
    "molmo2": {"adapter_config.vision_feature_layer": [1, 0]},
    "muse_glimmer": {"out_hidden_size": 128},
    "muse_spark": {
        "out_hidden_size": 128,
        "audio_config.num_hidden_layers": 4,
        "audio_config.hidden_sizes": [8, 8, 8, 8],
    },
    "nemotron_h_omni": IMAGE_ID,
    "paddleocr_vl": TEXT_MROPE,
    "perception_lm": {"vision_config.model_args": {"embed_dim": 32}},
    "qwen2_5_omni_thinker": {"vision_start_token_id": 450, **TEXT_MROPE},
    "qwen2_5_vl": TEXT_MROPE,
    "qwen2_vl": TEXT_MROPE,
    "qwen3_omni_moe_thinker": {"vision_start_token_id": 450},
    "qwen4_exp": {
        "text_config.indexer_n_heads": 2,
        "text_config.indexer_kv_heads": 1,
        "text_config.indexer_head_dim": 8,
        "text_config.indexer_budget": 64,
        "text_config.indexer_compress_ratio": 4,
    },
    "step3p7": {"text_config.sliding_window": 64},
    "unlimited_ocr": {"vision_config.sam_config.downsample_channels": [32, 32]},
    "vipllava": {"vision_feature_layer": [-1, -2]},
}


class TinyTower(PreTrainedModel):
    """
    One convolution in place of a timm tower: timm needs torchvision, which the package does without.
    """

    main_input_name = "pixel_values"
    input_modalities = ("image",)

    def __init__(self, config):
        super().__init__(config)
        self.as_tokens = "embed_dim" in (config.model_args or {})
        self.patches = nn.Conv2d(3, 32, kernel_size=8, stride=8)
        self.post_init()

    def forward(self, pixel_values: torch.Tensor, **kwargs) -> BaseModelOutputWithPooling:
        hidden = self.patches(pixel_values)  # (B, 32, 4, 4)
        if self.as_tokens:
            hidden = hidden.flatten(2).mT  # (B, 16, 32)
            hidden = torch.cat([hidden.mean(1, keepdim=True), hidden], dim=1)  # a class token in front
        return BaseModelOutputWithPooling(last_hidden_state=hidden)


for timm_config in (TimmWrapperConfig, Gemma3nVisionConfig):
    AutoModel.register(timm_config, type("TinyTower", (TinyTower,), {"config_class": timm_config}), exist_ok=True)


def shrunk(name: str, value, layers: int, ids: dict[str, int]):
    """One field of a config, made small by its name."""
    if isinstance(value, bool) or not isinstance(value, int | list):
        return value
    if isinstance(value, list):
        return shrunk_list(name, value, layers)
    if name == "num_hidden_layers":
        return layers
    if name in SIZES:
        return SIZES[name] if value else value  # 0 switches a part off
    if TOKEN_ID.search(name):
        return ids.setdefault(name, KNOWN_IDS.get(name, FIRST_SPECIAL_ID + len(ids)))
    return value


def shrunk_list(name: str, values: list, layers: int) -> list:
    """A list of layer indices, or of one entry per layer, cut to the layers that are left."""
    if LAYER_INDICES.search(name) and all(isinstance(value, int) for value in values):
        return sorted({min(place, index) for place, index in enumerate(values)})[:LAYERS]
    if len(values) <= 4:
        return values
    distinct = list({str(value): value for value in reversed(values)}.values())[::-1]
    return (distinct + [distinct[-1]] * layers)[:layers]


def shrink(fields: dict, ids: dict[str, int]) -> dict:
    """A config as a dict, made small; every kind of layer stays."""
    layers = max(LAYERS, len(set(fields.get("layer_types") or [])))
    fields.pop("per_layer_config", None)  # it names layers that are gone
    for name, value in fields.items():
        if isinstance(value, dict):
            if name not in ("id2label", "label2id"):
                shrink(value, ids)
        else:
            fields[name] = shrunk(str(name), value, layers, ids)
    return fields


def tiny_config(name: str):
    """The small config of an architecture."""
    default = AutoConfig.for_model(name)
    fields = shrink(default.to_dict(), {})
    for path, value in EXCEPTIONS.get(name, {}).items():
        *parents, field = path.split(".")
        inner = fields
        for parent in parents:
            inner = inner[parent]
        inner[field] = value
    return type(default).from_dict(fields)


@torch.no_grad()
def tiny_model(name: str) -> PreTrainedModel:
    """
    A random model of an architecture, weights drawn with std 0.15 (at 0.02 scores hardly react to the picture).
    """
    torch.manual_seed(0)
    config = tiny_config(name)
    # by class, as AutoModelForImageTextToText.from_config does not find Evolla's (transformers 5.23)
    model = AutoModelForImageTextToText._model_mapping[type(config)]._from_config(config)
    for parameter in model.parameters():
        if parameter.dim() > 1:
            parameter.normal_(std=0.15)
        elif not parameter.any():  # biases, and gates that would keep the picture out
            parameter.fill_(0.5) if parameter.numel() == 1 else parameter.normal_(std=0.15)
    return model.eval()


if __name__ == "__main__":
    for architecture in ARCHITECTURES:
        print(architecture, sum(parameter.numel() for parameter in tiny_model(architecture).parameters()))
