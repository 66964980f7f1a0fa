"""The prompt is rendered once and does not move afterwards."""

import logging

import pytest
import torch
from common_tests import PICTURES, run
from tiny import BACKBONES, CHAT, backbone, photo

from roc4mllm import ROC4MLLMForImageAesthetics, ROC4MLLMProcessor
from roc4mllm.processing_roc4mllm.prompt_roc4mllm import render_prompt

DATED = "Today is {{ strftime_now('%d %b %Y %H:%M:%S.%f') }}.\n" + CHAT.replace("IMAGE", "<image>")
THINKING = (
    CHAT.replace("IMAGE", "<image>").removesuffix("{% endif %}")
    + "{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)
ALWAYS_THINKING = CHAT.replace("IMAGE", "<image>").removesuffix("{% endif %}") + "<think>\n{% endif %}"


def llava_processor(chat_template):
    _, processor = backbone("llava")
    processor.chat_template = chat_template
    return processor


def test_shown_once(caplog):
    with caplog.at_level(logging.WARNING):
        ROC4MLLMProcessor.from_backbone(llava_processor(CHAT.replace("IMAGE", "<image>")))
    assert caplog.text.count("Prompt of this scorer") == 1
    assert "[QUESTION]<|im_end|>" in caplog.text


def test_dated_template_stays_as_it_was(tmp_path):
    processor = ROC4MLLMProcessor.from_backbone(llava_processor(DATED))
    assert processor.prompt.startswith("Today is ")
    first = processor(images=photo())["input_ids"]
    assert render_prompt(processor.backbone_processor)[0] != processor.prompt  # the template itself has moved on
    assert torch.equal(processor(images=photo())["input_ids"], first)
    processor.save_pretrained(tmp_path)
    assert torch.equal(ROC4MLLMProcessor.from_pretrained(tmp_path)(images=photo())["input_ids"], first)


def test_thinking_template_answers_at_once():
    assert render_prompt(llava_processor(THINKING))[0].endswith("assistant\n<think>\n\n</think>\n\n")
    assert render_prompt(llava_processor(ALWAYS_THINKING))[0].endswith("<|im_start|>assistant\n")


def test_end_of_an_answer():
    assert render_prompt(llava_processor(CHAT.replace("IMAGE", "<image>")))[1] == "<|im_end|>"
    assert render_prompt(llava_processor("{{ messages[0]['content'][1]['text'] }}"))[1] == "</s>"


def test_template_that_loses_the_question():
    with pytest.raises(ValueError, match="exactly once.*'hello'"):
        render_prompt(llava_processor("hello"))


@pytest.mark.parametrize("kind", BACKBONES)
def test_missing_template(kind):
    """Image tokens, question, newline; the picture still arrives."""
    model, processor = backbone(kind)
    processor.chat_template = None
    processor = ROC4MLLMProcessor.from_backbone(processor)
    assert processor.prompt.endswith("[QUESTION]\n")
    scorer = ROC4MLLMForImageAesthetics.from_backbone(model, processor=processor)
    torch.nn.init.normal_(scorer.score_head.weight, std=0.5)
    scores = run(scorer, processor(images=PICTURES)).scores
    assert (scores[0] - scores[1]).abs() > 1e-3


def test_one_beginning_of_sequence():
    """A template that writes the beginning token itself must not get a second one from the tokenizer."""
    _, processor = backbone("llava")
    processor.chat_template = "<s>" + CHAT.replace("IMAGE", "<image>")
    processor.tokenizer.add_bos_token = True
    processor.tokenizer.update_post_processor()
    wrapped = ROC4MLLMProcessor.from_backbone(processor)
    assert processor.tokenizer("a")["input_ids"][0] == 1
    assert wrapped(images=photo())["input_ids"][0].tolist().count(1) == 1
