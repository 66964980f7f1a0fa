"""
What must hold before training starts: pictures that open, scores within their range, votes that agree with them.

Every bad row is noted with its line and reason; then either all stop the reading in one error, or all are written to a
file and left out.
"""

import contextlib
import csv
import json
import math
import os
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from numbers import Real
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image
from tqdm import tqdm  # type: ignore[import-untyped]

from ..datasets_scripts.split_guard import NONE, content_hash
from ..processing_roc4mllm.image_reading_aesthetics import (
    UNSAFE_FORMATS,
    PictureError,
    check_byte_count,
    check_size,
    open_image,
)
from ..whole_files import whole_file
from .rating_records import RatingSource, Record

# Tried from the narrowest on. Where several are as likely, the wider one still holds every score.
USUAL_RANGES = ((0.0, 1.0), (-1.0, 1.0), (1.0, 5.0), (0.0, 5.0), (1.0, 7.0), (1.0, 10.0), (0.0, 10.0), (0.0, 100.0))
ROUNDING = 1e-6  # share of the range by which a mean may leave it in floating point
LISTED_ROWS = 10


class FoundRange(NamedTuple):
    """Score range of an attribute, and where it comes from."""

    low: float
    high: float
    origin: str

    @property
    def guessed(self) -> bool:
        """Whether no one said so."""
        return self.origin == "guessed"


class RatingError(ValueError):
    """
    Rows that cannot be used.

    Args:
        message (`str`): Lists the first of them.
        bad_rows (sequence of `tuple[int, str]`): Line (or row) and reason of all.
    """

    def __init__(self, message: str, bad_rows: Sequence[tuple[int, str]] = ()):
        super().__init__(message)
        self.bad_rows = list(bad_rows)


# Bad rows ------------------------------------------------------------------------------------------------------------


class BadRows:
    """
    Reasons by line of a source, and hints at what may be wrong with all of them.

    Args:
        source ([`RatingSource`]): Where the rows stand.
    """

    def __init__(self, source: RatingSource):
        self.source = source
        self.reasons: dict[int, list[str]] = {}
        self.hints: list[str] = []

    def add(self, number: int, reason: str) -> None:
        """Note why a row cannot be used."""
        self.reasons.setdefault(int(number), []).append(reason)

    def __len__(self) -> int:
        return len(self.reasons)

    def listed(self) -> list[tuple[int, str]]:
        """Line and reasons of each bad row, in order."""
        return [(number, "; ".join(reasons)) for number, reasons in sorted(self.reasons.items())]

    def error(self, num_rows: int, advice: str) -> RatingError:
        """One error about all of them."""
        rows = self.listed()
        lines = [f"{self.source.name}: {len(rows)} of {num_rows} rows cannot be used."]
        lines += [f"  {self.source.unit} {number}: {reason[:300]}" for number, reason in rows[:LISTED_ROWS]]
        lines += [f"  … and {len(rows) - LISTED_ROWS} more"] if len(rows) > LISTED_ROWS else []
        return RatingError("\n".join([*lines, *(self.hints or [advice])]), rows)

    def write(self, path: Path) -> None:
        """
        Write them to a CSV file with their line, the reason, and the fields as they were; whole or not at all.

        Without a bad row the file holds the header alone: one of an earlier run would tell of rows that are mended.
        """
        with whole_file(path, encoding="utf-8", errors="backslashreplace", newline="") as file:
            columns = [column for column in self.source.columns if column]
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow([self.source.unit, "reason", *columns])
            for record in self._records():
                reason = "; ".join(self.reasons[record.number])
                writer.writerow([record.number, reason, *(as_cell(record.fields.get(name)) for name in columns)])

    def _records(self) -> Iterator[Record]:
        return (record for record in self.source if record.number in self.reasons) if self.reasons else iter(())


def as_cell(value: Any) -> str:
    """A value as a cell of text; lists and the like as JSON."""
    if value is None or isinstance(value, str):
        return value or ""
    return json.dumps(value, ensure_ascii=False, default=str)


# Pictures ------------------------------------------------------------------------------------------------------------


