"""
Tiny random backbones with their processors, made in memory in well under a second each.

Ten architectures of transformers and one of ours, hidden size 32, two layers. The initial standard deviation is 0.15
and gates that start at zero are opened: at transformers' 0.02 such models hardly react to the picture, and a test
proves nothing.
"""

import functools

import numpy as np
import torch
import transformers
from PIL import Image
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoConfig, AutoModelForImageTextToText, PreTrainedTokenizerFast

from roc4mllm import ROC4MLLMForImageAesthetics, ROC4MLLMProcessor
from roc4mllm.processing_roc4mllm.image_only_processor import image_only, needs_video
from roc4mllm.processing_roc4mllm.image_processing_mplug_owl2 import MPLUGOwl2ImageProcessor
from roc4mllm.processing_roc4mllm.processing_mplug_owl2 import MPLUGOwl2Processor

TEXT = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 2048,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
VISION = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 4}
SIGLIP = VISION | {"model_type": "siglip_vision_model", "num_hidden_layers": 2, "image_size": 32, "patch_size": 8}
CHAT = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{% for c in m['content'] %}"
    "{% if c['type'] == 'image' %}IMAGE{% else %}{{ c['text'] }}{% endif %}{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
INIT_STD = 0.15


def tokenizer(special: list[str], named: dict[str, str] | None = None) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer of some 340 tokens."""
    bpe = Tokenizer(models.BPE(unk_token=None))
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<pad>", "<s>", "</s>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    lines = ["rate the aesthetic quality of this image", "The aesthetic rate of the image is 3.5", "user assistant"]
    bpe.train_from_iterator(lines * 4, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        extra_special_tokens=named or {},
        padding_side="left",
    )
    fast.add_tokens(special, special_tokens=True)
    return fast


def image_processor(name: str, **options):
    """The PIL image processor of that name: torchvision is never needed."""
    return getattr(transformers, f"{name}Pil")(**options)


def build_processor(name: str, image_token: str, **parts):
    """The processor class of that name, without its video half where torchvision is missing."""
    processor_class = getattr(transformers, name)
    if needs_video(processor_class):
        processor_class = image_only(processor_class)
    return processor_class(chat_template=CHAT.replace("IMAGE", image_token), **parts)


def qwen(kind: str, tied: bool):
    """Qwen2-VL, Qwen2.5-VL, Qwen3-VL."""
    tok = tokenizer(["<|vision_start|>", "<|vision_end|>", "<|vision_pad|>", "<|image_pad|>", "<|video_pad|>"])
    rope = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 1, 1]}
    vision = {"depth": 2, "hidden_size": 32, "num_heads": 4, "patch_size": 4, "spatial_merge_size": 2}
    vision |= {"temporal_patch_size": 2}
    if kind == "qwen2_vl":
        vision |= {"embed_dim": 32, "mlp_ratio": 2}
    else:
        vision |= {"out_hidden_size": 32, "intermediate_size": 64}
    if kind == "qwen2_5_vl":
        vision |= {"window_size": 16, "fullatt_block_indexes": [1], "tokens_per_second": 2}
    if kind == "qwen3_vl":
        vision |= {"num_position_embeddings": 64, "deepstack_visual_indexes": [0, 1]}
        rope["mrope_interleaved"] = True
    text = TEXT | {"vocab_size": len(tok), "rope_parameters": rope} | ({"head_dim": 8} if kind == "qwen3_vl" else {})
    config = AutoConfig.for_model(
        kind,
        text_config=text,
        vision_config=vision,
        image_token_id=tok.convert_tokens_to_ids("<|image_pad|>"),
        video_token_id=tok.convert_tokens_to_ids("<|video_pad|>"),
        vision_start_token_id=tok.convert_tokens_to_ids("<|vision_start|>"),
        tie_word_embeddings=tied,
    )
    images = image_processor(
        "Qwen2VLImageProcessor",
        patch_size=4,
        merge_size=2,
        temporal_patch_size=2,
        size={"shortest_edge": 64, "longest_edge": 64 * 64},
    )
    name = {"qwen2_vl": "Qwen2VLProcessor", "qwen2_5_vl": "Qwen2_5_VLProcessor", "qwen3_vl": "Qwen3VLProcessor"}[kind]
    image = "<|vision_start|><|image_pad|><|vision_end|>"
    return config, build_processor(name, image, image_processor=images, tokenizer=tok)


def llava(kind: str, tied: bool):
    """LLaVA: CLIP and Llama."""
    tok = tokenizer(["<image>"])
    config = AutoConfig.for_model(
        "llava",
        text_config=TEXT | {"model_type": "llama", "vocab_size": len(tok), "tie_word_embeddings": tied},
        vision_config=VISION
        | {
            "model_type": "clip_vision_model",
            "num_hidden_layers": 3,
            "image_size": 32,
            "patch_size": 8,
            "projection_dim": 16,
        },
        image_token_index=tok.convert_tokens_to_ids("<image>"),
        image_seq_length=16,
        tie_word_embeddings=tied,
    )
    images = image_processor("CLIPImageProcessor", size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    options = {"patch_size": 8, "vision_feature_select_strategy": "default", "num_additional_image_tokens": 1}
    return config, build_processor("LlavaProcessor", "<image>\n", image_processor=images, tokenizer=tok, **options)


def llava_onevision(kind: str, tied: bool):
    """LLaVA-OneVision: SigLIP and Qwen2, several crops per picture."""
    tok = tokenizer(["<image>", "<video>"])
    pinpoints = [[32, 32], [32, 64], [64, 32], [64, 64]]
    config = AutoConfig.for_model(
        "llava_onevision",
        text_config=TEXT | {"model_type": "qwen2", "vocab_size": len(tok), "tie_word_embeddings": tied},
        vision_config=SIGLIP | {"vision_use_head": False},
        image_token_index=tok.convert_tokens_to_ids("<image>"),
        video_token_index=tok.convert_tokens_to_ids("<video>"),
        image_grid_pinpoints=pinpoints,
        tie_word_embeddings=tied,
    )
    images = image_processor(
        "LlavaOnevisionImageProcessor", size={"height": 32, "width": 32}, image_grid_pinpoints=pinpoints
    )
    options = {"num_image_tokens": 16, "vision_feature_select_strategy": "full"}
    name = "LlavaOnevisionProcessor"
    return config, build_processor(name, "<image>\n", image_processor=images, tokenizer=tok, **options)


def internvl(kind: str, tied: bool):
    """InternVL: its own vision tower and Qwen2."""
    named = {
        "start_image_token": "<img>",
        "end_image_token": "</img>",
        "context_image_token": "<IMG_CONTEXT>",
        "video_token": "<video>",
    }
    tok = tokenizer(list(named.values()), named)
    config = AutoConfig.for_model(
        "internvl",
        text_config=TEXT | {"model_type": "qwen2", "vocab_size": len(tok), "tie_word_embeddings": tied},
        vision_config=VISION | {"num_hidden_layers": 2, "image_size": [32, 32], "patch_size": [8, 8]},
        image_token_id=tok.convert_tokens_to_ids("<IMG_CONTEXT>"),
        image_seq_length=4,
        downsample_ratio=0.5,
        tie_word_embeddings=tied,
    )
    images = image_processor("GotOcr2ImageProcessor", size={"height": 32, "width": 32}, crop_to_patches=False)
    name = "InternVLProcessor"
    return config, build_processor(name, "<IMG_CONTEXT>\n", image_processor=images, tokenizer=tok, image_seq_length=4)


def idefics(kind: str, tied: bool):
    """Idefics3 and SmolVLM: SigLIP and Llama, pictures cut into tiles."""
    named = {
        "image_token": "<image>",
        "fake_image_token": "<fake_token_around_image>",
        "global_image_token": "<global-img>",
        "end_of_utterance_token": "<end_of_utterance>",
    }
    tiles = [f"<row_{row}_col_{column}>" for row in (1, 2) for column in (1, 2)]
    tok = tokenizer([*named.values(), *tiles], named if kind == "smolvlm" else {})
    config = AutoConfig.for_model(
        kind,
        text_config=TEXT | {"model_type": "llama", "vocab_size": len(tok), "tie_word_embeddings": tied},
        vision_config=VISION | {"num_hidden_layers": 2, "image_size": 32, "patch_size": 8},
        image_token_id=tok.convert_tokens_to_ids("<image>"),
        scale_factor=2,
        tie_word_embeddings=tied,
    )
    name = {"idefics3": "Idefics3", "smolvlm": "SmolVLM"}[kind]
    images = image_processor(f"{name}ImageProcessor", size={"longest_edge": 64}, max_image_size={"longest_edge": 32})
    return config, build_processor(
        f"{name}Processor", "<image>", image_processor=images, tokenizer=tok, image_seq_len=4
    )


def paligemma(kind: str, tied: bool):
    """PaliGemma: SigLIP and Gemma; its processor adds some 1150 tokens of its own."""
    tok = tokenizer(["<image>"])
    image_token_id = tok.convert_tokens_to_ids("<image>")
    images = image_processor("SiglipImageProcessor", size={"height": 32, "width": 32})
    images.image_seq_length = 16
    processor = build_processor("PaliGemmaProcessor", "<image>", image_processor=images, tokenizer=tok)
    config = AutoConfig.for_model(
        "paligemma",
        text_config=TEXT | {"model_type": "gemma", "vocab_size": len(tok), "head_dim": 8},
        vision_config=SIGLIP | {"projection_dim": 32, "vision_use_head": False},
        image_token_index=image_token_id,
        projection_dim=32,
        hidden_size=32,
        tie_word_embeddings=tied,
    )
    return config, processor


def gemma3(kind: str, tied: bool):
    """Gemma 3: SigLIP, sliding windows, pictures that attend both ways."""
    named = {"image_token": "<image_soft_token>", "boi_token": "<start_of_image>", "eoi_token": "<end_of_image>"}
    tok = tokenizer(list(named.values()), named)
    layers = {"sliding_window": 64, "layer_types": ["sliding_attention", "full_attention"]}
    config = AutoConfig.for_model(
        "gemma3",
        text_config=TEXT | {"vocab_size": len(tok), "head_dim": 8} | layers,
        vision_config=SIGLIP | {"vision_use_head": False},
        mm_tokens_per_image=4,
        image_token_index=tok.convert_tokens_to_ids("<image_soft_token>"),
        boi_token_index=tok.convert_tokens_to_ids("<start_of_image>"),
        eoi_token_index=tok.convert_tokens_to_ids("<end_of_image>"),
        tie_word_embeddings=tied,
    )
    images = image_processor("Gemma3ImageProcessor", size={"height": 32, "width": 32})
    name = "Gemma3Processor"
    return config, build_processor(name, "<start_of_image>", image_processor=images, tokenizer=tok, image_seq_length=4)


def mplugowl2(kind: str, tied: bool):
    """mPLUG-Owl2, ours: its own vision encoder and abstractor, and Llama in two modalities."""
    images = MPLUGOwl2ImageProcessor(size={"height": 32, "width": 32})
    processor = MPLUGOwl2Processor(images, tokenizer([]), num_image_tokens=5)
    processor.chat_template = CHAT.replace("IMAGE", "<|image|>\n")
    layers = {"num_hidden_layers": 2, "initializer_range": INIT_STD}
    config = AutoConfig.for_model(
        kind,
        text_config=TEXT | {"vocab_size": processor.image_token_id},  # no row for an image token
        vision_config=VISION | layers | {"image_size": 32, "patch_size": 8},
        abstractor_config=VISION | layers | {"num_queries": 4},
        image_token_id=processor.image_token_id,
        tie_word_embeddings=tied,
    )
    return config, processor


BUILDERS = {
    "qwen2_vl": qwen,
    "qwen2_5_vl": qwen,
    "qwen3_vl": qwen,
    "llava": llava,
    "llava_onevision": llava_onevision,
    "internvl": internvl,
    "idefics3": idefics,
    "smolvlm": idefics,
    "paligemma": paligemma,
    "gemma3": gemma3,
    "mplugowl2": mplugowl2,
}
BACKBONES = list(BUILDERS)


def backbone(kind: str, tied: bool | None = None):
    """
    `(model, processor)` of a tiny random backbone, the same at each call.

    Tied embeddings by default where the published models of that architecture tie them.
    """
    config, processor = BUILDERS[kind](kind, tied if tied is not None else kind in ("paligemma", "gemma3"))
    torch.manual_seed(0)
    return random_model(config), processor


def random_model(config):
    """A model from a config, drawn wide enough to react to its picture."""
    for part in (config, config.get_text_config(), config.vision_config):
        part.initializer_range = INIT_STD
    model = AutoModelForImageTextToText.from_config(config)
    for name, parameter in model.named_parameters():
        if not parameter.any() and parameter.ndim > 1:  # a gate that starts closed
            torch.nn.init.normal_(parameter, std=INIT_STD)
        elif "vision" in name and parameter.ndim > 1 and parameter.std() < INIT_STD / 2:
            torch.nn.init.normal_(parameter, std=INIT_STD)  # CLIP's init ignores `initializer_range`
    return model.eval()


def scorer_parts(
    kind: str = "llava", attributes=("aesthetics",), num_levels: int = 5, score_range=(1.0, 5.0), **options
):
    """`(model, processor)` of ROC4MLLM on a tiny backbone, with a score head drawn wide and marked as trained."""
    model, processor = backbone(kind, **options)
    processor = ROC4MLLMProcessor.from_backbone(processor, attributes=attributes)
    model = ROC4MLLMForImageAesthetics.from_backbone(
        model, processor=processor, num_levels=num_levels, score_range=score_range
    )
    torch.nn.init.normal_(model.score_head.weight, std=0.5)
    model.config.score_head_trained = True
    return model, processor


@functools.cache
def shared_parts(kind: str, attributes: tuple[str, ...] = ("aesthetics",)):
    """[`scorer_parts`] made once per test run, for tests that change nothing."""
    return scorer_parts(kind, attributes)


def photo(seed: int = 0, width: int = 64, height: int = 48) -> Image.Image:
    """A picture of smooth random colours, the same for the same seed."""
    noise = np.random.RandomState(seed).randint(0, 255, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)
