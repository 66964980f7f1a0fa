"""Score slots and their attributes."""

import pytest
import torch

from roc4mllm.modeling_roc4mllm.slots_roc4mllm import find_slots, supervised_positions

S = 9  # the id of [SCORE]


def slots(ids, attributes=None, num_attributes=2):
    attributes = None if attributes is None else torch.tensor(attributes)
    found = find_slots(torch.tensor(ids), attributes, S, num_attributes)
    return list(zip(found.rows.tolist(), found.positions.tolist(), found.attributes.tolist(), strict=True))


def test_reading_order():
    assert slots([[1, S, 2, S], [S - 1, 1, S, S]]) == [(0, 1, 0), (0, 3, 1), (1, 2, 0), (1, 3, 1)]


def test_attributes_of_slots():
    assert slots([[1, S, 2, S], [1, S, 2, 3]], [[1, 0], [1, -1]]) == [(0, 1, 1), (0, 3, 0), (1, 1, 1)]
    assert slots([[1, S, 2, S]], [[-1, 1]]) == [(0, 3, 1)]
    assert slots([[1, 2]], [[-1]]) == []
    assert slots([[1, 2]], torch.zeros(1, 0).tolist()) == []


@pytest.mark.parametrize(
    ("ids", "attributes", "message"),
    [
        ([[1, S, 2], [1, S, S]], None, r"2 \[SCORE\].*\[1, 2\]"),
        ([[1, S, 2]], [[0, 1]], r"\[1\].*\[2\]"),
        ([[1, S, S]], [[0]], r"\[2\].*\[1\]"),
        ([[1, S, S]], [[0, 0]], "twice"),
        ([[1, S]], [[2]], "below 2"),
        ([[1, S], [1, S]], [[0]], r"\(2, slots\).*\(1, 1\)"),
        ([[S, 1]], [[0]], "begins with"),
    ],
)
def test_slots_that_do_not_fit(ids, attributes, message):
    with pytest.raises(ValueError, match=message):
        slots(ids, attributes)


def test_supervised_positions():
    ids = torch.tensor([[1, 2, 3], [4, 5, 6]])
    labels = torch.tensor([[-100, 2, -100], [4, -100, 6]])  # the first token of a row is predicted by nothing
    rows, positions = supervised_positions(ids, labels)
    assert (rows.tolist(), positions.tolist()) == ([0, 1], [0, 1])
    assert [value.numel() for value in supervised_positions(ids, None)] == [0, 0]
    with pytest.raises(ValueError, match=r"\(2, 3\).*\(2, 2\)"):
        supervised_positions(ids, labels[:, :2])
