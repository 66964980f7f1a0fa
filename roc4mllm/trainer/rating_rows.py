"""
From the fields of a record to ratings: which column says what, and what a cell may hold.

A cell is missing when it is empty, `NA`, `N/A`, `NaN`, `null` or `None`. Anything else that is not what its column
should hold is a mistake, which the row is reported for; nothing is guessed or dropped.
"""

import json
import math
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..processing_roc4mllm.prompt_roc4mllm import SCORE_TOKEN, check_text
from .rating_records import PICTURE_COLUMNS

MAIN_ATTRIBUTE = "aesthetics"
SCORE_COLUMNS = ("score", "mean", "mos", "gt_score", "mean_score", "aesthetic_score", "rating")
STD_COLUMNS = ("std", "score_std", "sd")
VOTE_PREFIXES = ("votes_", "vote_", "r", "")  # of one column per level, `r1` … `r7`
COMMENT_COLUMNS = ("comment", "comments", "caption")
AUTHORS_COLUMNS = ("gt_score", "conversations")  # by which a file of the authors is known
MISSING = frozenset(("", "na", "n/a", "nan", "null", "none"))
IMAGE_PLACEHOLDER = re.compile(r"<\|?image\|?>")
SENTENCE_END = re.compile(r"[.!?](\s+|$)|\n")


@dataclass
class ColumnRoles:
    """
    Which columns hold what.

    Args:
        attributes (`list[str]`): What is rated, the main attribute first.
        picture (`str`, *optional*): Paths; `None` where the source holds the pictures themselves.
        scores, stds (`dict[str, str]`): Column by attribute.
        votes (`dict[str, list[str]]`): By attribute, one column per level, or a single one that holds lists.
        distributions (`dict[str, str]`): By attribute, shares of the levels, for rows without votes.
        comment, question, conversation (`str`, *optional*): Texts; conversations as in the authors' files.
        score_ranges (`dict[str, list[str]]`): By attribute, columns of the lowest and the highest score, or a single
            one that holds both.
        further (`list[str]`): All columns that have no role.
    """

    attributes: list[str] = field(default_factory=list)
    picture: str | None = None
    scores: dict[str, str] = field(default_factory=dict)
    stds: dict[str, str] = field(default_factory=dict)
    votes: dict[str, list[str]] = field(default_factory=dict)
    distributions: dict[str, str] = field(default_factory=dict)
    comment: str | None = None
    question: str | None = None
    conversation: str | None = None
    score_ranges: dict[str, list[str]] = field(default_factory=dict)
    further: list[str] = field(default_factory=list)


@dataclass
class RatedRow:
    """What one record says; numbers by attribute, as far as they are known. Votes may be shares of the levels."""

    scores: dict[str, float]
    stds: dict[str, float]
    votes: dict[str, list[float]]
    comment: str | None
    question: str | None
    score_ranges: dict[str, tuple[float, float]]


# Columns -------------------------------------------------------------------------------------------------------------


def assign_columns(
    columns: Sequence[str], names: Sequence[str], need_all: bool = False, has_pictures: bool = False
) -> ColumnRoles:
    """
    Find out what each column holds, by its name; capitals do not matter.

    Args:
        columns (sequence of `str`):
            The names.
        names (sequence of `str`):
            What may be scored, the main attribute first; no other number becomes a target.
        need_all (`bool`, *optional*, defaults to `False`):
            Whether each of them must be there.
        has_pictures (`bool`, *optional*, defaults to `False`):
            Whether the pictures come without a column of paths.

    Raises:
        ValueError: If there is no column of pictures, none for an attribute, or nothing to learn from.
    """
    known: dict[str, str] = {}
    for column in columns:
        known.setdefault(column.casefold(), column)
    roles = ColumnRoles(picture=None if has_pictures else first(known, PICTURE_COLUMNS))
    if not (has_pictures or roles.picture):
        raise ValueError(f"No column of pictures: looked for {', '.join(PICTURE_COLUMNS)}; {listing(columns)}.")
    for name in names:
        assign_attribute(roles, name, known, names)
    roles.comment, roles.question = first(known, COMMENT_COLUMNS), known.get("question")
    roles.conversation = known.get("conversations")
    rated = {*roles.scores, *roles.votes, *roles.distributions}
    if need_all:
        check_found(rated, names, columns)
    if not (rated or roles.comment or roles.conversation):
        raise ValueError(
            f"No column of scores, votes or comments: looked for {', '.join([*names, *SCORE_COLUMNS])}, votes, r1 …, "
            f"{', '.join(COMMENT_COLUMNS)}; {listing(columns)}."
        )
    roles.attributes = [name for name in names if name in rated] or [names[0]]
    for name in roles.attributes:
        if columns_of_range := range_columns(known, name):
            roles.score_ranges[name] = columns_of_range
    roles.further = [column for column in columns if column not in taken(roles)]
    return roles


