"""Losses against numbers worked out by hand."""

import math

import pytest
import torch

from roc4mllm.modeling_roc4mllm.loss_aesthetics import (
    distribution_cross_entropy,
    earth_movers_distance,
    gaussian_distribution,
    mean_loss,
    smooth_l1,
    text_cross_entropy,
    two_hot_distribution,
    votes_to_distribution,
)

LEVELS = torch.tensor([[1.0, 2.0, 3.0, 4.0, 5.0]])


def test_text_cross_entropy():
    logits = torch.tensor([[math.log(1.0), math.log(3.0)], [math.log(1.0), math.log(1.0)]])  # p = 1/4 3/4, 1/2 1/2
    labels = torch.tensor([1, 0])
    each = text_cross_entropy(logits, labels, reduction="none")
    torch.testing.assert_close(each, torch.tensor([-math.log(0.75), -math.log(0.5)]))
    torch.testing.assert_close(text_cross_entropy(logits, labels), each.mean())
    assert text_cross_entropy(logits.bfloat16(), labels).dtype == torch.float32


def test_smooth_l1():
    predicted, target = torch.tensor([3.5, 1.0]), torch.tensor([3.0, 4.0])
    torch.testing.assert_close(smooth_l1(predicted, target, reduction="none"), torch.tensor([0.125, 2.5]))
    torch.testing.assert_close(smooth_l1(predicted, target), torch.tensor(1.3125))
    torch.testing.assert_close(smooth_l1(predicted, target, beta=2.0, reduction="none"), torch.tensor([0.0625, 2.0]))
    with pytest.raises(ValueError, match=r"\(2,\).*\(1,\)"):
        smooth_l1(predicted, target[:1])


def test_distribution_cross_entropy():
    logits = torch.tensor([[0.0, math.log(3.0)]])  # p = 1/4 3/4
    target = torch.tensor([[0.5, 0.5]])
    expected = -0.5 * math.log(0.25) - 0.5 * math.log(0.75)
    torch.testing.assert_close(distribution_cross_entropy(logits, target), torch.tensor(expected))


def test_earth_movers_distance():
    predicted = torch.tensor([[1.0, 0.0, 0.0], [0.5, 0.5, 0.0]])  # CDF 1 1 1, 0.5 1 1
    target = torch.tensor([[0.0, 0.0, 1.0], [0.5, 0.0, 0.5]])  # CDF 0 0 1, 0.5 0.5 1
    each = earth_movers_distance(predicted, target, reduction="none")
    torch.testing.assert_close(each, torch.tensor([math.sqrt(2 / 3), math.sqrt(0.25 / 3)]))
    torch.testing.assert_close(earth_movers_distance(predicted, target), each.mean())
    batch_root = earth_movers_distance(predicted, target, reduction="batch_root")
    torch.testing.assert_close(batch_root, torch.tensor(math.sqrt(2.25 / 6)))
    assert abs(batch_root - each.mean()) > 0.01  # the originals' "samplewise" is another number


def test_earth_movers_distance_has_a_gradient_where_both_agree():
    logits = torch.tensor([[0.3, -0.2, 0.1]], requires_grad=True)
    probabilities = logits.softmax(-1)
    for reduction in ("mean", "batch_root"):
        loss = earth_movers_distance(probabilities, probabilities.detach(), reduction=reduction)
        assert loss.item() == pytest.approx(1e-6, rel=1e-3)
        (gradient,) = torch.autograd.grad(loss, logits, retain_graph=True)
        assert gradient.isfinite().all()


@pytest.mark.parametrize("loss", [distribution_cross_entropy, earth_movers_distance])
def test_other_number_of_levels_is_refused(loss):
    with pytest.raises(ValueError, match=r"10 levels.*predicts 5.*num_levels=5.*num_levels=10"):
        loss(torch.zeros(2, 5), torch.full((2, 10), 0.1))


def test_unknown_reduction():
    with pytest.raises(ValueError, match="'sum'.*'mean'"):
        smooth_l1(torch.zeros(1), torch.zeros(1), reduction="sum")


def test_no_sample_gives_zero_with_a_graph():
    logits = torch.randn(3, 5, requires_grad=True)
    none = logits[torch.zeros(3, dtype=torch.bool)]
    total = (
        distribution_cross_entropy(none, none)
        + earth_movers_distance(none, none)
        + text_cross_entropy(none, torch.zeros(0, dtype=torch.long))
    )
    total.backward()
    assert total == 0
    assert torch.equal(logits.grad, torch.zeros(3, 5))


def test_votes_to_distribution():
    votes = torch.tensor([[1.0, 3.0], [float("nan"), float("nan")]])
    shares = votes_to_distribution(votes)
    torch.testing.assert_close(shares[0], torch.tensor([0.25, 0.75]))
    assert shares[1].isnan().all()
    for bad in ([[0.0, 0.0]], [[-1.0, 2.0]]):
        with pytest.raises(ValueError, match="negative.*zero"):
            votes_to_distribution(torch.tensor(bad))
    with pytest.raises(ValueError, match="some levels only"):
        votes_to_distribution(torch.tensor([[1.0, float("nan")]]))


def test_mean_over_the_count_of_a_larger_batch():
    values = torch.tensor([1.0, 2.0, 6.0])
    assert mean_loss(values) == 3.0
    assert mean_loss(values, 18) == mean_loss(values, torch.tensor(18)) == 0.5
    assert mean_loss(values[:0], torch.tensor(0)) == mean_loss(values[:0]) == 0.0


def test_two_hot_distribution():
    scores = torch.tensor([1.0, 2.25, 5.0])
    shares = two_hot_distribution(scores, LEVELS.expand(3, -1))
    expected = [[1.0, 0, 0, 0, 0], [0, 0.75, 0.25, 0, 0], [0, 0, 0, 0, 1.0]]
    torch.testing.assert_close(shares, torch.tensor(expected))
    torch.testing.assert_close((shares * LEVELS).sum(-1), scores)


def test_gaussian_distribution():
    shares = gaussian_distribution(torch.tensor([3.0]), torch.tensor([1.0]), LEVELS)[0]
    weights = torch.tensor([math.exp(-2), math.exp(-0.5), 1.0, math.exp(-0.5), math.exp(-2)])
    torch.testing.assert_close(shares, weights / weights.sum())
    with pytest.raises(ValueError, match="above 0"):
        gaussian_distribution(torch.tensor([3.0]), torch.tensor([0.0]), LEVELS)
