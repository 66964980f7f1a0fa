"""The authors' shape of scoring: texts and scores."""

import re

import pytest
from checkpoint_files import roc4mllm_checkpoint, write_checkpoint
from huggingface_hub import constants
from tiny import photo, scorer_parts

import roc4mllm
from roc4mllm import Assessment, load_scorer

PICTURES = [photo(0), photo(1, 30, 70)]


@pytest.fixture(params=["bin", "safetensors"])
def original(tmp_path, monkeypatch, request):
    """A checkpoint as the authors publish it."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "home" / "hub"))
    return write_checkpoint(tmp_path / "original", *roc4mllm_checkpoint(), request.param)


def test_texts_and_scores(original):
    texts, scores = Assessment(str(original))(PICTURES)
    expected = load_scorer(original).score(PICTURES).tolist()
    assert abs(expected[0] - expected[1]) > 1e-3
    assert scores == pytest.approx(expected, abs=1e-6)
    assert texts == [f"The aesthetic rate of the image is {score:.4f}." for score in scores]


def test_precision_and_options(original):
    assessment = Assessment(original, device="cpu", batch_size=2)
    texts, scores = assessment(PICTURES, precision=1)
    assert texts == [f"The aesthetic rate of the image is {score:.1f}." for score in scores]
    assert assessment([]) == ([], [])
    assert assessment(PICTURES[0], precision=1) == (texts[:1], pytest.approx(scores[:1], abs=1e-6))


def test_each_attribute_stands_in_the_text(tmp_path):
    for part in scorer_parts("llava", ("aesthetics", "light")):
        part.save_pretrained(tmp_path)
    (text,), (score,) = Assessment(tmp_path)([photo()])
    light = load_scorer(tmp_path)(photo())["attributes"]["light"]
    assert text == f"The aesthetic rate of the image is {score:.4f}, the light rate of the image is {light:.4f}."


def test_a_picture_that_fails_raises(original):
    with pytest.raises(ValueError, match=re.escape("missing.jpg: no such file")):
        Assessment(original)([photo(), "missing.jpg"])


def test_it_is_imported_when_it_is_asked_for():
    assert roc4mllm.Assessment is Assessment
    with pytest.raises(AttributeError, match="no attribute 'Assesment'"):
        roc4mllm.Assesment  # noqa: B018
