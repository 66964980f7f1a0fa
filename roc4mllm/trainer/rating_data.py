"""
Rated pictures for training and evaluation: one reader for every kind of file, checked row by row.

`path,score` is enough. A std, votes, further attributes, a comment and a question are used where they are there.
Pictures stay where they are until a row is asked for; what is kept in memory is a path and a few numbers per row.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .rated_pictures import RatedPictures
from .rating_checks import (
    BadRows,
    RatingError,
    check_pictures,
)
from .rating_records import RatingSource
from .rating_rows import MAIN_ATTRIBUTE, assign_columns
from .rating_sources import open_source
from .rating_table import RatingTable, check_ratings, fill_table, find_ranges, place_pictures


def read_ratings(
    source: Any,
    *,
    attributes: Sequence[str] | None = None,
    known_attributes: Sequence[str] | None = None,
    score_range: Any = None,
    num_levels: int | None = None,
    split: str | None = None,
    pictures: str | os.PathLike[str] | None = None,
    skip_bad_rows: str | os.PathLike[str] | None = None,
) -> RatedPictures:
    """
    Read rated pictures and check every row: that its picture opens (by the header), and that its numbers make sense.

    Columns are known by name. Pictures: `path`, `image`, `file_name`, `filename`, `image_path`, `img`, `image_name`,
    or any column of pictures or bytes of a data set. The main attribute: a column of its own name, else `score`,
    `mean`, `mos`, `gt_score`, `mean_score`, `aesthetic_score`, `rating`; its spread `std`; its votes a list in
    `votes`, or one column per level (`r1` …, `votes_1` …, `1` …). Any other attribute `x`: `x` or `x_score`,
    `x_std`, `x_votes`. Where votes are missing, shares of the levels in `distribution` stand in. The column
    `attributes` of a converted data set counts as such columns of each attribute that it lists. Text: `comment`,
    `comments` (the first of a list), `caption`; `question`. In files of the
    authors of ROC4MLLM `target` holds the votes, and `conversations` question and comment.

    Where votes are known and a score is not, the score is their mean. Votes for another number of levels than those
    of the main attribute are laid out on as many, each between its neighbours, so that the mean stays.

    Args:
        source (`str`, path or `datasets.Dataset`):
            A .csv, .tsv, .json, .jsonl or .parquet file; a folder with `metadata.csv` or `metadata.jsonl` (or with a
            sub-folder per split that has one), or one that `datasets.load_dataset` reads; or the name of a data set
            on the Hub.
        attributes (`list[str]`, *optional*):
            What is scored, the main attribute first; each must be there. By default "aesthetics" alone: other numbers
            of the file never become a target unless they are named.
        known_attributes (`list[str]`, *optional*):
            What a model scores, the main attribute first: those that are there are read. Only without `attributes`.
        score_range (pair of `float`, or one pair per attribute, *optional*):
            Lowest and highest score; rows that declare another one are refused. By default what columns `score_min`
            and `score_max`, or `score_range`, say, for an attribute `x` rather `x_score_range`; else
            1 to the number of vote levels; else the narrowest that holds all scores of 0 to 1, −1 to 1, 1 to 5, 0 to
            5, 1 to 7, 1 to 10, 0 to 10, 0 to 100, which `range_guessed` and `warnings` tell.
        num_levels (`int`, *optional*):
            Number of levels that votes must have; by default the most frequent.
        split (`str`, *optional*):
            Split of a folder or data set, or value of the column `split` of a file.
        pictures (`str` or path, *optional*):
            Folder that relative paths start from. By default that of the file, or the current folder if only there one
            of the first hundred pictures is found.
        skip_bad_rows (`str` or path, *optional*):
            A .csv file to write bad rows to (line, reason, and their fields), which are then left out. By default they
            are an error.

    Returns:
        [`RatedPictures`]

    Raises:
        RatingError: If rows are bad, or with `skip_bad_rows` if no other is left. Bad is a row without a readable
            picture, with nothing to learn from it, with a cell that does not hold what it should, a score outside the
            range or more than half a level step from the mean of its votes, a negative std, votes that are negative,
            sum to zero or are known for some levels only, or with `[SCORE]` in a text. A cell that is empty, `NA`,
            `NaN`, `null` or `None` is unknown, which is no mistake beside another score, votes or a comment.
        ValueError: If a column is missing, the format is not as expected, or an argument does not fit the data.
        OSError: If a file cannot be read or written.
    """
    names = check_names(attributes or known_attributes or [MAIN_ATTRIBUTE])
    opened = open_source(source, split)
    roles = assign_columns(opened.columns, names, need_all=bool(attributes), has_pictures=opened.pictures is not None)
    skip_file = None if skip_bad_rows is None else check_skip_file(skip_bad_rows, opened)
    bad, table = BadRows(opened), RatingTable(opened, roles)
    num_rows = fill_table(table, opened, roles, bad)
    table.finish(num_levels, bad)
    folder = place_pictures(table, opened, pictures)
    table.same_picture, table.contents = check_pictures(table.pictures, table.numbers, bad, folder)
    ranges = find_ranges(table, score_range, names)
    check_ratings(table, ranges, bad)
    good = np.flatnonzero(~np.isin(table.numbers, list(bad.reasons)))
    if not len(good) or (bad and skip_file is None):
        raise refusal(bad, num_rows, skipping=skip_file is not None)
    if skip_file is not None:
        bad.write(skip_file)
    rated = RatedPictures(table, good, ranges, [])
    rated.warnings = find_warnings(rated, bad, skip_file)
    return rated


def check_names(attributes: Sequence[str]) -> list[str]:
    """Distinct names, also by columns whose capitals do not matter."""
    if isinstance(attributes, str) or len({name.casefold() for name in attributes}) < len(attributes):
        raise ValueError(f"attributes must be a list of distinct names; got {attributes!r}.")
    return list(attributes)


def check_skip_file(skip_bad_rows: str | os.PathLike[str], opened: RatingSource) -> Path:
    """Where bad rows will be written, if that is possible."""
    path = Path(skip_bad_rows)
    if path.is_dir() or not path.parent.is_dir():
        raise OSError(f"skip_bad_rows must name a file in a folder that exists; got {os.fspath(path)!r}.")
    if path.exists() and opened.path is not None and path.samefile(opened.path):
        raise ValueError(f"skip_bad_rows would overwrite the ratings themselves: {os.fspath(path)!r}.")
    return path


def refusal(bad: BadRows, num_rows: int, skipping: bool) -> RatingError:
    """What is raised about bad rows."""
    advice = "Mend them, or name a file with skip_bad_rows to write them to and go on without them."
    return bad.error(num_rows, "No row is left." if skipping else advice)


def find_warnings(rated: RatedPictures, bad: BadRows, skip_file: Path | None) -> list[str]:
    """What a person should see before training."""
    table, found = rated._table, []
    if bad:
        found.append(f"{len(bad)} bad rows are left out and stand in {skip_file}")
    for index, score_range in enumerate(rated._ranges):
        if score_range.guessed:
            scores = table.scores[rated._rows, index]
            found.append(
                f"{table.attributes[index]}: score range {score_range.low:g} to {score_range.high:g}, guessed from "
                f"scores of {np.nanmin(scores):.4g} to {np.nanmax(scores):.4g}; state the score range if it is another"
            )
    _, counts = np.unique(table.same_picture[rated._rows], return_counts=True)
    if (repeated := counts > 1).any():
        found.append(f"duplicates: {counts[repeated].sum()} rows show {repeated.sum()} pictures between them")
    return found


__all__ = ["RatingError", "read_ratings"]
