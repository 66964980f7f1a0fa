"""Tail mixup, similarity of features and labels, sharpening: with the original's numbers, and where it has none."""

import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from roc4mllm.modeling_roc4mllm.long_tail_aesthetics import (
    checked_mixup,
    draw_pairs,
    first_log_probabilities,
    label_similarity,
    mix,
    mixed_count,
    mixing_shares,
    on_one_to_ten,
    pick,
    second_log_probabilities,
    sharpen,
    similarity_loss,
)
from roc4mllm.modeling_roc4mllm.loss_aesthetics import earth_movers_distance
from roc4mllm.trainer.evaluation_parts import label_segments

LEVELS = torch.arange(1.0, 11)


SHARED = Path(os.environ.get("ROC4MLLM_SHARED", Path(__file__).resolve().parents[3] / "shared"))
FOLDER = SHARED / "fixtures" / "elta"
CASES = sorted(path.name.split(".")[0] for path in FOLDER.glob("*.inputs.safetensors")) or ["a"]


@pytest.fixture(scope="module", params=CASES)
def case(request, shared):
    """Inputs, outputs and facts of the original's run."""
    parts = [load_file(FOLDER / f"{request.param}.{name}.safetensors") for name in ("inputs", "outputs")]
    return *parts, json.loads((FOLDER / f"{request.param}.json").read_text())


class TestParity:
    """Tolerances of the fixtures' README: 2e-6 for float32, 1e-10 for float64."""

    @pytest.mark.parametrize("number", [0, 1])
    def test_mixup(self, case, number):
        inputs, outputs, facts = case
        told, name = facts["mixup"][number], f"mixup{number}"
        scores = outputs["scores_of_targets"].double()
        first, second = torch.tensor(told["pairs"]).T
        logs = first_log_probabilities(scores, told["tau_1"])
        assert logs.exp().max() - logs.exp().min() > 0.1  # far from equal
        close(logs.exp(), outputs[f"{name}.p_first"], 1e-10)
        seconds = second_log_probabilities(scores, first, told["tau_2"]).exp()
        close(seconds, outputs[f"{name}.p_second_given_first"], 1e-10)
        share = mixing_shares(logs, first, second)
        close(share, torch.tensor(told["lambda"], dtype=torch.float64), 1e-10)
        one = (first[:1], second[:1], share[:1])
        features, targets = mix(inputs["features"], *one), mix(inputs["targets"], *one)
        close(features, outputs[f"{name}.features"], 2e-6)
        close(targets, outputs[f"{name}.targets"], 2e-6)
        rows = torch.cat([inputs["targets"], targets])
        loss = similarity_loss(torch.cat([inputs["features"], features]), (rows * LEVELS).sum(-1))
        close(loss, outputs[f"{name}.simloss_after"][0], 2e-6)
        predicted = torch.cat([inputs["preds"], inputs["preds"][:1]])
        close(earth_movers_distance(predicted, rows, "batch_root"), outputs[f"{name}.emd_after"][0], 2e-6)

    def test_mixup_of_labels_with_one_dimension(self, case):
        inputs, outputs, facts = case
        told, scores = facts["mixup_1d"], inputs["labels_1d"].double()
        first, second = (torch.tensor([index]) for index in told["pair"])
        logs = first_log_probabilities(scores, told["tau_1"])
        close(logs.exp(), outputs["mixup_1d.p_first"], 1e-10)
        close(
            second_log_probabilities(scores, first, told["tau_2"]).exp()[0],
            outputs["mixup_1d.p_second_given_first"],
            1e-10,
        )
        assert mixing_shares(logs, first, second).item() == pytest.approx(told["lambda"], abs=1e-10)

    def test_similarity_and_its_gradient(self, case):
        inputs, outputs, _ = case
        features, scores = inputs["features"].requires_grad_(), outputs["scores_of_targets"]
        loss = similarity_loss(features, scores)
        assert loss > 0.01
        close(loss.detach(), outputs["simloss"][0], 2e-6)
        loss.backward()
        assert features.grad.abs().max() > 1e-5
        close(features.grad, outputs["simloss_grad_features"], 2e-6)
        four = features.detach()[:, :960].view(-1, 4, 60, 4)
        close(similarity_loss(four, scores), outputs["simloss_4d"][0], 2e-6)

    @pytest.mark.parametrize("number", [0, 1, 2])
    def test_sharpening(self, case, number):
        inputs, outputs, facts = case
        told = facts["pseudo"][number]
        for logits in (inputs["pseudo.logits"], inputs["pseudo.probs"].log()):  # which differ by a constant in a row
            sharpened = sharpen(logits, inputs["pseudo.score"], told["beta"])
            assert (sharpened - inputs["pseudo.probs"]).abs().max() > 0.1
            close(sharpened, outputs[f"pseudo{number}.sharpened"], 1e-10)
            assert pick(sharpened, told["threshold"]).nonzero().flatten().tolist() == told["picked_rows"]

    def test_segments_have_the_originals_limits_and_keep_the_rows_on_them(self, case):
        """The original leaves out the lowest, the highest and all rows on a limit."""
        inputs, _, facts = case
        labels, predicted = inputs["pseudo.gt"].numpy(), inputs["pseudo.score"].numpy()
        found = label_segments(predicted, labels)
        assert sum(segment.n for segment in found) == facts["n_rows"] > facts["piecewise_total_counted"]
        for segment, told in zip(found, facts["piecewise_mae"], strict=True):
            assert segment.limits == pytest.approx((told["low"], told["high"]), abs=1e-10)
            strictly = (labels > segment.limits[0]) & (labels < segment.limits[1])
            assert strictly.sum() == told["n"] <= segment.n
            assert abs(predicted - labels)[strictly].mean() == pytest.approx(told["mae"], abs=1e-10)


