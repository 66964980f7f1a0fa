"""`roc4mllm filter`: from a table of scores to the pictures worth keeping."""

import argparse
import heapq
import math
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from ..inference.file_placing import place_files
from ..inference.tables.score_reading import Scale, as_number, is_unfinished, read_table, scale_of
from ..inference.tables.score_table import Row, as_path, encodable, shown


def run(args: argparse.Namespace) -> int:
    """Pick rows of `args.scores` and list, copy or link them; 1 if a picture could not be placed, else 0."""
    folder = args.copy_to or args.symlink_to
    if folder and os.path.exists(folder) and not os.path.isdir(folder):
        raise NotADirectoryError(f"expected a folder to put pictures into, got the file {folder!r}")
    if is_unfinished(args.scores):
        print(f"roc4mllm: {args.scores} is of a run that is not finished: rows are missing", file=sys.stderr)
    scored = ScoredRows(read_table(args.scores), args.alias)
    picked = pick(scored, top_k=args.top_k, quantile=args.quantile, min_score=args.min_score)
    if args.min_score is not None:
        for scale, found in scored.ranges.items():
            print(describe_scores(scale, found), file=sys.stderr)
    without = scored.count - scored.scored
    note = f"; {without} rows without a score never pass" if without else ""
    print(f"{len(picked)} of {scored.count} rows pass{note}", file=sys.stderr)
    paths = [as_path(encodable(row.path)) for row in picked]
    if folder:
        return place(paths, folder, link=bool(args.symlink_to))
    list_paths(paths, end="\0" if args.null else "\n")
    return 0


@dataclass(frozen=True, slots=True)
class Scored:
    """
    A row that has a score.

    Args:
        path (`str`):
            The `path` of the row.
        score (`float`):
            Its score, in the units of `scale`.
        scale ([`Scale`]):
            Scores can be compared where it is the same.
    """

    path: str
    score: float
    scale: Scale

    @property
    def merit(self) -> float:
        """The score, turned round where lower is better."""
        return self.score if self.scale.higher_is_better else -self.score


class ScoredRows:
    """
    The rows of a table that have a score and no error, in its order, each read when it is asked for.

    Args:
        rows (iterable of `dict`):
            What `read_table` returned.
        alias (`str`, *optional*, defaults to `score`, else `aesthetic_score`):
            The column to compare.

    Attributes:
        count (`int`): Rows read so far, with or without a score.
        scored (`int`): Those of them that have one.
        ranges (`dict[Scale, tuple[float, float]]`): Lowest and highest score read so far, by scale.

    Raises:
        ValueError: While they are read: if a score is not a number; at the end, if no row has such a column.
    """

    def __init__(self, rows: Iterable[Row], alias: str | None = None):
        self.rows = rows
        self.names = [alias] if alias else ["score", "aesthetic_score"]
        self.count = self.scored = 0
        self.ranges: dict[Scale, tuple[float, float]] = {}

    def __iter__(self) -> Iterator[Scored]:
        columns: dict[str, None] = {}
        scales: dict[Scale, Scale] = {}  # one object for all rows of a scale
        for row in self.rows:
            self.count += 1
            columns |= dict.fromkeys(row)
            column = next((name for name in self.names if name in row), self.names[-1])
            score = as_number(row.get(column), f"row {self.count}, {column}")
            if score is not None and row.get("error") is None:
                scale = scale_of(row, f"row {self.count}")
                scale = scales.setdefault(scale, scale)
                low, high = self.ranges.get(scale, (score, score))
                self.ranges[scale] = (min(low, score), max(high, score))
                self.scored += 1
                yield Scored(str(row["path"]), score, scale)
        if self.count and not columns.keys() & set(self.names):
            listed = ", ".join(sorted(columns))
            raise ValueError(f"the file has no column {self.names[-1]!r}; name one of {listed} with --alias")