def picture_problem(picture: str | dict[str, Any]) -> str | None:
    """
    Why a picture cannot be read, from its header alone; `None` where that is sound.

    Args:
        picture (`str` or `dict`): A path, or a `{"bytes", "path"}` record of the `datasets` library.
    """
    if isinstance(picture, dict) and picture["bytes"] is None:
        if not picture["path"]:
            return "no picture"
        picture = picture["path"]
    try:
        with open_header(picture) as image:
            check_size(*image.size)
    except (PictureError, Image.DecompressionBombError) as error:
        return f"{error}: {picture}" if isinstance(picture, str) else str(error)
    except Exception as error:  # on damaged files decoders raise nearly anything
        return f"the picture cannot be read: {error!r}"
    return None


def open_header(picture: str | dict[str, Any]) -> Image.Image:
    """The picture with its header read; of a file, Pillow reads no more than that."""
    if not isinstance(picture, str):
        return open_image(picture)
    if is_url(picture):
        raise PictureError("a URL; download the pictures first, training reads them again and again")
    if os.path.isfile(picture):  # not a pipe, which would be waited for
        check_byte_count(os.path.getsize(picture))
        with contextlib.suppress(OSError):
            image = Image.open(picture)
            if image.format not in UNSAFE_FORMATS:
                return image
            image.close()
    return open_image(picture)  # reads the whole file, and says in words what is wrong with it


def is_url(picture: str) -> bool:
    """Whether a path is an address."""
    return picture[:8].lower().startswith(("http://", "https://"))