def assign_attribute(roles: ColumnRoles, name: str, known: Mapping[str, str], names: Sequence[str]) -> None:
    """
    Fill in the columns of one attribute: those of its own name and, for the main one, `score`, `std`, `votes`, `r1`…
    """
    is_main = name == names[0]
    own = first(known, [name, f"{name}_score", f"{name}_mean", f"attribute_{name}"])
    common = first(known, [column for column in SCORE_COLUMNS if column not in names[1:]]) if is_main else None
    # beside `score`, a main attribute with a column of its own leaves `std` and `votes` to `score`
    takes_common = is_main and (own is None or common is None)
    if score := own or common:
        roles.scores[name] = score
    if std := first(known, [f"{name}_std", *(STD_COLUMNS if takes_common else ())]):
        roles.stds[name] = std
    if votes := vote_columns(known, name, takes_common):
        roles.votes[name] = votes
    if shares := first(known, [f"{name}_distribution", *(("distribution",) if takes_common else ())]):
        roles.distributions[name] = shares


def range_columns(known: Mapping[str, str], name: str) -> list[str]:
    """Where the range of an attribute stands: in a column of its own, or in those for all."""
    if own := known.get(f"{name}_score_range".casefold()):
        return [own]
    if both := [known[end] for end in ("score_min", "score_max") if end in known]:
        return both if len(both) == 2 else []
    return [known["score_range"]] if "score_range" in known else []


def vote_columns(known: Mapping[str, str], name: str, takes_common: bool) -> list[str]:
    """One column per level, or the one that holds lists, or none."""
    for prefix in (f"{name}_votes_", *(VOTE_PREFIXES if takes_common else ())):
        columns = []
        while (column := f"{prefix}{len(columns) + 1}".casefold()) in known:
            columns.append(known[column])
        if len(columns) > 1:
            return columns
    lists = [f"{name}_votes", *(("votes",) if takes_common else ())]
    if takes_common and any(column in known for column in AUTHORS_COLUMNS):
        lists.append("target")  # elsewhere it may be anything
    found = first(known, lists)
    return [found] if found else []


def first(known: Mapping[str, str], wanted: Sequence[str]) -> str | None:
    """The first wanted column that there is."""
    return next((known[name.casefold()] for name in wanted if name.casefold() in known), None)


def taken(roles: ColumnRoles) -> set[str | None]:
    """Columns that have a role."""
    single = {roles.picture, roles.comment, roles.question, roles.conversation}
    several = [*roles.votes.values(), *roles.score_ranges.values()]
    one = [roles.scores, roles.stds, roles.distributions]
    return single | {column for columns in [*several, *(by.values() for by in one)] for column in columns}


def check_found(rated: Collection[str], names: Sequence[str], columns: Sequence[str]) -> None:
    """Refuse an attribute that was asked for and has neither scores nor votes."""
    for name in names:
        if name not in rated:
            wanted = [name, f"{name}_score", f"{name}_votes", *(SCORE_COLUMNS if name == names[0] else ())]
            raise ValueError(
                f"No column for the attribute {name!r}: looked for {', '.join(wanted)}; {listing(columns)}."
            )


def listing(columns: Sequence[str]) -> str:
    """The columns there are, for the end of a message."""
    listed = ", ".join(repr(column) for column in columns[:30]) + (", …" if len(columns) > 30 else "")
    return f"the file has {listed}" if columns else "the file has no columns"


# Cells ---------------------------------------------------------------------------------------------------------------


def read_row(fields: Mapping[str, Any], roles: ColumnRoles) -> RatedRow:
    """
    The ratings of one record.

    Raises:
        ValueError: If a cell does not hold what its column should, or there is nothing to learn from the row; the
            message is the reason.
    """
    scores = numbers_in(fields, roles.scores)
    stds = numbers_in(fields, roles.stds)
    ranges = {name: pair for name, columns in roles.score_ranges.items() if (pair := range_in(fields, columns))}
    votes = {name: counts for name, columns in roles.votes.items() if (counts := votes_in(fields, columns))}
    for name, column in roles.distributions.items():
        shares = None if name in votes else votes_in(fields, [column])
        if shares and agrees(shares, scores.get(name), ranges.get(name)):  # KonIQ's scores are on another scale
            votes[name] = shares
    for name, std in stds.items():
        if std < 0:
            raise ValueError(f"{roles.stds[name]} is {std:g}; a standard deviation is at least 0")
    question, comment = conversation_in(fields.get(roles.conversation or ""))
    question = text_in(fields, roles.question, "question") or question
    comment = text_in(fields, roles.comment, "comment") or comment
    if not (scores or votes or comment):
        raise ValueError(why_empty(fields, roles))
    return RatedRow(scores, stds, votes, comment, question, ranges)


def is_missing(value: Any) -> bool:
    """Whether a cell holds nothing."""
    if isinstance(value, str):
        return value.strip().casefold() in MISSING
    return value is None or (isinstance(value, float) and math.isnan(value))


