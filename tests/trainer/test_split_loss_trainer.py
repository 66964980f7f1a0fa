"""The losses of the Trainer: global counts, several processes, mixing, what is refused before training."""

import json

import pytest
import torch
from tiny import photo, scorer_parts
from tiny_image_scorers import tanet_scorer
from tiny_training import ATTRIBUTES, curve, eat_parts, finish, moved, rows, start, trainer, weights
from torch import nn
from transformers import Trainer, TrainingArguments

from roc4mllm import TANetConfig, TANetForImageAesthetics, load_scorer
from roc4mllm.trainer.loss_means import target_counts
from roc4mllm.trainer.rating_collator import RatingCollator
from roc4mllm.trainer.split_loss_config import SplitLossConfig
from roc4mllm.trainer.split_loss_trainer import SplitLossTrainer, has_batch_norm


def test_the_loss_curve_does_not_depend_on_how_a_batch_is_cut_up(tmp_path):
    process = start("curve", tmp_path / "two", processes=2)
    whole = trainer(tmp_path / "whole")
    whole.train()
    parts = trainer(tmp_path / "parts", per_device_train_batch_size=2, gradient_accumulation_steps=4)
    parts.train()
    printed = finish(process)
    assert process.returncode == 0, printed
    two = json.loads((tmp_path / "two" / "result.json").read_text())
    assert two["processes"] == 2
    expected = curve(whole)
    assert len(expected) == 6
    assert max(line["loss"] for line in expected) - min(line["loss"] for line in expected) > 0.1
    for other in (curve(parts), two["curve"]):
        for line, wanted in zip(other, expected, strict=True):
            assert line == pytest.approx(wanted, rel=2e-5)
    for line, wanted in zip(two["checkpointed"], expected[:1], strict=False):  # the schedule is of fewer steps
        assert line == pytest.approx(wanted, rel=1e-4)
    # tail mixup and similarity see the rows of one process, and leave the text alone
    assert two["mixed"][0]["text_loss"] == pytest.approx(expected[0]["text_loss"], rel=1e-4)
    assert two["mixed"][0]["smooth_l1_loss"] != pytest.approx(expected[0]["smooth_l1_loss"], rel=1e-3)
    for line in two["mixed"]:
        parts = [line[name] for name in ("text_loss", "smooth_l1_loss", "ce_loss")]
        assert line["loss"] == pytest.approx(sum(parts) + 0.5 * line["similarity_loss"], rel=1e-5)
    evaluation = whole.evaluate()
    for name in ("eval_loss", "eval_text_loss", "eval_ce_loss"):  # 7 rows in two processes: one row counts twice
        assert two["evaluation"][name] == pytest.approx(evaluation[name], rel=0.2)
    assert (tmp_path / "two" / "checkpoint-6" / "model.safetensors").is_file()
    assert not (tmp_path / "two" / "unfinished").exists()


def test_a_mean_over_micro_batches_would_give_another_curve(tmp_path):
    """The rows differ so much in length and ratings that the test above can fail."""

    class MeanOfMeans(SplitLossTrainer):
        def get_batch_samples(self, *args):
            batches, counts = super().get_batch_samples(*args)
            return batches, {name: count / len(batches) for name, count in counts.items()}

        def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
            counts = num_items_in_batch and target_counts(inputs)
            loss = super().compute_loss(model, inputs, num_items_in_batch=counts)
            return loss / 4 if num_items_in_batch else loss

    whole = trainer(tmp_path, max_steps=1)
    whole.train()
    model, processor = scorer_parts("llava", ATTRIBUTES)
    args = SplitLossConfig(
        **whole.args.to_dict() | {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4}
    )
    wrong = MeanOfMeans(model=model, args=args, processing_class=processor, train_dataset=rows())
    wrong.train()
    assert abs(wrong.state.log_history[0]["loss"] - whole.state.log_history[0]["loss"]) > 1e-2


