"""
Rated pictures for training and evaluation: one reader for every kind of file, and the rows that it gives.

`path,score` is enough. A std, votes, further attributes, a comment and a question are used where they are there.
Pictures stay where they are until a row is asked for; what is kept in memory is a path and a few numbers per row.
"""

import copy
import os
import sys
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.data import Dataset

from ..datasets_scripts.split_guard import protocol_name
from .rating_checks import (
    BadRows,
    FoundRange,
    RatingError,
    check_pictures,
    check_scores,
    count_levels,
    given_ranges,
    guess_range,
    is_url,
    level_weights,
    picture_folder,
    vote_means,
)
from .rating_rows import MAIN_ATTRIBUTE, ColumnRoles, RatedRow, assign_columns, is_missing, read_row
from .rating_sources import RatingSource, open_source


class RatingTable:
    """
    All rows of a source, by column: lists while it is filled, arrays when it is finished.

    Names of axes: R rows, A attributes, N levels. Unknown numbers are NaN.

    Args:
        source ([`RatingSource`]): Where the rows stand.
        roles ([`ColumnRoles`]): What its columns hold.
    """

    def __init__(self, source: RatingSource, roles: ColumnRoles):
        self.where, self.attributes = f"{source.name}, {source.unit}", roles.attributes
        self.also_rated = [name for name in source.attributes if name not in roles.attributes]
        self.score_columns = roles.scores
        self.numbers: Any = array("q")  # (R,)
        self.pictures: Any = [] if source.pictures is None else source.pictures
        self.same_picture: Any = None  # (R,), equal where the picture is
        self.contents: Any = None  # (R,), hashes of the pictures
        self.scores: Any = array("d")  # (R, A)
        self.stds: Any = array("d")  # (R, A)
        self.votes: Any = []  # a dict per row, then (R, A, N)
        self.vote_levels: dict[str, int] = {}  # as they were given
        self.comments: list[str | None] = []
        self.questions: list[str | None] = []
        further = [name for name in roles.further if name and name not in source.attribute_columns]
        self.columns: dict[str, list[Any]] = {name: [] for name in further}
        self.declared_ranges: dict[str, set[tuple[float, float]]] = {name: set() for name in roles.attributes}

    def add(self, number: int, picture: str | None, row: RatedRow, fields: Mapping[str, Any]) -> None:
        """Take up a row."""
        self.numbers.append(number)
        if picture is not None:
            self.pictures.append(picture)
        self.scores.extend(row.scores.get(name, np.nan) for name in self.attributes)
        self.stds.extend(row.stds.get(name, np.nan) for name in self.attributes)
        self.votes.append({name: array("d", counts) for name, counts in row.votes.items()} or None)
        self.comments.append(row.comment)
        self.questions.append(row.question and sys.intern(row.question))  # mostly the same one
        for name, values in self.columns.items():
            value = fields.get(name)
            values.append(sys.intern(value) if type(value) is str else value)  # one object for each theme
        for name, pair in row.score_ranges.items():
            self.declared_ranges[name].add(pair)

    def finish(self, num_levels: int | None, bad: BadRows) -> None:
        """
        Make arrays of the lists. The votes of all attributes get the number of levels of the main one's; rows whose
        votes have another number than the others of their attribute are noted.
        """
        num_rows, num_attributes = len(self.numbers), len(self.attributes)
        self.numbers = np.array(self.numbers)
        self.scores = np.array(self.scores).reshape(num_rows, num_attributes)
        self.stds = np.array(self.stds).reshape(num_rows, num_attributes)
        self._lay_out_votes(num_levels, bad)

    def _lay_out_votes(self, num_levels: int | None, bad: BadRows) -> None:
        main = self.attributes[0]
        for name in self.attributes:
            lengths = [len(votes[name]) for votes in self.votes if votes and name in votes]
            if own := count_levels(lengths, num_levels if name == main else None):
                self.vote_levels[name] = own
        levels = self.vote_levels.get(main) or num_levels or max(self.vote_levels.values(), default=0)
        weights = {name: level_weights(own, levels) for name, own in self.vote_levels.items() if own != levels}
        laid_out = np.full((len(self.votes), len(self.attributes), levels if self.vote_levels else 0), np.nan)
        for row, votes in enumerate(self.votes):
            for name, counts in (votes or {}).items():
                if len(counts) != self.vote_levels[name]:
                    reason = f"votes for {len(counts)} levels, expected {self.vote_levels[name]}"
                    bad.add(self.numbers[row], reason)
                    continue
                laid_out[row, self.attributes.index(name)] = counts @ weights[name] if name in weights else counts
        self.votes = laid_out