def close(found, expected, tolerance):
    torch.testing.assert_close(found, expected, atol=tolerance, rtol=0)


class TestWhereTheOriginalFails:
    def test_equal_scores_are_drawn_alike(self):
        scores = torch.full((4,), 5.0)
        close(first_log_probabilities(scores, 0.2).exp(), torch.full((4,), 0.25), 1e-7)
        seconds = second_log_probabilities(scores, torch.tensor([2]), 10.0).exp()
        close(seconds, torch.tensor([[1, 1, 0, 1]]) / 3, 1e-7)
        _, _, share = draw_pairs(scores, 3, 0.2, 10.0)
        assert share.tolist() == [0.5] * 3

    @pytest.mark.parametrize("tau_2", [0.0, 7.2, 10.0, 1000.0])
    def test_no_temperature_overflows(self, tau_2):
        scores = torch.tensor([1.0, 1.0, 1.5, 10.0])
        seconds = second_log_probabilities(scores, torch.arange(4), tau_2).exp()
        close(seconds.sum(-1), torch.ones(4), 1e-6)
        assert seconds.diagonal().tolist() == [0] * 4
        if tau_2 > 1:
            assert seconds[0, 1] > 0.999  # the same score

    def test_equal_labels_are_alike(self):
        scores = torch.full((3,), 2.0)
        assert torch.equal(label_similarity(scores), torch.ones(3, 3))
        features = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]], requires_grad=True)
        loss = similarity_loss(features, scores)  # four of nine pairs differ by 1
        assert loss.item() == pytest.approx(4 / 9)
        loss.backward()
        assert features.grad.isfinite().all()

    def test_one_picture_is_like_itself(self):
        assert similarity_loss(torch.tensor([[3.0, 4.0]]), torch.tensor([2.0])).item() == pytest.approx(0, abs=1e-12)

    def test_rows_of_the_similarity_loss_sum_up(self):
        features, scores = torch.randn(5, 3), torch.rand(5)
        rows = similarity_loss(features, scores, reduction="none")
        assert rows.shape == (5,)
        close(rows.mean(), similarity_loss(features, scores), 1e-7)

    def test_far_predictions_become_sharp_and_not_nan(self):
        logits = torch.tensor([[1.0, 0.0, -1.0], [0.0, 0.1, 0.0]])
        sharpened = sharpen(logits, torch.tensor([1.0, 10.0]), beta=50.0)
        close(sharpened, torch.tensor([[1.0, 0, 0], [0, 1.0, 0]]), 1e-6)
        close(sharpen(logits, torch.tensor([1.0, 10.0]), beta=0.0), logits.softmax(-1), 1e-7)


class TestDrawing:
    def test_tails_come_first_and_neighbours_second(self):
        torch.manual_seed(0)
        scores = torch.cat([torch.full((20,), 5.0), torch.tensor([1.0, 1.2, 9.0, 8.9])])
        first, second, share = draw_pairs(scores, 500, 0.5, 5.0)
        assert (first >= 20).float().mean() > 0.95
        assert (first != second).all()
        assert ((scores[first] - scores[second]).abs() < 0.3).float().mean() > 0.95
        assert ((share > 0) & (share < 1)).all()

    def test_torchs_generator_decides(self):
        scores = torch.rand(30) * 9 + 1
        draws = []
        for seed in (3, 3, 4):
            torch.manual_seed(seed)
            draws.append(torch.stack(draw_pairs(scores, 8, 0.5, 2.0)))
        assert torch.equal(draws[0], draws[1])
        assert not torch.equal(draws[0], draws[2])

    def test_counts_are_of_attributes_that_have_pairs(self):
        rated = torch.tensor([[True, True, False], [True, False, False], [True, True, True]])
        assert mixed_count(rated, {"pairs": 2}) == 4
        assert mixed_count(rated, None) == mixed_count(rated, {"pairs": 0}) == 0

    def test_ranges_are_brought_to_that_of_the_temperatures(self):
        close(on_one_to_ten(torch.tensor([0.0, 50, 100]), 0, 100), torch.tensor([1.0, 5.5, 10]), 1e-6)

    @pytest.mark.parametrize(
        "options, message",
        [
            ({"tau": 1.0}, r"\['tau'\]; known are .*tau_1"),
            ({"pairs": -1}, "whole number of pairs, at least 0; got -1"),
            ({"pairs": 1.5}, "whole number of pairs"),
            ({"tau_1": 0.0}, "tau_1 above 0.*got 0.0"),
        ],
    )
    def test_wrong_options(self, options, message):
        with pytest.raises(ValueError, match=message):
            checked_mixup(options)