def test_the_logged_loss_is_the_weighted_sum_of_its_logged_parts(tmp_path):
    trained = trainer(tmp_path, text_weight=0.5, smooth_l1_weight=2.0, ce_weight=3.0, emd_weight=0.25)
    trained.train()
    for line in trained.state.log_history[:6] + [trained.evaluate()]:
        prefix = "eval_" if "eval_loss" in line else ""
        part = {name: line[f"{prefix}{name}_loss"] for name in ("text", "smooth_l1", "ce", "emd")}
        expected = 0.5 * part["text"] + 2.0 * part["smooth_l1"] + 3.0 * part["ce"] + 0.25 * part["emd"]
        assert line[f"{prefix}loss"] == pytest.approx(expected, rel=1e-5)


def test_the_evaluation_loss_does_not_depend_on_the_batch_size(tmp_path):
    found = [trainer(tmp_path, per_device_eval_batch_size=size).evaluate() for size in (1, 3, 7)]
    for name in ("eval_loss", "eval_text_loss", "eval_smooth_l1_loss", "eval_ce_loss", "eval_emd_loss"):
        assert [line[name] for line in found] == pytest.approx([found[0][name]] * 3, rel=1e-5)


def test_rows_of_tail_mixup_weigh_as_much_as_others(tmp_path):
    """The logged means are over rated and mixed rows of all batches of a step, and the loss is their weighted sum."""
    trained = trainer(
        tmp_path, per_device_train_batch_size=4, gradient_accumulation_steps=2, mixup_pairs=3, similarity_weight=0.1,
        max_steps=1,
    )  # fmt: skip
    seen = []
    losses_of = trained.model.losses_of

    def look(rated):
        seen.append(losses_of(rated))
        return seen[-1]

    trained.model.losses_of = look
    trained.train()
    logged = trained.state.log_history[0]
    means = {name: torch.cat([losses[name] for losses in seen]).mean().item() for name in ("smooth_l1", "ce")}
    assert sum(len(losses["ce"]) for losses in seen) > 12 + 8
    for name, mean in means.items():
        assert logged[f"{name}_loss"] == pytest.approx(mean, rel=1e-5)
    expected = logged["text_loss"] + sum(means.values()) + 0.1 * logged["similarity_loss"]
    assert logged["loss"] == pytest.approx(expected, rel=1e-5)
    assert "eval_similarity_loss" not in trained.evaluate()


def test_a_resumed_training_mixes_as_an_uninterrupted_one(tmp_path):
    options = {"mixup_pairs": 2, "mixup_tau_2": 0.0, "similarity_weight": 0.1, "save_strategy": "steps"}
    whole = trainer(tmp_path / "whole", save_steps=2, **options)
    whole.train()
    resumed = trainer(tmp_path / "again", save_steps=2, **options)
    resumed.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-2"))
    assert resumed.state.global_step == 6
    for line, wanted in zip(curve(resumed), curve(whole), strict=True):
        assert line == pytest.approx(wanted, rel=1e-5)
    other = trainer(tmp_path / "other", **options | {"save_strategy": "no", "mixup_tau_2": 5.0})
    other.train()
    assert curve(other)[-1]["loss"] != pytest.approx(curve(whole)[-1]["loss"], rel=1e-4)


def test_a_scorer_of_a_picture_alone_is_trained_too(tmp_path):
    """Parts with rates of their own and frozen ones, comments left out, the image processor saved beside the model."""
    model, images = eat_parts(attributes=ATTRIBUTES)
    trained = trainer(
        tmp_path, model=model, processor=images, loss_preset="emd", mixup_pairs=1, learning_rates={"score_head": 1e-2},
        train_sampling_strategy="group_by_length", max_steps=12, lr_scheduler_type="constant",
    )  # fmt: skip
    before = weights(model)
    trained.train()
    losses = [line["loss"] for line in trained.state.log_history if "loss" in line]
    assert sum(losses[-3:]) < sum(losses[:3])
    assert moved(before, model) == set(before)
    assert "eval_srcc_sharpness" in trained.evaluate()
    trained.save_model(tmp_path)
    assert load_scorer(str(tmp_path))(photo(0))["error"] is None
    frozen = trainer(tmp_path, model=model, processor=images, loss_preset="emd", freeze=["backbone"], max_steps=1)
    before = weights(model)
    frozen.train()
    assert moved(before, model) == {"score_head.weight", "score_head.bias"}


