"""`roc4mllm personalize`: one person's ratings to a small file that `roc4mllm score --personal` applies."""

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm  # type: ignore[import-untyped]

from ..inference.inputs.picture_input import PICTURE_ENDINGS
from ..inference.personal.personal_scorer import read_features
from ..inference.personal.personal_taste import Array, PersonalTaste, fit_taste, in_words
from ..inference.tables.score_table import shown
from ..processing_roc4mllm.pipeline_image_aesthetics import attribute_range
from ..trainer.image_aesthetics_metric.score_agreement import srcc
from ..trainer.metrics_aesthetics import Measurement, Statistic, measure
from ..trainer.rated_pictures import RatedPictures
from ..trainer.rating_data import read_ratings
from ..trainer.rating_rows import is_missing
from ..trainer.rating_sources import open_source
from ..whole_files import check_writable
from .evaluate import in_options
from .loading import choose_attributes, load

RATER_COLUMNS = ("rater", "rater_id", "worker", "user", "user_id")
BLANK = "(blank)"  # a rater without a name
STARS = (1.0, 5.0)
BOOTSTRAPS = 1000
DECIMALS = 5  # of a score of one picture that is the same in every batch
Row = dict[str, Any]


def run(args: argparse.Namespace) -> int:
    """Fit the taste behind `args.ratings`, write it and say what it is worth."""
    output = check_output(args.output)
    refuse_bare_pictures(args.ratings)
    try:
        open_source(args.ratings, None)  # a wrong path is told before a model is loaded
        scorer = load(args)
        attribute = choose_attributes(args.attribute and [args.attribute], scorer.model.config)[0]
        rows, notes = read_rows(args, scorer.model.config, attribute)
    except ValueError as error:
        raise ValueError(in_options(str(error))) from error
    rows, features, general = score_rows(args, scorer, attribute, rows)
    ratings = np.array([row["rating"] for row in rows])
    taste, left_out = fit_taste(scorer.model, attribute, features, general, ratings)
    nested = measure_gain(general, left_out, ratings)
    found = nested
    if taste.strength is None:  # what is saved is the general score, moved, whatever heads did without some pictures
        found = measure_gain(general, taste.personal_scores(general, features), ratings)
    taste = replace(taste, general_srcc=found["general"].value, personal_srcc=found["personal"].value)
    taste.save(output)
    for line in report(taste, args.rater, found, nested["personal"].value, verdict(taste, found, general, ratings)):
        print(shown(line))
    for note in [*notes, f"written to {args.output} ({output.stat().st_size / 1000:.1f} kB)"]:
        print(shown(f"roc4mllm: {note}"), file=sys.stderr)
    return 0


def refuse_bare_pictures(path: str) -> None:
    """Say what a folder lacks that holds pictures and no ratings of them, before it is read as a data set."""
    names = [name for _, _, names in os.walk(path) for name in names if not name.startswith(".")]
    if os.path.isdir(path) and all(name.lower().endswith(PICTURE_ENDINGS) for name in names):
        raise ValueError(
            f"the folder {path!r} holds no ratings; name a table with path and score, or put a metadata.csv with "
            "file_name and score into the folder"
        )


def check_output(path: str) -> Path:
    """The file to be written."""
    if not path.endswith(".safetensors"):
        raise ValueError(f"a personal taste is a .safetensors file, got {path!r}")
    return check_writable(path)


# Ratings -------------------------------------------------------------------------------------------------------------


def read_rows(args: argparse.Namespace, config: Any, attribute: str) -> tuple[list[Row], list[str]]:
    """
    `image`, `name` and `rating`, in units of the model, of each picture of one rater, and what a person should know.
    """
    rated = read_ratings(
        args.ratings,
        attributes=[attribute],
        score_range=args.score_range,
        pictures=args.pictures,
        skip_bad_rows=args.skip_bad_rows,
    )
    notes = [warning for warning in rated.warnings if "bad rows" in warning]
    rows = [row for row in of_rater(rated, args.rater) if attribute in row["scores"]]
    if not rows:
        raise ValueError(f"no row{'' if args.rater is None else f' of {args.rater!r}'} has a score of {attribute!r}")
    low, high = attribute_range(config, list(config.attributes).index(attribute))
    start, end = label_range(rated, rows, attribute, (low, high))
    if (start, end) != (low, high):
        notes.append(f"ratings of {start:g} to {end:g} are mapped linearly to the model's {low:g} to {high:g}")
    elif rated.range_guessed:
        scores = [row["scores"][attribute] for row in rows]
        notes.append(f"the ratings state no range, so the model's is taken, {low:g} to {high:g}{hint(scores, high)}")
    found: dict[str, Row] = {}
    for row in rows:
        name = row["image"] if isinstance(row["image"], str) else row["where"]
        rating = low + (row["scores"][attribute] - start) * (high - low) / (end - start)
        found.setdefault(name, {"image": row["image"], "name": name, "ratings": []})["ratings"].append(rating)
    # rated twice, a picture would be left out and fitted at once
    return [row | {"rating": float(np.mean(row["ratings"]))} for row in found.values()], notes


def hint(scores: Sequence[float], highest: float) -> str:
    """What to do where ratings without a range look like stars, and the model's range goes further."""
    low, high = STARS
    if highest <= high or not all(low <= score <= high and score.is_integer() for score in scores):
        return ""
    return f"; if they are {low:g} to {high:g} stars, say --score-range {low:g} {high:g}"


