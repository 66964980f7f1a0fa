"""
Tokenizer and image processor of a checkpoint in the authors' format.

A folder of ours holds `tokenizer.json`; only theirs are read from sentencepiece's format, here, without sentencepiece.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from transformers import AddedToken, LlamaTokenizer
from transformers.tokenization_utils_base import generate_merges

from ..processing_roc4mllm.image_processing_mplug_owl2 import MPLUGOwl2ImageProcessor
from ..processing_roc4mllm.processing_mplug_owl2 import MPLUGOwl2Processor
from ..processing_roc4mllm.prompt_roc4mllm import SCORE_TOKEN
from .original_files import read_json


def original_processor(
    folder: str | os.PathLike[str], num_image_tokens: int = 65, image_size: int = 448
) -> MPLUGOwl2Processor:
    """
    The processor of a checkpoint: `tokenizer.model`, and, where they are there, `added_tokens.json`,
    `tokenizer_config.json` and `preprocessor_config.json`.

    Args:
        folder (`str` or `os.PathLike`): The checkpoint.
        num_image_tokens (`int`, *optional*, defaults to 65): Queries of its visual abstractor, and one.
        image_size (`int`, *optional*, defaults to 448): Pixels a side where `preprocessor_config.json` tells none.

    Raises:
        ValueError: If a file is missing or is not what its name says.
    """
    images = original_image_processor(folder, image_size)
    return MPLUGOwl2Processor(images, original_tokenizer(folder), num_image_tokens)


def original_image_processor(folder: str | os.PathLike[str], image_size: int = 448) -> MPLUGOwl2ImageProcessor:
    """The image processor of a checkpoint: side, filter, mean and standard deviation of its own, all else is fixed."""
    name = "preprocessor_config.json"
    fields = read_json(folder, name)
    options = {option: fields[option] for option in ("resample", "image_mean", "image_std") if option in fields}
    size = fields.get("size", image_size)
    side = size.get("shortest_edge", size.get("height")) if isinstance(size, dict) else size
    if type(side) is not int or side < 1:
        raise ValueError(f"{name} has the size {size!r}; expected a number of pixels, a shortest_edge or a height.")
    return MPLUGOwl2ImageProcessor(size={"height": side, "width": side}, **options)


def original_tokenizer(folder: str | os.PathLike[str]) -> LlamaTokenizer:
    """
    The tokenizer of a checkpoint, ids as they were, without the level tokens behind `[SCORE]`.

    Raises:
        ValueError: If `tokenizer.model` is missing or no model of Llama's kind, or an added token leaves a gap.
    """
    vocabulary = sentencepiece_vocabulary(Path(folder, "tokenizer.model"))
    config = read_json(folder, "tokenizer_config.json")
    tokenizer = LlamaTokenizer(
        vocab=vocabulary,
        merges=generate_merges(vocabulary),
        legacy=config.get("legacy") is not False,  # null, as transformers writes it, counts as true
        add_bos_token=config.get("add_bos_token", True),
    )
    added = read_json(folder, "added_tokens.json")
    last = added.get(SCORE_TOKEN, max(added.values(), default=0))
    for token, token_id in sorted(added.items(), key=lambda entry: entry[1]):
        if len(vocabulary) <= token_id <= last and (ours := add_token(tokenizer, token)) != token_id:
            raise ValueError(f"added_tokens.json gives {token!r} the id {token_id}; the next free one is {ours}.")
    return tokenizer


def add_token(tokenizer: LlamaTokenizer, token: str) -> int:
    """
    Add a token as the authors' tokenizer did, and return its id.

    It takes the spaces around the token away. So the score is read at the token before `[SCORE]`, which is the word
    "is" and not a word mark of its own.
    """
    tokenizer.add_tokens([AddedToken(token, lstrip=True, rstrip=True, normalized=False)])
    token_id: int = tokenizer.convert_tokens_to_ids(token)
    return token_id


def sentencepiece_vocabulary(path: Path) -> dict[str, int]:
    """Id of each piece of a sentencepiece model of the kind BPE."""
    if not path.is_file():
        raise ValueError(f"No {path.name} in {str(path.parent)!r}; the tokenizer is read from it.")
    try:
        model = list(protobuf_fields(path.read_bytes()))
        kinds = [dict(protobuf_fields(trainer)).get(3) for number, trainer in model if number == 2]
        pieces = [dict(protobuf_fields(piece))[1].decode() for number, piece in model if number == 1]
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path.name} is no whole sentencepiece model: {error}") from error
    if kinds != [2]:
        raise ValueError(f"{path.name} is no sentencepiece model of the kind BPE (2), which Llama's is; got {kinds}.")
    return {piece: token_id for token_id, piece in enumerate(pieces)}


def protobuf_fields(message: bytes) -> Iterator[tuple[int, Any]]:
    """Number and value, `int` or `bytes`, of each field of a message in protobuf's format."""
    at = 0
    value: Any
    while at < len(message):
        tag, at = variable_length_int(message, at)
        kind = tag & 7
        if kind == 0:
            value, at = variable_length_int(message, at)
        elif kind in (1, 2, 5):  # eight bytes, a length and so many bytes, four bytes
            length, at = variable_length_int(message, at) if kind == 2 else (8 if kind == 1 else 4, at)
            value, at = message[at : at + length], at + length
        else:
            raise ValueError(f"a field of the unknown type {kind}")
        if at > len(message):
            raise ValueError(f"{at - len(message)} bytes are missing")
        yield tag >> 3, value


def variable_length_int(message: bytes, at: int) -> tuple[int, int]:
    """A number of seven bits per byte, low ones first, and where it ends."""
    value, shift = 0, 0
    while True:
        byte = message[at] if at < len(message) else 0
        value, shift, at = value | (byte & 127) << shift, shift + 7, at + 1
        if byte < 128:
            return value, at


__all__ = ["add_token", "original_image_processor", "original_processor", "original_tokenizer"]
