"""
Unusual architectures: scaled and soft-capped logits, pictures in front of the text, no base model, and those that
cannot carry a score. All 97 of transformers stand in benchmarks/results/backbones.md, made with the same checks.
"""

import logging
import re
from pathlib import Path

import pytest
import torch
from backbones_checks import CHECKS, Trial
from backbones_tiny import ARCHITECTURES, tiny_model

from roc4mllm import ROC4MLLMForImageAesthetics

TABLE = Path(__file__).parents[1] / "benchmarks" / "results" / "backbones.md"


@pytest.mark.parametrize(
    ("name", "option", "value"),
    [
        ("granite4_vision", "logits_scaling", 3.0),
        ("granite_docling", "logits_scaling", 3.0),
        ("gemma4", "final_logit_softcapping", 2.0),
    ],
)
def test_text_loss_keeps_the_backbones_scaling_and_soft_cap(name, option, value):
    backbone = tiny_model(name)
    assert hasattr(backbone.config.text_config, option)
    backbone.config.text_config.update({option: value})
    trial = Trial(name, backbone, None)
    labels = trial.example.ids.clone()
    labels[:, : trial.example.prompt] = -100
    with torch.no_grad():
        ours = trial.model(**trial.example.inputs(), labels=labels)
        theirs = trial.backbone(**trial.example.inputs(), labels=labels).loss
        scaled_scores = trial.scores.clone()
        backbone.config.text_config.update({option: 50.0})
        other = trial.backbone(**trial.example.inputs(), labels=labels).loss
    torch.testing.assert_close(ours.text_loss, theirs, atol=1e-5, rtol=0)
    assert abs(other - theirs) > 1e-2  # the option does something
    assert torch.equal(trial.score(**trial.example.inputs()), scaled_scores)  # and nothing to the scores


@pytest.mark.parametrize("name", ["git", "blip", "blip-2", "kosmos-2", "mllama", "chameleon", "inkling2"])
def test_unusual_bodies(name):
    """
    GIT and BLIP put picture states elsewhere, BLIP-2 and Kosmos-2 have no `.model`, Chameleon masks its logits,
    Inkling cuts its logits, Mllama's input has more rows than its output.
    """
    trial = Trial(name, tiny_model(name), None)
    for column in (
        "pictures differ",
        "cut before slots",
        "cached steps",
        "later tokens",
        "text loss",
        "save and load",
    ):
        check, lowest, highest = CHECKS[column]
        assert lowest <= check(trial) <= highest, column


def test_head_that_a_part_owns(caplog):
    """Nemotron's outer model knows no output embedding, and resizing it would leave the head behind."""
    with caplog.at_level(logging.ERROR, logger="transformers"):  # its own config uses a deprecated name
        trial = Trial("nemotron_h_omni", tiny_model("nemotron_h_omni"), None)
    assert trial.backbone.get_output_embeddings() is None
    head = trial.model.get_output_embeddings()
    assert len(head.weight) == len(trial.model.get_input_embeddings().weight) == trial.model.config.score_token_id + 1
    for column in ("pictures differ", "cut before slots", "cached steps", "text loss"):
        check, lowest, highest = CHECKS[column]
        assert lowest <= check(trial) <= highest, column


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("florence2", "encoder-decoder"),
        ("pix2struct", "encoder-decoder"),
        ("diffusion_gemma", "token by token"),
        ("pi0", "token by token"),
        ("evolla", "no picture"),
        ("mistral4", "no picture"),
    ],
)
def test_refused_with_the_reason(name, reason):
    with pytest.raises(ValueError, match=reason):
        ROC4MLLMForImageAesthetics.from_backbone(tiny_model(name))


def test_committed_table_covers_every_architecture():
    rows = re.findall(r"^\| (\S+) \| ([a-z ]+) \|", TABLE.read_text(), flags=re.MULTILINE)
    found = dict(rows)
    found.pop("architecture", None)
    assert set(ARCHITECTURES) <= set(found)
    refused = [name for name in ARCHITECTURES if found[name] == "refused"]
    works = [name for name in ARCHITECTURES if found[name] == "works"]
    assert len(works) >= 0.9 * (len(ARCHITECTURES) - len(refused))
    assert "not refused" not in found.values()
