"""Parts of a model by the names of its parameters."""

import pytest
from tiny import BACKBONES, shared_parts
from torch import nn

from roc4mllm.trainer.model_parts import named_parts, part_of


@pytest.mark.parametrize("kind", BACKBONES)
def test_every_parameter_of_every_backbone_is_in_one_part(kind):
    model, _ = shared_parts(kind)
    parts = {part: {name for name, _ in named} for part, named in named_parts(model).items()}
    assert sorted(parts) == ["connector", "language_model", "score_head", "vision_tower"]
    assert sum(map(len, parts.values())) == len(list(model.parameters()))
    assert parts["score_head"] == {"score_head.weight"}
    text = {name for name, _ in model.named_parameters() if "language_model" in name or "text_model" in name}
    assert text <= parts["language_model"]
    assert all("vision" in name or "visual" in name for name in parts["vision_tower"])
    assert all(
        any(word in name for word in ("merger", "projector", "connector", "abstractor", "newline"))
        for name in parts["connector"]
    )


def test_wrappers_do_not_hide_the_parts():
    model, _ = shared_parts("llava")
    wrapped = nn.ModuleDict({"module": model})
    expected = {part: len(named) for part, named in named_parts(model).items()}
    assert {part: len(named) for part, named in named_parts(wrapped).items()} == expected


def test_the_longest_beginning_wins_and_names_are_compared_whole():
    prefixes = {"": "rest", "tower": "tower", "tower.merger": "connector"}
    names = ["tower.layer.weight", "tower.merger.weight", "towering.weight", "tower.merger_norm.weight", "tower"]
    assert [part_of(name, prefixes) for name in names] == ["tower", "connector", "rest", "tower", "tower"]


def test_a_model_without_parts_is_refused():
    with pytest.raises(ValueError, match="Linear names no parts"):
        named_parts(nn.Linear(2, 2))