def pick(
    scored: ScoredRows,
    *,
    top_k: int | None = None,
    quantile: float | None = None,
    min_score: float | None = None,
) -> list[Scored]:
    """
    The rows that pass one rule, best first, ties in the order given.

    No more rows are held than may pass: `top_k`, or those that reach `min_score`; all of them for `quantile`.

    Args:
        scored ([`ScoredRows`]):
            The rows to choose from.
        top_k (`int`, *optional*):
            How many.
        quantile (`float`, *optional*):
            Share from 0 to 1: rows at or above this quantile of their own scale, ties included.
        min_score (`float`, *optional*):
            The score to reach, in the units of the rows; where lower is better, the score not to exceed.

    Returns:
        `list[Scored]`: the rows.

    Raises:
        ValueError: For `top_k` and `min_score` if the rows are of several models or ranges; for `min_score` if it lies
            outside the range.
    """
    if top_k is not None:
        picked = heapq.nlargest(top_k, scored, key=merit)
    elif min_score is not None:
        picked = [row for row in scored if row.merit >= (min_score if row.scale.higher_is_better else -min_score)]
    else:
        picked = above_quantile(list(scored), quantile or 0.0)
    if quantile is None:
        refuse_mixed(scored)
    if min_score is not None:
        refuse_outside(scored, min_score)
    return sorted(picked, key=merit, reverse=True)


def merit(row: Scored) -> float:
    """What rows are ranked by."""
    return row.merit


def above_quantile(rows: Sequence[Scored], quantile: float) -> list[Scored]:
    """The rows at or above this quantile of their own scale."""
    merits: dict[Scale, list[float]] = {}
    for row in rows:
        merits.setdefault(row.scale, []).append(row.merit)
    limits = {scale: lowest_of_quantile(values, quantile) for scale, values in merits.items()}
    return [row for row in rows if row.merit >= limits[row.scale]]


def lowest_of_quantile(values: Sequence[float], quantile: float) -> float:
    """The lowest value that is not below the quantile."""
    place = round(quantile * (len(values) - 1), 9)  # 0.07 · 100 is 7.000000000000001: the rounding keeps place 7
    return sorted(values)[math.ceil(place)]


def refuse_mixed(scored: ScoredRows) -> None:
    """Raise if the scores are not all of one scale."""
    if len(scored.ranges) > 1:
        listed = "; ".join(map(describe_scale, scored.ranges))
        raise ValueError(
            f"the file mixes scores that cannot be compared: {listed}. Use --quantile, which ranks each of them "
            "by itself, or score all pictures with one model"
        )


def describe_scale(scale: Scale) -> str:
    """What sets a scale apart, in words."""
    revision = f" (revision {scale.revision})" if scale.revision else ""
    units = "without a range" if scale.low is None else f"{scale.low:g} to {scale.high:g}"
    return f"{scale.model or 'unknown model'}{revision} {units}{'' if scale.higher_is_better else ', lower is better'}"


def refuse_outside(scored: ScoredRows, min_score: float) -> None:
    """Raise if `min_score` is not in the range that the table declares, or else in that of its scores."""
    for scale, found in scored.ranges.items():
        low, high = declared_range(scale, found)
        if not low <= min_score <= high:
            raise ValueError(
                f"--min-score {min_score:g} is outside the range of the file: {describe_scores(scale, found)}"
            )


def declared_range(scale: Scale, found: tuple[float, float]) -> tuple[float, float]:
    """The declared range of the scores, or the one found where the table declares none."""
    return (found[0] if scale.low is None else scale.low, found[1] if scale.high is None else scale.high)


def describe_scores(scale: Scale, found: tuple[float, float]) -> str:
    """The range that a minimal score is compared with, in words."""
    low, high = declared_range(scale, found)
    direction = "higher is better" if scale.higher_is_better else "lower is better"
    return f"scores can be {low:g} to {high:g} ({direction}), those of the file are {found[0]:.4g} to {found[1]:.4g}"


def list_paths(paths: Sequence[str], end: str) -> None:
    """Print the paths: as the very bytes of their names into a pipe, with control characters escaped on a terminal."""
    if sys.stdout.isatty() and end == "\n":
        for path in paths:
            print(shown(path))
        return
    sys.stdout.flush()
    for path in paths:
        sys.stdout.buffer.write(os.fsencode(path + end))
    sys.stdout.buffer.flush()


def place(paths: Sequence[str], folder: str, *, link: bool) -> int:
    """Copy or link the pictures into a folder, which is made if need be; 1 if one could not be, else 0."""
    os.makedirs(folder, exist_ok=True)
    failed = 0
    for source, _, error in place_files(paths, folder, link=link):
        if error is not None:
            failed += 1
            print(shown(f"roc4mllm: {source} was not {'linked' if link else 'copied'}: {error}"), file=sys.stderr)
    done = f"{len(paths) - failed} of {len(paths)} {'linked' if link else 'copied'} to {folder}"
    hint = f", {failed} failed (relative paths start from the current folder)" if failed else ""
    print(shown(done + hint), file=sys.stderr)
    return 1 if failed else 0