def test_a_last_picture_alone_is_left_out_where_batch_normalisation_would_fail(tmp_path):
    data = one_attribute(9)
    options = {"per_device_train_batch_size": 4, "num_train_epochs": 2, "max_steps": -1, "loss_preset": "emd"}
    options |= {"train_dataset": data, "eval_dataset": data}
    networks = {"mobilenet_config": {"depth_multiplier": 0.35}, "scene_config": {"hidden_sizes": [8, 8, 8, 8]}}
    tanet = TANetForImageAesthetics(TANetConfig(num_levels=5, score_range=(1.0, 5.0), **networks))
    _, images = eat_parts()
    trained = trainer(tmp_path, model=tanet, processor=images, **options)
    assert trained.leaves_one
    trained.train()
    assert trained.state.global_step == 4
    assert len(trained.predict(data).predictions) == 9
    alone = trainer(tmp_path, model=tanet, processor=images, **options | {"per_device_train_batch_size": 1})
    for refusing in (alone.check_before_training, alone.train):
        with pytest.raises(ValueError, match="normalises over the pictures of a batch"):
            refusing()
    eat = trainer(tmp_path, model=eat_parts()[0], processor=images, **options)
    eat.train()
    assert eat.state.global_step == 6


def test_a_single_picture_has_statistics_over_its_places():
    assert has_batch_norm(nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)))
    assert not has_batch_norm(nn.Sequential(nn.Conv2d(3, 2, 1), nn.BatchNorm2d(2)))


@pytest.mark.parametrize("as_model_init", [False, True])
def test_a_model_is_told_before_its_weights_move(tmp_path, as_model_init):
    """A TANet then knows that it learns without statistics: in training alone, when it is settled what is frozen."""
    scorer = tanet_scorer(theme_calibrated=False)
    seen = []
    before_training = type(scorer.model).before_training

    def look(model):
        seen.append({name for name, value in model.named_parameters() if value.requires_grad})
        before_training(model)

    scorer.model.before_training = look.__get__(scorer.model)
    options = {"loss_preset": "emd", "freeze": ["colour"], "max_steps": 1}
    options |= {"train_dataset": one_attribute(8), "eval_dataset": one_attribute(3)}
    if as_model_init:
        args = SplitLossConfig(output_dir=str(tmp_path), use_cpu=True, loss_preset="emd", freeze=["colour"])
        trained = SplitLossTrainer(
            model_init=lambda: scorer.model, args=args, processing_class=scorer.image_processor, train_dataset=[]
        )
    else:
        trained = trainer(tmp_path, model=scorer.model, processor=scorer.image_processor, **options)
        assert not seen
        trained.evaluate()
        assert scorer.model.config.theme_calibrated is False
        trained.train()
    assert len(seen) == 1
    assert not any(name.startswith("colour") for name in seen[0])
    assert any(name.startswith("perception") for name in seen[0])
    assert scorer.model.config.theme_calibrated is None