class RatedPictures(Dataset):
    """
    Pictures with their ratings, in the order of their source; made by [`read_ratings`].

    `pictures[i]` is a dict: `image` (a path, or `{"bytes", "path"}` as the `datasets` library has it; not decoded),
    `scores` and `stds` by attribute (in units of the score range), `votes` by attribute (a number per level), each as
    far as they are known; `comment` and `question` (text or `None`); `columns`, the further columns of the source as
    they stand there; and `where`, the place of the row.

    Attributes:
        attributes (`list[str]`): What is scored, the main attribute first.
        score_range (pair of `float`, or one pair per attribute): Lowest and highest score; `None` where only comments
            are known.
        range_guessed (`bool`): Whether nobody stated the range, so that it was guessed from the scores.
        num_levels (`int`, *optional*): Number of levels of the votes, `None` without votes.
        columns (`list[str]`): Names of the further columns.
        also_rated (`list[str]`): Attributes that the source has and that were not asked for.
        warnings (`list[str]`): What the reading noticed and a person should see.
    """

    def __init__(self, table: RatingTable, rows: np.ndarray, ranges: list[FoundRange], warnings: list[str]):
        self._table, self._rows, self._ranges = table, rows, ranges
        self.attributes, self.columns = table.attributes, list(table.columns)
        pairs = [(found.low, found.high) for found in ranges]
        self.score_range = (pairs[0] if len(set(pairs)) == 1 else pairs) or None
        self.range_guessed = any(found.guessed for found in ranges)
        self.also_rated = table.also_rated
        self.num_levels: int | None = table.votes.shape[-1] or None
        self.warnings = warnings

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        table, row = self._table, self._rows[index]
        picture = table.pictures[row] if self.has_paths else table.pictures[int(table.numbers[row])]
        return {"image": picture, **self.rating(index)}

    @property
    def has_paths(self) -> bool:
        """Whether pictures are files; else the data set itself holds them."""
        return isinstance(self._table.pictures, list)

    def rating(self, index: int) -> dict[str, Any]:
        """A row without its picture, which is not read."""
        table, row = self._table, self._rows[index]
        return {
            "scores": known_numbers(table.attributes, table.scores[row]),
            "stds": known_numbers(table.attributes, table.stds[row]),
            "votes": {
                name: votes.tolist()
                for name, votes in zip(table.attributes, table.votes[row], strict=True)
                if votes.size and not np.isnan(votes[0])
            },
            "comment": table.comments[row],
            "question": table.questions[row],
            "columns": self._columns_of(row),
            "where": f"{table.where} {int(table.numbers[row])}",
        }

    def _columns_of(self, row: int) -> dict[str, Any]:
        return {name: values[row] for name, values in self._table.columns.items()}

    def outlines(self) -> Iterator[dict[str, Any]]:
        """What tells pictures, without reading them: `image` where it is a path, `content` (hash) and `columns`."""
        table = self._table
        for row in self._rows:
            image = table.pictures[row] if self.has_paths else None
            yield {"image": image, "content": int(table.contents[row]), "columns": self._columns_of(row)}

    @property
    def protocols(self) -> list[str]:
        """`<split_protocol>/<split>` of the rows, where they say so: numbers on two of them are not comparable."""
        columns = self._table.columns
        if "split_protocol" not in columns:
            return []
        known = {name: columns[name] for name in ("split_protocol", "split") if name in columns}
        found = {protocol_name({name: values[row] for name, values in known.items()}) for row in self._rows}
        return sorted(name for name in found if name)

    def take(self, indices: Iterable[int]) -> "RatedPictures":
        """The rows at some positions, in that order; the table behind them is shared."""
        taken = copy.copy(self)
        taken._rows = self._rows[np.fromiter(indices, dtype=np.int64)]
        taken.warnings = []  # they tell of all rows
        return taken

    def split(self, share: float, seed: int) -> tuple["RatedPictures", "RatedPictures"]:
        """
        Divide at random into rows for training and for evaluation, each in the old order.

        Rows of the same picture stay together, also of copies under several names.

        Args:
            share (`float`): Share of the pictures for evaluation, between 0 and 1; at least one is left on each side.
            seed (`int`): The same seed divides the same rows in the same way.

        Returns:
            `tuple[RatedPictures, RatedPictures]`: for training, for evaluation.

        Raises:
            ValueError: If the share is not between 0 and 1, or there are fewer than two different pictures.
        """
        same = self._table.same_picture[self._rows]  # (R,)
        pictures = np.unique(same)
        if not 0 < share < 1 or len(pictures) < 2:
            raise ValueError(
                f"Cannot put a share of {share} of {len(pictures)} different pictures aside; expected a "
                "share between 0 and 1, and two pictures at least."
            )
        count = min(max(round(share * len(pictures)), 1), len(pictures) - 1)
        aside = np.isin(same, np.random.default_rng(seed).permutation(pictures)[:count])  # (R,)
        return self.take(np.flatnonzero(~aside)), self.take(np.flatnonzero(aside))

    def summary(self) -> str:
        """What there is, for a person to read."""
        table, rows = self._table, self._rows
        lines = [f"{len(rows)} rows, {len(np.unique(table.same_picture[rows]))} pictures"]
        lines += [f"  split: {', '.join(self.protocols)}"] if self.protocols else []
        for index, name in enumerate(self.attributes):
            scores = table.scores[rows, index]
            known = scores[~np.isnan(scores)]
            line = f"  {name}: {len(known)} scores"
            if len(known):
                found = self._ranges[index]
                line += f" from {known.min():.4g} to {known.max():.4g}, mean {known.mean():.4g}"
                line += f", range {found.low:g} to {found.high:g} ({found.origin})"
                line += f", column {table.score_columns[name]!r}" if name in table.score_columns else ", mean of votes"
            lines.append(line)
            if self.num_levels and (count := int((~np.isnan(table.votes[rows, index, 0])).sum())):
                lines.append(f"    {count} with votes for {self.num_levels} levels")
            if count := int((~np.isnan(table.stds[rows, index])).sum()):
                lines.append(f"    {count} with a std")
        for kind, texts in (("comment", table.comments), ("question of its own", table.questions)):
            if count := sum(texts[row] is not None for row in rows):
                lines.append(f"  {count} with a {kind}")
        if self.also_rated:
            lines.append(f"  also rated, for attributes: {','.join(self.also_rated)}")
        if self.columns:
            lines.append(f"  further columns: {', '.join(self.columns)}")
        return "\n".join(lines)


