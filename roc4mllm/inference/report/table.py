"""
The table of a report: a row per picture, best first, failures last. Its heads are buttons for the page's script.

Scores of several scales stand in one column but cannot be sorted there: sorting goes by `normalized`, 0 to 1.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from ..tables.score_table import GENERAL_SCORE
from .figures import ModelFigures
from .markup import escaped, number
from .rows import ScoredPicture, Scores


@dataclass(frozen=True)
class Column:
    """
    A column of the table.

    Args:
        title (`str`):
            Its head, not yet escaped.
        kind (`str`):
            "number", "path", "error" or "text"; also the class of its cells.
        sortable (`bool`, *optional*, defaults to `True`):
            Whether its values can be compared across the rows.
        first (`str`, *optional*, defaults to `"ascending"`):
            The direction of the first click.
        sorted (`str`, *optional*):
            The direction in which the rows stand already.
    """

    title: str
    kind: str
    sortable: bool = True
    first: str = "ascending"
    sorted: str | None = None


def rows_table(scores: Scores, models: Sequence[ModelFigures], listed: set[int]) -> str:
    """
    The table as markup.

    Args:
        scores ([`Scores`]):
            All rows.
        models (list of [`ModelFigures`]):
            The figures of each scale.
        listed (`set[int]`):
            Numbers of the rows to list.

    Returns:
        `str`: a scrolling region with the table in it.
    """
    several = len(models) > 1
    attributes = list(dict.fromkeys(name for model in models for name in model.attributes))
    kinds = {
        "std": any(model.stds is not None for model in models),
        "label": any(model.agreement is not None for model in models),
        GENERAL_SCORE: any(picture.general_score is not None for model in models for picture in model.ranked),
    }
    further = [*(name for name, there in kinds.items() if there), *attributes]
    columns = [*leading_columns(models, several), *(Column(name, "number", first="descending") for name in further)]
    failed = any(failure.number in listed for failure in scores.failures)
    columns += [Column("error", "error")] if failed else []
    lines = []
    for model in models:
        for rank, picture in enumerate(model.ranked, start=1):
            if picture.number in listed:
                start = [str(rank), picture.path, *([name_of(model), normalized(model, picture)] if several else [])]
                values = [getattr(picture, name) for name in kinds if kinds[name]]
                values += [picture.attributes.get(name) for name in attributes]
                cells = [*start, number(picture.score), *map(number_or_nothing, values), *([""] if failed else [])]
                lines.append(line_html(picture.number, cells, columns))
    for failure in scores.failures:
        if failure.number in listed:
            start = ["", failure.path, *([failure.model or "", ""] if several else [])]
            lines.append(line_html(failure.number, [*start, "", *[""] * len(further), failure.error], columns))
    head = "".join(map(head_html, columns))
    return (
        '<div class="scroll tall" role="region" aria-labelledby="table-title" tabindex="0">'
        f'<table id="rows">\n<thead><tr>{head}</tr></thead>\n<tbody>\n{"".join(lines)}</tbody>\n</table></div>'
    )


def leading_columns(models: Sequence[ModelFigures], several: bool) -> list[Column]:
    """Rank, path and score; of several scales also which one, and the score as a share of its range."""
    if several:
        normal = Column("normalized", "number", first="descending")
        columns = [Column("model", "text"), normal, Column("score", "number", sortable=False)]
    else:
        falling = not models or models[0].scale.higher_is_better
        direction = "descending" if falling else "ascending"
        columns = [Column("score", "number", first=direction, sorted=direction)]
    return [Column("rank", "number"), Column("path", "path"), *columns]


def name_of(model: ModelFigures) -> str:
    """Model, revision and range."""
    scale = model.scale
    spoken = f", {scale.low:g} to {scale.high:g}" if scale.low is not None and scale.high is not None else ""
    return (scale.model or "unknown") + (f" at {scale.revision}" if scale.revision else "") + spoken


def normalized(model: ModelFigures, picture: ScoredPicture) -> str:
    """The score as a share of its range, where that is declared; turned round where lower is better."""
    low, high = model.scale.low, model.scale.high
    if low is None or high is None:
        return ""
    share = (picture.score - low) / (high - low)
    return f"{share if model.scale.higher_is_better else 1 - share:.3f}"


def number_or_nothing(value: float | None) -> str:
    """A number, or an empty cell."""
    return "" if value is None else number(value)


def head_html(column: Column) -> str:
    """The head of a column: a button where it sorts."""
    title = f"<bdi>{escaped(column.title)}</bdi>"
    mark = f' aria-sort="{column.sorted}"' if column.sorted else ""
    content = f'<button type="button">{title}</button>' if column.sortable else title
    return f'<th scope="col" class="{column.kind}" data-first="{column.first}"{mark}>{content}</th>'


def line_html(place: int, cells: Sequence[str], columns: Sequence[Column]) -> str:
    """A row; texts of others keep their own direction of writing."""
    parts = []
    for cell, column in zip(cells, columns, strict=True):
        content = escaped(cell) if column.kind == "number" or not cell else f"<bdi>{escaped(cell)}</bdi>"
        parts.append(f'<td class="{column.kind}">{content}</td>')
    return f'<tr id="row-{place}">{"".join(parts)}</tr>\n'