@pytest.mark.parametrize(
    ("options", "weights", "message"),
    [
        ({"num_levels": 1}, {"loss_preset": "emd"}, "weight for emd, and a head of one value"),
        ({"num_levels": 1}, {"loss_preset": "paper-ava"}, "weight for ce, and a head of one value"),
        (
            {"raw_head": True},
            {"ce_weight": 1.0},
            "weight for ce, and a head of raw shares.* to smooth_l1 or emd alone",
        ),
        (
            {},
            {"loss_preset": "paper", "smooth_l1_weight": 0.0},
            "text loss alone has a weight.*smooth_l1 or ce or emd",
        ),
    ],
)
def test_a_loss_that_the_model_does_not_have_is_refused_before_training(tmp_path, options, weights, message):
    model, images = eat_parts(**options)
    prepared = trainer(tmp_path, model=model, processor=images, **{"loss_preset": "paper"} | weights)
    for refusing in (prepared.check_before_training, prepared.train):
        with pytest.raises(ValueError, match=message):
            refusing()
    assert prepared.state.global_step == 0
    trainer(tmp_path, model=model, processor=images, loss_preset="paper").check_before_training()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"freeze": ["backbone", "score_head"]}, "Every part of the model is frozen"),
        ({"max_steps": -1, "num_train_epochs": 0.0}, "num_train_epochs must be above 0"),
        ({"dataloader_drop_last": True, "per_device_train_batch_size": 25}, "leaves out all 24 pictures"),
    ],
)
def test_a_training_without_a_step_is_refused(tmp_path, options, message):
    model, images = eat_parts()
    with pytest.raises(ValueError, match=message):
        trainer(tmp_path, model=model, processor=images, **options).train()


def test_weights_in_half_precision_are_trained(tmp_path):
    model, images = eat_parts()
    before = weights(model.to(torch.bfloat16))
    trained = trainer(tmp_path, model=model, processor=images, train_dataset=one_attribute(8), max_steps=1)
    trained.train()
    assert trained.state.log_history[0]["loss"] > 0
    assert "score_head.weight" in moved(before, model)
    assert model.dtype == torch.bfloat16


def one_attribute(count: int) -> list[dict]:
    """Rows of pictures with a score each."""
    return [{"image": photo(index), "score": 1 + index % 5 * 0.9} for index in range(count)]


@pytest.mark.parametrize("ended", ["within a pass", "with a pass"])
def test_a_finished_training_takes_no_step_when_it_is_resumed(tmp_path, ended):
    steps = 2 if ended == "within a pass" else 3
    options = {"max_steps": steps, "save_strategy": "steps", "save_steps": steps}
    model, images = eat_parts(attributes=ATTRIBUTES)
    trained = trainer(tmp_path, model=model, processor=images, **options)
    trained.train()
    again = trainer(tmp_path, model=eat_parts(attributes=ATTRIBUTES)[0], processor=images, **options)
    assert moved(weights(model), again.model)
    again.train(resume_from_checkpoint=str(tmp_path / f"checkpoint-{steps}"))
    assert again.state.global_step == steps
    assert not moved(weights(model), again.model)


def test_leaving_out_the_last_batch_is_for_training_alone(tmp_path):
    trained = trainer(tmp_path, dataloader_drop_last=True, train_dataset=rows(11), per_device_eval_batch_size=4)
    assert len(trained.get_train_dataloader()) == 1
    assert [len(loader) for loader in (trained.get_eval_dataloader(), trained.get_test_dataloader(rows(7)))] == [2, 2]


def test_distributions_of_pictures_without_ratings(tmp_path):
    pictures = [{"image": photo(index)} for index in range(5)]
    for parts in (eat_parts(attributes=ATTRIBUTES), scorer_parts("llava", ATTRIBUTES)):
        trained = trainer(tmp_path, model=parts[0], processor=parts[1], per_device_eval_batch_size=2)
        scores, distribution = trained.predict_distributions(pictures)
        assert (scores.shape, distribution.shape) == ((5, 2), (5, 2, 5))
        assert scores.std(0).min() > 1e-3
        torch.testing.assert_close((distribution * torch.arange(1.0, 6)).sum(-1), scores)


