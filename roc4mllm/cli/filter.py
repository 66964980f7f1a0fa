"""`roc4mllm filter`: from a table of scores to the pictures worth keeping."""

import argparse
import math
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from ..inference.file_placing import place_files
from ..inference.tables.score_reading import Scale, as_number, is_unfinished, read_table, scale_of
from ..inference.tables.score_table import Row, as_path, shown


@dataclass(frozen=True)
class Scored:
    """
    A row that has a score.

    Args:
        path (`str`):
            The file, as a path of this machine.
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


def run(args: argparse.Namespace) -> int:
    """Pick rows of `args.scores` and list, copy or link them; 1 if a picture could not be placed, else 0."""
    folder = args.copy_to or args.symlink_to
    if folder and os.path.exists(folder) and not os.path.isdir(folder):
        raise NotADirectoryError(f"expected a folder to put pictures into, got the file {folder!r}")
    rows = read_table(args.scores)
    if is_unfinished(args.scores):
        print(f"roc4mllm: {args.scores} is of a run that is not finished: rows are missing", file=sys.stderr)
    scored = scored_rows(rows, args.alias)
    picked = pick(scored, top_k=args.top_k, quantile=args.quantile, min_score=args.min_score)
    if args.min_score is not None and scored:
        print(describe_scores(scored), file=sys.stderr)
    without = len(rows) - len(scored)
    note = f"; {without} rows without a score never pass" if without else ""
    print(f"{len(picked)} of {len(rows)} rows pass{note}", file=sys.stderr)
    paths = [row.path for row in picked]
    if folder:
        return place(paths, folder, link=bool(args.symlink_to))
    list_paths(paths, end="\0" if args.null else "\n")
    return 0


def scored_rows(rows: Sequence[Row], alias: str | None = None) -> list[Scored]:
    """
    The rows that have a score and no error.

    Args:
        rows (sequence of `dict`):
            What `read_table` returned.
        alias (`str`, *optional*, defaults to `score`, else `aesthetic_score`):
            The column to compare.

    Returns:
        `list[Scored]`: in the order of the table.

    Raises:
        ValueError: If there is no such column, or a score is not a number.
    """
    if not rows:
        return []
    columns = {name for row in rows for name in row}
    column = alias or ("score" if "score" in columns else "aesthetic_score")
    if column not in columns:
        raise ValueError(f"the file has no column {column!r}; name one of {', '.join(sorted(columns))} with --alias")
    scored = []
    for count, row in enumerate(rows, start=1):
        score = as_number(row.get(column), f"row {count}, {column}")
        if score is not None and row.get("error") is None:
            scored.append(Scored(as_path(str(row["path"])), score, scale_of(row, f"row {count}")))
    return scored


def pick(
    scored: Sequence[Scored],
    *,
    top_k: int | None = None,
    quantile: float | None = None,
    min_score: float | None = None,
) -> list[Scored]:
    """
    The rows that pass one rule, best first, ties in the order given.

    Args:
        scored (sequence of `Scored`):
            What `scored_rows` returned.
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
    if quantile is None:
        refuse_mixed(scored)
    if min_score is not None:
        refuse_outside(scored, min_score)
        scored = [row for row in scored if row.merit >= (min_score if row.scale.higher_is_better else -min_score)]
    if quantile is not None:
        merits: dict[tuple[object, ...], list[float]] = {}
        for row in scored:
            merits.setdefault(row.scale, []).append(row.merit)
        limits = {scale: lowest_of_quantile(values, quantile) for scale, values in merits.items()}
        scored = [row for row in scored if row.merit >= limits[row.scale]]
    return sorted(scored, key=lambda row: -row.merit)[:top_k]


def lowest_of_quantile(values: Sequence[float], quantile: float) -> float:
    """The lowest value that is not below the quantile."""
    place = round(quantile * (len(values) - 1), 9)  # 0.07 · 100 is 7.000000000000001: the rounding keeps place 7
    return sorted(values)[math.ceil(place)]


def refuse_mixed(scored: Sequence[Scored]) -> None:
    """Raise if the scores are not all of one scale."""
    scales = list(dict.fromkeys(row.scale for row in scored))
    if len(scales) > 1:
        listed = "; ".join(
            f"{model} (revision {revision}) {low} to {high}" for model, revision, low, high, _ in scales
        )
        raise ValueError(
            f"the file mixes scores that cannot be compared: {listed}. Use --quantile, which ranks each of them "
            "by itself, or score all pictures with one model"
        )


def refuse_outside(scored: Sequence[Scored], min_score: float) -> None:
    """Raise if `min_score` is not in the range that the table declares, or else in that of its scores."""
    if not scored:
        return
    low, high = range_of(scored)
    if not low <= min_score <= high:
        raise ValueError(f"--min-score {min_score:g} is outside the range of the file: {describe_scores(scored)}")


def range_of(scored: Sequence[Scored]) -> tuple[float, float]:
    """The declared range of the scores, or the one found where the table declares none."""
    low, high = scored[0].scale.low, scored[0].scale.high
    scores = [row.score for row in scored]
    return (min(scores) if low is None else low, max(scores) if high is None else high)


def describe_scores(scored: Sequence[Scored]) -> str:
    """The range that a minimal score is compared with, in words."""
    low, high = range_of(scored)
    scores = [row.score for row in scored]
    direction = "higher is better" if scored[0].scale.higher_is_better else "lower is better"
    found = f"{min(scores):.4g} to {max(scores):.4g}"
    return f"scores can be {low:g} to {high:g} ({direction}), those of the file are {found}"


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