def check_pictures(
    pictures: Any, numbers: np.ndarray, bad: BadRows, folder: str | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """
    Look at each picture once: note the rows whose picture has a problem, and tell which show the same one. Of a file
    its header is read, and 16 KB at either end.

    Args:
        pictures (`list[str]` or [`EmbeddedPictures`]): Paths, one for each row, or the pictures of the source.
        numbers (`np.ndarray` of shape `(num_rows,)`): Lines of the rows.
        bad ([`BadRows`]): Takes up the problems.
        folder (`str`, *optional*): Where relative paths started from.

    Returns:
        `tuple[np.ndarray, np.ndarray]` of shape `(num_rows,)`: Equal numbers where the content is the same, whatever
        the name, counted from 0 in the order of first appearance. And the hashes of the contents.
    """
    files: dict[str, tuple[int, str | None]] = {}  # content and problem by path: one may stand in many rows
    seen: dict[Any, int] = {}
    same, contents, missing = np.empty(len(numbers), dtype=np.int64), np.zeros(len(numbers), dtype=np.uint64), 0
    rows = pictures if isinstance(pictures, list) else pictures.each(numbers)
    rows = tqdm(rows, "checking pictures", len(numbers), unit="picture", leave=False, delay=2, disable=None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # `check_size` draws the line
        for index, picture in enumerate(rows):
            path = picture if isinstance(picture, str) else picture["path"]
            if isinstance(picture, str) and picture in files:
                contents[index], problem = files[picture]
            else:
                problem = picture_problem(picture)
                contents[index] = NONE if problem else content_hash(picture)
                if isinstance(picture, str):
                    files[picture] = int(contents[index]), problem
            same[index] = seen.setdefault(int(contents[index]) or path, len(seen))
            if problem:
                bad.add(numbers[index], problem)
                missing += problem.startswith("no such file")
    if missing > len(numbers) / 2:
        bad.hints.append(
            f"Of {len(numbers)} pictures {missing} are missing under {folder!r}; pass their folder as pictures."
        )
    return same, contents


def picture_folder(names: Sequence[str], source_folder: Path | None, pictures: str | os.PathLike[str] | None) -> str:
    """
    The folder that relative paths start from: `pictures` where given; else that of the source, or the current folder
    if only there one of the first hundred is found.
    """
    if pictures is not None:
        if not os.path.isdir(pictures):
            raise FileNotFoundError(f"pictures must be a folder, got {os.fspath(pictures)!r}.")
        return os.path.abspath(pictures)
    folders = [os.path.abspath(folder) for folder in (source_folder, ".") if folder is not None]
    for folder in folders:
        if any(os.path.exists(os.path.join(folder, name)) for name in names[:100] if "\0" not in name):
            return folder
    return folders[0]


# Ranges and votes ----------------------------------------------------------------------------------------------------


def count_levels(lengths: Sequence[int], num_levels: int | None) -> int | None:
    """
    Number of levels of the votes: the wanted one, or the most frequent.

    Raises:
        ValueError: If no votes have the wanted number.
    """
    if not lengths:
        return None
    counts = Counter(lengths)
    if num_levels is not None and num_levels not in counts:
        raise ValueError(
            f"The votes have {counts.most_common(1)[0][0]} levels, expected num_levels={num_levels}. Train a model "
            "with that number of levels, or leave the votes out of the file."
        )
    return num_levels or counts.most_common(1)[0][0]


def given_ranges(score_range: Any, attributes: Sequence[str], origin: str) -> list[FoundRange]:
    """
    One range per attribute from one pair for all, or one pair per attribute.

    Raises:
        ValueError: If it is neither, or a pair does not go from a lower to a higher finite number.
    """
    pairs = list(score_range)
    if not any(isinstance(pair, Sequence) for pair in pairs):
        pairs = [pairs] * len(attributes)
    if len(pairs) != len(attributes):
        raise ValueError(
            f"score_range must be one (min, max), or one for each of {list(attributes)}; got {score_range}."
        )
    for pair in pairs:
        numbers = isinstance(pair, Sequence) and all(isinstance(end, Real) and math.isfinite(end) for end in pair)
        if not numbers or len(pair) != 2 or not pair[0] < pair[1]:
            raise ValueError(f"A score range must be (min, max) with min < max; got {pair}.")
    return [FoundRange(float(low), float(high), origin) for low, high in pairs]


def guess_range(scores: np.ndarray, attribute: str) -> FoundRange:
    """
    The narrowest usual range that holds all scores.

    Raises:
        ValueError: If none does.
    """
    low, high = scores.min(), scores.max()
    for start, end in USUAL_RANGES:
        if start <= low and high <= end:
            return FoundRange(start, end, "guessed")
    raise ValueError(
        f"The {attribute} scores go from {low:g} to {high:g}, which no usual range holds; state the score_range."
    )


def level_weights(num_given: int, num_levels: int) -> np.ndarray:
    """
    What brings votes to another number of levels of the same range, `(num_given, num_levels)`: a vote that falls
    between two goes to both by its nearness, so that the mean stays.
    """
    places = np.linspace(0, num_levels - 1, num_given)  # (num_given,)
    nearness = 1 - np.abs(places[:, None] - np.arange(num_levels))  # (num_given, num_levels)
    return nearness.clip(min=0)


def vote_means(votes: np.ndarray, score_range: FoundRange) -> np.ndarray:
    """Mean score of votes `(num_rows, num_levels)`: `(num_rows,)`, NaN where there are none."""
    if not votes.shape[-1]:
        return np.full(len(votes), np.nan)
    levels = np.linspace(score_range.low, score_range.high, votes.shape[-1])  # (N,)
    return votes @ levels / votes.sum(-1)


def check_scores(
    scores: np.ndarray,
    votes: np.ndarray,
    score_range: FoundRange,
    column: str,
    numbers: np.ndarray,
    bad: BadRows,
) -> None:
    """
    Note scores that are outside their range, or disagree with the mean of their votes by more than half a level step.

    What leaves the range by rounding is put back in place.

    Args:
        scores (`np.ndarray` of shape `(num_rows,)`): Of one attribute, NaN where unknown.
        votes (`np.ndarray` of shape `(num_rows, num_levels)`): NaN where unknown.
        score_range ([`FoundRange`]): Of the attribute.
        column (`str`): Where the scores stand.
        numbers (`np.ndarray` of shape `(num_rows,)`): Lines of the rows.
        bad ([`BadRows`]): Takes up the problems.
    """
    low, high, origin = score_range
    slack = ROUNDING * (high - low)
    outside = (scores < low - slack) | (scores > high + slack)
    for index in np.flatnonzero(outside):
        bad.add(numbers[index], f"{column} is {scores[index]:g}, outside {low:g} to {high:g} ({origin})")
    np.copyto(scores, np.clip(scores, low, high), where=~outside)  # NaN stays NaN
    means = vote_means(votes, score_range)
    apart = ~outside & (np.abs(scores - means) > 0.5 * (high - low) / max(votes.shape[-1] - 1, 1))
    for index in np.flatnonzero(apart):
        bad.add(numbers[index], f"{column} is {scores[index]:g}, but the mean of the votes is {means[index]:.4g}")
    if apart.sum() > np.isfinite(means).sum() / 2:
        bad.hints.append(f"The votes count levels from {low:g} to {high:g}; is that the range of {column}?")


__all__ = ["BadRows", "FoundRange", "RatingError", "check_pictures", "check_scores", "picture_problem"]