def of_rater(rated: RatedPictures, rater: str | None) -> list[Row]:
    """
    The rows of one rater: the one asked for, or the only one.

    Raises:
        ValueError: If there are several and none is chosen, or the one chosen is not there.
    """
    rows = [rated[index] for index in range(len(rated))]
    column = next((name for name in rated.columns if name.casefold() in RATER_COLUMNS), None)
    if column is None:
        if rater is not None:
            raise ValueError(f"the ratings have no column {', '.join(RATER_COLUMNS)} to look for {rater!r} in")
        return rows
    names = [rater_name(row["columns"][column]) for row in rows]
    rater = None if rater is None else rater_name(rater)
    there = sorted(set(names))
    listed = ", ".join(there[:5]) + (f", … ({len(there)})" if len(there) > 5 else "")
    if rater is None and len(there) > 1:
        raise ValueError(f"the ratings are of several people ({column}: {listed}); choose one with --rater")
    if rater is not None and rater not in there:
        raise ValueError(f"no row has the {column} {rater!r}; there are {listed}")
    return [row for row, name in zip(rows, names, strict=True) if rater in (None, name)]


def rater_name(value: Any) -> str:
    """A rater as they are listed and chosen."""
    return BLANK if is_missing(value) else str(value).strip()


def label_range(
    rated: RatedPictures, rows: Sequence[Row], attribute: str, model: tuple[float, float]
) -> tuple[float, float]:
    """The range of the ratings: what the user or the file says, else the model's if they fit into it."""
    if not rated.range_guessed:
        ends: Any = rated.score_range  # one pair, for one attribute was read
        return float(ends[0]), float(ends[1])
    scores = [row["scores"][attribute] for row in rows]
    if min(scores) < model[0] or max(scores) > model[1]:
        raise ValueError(
            f"ratings from {min(scores):g} to {max(scores):g} do not fit the model's {in_words(model)}; state their "
            "range with --score-range, and they are mapped"
        )
    return model


def score_rows(
    args: argparse.Namespace, scorer: Any, attribute: str, rows: Sequence[Row]
) -> tuple[list[Row], Array, Array]:
    """The rows that could be scored, their features `(n, C)` and general scores `(n,)`; others are told to stderr."""
    pictures = [row["image"] for row in rows]
    records = read_features(scorer, pictures, attribute, batch_size=args.batch_size, num_workers=args.num_workers)
    progress = tqdm(records, total=len(rows), unit="picture", leave=False, disable=None)  # None: on a terminal only
    pairs = list(zip(rows, progress, strict=True))
    for row, record in pairs:
        if record["error"] is not None:
            print(shown(f"roc4mllm: left out: {row['name']}: {record['error']}"), file=sys.stderr)
    good = [(row, record) for row, record in pairs if record["error"] is None]
    features = np.array([record["features"] for _, record in good])  # (n, C)
    return [row for row, _ in good], features, np.array([record["score"] for _, record in good])


# What it is worth ----------------------------------------------------------------------------------------------------


def measure_gain(general: Array, personal: Array, ratings: Array) -> dict[str, Measurement]:
    """SRCC with the ratings of the general scores and of personal ones, and the difference."""
    general, personal = general.round(DECIMALS), personal.round(DECIMALS)

    def gain(counts: Array) -> Array:
        return srcc(personal, ratings, counts) - srcc(general, ratings, counts)

    statistics: dict[str, Statistic] = {
        "general": partial(srcc, general, ratings),
        "personal": partial(srcc, personal, ratings),
        "gain": gain,
    }
    return measure(statistics, len(ratings), BOOTSTRAPS, seed=0)


def report(
    taste: PersonalTaste, rater: str | None, found: Mapping[str, Measurement], nested: float | None, verdict: str
) -> list[str]:
    """What was measured, side by side, for a reader; `nested` is the SRCC of heads that never saw the picture."""
    whose = "one person" if rater is None else rater_name(rater)
    lines = [
        f"{taste.attribute} for {whose}, {in_words(taste.score_range)}, {taste.num_ratings} pictures; "
        f"model {taste.model}",
        "",
        "SRCC with ratings of left-out pictures, and 95 % bootstrap interval",
        *(f"{name:<9}{cells(value)}" for name, value in found.items()),
        "",
        verdict,
    ]
    if nested is not None and nested != taste.personal_srcc:
        lines.append(f"Where each picture was left out in turn, some heads were fitted, to an SRCC of {nested:+.3f}.")
    return lines


def cells(found: Measurement) -> str:
    """A measurement and its interval, as far as they are known."""
    if found.value is None:
        return "      -"
    interval = "" if found.low is None else f"  [{found.low:+.3f}, {found.high:+.3f}]"
    return f"{found.value:+7.3f}{interval}"


def verdict(taste: PersonalTaste, found: Mapping[str, Measurement], general: Array, ratings: Array) -> str:
    """What the numbers say, in a sentence."""
    gain = found["gain"]
    if np.ptp(general.round(DECIMALS)) == 0 < np.ptp(ratings):
        return "The general score is the same for all these pictures: nothing tells which score is the better one."
    if gain.value is None:
        return "The ratings do not vary enough to tell whether the personal score is the better one."
    if taste.strength is None:
        return (
            "No taste of their own shows in these ratings: the personal score is the general one, moved by "
            f"{taste.bias:+.2f}."
        )
    if gain.low is not None and gain.low > 0:
        return "The personal score follows this person better than the general one."
    if gain.high is not None and gain.high < 0:
        return "The general score follows this person better: do not use the personal one."
    return "Whether the personal score is the better one cannot be told from these ratings."


__all__ = ["run"]
