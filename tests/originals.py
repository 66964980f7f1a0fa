"""The authors' checkpoints in miniature: random weights under their own names, and the native model that they are."""

import torch
from tiny import INIT_STD, random_model

from roc4mllm import MPLUGOwl2Config, ROC4MLLMConfig, ROC4MLLMForImageAesthetics
from roc4mllm.hub.mplug_owl2_keys import TABLES, computed_tables, original_name

WORDS, LEVELS = 40, 6  # [SCORE] is the word behind the last one
TEXT = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "rms_norm_eps": 1e-5,
    "rope_theta": 5000.0,
    "pad_token_id": 0,
}
VISION = {
    "hidden_size": 24,
    "intermediate_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 3,
    "image_size": 24,
    "patch_size": 8,
    "layer_norm_eps": 1e-5,
}
ABSTRACTOR = {
    "hidden_size": 24,
    "intermediate_size": 28,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "layer_norm_eps": 1e-4,
}


def roc4mllm_config() -> dict:
    """Content of the `config.json` of a ROC4MLLM checkpoint."""
    return TEXT | {
        "model_type": "mplug_owl2",
        "architectures": ["MPLUGOwl2LlamaForCausalLM"],
        "vocab_size": WORDS + 1 + LEVELS,
        "score_id": WORDS,
        "output_first_id": WORDS + 1,
        "output_last_id": WORDS + LEVELS,
        "num_tokens": LEVELS,
        "img_token_num": LEVELS,
        "min_score": 0,
        "max_score": 5,
        "l1_weight": 1.0,
        "visual_config": {
            "visual_model": VISION | {"hidden_act": "quick_gelu", "use_flash_attn": False},
            "visual_abstractor": ABSTRACTOR
            | {
                "num_learnable_queries": 3,
                "grid_size": 3,
                "encoder_hidden_size": 24,
                "attention_probs_dropout_prob": 0.0,
            },
        },
    }


def roc4mllm_model() -> ROC4MLLMForImageAesthetics:
    """The native model, the same at each call."""
    torch.manual_seed(0)
    backbone_config = MPLUGOwl2Config(
        vision_config=dict(VISION),
        abstractor_config=ABSTRACTOR | {"num_queries": 3, "initializer_range": INIT_STD},
        text_config=TEXT | {"vocab_size": WORDS + 1},
        image_token_id=WORDS + 1,
    )
    config = ROC4MLLMConfig(
        mllm_config=backbone_config,
        score_token_id=WORDS,
        num_levels=LEVELS,
        score_range=(0.0, 5.0),
        score_head_trained=True,
    )
    model = ROC4MLLMForImageAesthetics(config, backbone=random_model(backbone_config)).eval()
    torch.nn.init.normal_(model.score_head.weight, std=0.5)
    return model


def roc4mllm_weights(model: ROC4MLLMForImageAesthetics) -> dict[str, torch.Tensor]:
    """Its weights as the authors' code saves them: levels behind `[SCORE]`, tables in each layer."""
    weights = {original_name(name): weight.clone() for name, weight in model.backbone.state_dict().items()}
    levels = model.score_head.weight.detach()
    weights["lm_head.weight"] = torch.cat([weights["lm_head.weight"], levels])
    unused = torch.full_like(levels, 7.0)  # embeddings that no text reads
    weights["model.embed_tokens.weight"] = torch.cat([weights["model.embed_tokens.weight"], unused])
    weights["learned_weight"] = torch.zeros(1)
    config = model.backbone.config
    tables = computed_tables(config)
    for stem in TABLES:
        count = config.text_config if stem.startswith("model.layers") else config.abstractor_config
        for layer in range(count.num_hidden_layers):
            weights[stem.replace("*", str(layer))] = tables[stem].to(torch.float32).clone()
    return weights