def test_counts_are_those_of_supervised_tokens_and_rated_slots():
    labels = torch.tensor([[5, -100, 7, 8], [-100, 6, -100, -100]])  # the 5 is predicted by no position
    nan = float("nan")
    scores = torch.tensor([[1.0, nan], [2.0, 3.0]])
    votes = torch.full((2, 2, 3), nan)
    votes[0, 1] = 1.0
    counts = target_counts({"labels": labels, "scores": scores, "votes": votes})
    assert (counts["text"], counts["scores"]) == (3, 4)
    slots = torch.tensor([[0, 1], [1, -1]])  # the second sentence does not ask for the first attribute
    assert target_counts({"scores": scores, "slot_attributes": slots})["scores"] == 2
    assert target_counts({"scores": scores, "votes": votes}, {"pairs": 3})["scores"] == 4 + 6
    assert target_counts({"scores": scores, "slot_attributes": slots}, {"pairs": 3})["scores"] == 2
    assert target_counts({"input_ids": labels}) == {"text": 0, "scores": 0}


def test_text_without_weight_costs_no_logits_and_no_training(tmp_path):
    trained = trainer(tmp_path, text_weight=0.0, weight_decay=0.0)
    head = trained.model.get_output_embeddings()
    rows_of_text = []
    head.register_forward_hook(lambda module, args, logits: rows_of_text.append(logits.shape[1]))
    before = head.weight.detach().clone()
    trained.train()
    assert set(rows_of_text) == {0}
    assert torch.equal(head.weight, before)
    assert "text_loss" not in trained.state.log_history[0]


def test_the_plain_trainer_gets_the_mean_loss_of_the_same_batch(tmp_path):
    ours = trainer(tmp_path, max_steps=1, loss_preset="paper")
    ours.train()
    model, processor = scorer_parts("llava", ATTRIBUTES)
    plain = Trainer(
        model=model,
        args=TrainingArguments(
            str(tmp_path),
            per_device_train_batch_size=8,
            max_steps=1,
            learning_rate=1e-3,
            logging_steps=1,
            seed=3,
            use_cpu=True,
            disable_tqdm=True,
            remove_unused_columns=False,
            label_names=["scores"],
            save_strategy="no",
        ),  # fmt: skip
        data_collator=RatingCollator(processor, model.config),
        train_dataset=rows(),
    )
    plain.train()
    assert plain.state.log_history[0]["loss"] == pytest.approx(ours.state.log_history[0]["loss"], rel=1e-6)


def test_default_metrics_are_those_of_the_field(tmp_path):
    found = trainer(tmp_path).evaluate()
    assert {"eval_srcc", "eval_plcc", "eval_mae", "eval_rmse", "eval_srcc_sharpness"} <= set(found)
    assert -1 <= found["eval_srcc"] <= 1


@pytest.mark.parametrize("kind", ["qwen2_vl", "smolvlm"])
def test_rows_are_grouped_by_length(tmp_path, kind):
    trained = trainer(tmp_path, kind, train_sampling_strategy="group_by_length", per_device_train_batch_size=4)
    data = rows(24)
    lengths = [trained.data_collator.length(row) for row in data]
    assert len(set(lengths)) > 3
    order = list(trained._get_train_sampler())
    assert sorted(order) == list(range(24))
    batches = [[lengths[index] for index in order[start : start + 4]] for start in range(0, 24, 4)]
    mixed = [lengths[start : start + 4] for start in range(0, 24, 4)]
    assert sum(max(b) - min(b) for b in batches) < sum(max(b) - min(b) for b in mixed)
    trained.train()
    assert trained.evaluate()["eval_loss"] > 0


def test_gradient_checkpointing_gives_the_same_curve(tmp_path):
    plain, checkpointed = trainer(tmp_path, max_steps=3), trainer(tmp_path, max_steps=3, activation_checkpointing=True)
    for trained in (plain, checkpointed):
        trained.train()
    assert checkpointed.model.backbone.is_activation_checkpointing
    for line, wanted in zip(curve(checkpointed), curve(plain), strict=True):
        assert line == pytest.approx(wanted, rel=1e-4)
