"""The maths between level probabilities and scores."""

import math

import torch

from roc4mllm.modeling_roc4mllm.modeling_outputs_aesthetics import (
    expected_score,
    level_values,
    score_ranges,
    score_std,
)


def test_level_values():
    torch.testing.assert_close(level_values((1, 5), 5), torch.tensor([[1.0, 2, 3, 4, 5]]))
    torch.testing.assert_close(level_values((0, 1), 3, 2), torch.tensor([[0.0, 0.5, 1], [0.0, 0.5, 1]]))
    two = level_values([[1, 10], [0, 100]], 2, 2, dtype=torch.float64)
    assert torch.equal(two, torch.tensor([[1.0, 10], [0, 100]], dtype=torch.float64))


def test_expected_score_and_std():
    distribution = torch.tensor([0.5, 0.0, 0.5])
    levels = torch.tensor([1.0, 2.0, 3.0])
    assert expected_score(distribution, levels) == 2
    assert score_std(distribution, levels) == 1
    skewed = torch.tensor([0.2, 0.3, 0.5])  # mean 2.3, variance 0.2·1.69 + 0.3·0.09 + 0.5·0.49
    torch.testing.assert_close(expected_score(skewed, levels), torch.tensor(2.3))
    torch.testing.assert_close(score_std(skewed, levels), torch.tensor(math.sqrt(0.61)))


def test_score_ranges():
    assert score_ranges((1, 5), 2) == [(1.0, 5.0), (1.0, 5.0)]
    assert score_ranges([[1, 5], [0, 1]], 2) == [(1.0, 5.0), (0.0, 1.0)]
