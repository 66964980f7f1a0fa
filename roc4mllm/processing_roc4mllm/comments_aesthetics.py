"""
Comments with the score in them.

By default the scoring sentence is forced first and the comment generated after it, so the number in the text IS the
score. Free generation reads the finished text once more for the scores at its own `[SCORE]` tokens.
"""

import re
from typing import Any

import torch
from transformers import BatchFeature


def write_comments(model, processor, batch: "CommentInputs", scores: torch.Tensor) -> list[dict]:
    """
    One `{"text": …}` per row; in free generation also `"text_scores"`, the scores that stand in the text, in order.

    Args:
        model: A ROC4MLLM model.
        processor: Its processor.
        batch ([`CommentInputs`]): The same pictures and questions, padded for `generate`.
        scores (`torch.Tensor` of shape `(batch_size, num_attributes)`): Scores of the rows, by attribute.
    """
    prompts = batch.inputs.to(model.device, model.dtype)
    options: dict[str, Any] = {"do_sample": False, "max_new_tokens": batch.max_new_tokens}
    if batch.forced:
        options["suppress_tokens"] = [processor.score_token_id]  # a comment has no score of its own to show
    ids = model.generate(**prompts, **options, pad_token_id=processor.tokenizer.pad_token_id)
    answers = [trimmed(row, processor.tokenizer) for row in ids[:, prompts["input_ids"].shape[1] :].tolist()]
    if batch.forced:
        sentence = processor.scoring_sentence(processor.attributes)
        return [
            {"text": with_numbers(f"{sentence} {spoken(answer, processor)}".strip(), row.tolist())}
            for answer, row in zip(answers, scores, strict=True)
        ]
    return free_comments(model, processor, batch, answers)


def free_comments(model, processor, batch: "CommentInputs", answers: list[list[int]]) -> list[dict]:
    """One more pass over the finished texts reads the scores at their `[SCORE]` tokens."""
    finished = processor(images=batch.pictures, text=batch.question, answer_ids=answers).to(model.device, model.dtype)
    scores = model(**finished).scores  # (B, A)
    rows = []
    for answer, row, columns in zip(answers, scores, finished["slot_attributes"].tolist(), strict=True):
        numbers = [row[column].item() for column in columns if column >= 0]
        rows.append({"text": with_numbers(spoken(answer, processor), numbers), "text_scores": numbers})
    return rows


class CommentInputs:
    """
    What `write_comments` needs besides the model: left-padded prompts, and the pictures for a second pass.
    """

    def __init__(self, processor, pictures, question, forced: bool, max_new_tokens: int):
        self.pictures, self.question, self.forced, self.max_new_tokens = pictures, question, forced, max_new_tokens
        self.inputs: BatchFeature = processor(
            images=pictures, text=question, prompt_only=not forced, padding_side="left"
        )


def trimmed(ids: list[int], tokenizer) -> list[int]:
    """Generated ids without the padding behind the end."""
    while ids and ids[-1] in (tokenizer.pad_token_id, tokenizer.eos_token_id):
        ids = ids[:-1]
    return ids


def spoken(ids: list[int], processor) -> str:
    """Text of generated ids, `[SCORE]` kept."""
    text = processor.tokenizer.decode(ids, skip_special_tokens=True).strip()
    token = processor.tokenizer.added_tokens_decoder.get(processor.score_token_id)
    return respaced(text) if token is not None and token.lstrip else text


def respaced(text: str) -> str:
    """`is[SCORE] .` as `is [SCORE].`: a token that takes the spaces around it away is decoded without them."""
    return re.sub(r"\[SCORE\]\s+(?=[.,;:!?])", "[SCORE]", re.sub(r"(?<=\w)\[SCORE\]", " [SCORE]", text))


def with_numbers(text: str, scores: list[float], decimals: int = 2) -> str:
    """`text` with its `[SCORE]` tokens replaced by the scores in reading order."""
    for score in scores:
        text = text.replace("[SCORE]", f"{score:.{decimals}f}", 1)
    return text


__all__ = ["CommentInputs", "with_numbers", "write_comments"]
