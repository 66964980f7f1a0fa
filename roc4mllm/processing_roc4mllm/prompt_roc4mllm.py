"""
The text before the answer, rendered once from a chat template and then fixed.

Templates print today's date, open a thinking block or change with a new release; a score must not move with them.
"""

import re

from transformers import ProcessorMixin

SCORE_TOKEN = "[SCORE]"
QUESTION_SLOT = "[QUESTION]"  # stands in the saved prompt where the question goes
ANSWER_SLOT = "[ANSWER]"


def render_prompt(processor, pictures: int = 1) -> tuple[str, str]:
    """
    The fixed prompt of a backbone's processor and the text that ends an answer.

    Args:
        processor (`ProcessorMixin`): The backbone's own processor.
        pictures (`int`, *optional*, defaults to 1): How many pictures it shows.

    Returns:
        `tuple[str, str]`: The prompt, with `[QUESTION]` where the question goes and the image placeholder of the
        backbone in it, and the end of an answer (the end-of-turn token, or the end-of-sequence token).

    Raises:
        ValueError: If the chat template does not repeat the question exactly once.
    """
    tokenizer = processor.tokenizer
    if not (getattr(processor, "chat_template", None) or getattr(tokenizer, "chat_template", None)):
        return f"{image_placeholder(processor) * pictures}{QUESTION_SLOT}\n", tokenizer.eos_token or ""
    question = {"role": "user", "content": [*[{"type": "image"}] * pictures, {"type": "text", "text": QUESTION_SLOT}]}
    answer = {"role": "assistant", "content": [{"type": "text", "text": ANSWER_SLOT}]}
    prompt = without_open_thinking(apply_template(processor, [question], add_generation_prompt=True))
    if prompt.count(QUESTION_SLOT) != 1:
        raise ValueError(f"The chat template must repeat the question exactly once; it gave {prompt!r}.")
    whole = apply_template(processor, [question, answer], add_generation_prompt=False)
    end = whole.rpartition(ANSWER_SLOT)[2].strip() if ANSWER_SLOT in whole else ""
    return prompt, end or tokenizer.eos_token or ""


def apply_template(processor, messages: list[dict], add_generation_prompt: bool) -> str:
    """
    Render as text, without thinking where the template can think.

    Called on the parent class: a few processors ask for their video processor first, which may be missing here.
    """
    template = getattr(processor, "chat_template", None) or processor.tokenizer.chat_template
    options = {"add_generation_prompt": add_generation_prompt, "tokenize": False}
    if "enable_thinking" in str(template):  # transformers complains about options that a template does not read
        options["enable_thinking"] = False
    return ProcessorMixin.apply_chat_template(processor, messages, chat_template=template, **options)


def without_open_thinking(prompt: str) -> str:
    """The prompt without a thinking block that it opens and leaves open: the answer follows at once."""
    return re.sub(r"<(think|thinking|reasoning)>\s*$", "", prompt)


def image_placeholder(processor) -> str:
    """The text that a processor without chat template replaces by one picture's tokens; empty where it needs none."""
    for holder in (processor, processor.tokenizer):
        if token := getattr(holder, "image_token", None):
            return str(token)
    return ""


def check_text(kind: str, text) -> None:
    """Refuse what is no text, and a text of the user's with the position token in it."""
    if not isinstance(text, str):
        raise TypeError(f"A {kind} must be a text, got {type(text).__name__}.")
    if SCORE_TOKEN in text:
        raise ValueError(f"A {kind} must not contain {SCORE_TOKEN}, which marks where a score is read: {text!r}.")


def check_attributes(wanted, known) -> None:
    """Refuse attributes that are not distinct names out of `known`; `None` stands for all of them."""
    if wanted is None:
        return
    names = {name for name in wanted if isinstance(name, str) and name.strip()}
    if isinstance(wanted, str) or not wanted or len(names) != len(wanted):
        raise ValueError(f"attributes must be a list of distinct names, at least one; got {wanted!r}.")
    if unknown := [name for name in wanted if name not in known]:
        raise ValueError(f"Unknown attributes {unknown}; this model scores {list(known)}.")


__all__ = ["QUESTION_SLOT", "SCORE_TOKEN", "check_attributes", "check_text", "image_placeholder", "render_prompt"]
