"""
The one schema that every data set is written in, and the check that every row passes.

A row is one rated picture, or one rating of a picture where the raters are told apart (`rater_id`). Numbers keep the
units in which they were given, and `score_range` stands beside every score; nothing is scaled to a common range. What
is unknown is null, and never -1 or 0: both are legal values somewhere.

| column | what it holds |
|---|---|
| `image` | the picture: encoded bytes and the file's name |
| `image_id` | the name of the picture in its data set |
| `split` | `train`, `validation` or `test` |
| `split_protocol` | which division of the data set that is, as in `ava-official`: never compare across two |
| `score`, `score_range` | mean rating, in units of `[lowest, highest]`; higher is better |
| `std` | population standard deviation of the ratings, in units of `score_range` |
| `votes` | number of votes for each of N levels, evenly spaced from the lowest to the highest score |
| `distribution` | share of each level, sums to 1 |
| `num_ratings` | number of ratings behind the score |
| `attributes` | further things that were rated: `name`, `score`, `score_range`, `std`, `votes` of each, as above |
| `theme` | the one word for what the picture is of |
| `tags` | all words that were given to it; `challenge: …` and `style: …` where the data set has such |
| `comments` | what people wrote about it |
| `rater_id` | who rated, where a row is one rating |
| `source` | name of the data set |
"""

import functools
import math
from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

Row: TypeAlias = dict[str, Any]
Range: TypeAlias = tuple[float, float]

SPLITS = ("train", "validation", "test")
ROUNDING = 1e-6  # share of a range by which a number may leave it in floating point
SHARE_ROUNDING = 1e-3  # by which shares that were written with few decimals may miss a sum of 1
MAIN = "aesthetics"  # what training and evaluation call the score itself, beside the names of attributes
MOST_VOTES = 2**31 - 1  # what the columns of counts hold


@functools.cache
def features() -> Any:
    """The schema as `datasets.Features`."""
    from datasets import Features, Image, List, Value  # type: ignore[import-untyped]

    text, number, count = Value("string"), Value("float64"), Value("int32")
    rated = {"score": number, "score_range": List(number), "std": number, "votes": List(count)}
    return Features(
        {
            "image": Image(),
            "image_id": text,
            "split": text,
            "split_protocol": text,
            **rated,
            "distribution": List(number),
            "num_ratings": count,
            "attributes": List({"name": text, **rated}),
            "theme": text,
            "tags": List(text),
            "comments": List(text),
            "rater_id": text,
            "source": text,
        }
    )


# Rows ----------------------------------------------------------------------------------------------------------------


def picture_row(
    image: str,
    *,
    split: str,
    score_range: Range,
    image_id: str | None = None,
    score: float | None = None,
    std: float | None = None,
    votes: Sequence[int] | None = None,
    distribution: Sequence[float] | None = None,
    num_ratings: int | None = None,
    attributes: Iterable[Row] = (),
    theme: str | None = None,
    tags: Iterable[str] = (),
    comments: Iterable[str] = (),
    rater_id: str | None = None,
) -> Row:
    """
    A row of the schema. `source` and `split_protocol`, which are the same in all rows, are filled in by the writer.

    Args:
        image (`str`):
            File name of the picture, with as much of its path as the data set states; the writer puts its bytes there.
        split (`str`):
            `"train"`, `"validation"` or `"test"`.
        score_range (pair of `float`):
            Lowest and highest possible score.
        image_id (`str`, *optional*, defaults to `image`):
            Name of the picture in its data set.
        score, std, distribution, num_ratings (*optional*):
            By default what `votes` say, if there are any.
        **others:
            As the columns above.
    """
    if votes is not None and any(votes):
        mean, spread = moments(votes, score_range)
        score = mean if score is None else score
        std = spread if std is None else std
        num_ratings = sum(votes) if num_ratings is None else num_ratings
        distribution = shares(votes) if distribution is None else distribution
    return {
        "image": image,
        "image_id": image if image_id is None else image_id,
        "split": split,
        "split_protocol": None,
        "score": score,
        "score_range": list(score_range),
        "std": std,
        "votes": votes,
        "distribution": distribution,
        "num_ratings": num_ratings,
        "attributes": list(attributes),
        "theme": theme,
        "tags": list(tags),
        "comments": list(comments),
        "rater_id": rater_id,
        "source": None,
    }


def attribute(
    name: str,
    score: float | None,
    score_range: Range,
    *,
    std: float | None = None,
    votes: Sequence[int] | None = None,
) -> Row:
    """An entry of `attributes`; score and std by default what `votes` say."""
    if votes is not None and any(votes):
        mean, spread = moments(votes, score_range)
        score = mean if score is None else score
        std = spread if std is None else std
    return {"name": name, "score": score, "score_range": list(score_range), "std": std, "votes": votes}


def shares(votes: Sequence[int]) -> list[float]:
    """Share of each level."""
    total = sum(votes)
    return [count / total for count in votes]


