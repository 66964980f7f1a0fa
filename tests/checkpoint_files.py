"""Folders as the authors publish them, in miniature: sentencepiece's model, slow tokenizer files, and weights."""

import json
import re

import numpy as np
import torch
from originals import LEVELS, roc4mllm_config, roc4mllm_weights
from safetensors.torch import save_file
from tiny import random_model

from roc4mllm import ROC4MLLMForImageAesthetics
from roc4mllm.hub.convert_original import ROC4MLLMConversion

SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, detailed, "
    "and polite answers to the user's questions."
)
PROMPT = f"{SYSTEM} USER: <|image|>\nPlease rate the aesthetics of the image. ASSISTANT:"
SENTENCE = "The aesthetic rate of the image is [SCORE]."
TEXT = f"{PROMPT} {SENTENCE}"
ODD_NAMES = {  # of folders
    "blank": "with a blank",
    "dots": "v1.0.bin",
    "accents": "日本 é",
    "long": "😀" * 62,
    "dashes": "models--a--b",
    "option": "--x",
    "quotes": "a'b`c",
}


def pieces(text: str = TEXT) -> list[str]:
    """A vocabulary that spells the words of a text letter by letter: "▁i", "▁im", "▁ima", …"""
    words = ["▁▁", "Please", "USER", *("▁" + word for word in re.findall("[A-Za-z]+", text))]
    chains = [word[:end] for word in words for end in range(2, len(word) + 1)]
    letters = sorted(set(f"▁{text}") - set(" \n[]<>|"))
    bytes_ = [f"<0x{byte:02X}>" for byte in range(256)]
    return list(dict.fromkeys(["<unk>", "<s>", "</s>", *bytes_, *chains, *letters]))


def number(value: int) -> bytes:
    return bytes([value]) if value < 128 else bytes([value & 127 | 128]) + number(value >> 7)


def field(index: int, value) -> bytes:
    """A field of a message in protobuf's format."""
    if isinstance(value, int):
        return number(index << 3) + number(value)
    if isinstance(value, float):
        return number(index << 3 | 5) + np.float32(value).tobytes()
    return number(index << 3 | 2) + number(len(value)) + value


def tokenizer_model(kind: int = 2, text: str = TEXT) -> bytes:
    """A model file of sentencepiece with Llama's settings: BPE, bytes for unknown letters, a word mark first."""
    kinds = {"<unk>": 2, "<s>": 3, "</s>": 3}
    names = pieces(text)
    model = b""
    for index, name in enumerate(names):
        piece_kind = kinds.get(name, 6 if name.startswith("<0x") else 1)
        model += field(1, field(1, name.encode()) + field(2, -float(index)) + field(3, piece_kind))
    trainer = field(3, kind) + field(4, len(names)) + field(35, 1) + field(40, 0) + field(41, 1) + field(42, 2)
    normalizer = field(1, b"identity") + field(3, 1) + field(4, 0) + field(5, 1)
    return model + field(2, trainer) + field(3, normalizer)


def write_tokenizer(folder, legacy: bool = True, model: bytes | None = None, levels: int = 10, size: int = 28):
    """The files of a ROC4MLLM checkpoint beside its weights: tokenizer, level tokens included, and pixels."""
    count = len(pieces())
    added = {"[SCORE]": count, **{f"[IMG{level}]": count + 1 + level for level in range(levels)}}
    config = {"tokenizer_class": "LlamaTokenizer", "legacy": legacy, "add_bos_token": True, "add_eos_token": False}
    pixels = {"size": size, "crop_size": size, "do_center_crop": True, "image_mean": [0.5, 0.4, 0.3], "resample": 3}
    (folder / "tokenizer.model").write_bytes(tokenizer_model() if model is None else model)
    for name, content in (("added_tokens", added), ("tokenizer_config", config), ("preprocessor_config", pixels)):
        (folder / f"{name}.json").write_text(json.dumps(content))
    return folder


def roc4mllm_checkpoint(words: int | None = None) -> tuple[dict, dict[str, torch.Tensor]]:
    """Config and weights of a checkpoint with so many words before `[SCORE]`, the same at each call."""
    words = len(pieces()) if words is None else words
    config = roc4mllm_config() | {"vocab_size": words + 1 + LEVELS, "score_id": words}
    config |= {"output_first_id": words + 1, "output_last_id": words + LEVELS}
    native = ROC4MLLMConversion(config).config
    torch.manual_seed(0)
    model = ROC4MLLMForImageAesthetics(native, backbone=random_model(native.mllm_config))
    torch.nn.init.normal_(model.score_head.weight, std=0.5)
    return config, roc4mllm_weights(model)


def write_checkpoint(folder, config: dict, weights: dict[str, torch.Tensor], kind: str = "bin", shards: int = 3):
    """A whole folder: `.bin` or safetensors, one file, or shards with an index."""
    folder.mkdir(parents=True, exist_ok=True)
    write_tokenizer(folder, levels=LEVELS, size=config["visual_config"]["visual_model"]["image_size"])
    (folder / "config.json").write_text(json.dumps(config))
    stem, suffix = ("pytorch_model", "bin") if kind == "bin" else ("model", "safetensors")
    weight_map = {}
    for shard in range(shards):
        part = {name: weights[name] for name in list(weights)[shard::shards]}
        name = f"{stem}-{shard + 1:05d}-of-{shards:05d}.{suffix}" if shards > 1 else f"{stem}.{suffix}"
        write = torch.save if kind == "bin" else save_file
        write(part, folder / name)
        weight_map |= dict.fromkeys(part, name)
    if shards > 1:
        index = {"metadata": {"total_size": 1}, "weight_map": weight_map}
        (folder / f"{stem}.{suffix}.index.json").write_text(json.dumps(index))
    return folder