def known_numbers(attributes: Sequence[str], values: np.ndarray) -> dict[str, float]:
    """Numbers by attribute, NaN left out."""
    return {name: float(value) for name, value in zip(attributes, values, strict=True) if not np.isnan(value)}


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


def fill_table(table: RatingTable, source: RatingSource, roles: ColumnRoles, bad: BadRows) -> int:
    """Take up the rows that can be read; the number of all."""
    count = 0
    for record in source:
        count += 1
        try:
            if record.problem:
                raise ValueError(record.problem)
            picture = picture_in(record.fields, roles.picture)
            table.add(record.number, picture, read_row(record.fields, roles), record.fields)
        except ValueError as error:
            bad.add(record.number, str(error))
    if not count:
        raise ValueError(f"{source.name} holds no rows{f' of the split {source.split!r}' if source.split else ''}.")
    return count


def picture_in(fields: Mapping[str, Any], column: str | None) -> str | None:
    """The path in a record, `None` where the source holds the pictures themselves."""
    if column is None:
        return None
    name = fields.get(column)
    if not isinstance(name, str) or is_missing(name):
        raise ValueError(f"{column} is {str(name)[:60]!r}; expected the path of a picture")
    return name


def place_pictures(table: RatingTable, source: RatingSource, pictures: str | os.PathLike[str] | None) -> str | None:
    """Make the paths of pictures absolute; the folder that they started from."""
    if source.pictures is not None:
        return None
    folder = picture_folder(table.pictures, source.folder, pictures)
    table.pictures = [
        name if is_url(name) else os.path.normpath(os.path.join(folder, name)) for name in table.pictures
    ]
    return folder


