"""What a training moves: parts of the model, frozen or with a learning rate of their own."""

import pytest
from tiny import scorer_parts
from tiny_training import ATTRIBUTES, moved, rows, trainer, weights

from roc4mllm.trainer.model_parts import describe_trainable, named_parts
from roc4mllm.trainer.rating_collator import RatingCollator

PARTS = ["vision_tower", "connector", "language_model", "score_head"]


@pytest.mark.parametrize("kind", ["llava", "qwen2_vl", "smolvlm", "gemma3"])
def test_all_that_is_trainable_moves_and_nothing_that_is_frozen(tmp_path, kind):
    unused = without_gradient(kind)
    trained = trainer(tmp_path, kind, freeze=["connector"], max_steps=3, weight_decay=0.0)
    before = weights(trained.model)
    trained.train()
    frozen = {name for name, _ in named_parts(trained.model)["connector"]}
    trainable = {name for name, value in trained.model.named_parameters() if value.requires_grad}
    assert frozen == set(before) - trainable
    assert frozen
    assert trainable - moved(before, trained.model) == unused - frozen
    assert not moved(before, trained.model) & frozen


def without_gradient(kind: str) -> set[str]:
    """What the backbone itself leaves out of its forward pass (LLaVA reads the last but one layer of its tower)."""
    model, processor = scorer_parts(kind, ATTRIBUTES)
    batch = RatingCollator(processor, model.config)(rows(8))
    inputs = {name: value for name, value in batch.items() if name not in ("slot_attributes", "scores", "votes")}
    model.backbone(**inputs).loss.backward()
    return {f"backbone.{name}" for name, value in model.backbone.named_parameters() if value.grad is None}


def test_each_part_has_its_learning_rate(tmp_path):
    rates = {"score_head": 1e-2, "vision_tower": 0.0}
    trained = trainer(tmp_path, learning_rates=rates, lr_scheduler_type="constant", weight_decay=0.01)
    before = weights(trained.model)
    trained.train()
    parts = {part: {name for name, _ in named} for part, named in named_parts(trained.model).items()}
    assert sorted(parts) == sorted(PARTS)
    by_parameter = {p: group["lr"] for group in trained.optimizer.param_groups for p in group["params"]}
    for part, named in named_parts(trained.model).items():
        assert {by_parameter[p] for _, p in named} == {rates.get(part, 1e-3)}
    assert not moved(before, trained.model) & parts["vision_tower"]
    step = {
        part: max((before[n] - p).abs().max() for n, p in named) for part, named in named_parts(trained.model).items()
    }
    assert step["score_head"] > 3 * step["language_model"] > 0


def test_unknown_parts_are_refused_with_those_of_the_model(tmp_path):
    with pytest.raises(ValueError, match="no part tower; its parts are .*vision_tower"):
        trainer(tmp_path, freeze=["tower"])
    with pytest.raises(ValueError, match="no part head"):
        trainer(tmp_path, learning_rates={"head": 1e-3})


def test_trainable_parameters_are_described_by_part(tmp_path):
    trained = trainer(tmp_path, freeze=["vision_tower", "connector"])
    line = describe_trainable(trained.model)
    total = sum(p.numel() for p in trained.model.parameters())
    count = sum(p.numel() for p in trained.model.parameters() if p.requires_grad)
    assert f"{count:,} of {total:,} parameters" in line
    assert "vision_tower frozen" in line
    assert f"score_head {trained.model.score_head.weight.numel()}" in line


def test_training_marks_the_score_head_as_trained_if_there_were_scores(tmp_path):
    for data, options, expected in [
        (rows(8), {}, True),
        ([{"image": row["image"], "comment": "calm"} for row in rows(8)], {}, False),
        (rows(8), {"freeze": ["score_head"]}, False),
    ]:
        trained = trainer(tmp_path, max_steps=1, train_dataset=data, eval_dataset=None, **options)
        trained.model.config.score_head_trained = False
        trained.train()
        assert trained.model.config.score_head_trained is expected