def moments(votes: Sequence[int], score_range: Range) -> tuple[float, float]:
    """Mean and population standard deviation of votes for evenly spaced levels, in units of the range."""
    low, high = score_range
    step, total = (high - low) / (len(votes) - 1), sum(votes)
    first = second = 0
    for level, count in enumerate(votes):  # a plain loop: this runs several times for each row
        first += level * count
        second += level * level * count
    mean = first / total
    return low + step * mean, step * math.sqrt(max(second / total - mean * mean, 0.0))


# Checks --------------------------------------------------------------------------------------------------------------


def check_row(row: Row) -> None:
    """
    Raises:
        ValueError: If a value of a row of [`picture_row`] has another type, unit or range than the schema says, or
            values contradict each other; the message names the column.
    """
    for column in ("image", "image_id", "split_protocol", "source"):
        check_text(row[column], column)
    if row["split"] not in SPLITS:
        raise ValueError(f"split is {row['split']!r}; expected {', '.join(SPLITS)}")
    check_rating(row, "")
    check_distribution(row)
    for column in ("theme", "rater_id"):
        if row[column] is not None:
            check_text(row[column], column)
    for column in ("tags", "comments"):
        for value in row[column]:
            check_text(value, column)
    if row["attributes"]:
        check_attributes(row["attributes"])
    elif row["score"] is None and row["distribution"] is None and not row["comments"]:
        raise ValueError("no score, votes, attribute or comment: there is nothing to learn from")


def check_text(value: Any, column: str) -> None:
    """Refuse what is not a text, or is blank, or could not be written as UTF-8."""
    if type(value) is not str or not value or value.isspace():
        raise ValueError(f"{column} is {value!r}; expected a text")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise ValueError(f"{column} is {value!r}, which UTF-8 cannot hold") from None


def check_rating(rating: Row, name: str) -> None:
    """Score, range, std and votes of a row, or of one of its attributes, whose `name` messages begin with."""
    pair = rating["score_range"]
    if len(pair) != 2 or not (-math.inf < pair[0] < pair[1] < math.inf):
        raise ValueError(f"{name}score_range is {pair}; expected the lowest and the highest score")
    low, high = pair
    score, std, votes = rating["score"], rating["std"], rating["votes"]
    if score is not None:
        slack = ROUNDING * (high - low)
        if type(score) is not float or not low - slack <= score <= high + slack:
            raise ValueError(f"{name}score is {score!r}; expected a number from {low:g} to {high:g}")
    if std is not None and (type(std) is not float or not 0 <= std <= high - low):
        raise ValueError(f"{name}std is {std!r}; expected 0 to {high - low:g}, in units of the score range")
    if votes is not None:
        check_votes(votes, name)
        mean, half_a_step = moments(votes, pair)[0], 0.5 * (high - low) / (len(votes) - 1)
        if score is not None and abs(score - mean) > half_a_step:
            raise ValueError(f"{name}score is {score:g}, but the mean of the votes is {mean:.4g}")


def check_votes(votes: Sequence[int], name: str) -> None:
    """Refuse what does not count votes for two or more levels."""
    if len(votes) < 2 or set(map(type, votes)) != {int} or min(votes) < 0:
        raise ValueError(f"{name}votes are {votes}; expected a whole number of at least 0 for each level")
    if not any(votes):
        raise ValueError(f"{name}votes are all 0")
    if sum(votes) > MOST_VOTES:
        raise ValueError(f"{name}votes sum to more than {MOST_VOTES}")


def check_distribution(row: Row) -> None:
    """Shares sum to 1, and agree in length with the votes; so does the number of ratings."""
    given, votes, count = row["distribution"], row["votes"], row["num_ratings"]
    if given is not None and (min(given, default=-1) < 0 or not abs(sum(given) - 1) <= SHARE_ROUNDING):
        raise ValueError(f"distribution is {given}; expected shares that sum to 1")
    if votes is not None and given is not None and len(votes) != len(given):
        raise ValueError(f"distribution has {len(given)} levels, but votes {len(votes)}")
    if count is not None and (type(count) is not int or not 1 <= count <= MOST_VOTES):
        raise ValueError(f"num_ratings is {count!r:.20}; expected a whole number from 1 to {MOST_VOTES}")
    if votes is not None and count is not None and count != sum(votes):
        raise ValueError(f"num_ratings is {count}, but the votes sum to {sum(votes)}")


def check_attributes(attributes: Sequence[Row]) -> None:
    """Distinct names, and each with a rating."""
    names = [entry["name"] for entry in attributes]
    for entry in attributes:
        check_text(entry["name"], "name of an attribute")
        check_rating(entry, f"{entry['name']}: ")
        if entry["score"] is None:
            raise ValueError(f"{entry['name']}: no score; leave out an attribute that was not rated")
    if len(set(names)) < len(names):
        raise ValueError(f"attributes are {names}; expected distinct names")
    if MAIN in names:
        raise ValueError(f"an attribute is called {MAIN!r}, as the score itself is; make it the score, or rename it")


__all__ = ["SPLITS", "Range", "Row", "attribute", "check_row", "features", "picture_row"]
