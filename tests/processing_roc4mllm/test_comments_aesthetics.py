"""Texts with numbers in them; whole comments are in test_pipeline_image_aesthetics.py."""

import pytest
from checkpoint_files import write_tokenizer
from tiny import shared_parts

from roc4mllm import ROC4MLLMProcessor
from roc4mllm.hub.original_tokenizer import original_processor
from roc4mllm.processing_roc4mllm.comments_aesthetics import spoken, with_numbers


@pytest.fixture(scope="module", params=[True, False], ids=["legacy", "new"])
def processor(request, tmp_path_factory):
    """One whose `[SCORE]` takes the spaces around it away, as Llama's tokenizer of the authors does."""
    folder = write_tokenizer(tmp_path_factory.mktemp("original"), legacy=request.param)
    return ROC4MLLMProcessor(backbone_processor=original_processor(folder))


def test_spaces_around_the_score_come_back(processor):
    for text in ("The aesthetic rate of the image is [SCORE].", "The rate is [SCORE], of the image is [SCORE]; and"):
        ids = processor.tokenizer(text, add_special_tokens=False)["input_ids"]
        assert processor.score_token_id in ids
        assert spoken(ids, processor) == text


def test_words_behind_the_score(processor):
    words = ["▁is", "[SCORE]", "▁of", "[SCORE]"]  # as a model writes them
    assert spoken(processor.tokenizer.convert_tokens_to_ids(words), processor) == "is [SCORE] of [SCORE]"


def test_a_tokenizer_that_keeps_spaces_is_taken_at_its_word():
    processor = shared_parts("llava")[1]
    for text in ("is [SCORE] .", "is[SCORE]."):
        assert spoken(processor.tokenizer(text)["input_ids"], processor) == text


def test_numbers_stand_in_reading_order():
    assert with_numbers("is [SCORE], is [SCORE].", [5.734, 1.0]) == "is 5.73, is 1.00."
    assert with_numbers("is [SCORE].", [5.73456], decimals=4) == "is 5.7346."
