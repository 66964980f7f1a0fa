"""
Scorers that name a level in a word, read as ROC4MLLM: Q-Align and OneAlign (ICML 2024), DeQA-Score (CVPR 2025).

Paper: "Q-Align: Teaching LMMs for Visual Scoring via Discrete Text-Defined Levels", ICML 2024. They are mPLUG-Owl2
with Llama's own vocabulary. Asked in the wording below, they go on with one of five words, and the score is the mean
of 1 (bad) to 5 (excellent) by the softmax over the logits of the five words.

That is a score head whose rows are the output rows of the words, read at "is". So `[SCORE]` is added to the vocabulary
and stands where the word would. The score is read before it, so what its own embedding holds has no effect.

The wording is that of public scripts which run these models. Their weights were not at hand, so scores were not
compared. A public copy of OneAlign's own `score` method exchanges two words ("The image of the quality is"). To ask
otherwise, change `question`, `answer` or `prompt` in `processor_config.json` of the native folder.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ..processing_roc4mllm.processing_mplug_owl2 import MPLUGOwl2Processor
from ..processing_roc4mllm.processing_roc4mllm import ROC4MLLMProcessor
from ..processing_roc4mllm.prompt_roc4mllm import QUESTION_SLOT, SCORE_TOKEN
from .convert_original import ROC4MLLMConversion
from .mplug_owl2_keys import refuse_missing, refuse_other_models
from .original_tokenizer import add_token, original_image_processor, original_tokenizer

WORDS = ("bad", "poor", "fair", "good", "excellent")  # scores 1 to 5
ATTRIBUTES = ("aesthetics", "quality")
QUESTION = "How would you rate the {attribute} of this image?"
ANSWER = f"The {{attribute}} of the image is {SCORE_TOKEN}."
PROMPT = f"USER: {QUESTION_SLOT}\n<|image|>\nASSISTANT:"


class LevelWordsConversion(ROC4MLLMConversion):
    """
    Weights of a scorer that names levels.

    Args:
        config (`Mapping`): Content of the original's `config.json`.
        num_tokens (`int`): Tokens of its tokenizer. What an embedding has more is padding, and left out.
        word_ids (`list[int]`): First token of each of the five words, the worst one first.
        attribute (`str`): What is asked for, `"aesthetics"` or `"quality"`.

    Raises:
        ValueError: If the config is that of another model, or contradicts itself or the tokenizer.
    """

    def __init__(self, config: Mapping[str, Any], num_tokens: int, word_ids: list[int], attribute: str):
        refuse_other_models(config)
        refuse_missing("The config", config, ("vocab_size",))
        self.vocab_size, self.word_ids = config["vocab_size"], word_ids
        if self.vocab_size < num_tokens:
            raise ValueError(f"The tokenizer has {num_tokens} tokens; config.json describes only {self.vocab_size}.")
        levels = len(word_ids)
        fields = {"score_token_id": num_tokens, "num_levels": levels, "score_range": (1.0, float(levels))}
        self._describe(config, num_tokens + 1, attributes=[attribute], **fields)

    def split_rows(self, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Rows of all tokens and their mean for `[SCORE]`; and the rows of the words."""
        if len(weight) != self.vocab_size:
            raise ValueError(f"An embedding has {len(weight)} rows; the config describes {self.vocab_size}.")
        tokens = weight[: self.rows - 1]  # (V, H)
        mean = tokens.mean(0, keepdim=True, dtype=torch.float32).to(weight.dtype)  # (1, H)
        return torch.cat([tokens, mean]), tokens[self.word_ids]  # (V + 1, H), (5, H)


def level_words(
    config: Mapping[str, Any], folder: Path, attribute: str | None = None
) -> tuple[LevelWordsConversion, ROC4MLLMProcessor]:
    """
    Conversion and processor of such a checkpoint.

    Args:
        config (`Mapping`): Content of its `config.json`.
        folder (`Path`): The checkpoint, with tokenizer files.
        attribute (`str`, *optional*, defaults to `"aesthetics"`): Or `"quality"`; OneAlign knows both.

    Raises:
        ValueError: If the attribute is another one, or a file does not fit.
    """
    attribute = attribute or ATTRIBUTES[0]
    if attribute not in ATTRIBUTES:
        raise ValueError(f"attribute must be one of {list(ATTRIBUTES)}, got {attribute!r}.")
    if "score_id" in config:
        raise ValueError(f"{str(folder)!r} is a ROC4MLLM checkpoint, which scores by [SCORE]; its family is roc4mllm.")
    tokenizer = original_tokenizer(folder)
    num_tokens = add_token(tokenizer, SCORE_TOKEN)  # before the image token, so that it is the next row
    word_ids = [tokenizer(word, add_special_tokens=False)["input_ids"][0] for word in WORDS]
    if len(set(word_ids)) != len(WORDS):
        raise ValueError(f"The tokenizer does not tell {WORDS} by their first tokens, {word_ids}.")
    conversion = LevelWordsConversion(config, num_tokens, word_ids, attribute)
    backbone = conversion.config.mllm_config
    images = original_image_processor(folder, backbone.vision_config.image_size)
    processor = ROC4MLLMProcessor(
        backbone_processor=MPLUGOwl2Processor(images, tokenizer, backbone.num_image_tokens),
        attributes=[attribute],
        question=QUESTION.format(attribute=attribute),
        answer=ANSWER.format(attribute=attribute),
        prompt=PROMPT,
        answer_end=tokenizer.eos_token,
    )
    return conversion, processor


__all__ = ["LevelWordsConversion", "level_words"]