def number_in(value: Any, column: str) -> float | None:
    """The number of a cell, `None` where it is missing."""
    if is_missing(value):
        return None
    try:
        if isinstance(value, bool) or "_" in str(value):  # float("1_0") is 10
            raise ValueError
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        hint = "; write a decimal point" if re.fullmatch(r"\s*-?\d+,\d+\s*", str(value)) else ""
        raise ValueError(f"{column} is {str(value)[:60]!r}, which is no number{hint}") from None
    if not math.isfinite(number):
        raise ValueError(f"{column} is {number}")
    return number


def numbers_in(fields: Mapping[str, Any], columns: Mapping[str, str]) -> dict[str, float]:
    """Numbers by attribute, missing ones left out."""
    numbers = {name: number_in(fields.get(column), column) for name, column in columns.items()}
    return {name: number for name, number in numbers.items() if number is not None}


def votes_in(fields: Mapping[str, Any], columns: Sequence[str]) -> list[float] | None:
    """Counts, or shares, of the votes for each level, `None` where they are missing."""
    values: Any = [fields.get(column) for column in columns]
    label = f"{columns[0]}…{columns[-1]}" if len(columns) > 1 else columns[0]
    if len(columns) == 1:
        values = as_list(values[0])
        if is_missing(values):
            return None
        if not isinstance(values, list) or len(values) == 1:
            raise ValueError(f"{label} is {str(values)[:60]!r}; expected a list with one number per level")
    counts = [number_in(value, label) for value in values]
    known = [count for count in counts if count is not None]
    if not known:
        return None
    if len(known) < len(counts):
        raise ValueError(f"{label} are known for {len(known)} of {len(counts)} levels only")
    if min(known) < 0:
        raise ValueError(f"{label} are negative: {min(known):g}")
    if not sum(known):
        raise ValueError(f"{label} sum to zero")
    return known


def agrees(shares: Sequence[float], score: float | None, score_range: tuple[float, float] | None) -> bool:
    """Whether the mean of shares lies within half a level step of the score, as far as that can be told."""
    if score is None or score_range is None:
        return True
    low, high = score_range
    step = (high - low) / (len(shares) - 1)
    mean = low + step * sum(level * share for level, share in enumerate(shares)) / sum(shares)
    return abs(score - mean) <= 0.5 * step


def text_in(fields: Mapping[str, Any], column: str | None, kind: str) -> str | None:
    """The text of a cell, the first one of a list, `None` where it is missing."""
    value = as_list(fields.get(column or ""))
    if isinstance(value, list):
        value = next((entry for entry in value if not is_missing(entry)), None)
    return None if is_missing(value) else checked_text(value, kind)


def checked_text(value: Any, kind: str) -> str:
    """A question or comment without image placeholders, which the processor puts in itself."""
    try:
        check_text(kind, value)
    except TypeError as error:
        raise ValueError(str(error)) from error
    return IMAGE_PLACEHOLDER.sub("", value).strip()


def as_list(value: Any) -> Any:
    """A list that is written as JSON in a cell of text, else the value itself."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            return json.loads(value)
        except json.JSONDecodeError:
            return value
    return value


def conversation_in(value: Any) -> tuple[str | None, str | None]:
    """
    Question and comment of a conversation as the authors write it: the human's turn without the image placeholder, and
    what follows the scoring sentence in the answer. An answer without `[SCORE]` is a comment as a whole.
    """
    turns = as_list(value)
    if is_missing(turns):
        return None, None
    try:
        (asker, question), (_, answer) = [(turn["from"], turn["value"]) for turn in turns]
    except (TypeError, KeyError, ValueError):
        asker = question = answer = None
    if asker != "human" or not isinstance(question, str) or not isinstance(answer, str):
        raise ValueError("conversations: expected a turn from 'human' and one answer, each with a text as 'value'")
    _, sentence, rest = answer.rpartition(SCORE_TOKEN)
    if sentence:
        end = SENTENCE_END.search(rest)
        rest = rest[end.end() :] if end else ""
    question, comment = checked_text(question, "question"), checked_text(rest, "comment")
    return question or None, comment or None


def range_in(fields: Mapping[str, Any], columns: Sequence[str]) -> tuple[float, float] | None:
    """The score range that a record declares."""
    values = [fields.get(column) for column in columns]
    if len(columns) == 1 and isinstance(pair := as_list(values[0]), list):
        values = pair
    ends = [number_in(value, columns[0]) for value in values]
    if not ends or None in ends:
        return None
    if len(ends) != 2:
        raise ValueError(f"{columns[0]} is {ends}; expected the lowest and the highest score")
    return ends[0], ends[1]  # type: ignore[return-value]


def why_empty(fields: Mapping[str, Any], roles: ColumnRoles) -> str:
    """Why there is nothing to learn from a row, with the cell that should have held the score."""
    column = next(iter(roles.scores.values()), None)
    shown = f" ({column} is {fields.get(column)!r})" if column else ""
    failed = fields.get("error")  # of a picture that `roc4mllm score` could not score
    return f"no score{shown}, no votes and no comment" + ("" if is_missing(failed) else f"; error: {failed}")


__all__ = ["ColumnRoles", "RatedRow", "assign_columns", "read_row"]
