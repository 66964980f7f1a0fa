"""Options of the Trainer, and which are refused."""

import math

import pytest
from tiny import scorer_parts
from transformers import TrainingArguments

from roc4mllm.trainer.split_loss_config import SplitLossConfig
from roc4mllm.trainer.split_loss_trainer import SplitLossTrainer


def test_presets_and_single_weights():
    none = dict.fromkeys(("text", "smooth_l1", "ce", "emd", "similarity"), 0.0)
    assert SplitLossConfig().loss_weights == none | {"text": 1.0, "smooth_l1": 1.0}
    assert SplitLossConfig().tail_mixup is None
    assert SplitLossConfig(loss_preset="paper-ava").loss_weights["ce"] == 1.0
    script = SplitLossConfig(loss_preset="authors-script", emd_weight=0.5).loss_weights
    assert script == none | {"text": 1.0, "ce": 10.0, "emd": 0.5}
    searched = SplitLossConfig(text_weight=2.0)
    searched.loss_preset = "paper-ava"  # as a search of settings does
    assert searched.loss_weights == none | {"text": 2.0, "smooth_l1": 1.0, "ce": 1.0}
    assert SplitLossConfig(loss_preset="emd", similarity_weight=0.2).loss_weights == none | {
        "emd": 1.0, "similarity": 0.2
    }  # fmt: skip
    config = SplitLossConfig()
    assert (config.learning_rate, config.per_device_train_batch_size, config.num_train_epochs) == (2e-5, 16, 2.0)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"loss_preset": "papre"}, "paper, paper-ava, authors-script, emd; got 'papre'"),
        ({"text_weight": -1.0}, "at least 0"),
        ({"text_weight": 0.0, "smooth_l1_weight": 0.0}, "one of them above"),
        ({"label_smoothing_factor": 0.1}, "label_smoothing_factor=0.1"),
        ({"similarity_weight": -1.0}, "at least 0"),
        ({"mixup_pairs": 1, "mixup_tau_1": 0.0}, "tau_1 above 0"),
        ({"mixup_pairs": 1, "per_device_train_batch_size": 1}, "at least 2, got 1"),
        ({"similarity_weight": 1.0, "per_device_train_batch_size": 1}, "at least 2, got 1"),
        ({"learning_rates": {"score_head": "fast"}}, "numbers of at least 0"),
        ({"self_training": -1}, "self_training must be 0 or more rounds"),
        ({"sharpening": math.inf}, "sharpening be at least 0; got 0, 0.8 and inf"),
        ({"sharpening": -0.1}, "sharpening be at least 0; got 0, 0.8 and -0.1"),
        ({"similarity_weight": math.nan}, "at least 0"),
        ({"mixup_pairs": 1, "mixup_tau_2": math.inf}, "tau_2 of at least 0"),
        ({"learning_rates": {"score_head": math.nan}}, "numbers of at least 0"),
        ({"pick_threshold": 1.0}, "pick_threshold lie between 0 and 1"),
    ],
)
def test_options_that_cannot_be_meant_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        SplitLossConfig(**options)


def test_other_arguments_than_ours_are_refused(tmp_path):
    model, processor = scorer_parts("llava")
    with pytest.raises(TypeError, match="needs a SplitLossConfig"):
        SplitLossTrainer(model=model, args=TrainingArguments(str(tmp_path)), processing_class=processor)
