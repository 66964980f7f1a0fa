"""ROC4MLLMConfig is checked at birth and travels without paths."""

import json
import re

import pytest
from huggingface_hub.errors import StrictDataclassError
from tiny import BUILDERS

from roc4mllm import ROC4MLLMConfig


@pytest.fixture
def mllm_config():
    return BUILDERS["llava"]("llava", False)[0]


def test_defaults(mllm_config):
    config = ROC4MLLMConfig(mllm_config=mllm_config)
    assert (config.num_levels, config.score_range, config.attributes) == (10, [1.0, 10.0], ["aesthetics"])
    assert (config.higher_is_better, config.score_head_trained) == (True, False)
    assert config.get_text_config() is mllm_config.text_config
    assert ROC4MLLMConfig().mllm_config.model_type == "llava"  # transformers asks for a config without arguments


def test_round_trip(mllm_config, tmp_path):
    config = ROC4MLLMConfig(
        mllm_config=mllm_config,
        score_token_id=340,
        score_range=[[1, 5], [0, 100]],
        attributes=["aesthetics", "light"],
        num_levels=7,
        score_head_trained=True,
    )
    config.save_pretrained(tmp_path)
    again = ROC4MLLMConfig.from_pretrained(tmp_path)
    assert again.to_dict() == config.to_dict()
    assert type(again.mllm_config) is type(mllm_config)
    assert again.score_range == [[1, 5], [0, 100]]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"num_levels": "x"}, "num_levels.*int.*str"),
        ({"num_levels": 1}, "at least 2, got 1"),
        ({"score_range": (5, 1)}, r"min < max, got \[5, 1\]"),
        ({"score_range": (1, 2, 3)}, r"min < max, got \[1, 2, 3\]"),
        ({"score_range": ("a", "b")}, "min < max"),
        ({"score_range": (1.0, float("inf"))}, "finite, with min < max"),
        ({"score_range": [[1, 2], [1, 2]]}, r"one per attribute \(1\)"),
        ({"score_range": ()}, r"one per attribute \(1\)"),
        ({"attributes": ["a", "a"]}, "distinct"),
        ({"attributes": []}, "at least one"),
        ({"attributes": "abc"}, "attributes.*str"),
        ({"score_token_id": 1}, "already bos_token_id"),
    ],
)
def test_wrong_values(mllm_config, wrong, message):
    with pytest.raises(StrictDataclassError) as caught:
        ROC4MLLMConfig(mllm_config=mllm_config, **wrong)
    assert re.search(message, str(caught.value).replace("\n", " "))


def test_later_assignment_is_checked_too(mllm_config):
    config = ROC4MLLMConfig(mllm_config=mllm_config)
    with pytest.raises(StrictDataclassError, match="num_levels"):
        config.num_levels = "many"


def test_image_token_cannot_be_the_score_token(mllm_config):
    with pytest.raises(StrictDataclassError, match="image_token"):
        ROC4MLLMConfig(mllm_config=mllm_config, score_token_id=mllm_config.image_token_index)


def test_no_path_in_the_saved_config(mllm_config, tmp_path):
    mllm_config.name_or_path = mllm_config.text_config.name_or_path = str(tmp_path / "secret")
    ROC4MLLMConfig(mllm_config=mllm_config).save_pretrained(tmp_path)
    saved = (tmp_path / "config.json").read_text()
    assert "secret" not in saved
    assert json.loads(saved)["mllm_config"]["text_config"]["hidden_size"] == 32


def test_wraps_a_used_config_without_changing_it(mllm_config):
    mllm_config._attn_implementation = "sdpa"
    assert ROC4MLLMConfig(mllm_config=mllm_config).mllm_config._attn_implementation == "sdpa"
    asked = ROC4MLLMConfig(mllm_config=mllm_config, attn_implementation="eager")
    assert asked.mllm_config.text_config._attn_implementation == "eager"


def test_tied_embeddings_are_mirrored():
    config = BUILDERS["gemma3"]("gemma3", True)[0]
    assert ROC4MLLMConfig(mllm_config=config, tie_word_embeddings=False).tie_word_embeddings is True