def find_ranges(table: RatingTable, score_range: Any, names: list[str]) -> list[FoundRange]:
    """Range of each attribute: given, declared in the rows, that of the votes, or guessed; empty without scores."""
    if score_range is not None:
        given = dict(zip(names, given_ranges(score_range, names, "as given"), strict=True))
        refuse_other_units(table.declared_ranges, given)
        return [given[name] for name in table.attributes]
    for name, pairs in table.declared_ranges.items():
        if len(pairs) > 1:
            raise ValueError(
                f"The rows declare several score ranges of {name} ({sorted(pairs)[:5]}), and their scores cannot be "
                "compared; state the score_range if they can."
            )
    if np.isnan(table.scores).all() and np.isnan(table.votes).all() and not any(table.declared_ranges.values()):
        return []
    return [range_of(table, place) for place in range(len(table.attributes))]


def refuse_other_units(declared: Mapping[str, set[tuple[float, float]]], given: Mapping[str, FoundRange]) -> None:
    """Scores in other units than those asked for would be taken for them where both ranges hold them."""
    for name, pairs in declared.items():
        low, high, _ = given[name]
        if len(pairs) == 1 and pairs != {(low, high)}:
            start, end = next(iter(pairs))
            raise ValueError(
                f"The rows declare scores of {name} from {start:g} to {end:g}; the score_range given, or that of the "
                f"scorer, is {low:g} to {high:g}. Leave it out, start from a backbone, or correct the rows."
            )


def range_of(table: RatingTable, place: int) -> FoundRange:
    """The range of one attribute: what the rows declare, that of the votes, or a guess."""
    name, scores = table.attributes[place], table.scores[:, place]  # (R,)
    if declared := table.declared_ranges[name]:
        return given_ranges(next(iter(declared)), [name], "as the file declares")[0]
    if levels := table.vote_levels.get(name):
        return FoundRange(1.0, float(levels), f"{levels} levels of votes")
    if np.isnan(scores).all():
        raise ValueError(f"No row has a score for {name!r}; leave the attribute out, or state the score_range.")
    return guess_range(scores[~np.isnan(scores)], name)


def check_ratings(table: RatingTable, ranges: list[FoundRange], bad: BadRows) -> None:
    """Note scores that cannot be right, and fill in the mean of the votes where a score is unknown."""
    for index, found in enumerate(ranges):
        name = table.attributes[index]
        scores, votes = table.scores[:, index], table.votes[:, index]  # views (R,) and (R, N)
        check_scores(scores, votes, found, table.score_columns.get(name, name), table.numbers, bad)
        np.copyto(scores, vote_means(votes, found), where=np.isnan(scores))


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


__all__ = ["RatedPictures", "RatingError", "read_ratings"]
