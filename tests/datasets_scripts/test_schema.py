"""Rows of the schema, and every way in which one can be wrong."""

import math

import pyarrow as pa
import pytest

from roc4mllm.datasets_scripts import schema
from roc4mllm.datasets_scripts.schema import attribute, check_row, features, picture_row


def complete(**changes):
    row = picture_row("a.jpg", split="train", score_range=(1, 10), votes=[0, 0, 0, 1, 2, 1, 0, 0, 0, 0])
    return row | {"source": "invented", "split_protocol": "invented-own"} | changes


def test_the_columns_are_those_that_are_described():
    described = [line.split("`")[1::2] for line in schema.__doc__.splitlines() if line.startswith("| `")]
    names = [name for line in described for name in line if name in features()]
    assert dict.fromkeys(names).keys() == set(features())
    assert set(complete()) == set(features())


def test_votes_say_score_std_shares_and_number():
    row = complete()
    assert (row["score"], row["num_ratings"]) == (5.0, 4)
    assert row["std"] == pytest.approx(math.sqrt(0.5))
    assert row["distribution"][3:6] == [0.25, 0.5, 0.25]
    check_row(row)


def test_levels_are_spread_over_the_range():
    row = picture_row("a", split="train", score_range=(-1, 1), votes=[20, 7, 0])
    assert row["score"] == pytest.approx(-20 / 27)
    assert attribute("light", None, (1, 5), votes=[0, 0, 0, 0, 3])["score"] == 5


def test_what_is_given_wins_over_the_votes():
    row = picture_row("a", split="train", score_range=(1, 10), votes=[0] * 4 + [9, 9] + [0] * 4, score=5.4, std=0.6)
    assert (row["score"], row["std"]) == (5.4, 0.6)


def test_a_row_that_is_right_fits_arrow():
    row = complete(attributes=[attribute("light", 0.0, (-1, 1))], comments=["good"], tags=["x"], theme="x")
    check_row(row)
    row["image"] = {"bytes": b"", "path": "a.jpg"}
    assert pa.RecordBatch.from_pylist([row], features().arrow_schema).to_pylist() == [row]


@pytest.mark.parametrize("text", ["light", "0"])
def test_zero_and_minus_one_are_values(text):
    check_row(complete(attributes=[attribute(text, -1.0, (-1, 1))]))


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"image_id": ""}, "image_id is ''; expected a text"),
        ({"image_id": 5}, "image_id is 5; expected a text"),
        ({"image_id": "\ud800"}, "UTF-8"),
        ({"split": "val"}, "split is 'val'; expected train, validation, test"),
        ({"split_protocol": None}, "split_protocol is None"),
        ({"score_range": [10, 1]}, "score_range is"),
        ({"score_range": [1.0, math.inf]}, "score_range is"),
        ({"score": 10.5}, "score is 10.5; expected a number from 1 to 10"),
        ({"score": math.nan}, "score is nan"),
        ({"score": "5"}, "score is '5'"),
        ({"score": 5.6}, "score is 5.6, but the mean of the votes is 5"),
        ({"std": -0.1}, "std is -0.1; expected 0 to 9"),
        ({"votes": [1]}, "votes are"),
        ({"votes": [1, -1]}, "votes are"),
        ({"votes": [1, 0.5]}, "votes are"),
        ({"votes": [1, True]}, "votes are"),
        ({"votes": [0, 0]}, "votes are all 0"),
        ({"distribution": [0.5, 0.6], "votes": None}, "expected shares that sum to 1"),
        ({"distribution": [1.5, -0.5], "votes": None}, "expected shares that sum to 1"),
        ({"distribution": [0.5, 0.5]}, "distribution has 2 levels, but votes 10"),
        ({"num_ratings": 5}, "num_ratings is 5, but the votes sum to 4"),
        ({"num_ratings": 0}, "num_ratings is 0"),
        ({"theme": " "}, "theme is ' '"),
        ({"tags": [None]}, "tags is None"),
        ({"comments": [""]}, "comments is ''"),
        ({"attributes": [attribute("light", 2.0, (-1, 1))]}, "light: score is 2.0; expected a number from -1 to 1"),
        ({"attributes": [attribute("light", None, (-1, 1))]}, "light: no score"),
        ({"attributes": [attribute("light", 0.0, (0, 1))] * 2}, "distinct names"),
        (dict.fromkeys(("score", "std", "votes", "distribution", "num_ratings")), "nothing to learn from"),
    ],
)
def test_what_is_wrong_is_said(changes, message):
    with pytest.raises(ValueError, match=".") as error:
        check_row(complete(**changes))
    assert message in str(error.value)


def test_a_comment_or_an_attribute_is_enough():
    unknown = dict.fromkeys(("score", "std", "votes", "distribution", "num_ratings"))
    check_row(complete(**unknown, comments=["good light"]))
    check_row(complete(**unknown, attributes=[attribute("light", 1.0, (0, 1))]))
