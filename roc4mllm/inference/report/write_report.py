"""
A report on scores: one HTML page that opens from disk, needs no network and holds all that it shows.

    scores = collect_scores([read_table("scores.csv")])
    write_report(scores, "report.html", name="scores.csv")
"""

import os

from ...whole_files import write_whole
from .comparison import find_pairs
from .figures import Measures, ModelFigures, choose_rows, figures_of
from .page import page_html
from .rows import Scores
from .thumbnails import make_thumbnails

ROWS, SHEET = 2000, 24


def write_report(
    scores: Scores,
    path: str | os.PathLike[str],
    *,
    name: str,
    rows: int = ROWS,
    sheet: int = SHEET,
    measures: Measures | None = None,
) -> int:
    """
    Write the page.

    Args:
        scores ([`Scores`]):
            What `collect_scores` returned.
        path (`str` or path):
            The file to be written; an existing one is replaced when the new one is whole.
        name (`str`):
            What is reported, as the page calls it: the names of the tables.
        rows (`int`, *optional*, defaults to 2000):
            Most rows of the table. The pictures shown always stand in it, then failures, then pictures evenly spaced
            by rank; figures are of all rows.
        sheet (`int`, *optional*, defaults to 24):
            Most pictures on the sheet of the best, and of the worst; 0 shows no pictures there.
        measures (mapping of `str` to a function, *optional*):
            Measures of agreement with labels, by name: each takes predictions and labels of shape `(n,)`.

    Returns:
        `int`: the size of the page in bytes.

    Raises:
        OSError: If the file cannot be written there.
    """
    models = [figures_of(scale, pictures, measures or {}) for scale, pictures in scores.pictures.items()]
    pairs = find_pairs(models)
    shown = {number for model in models for number in shown_numbers(model, sheet)}
    shown |= {picture.number for pair in pairs for picture in pair.most_different(sheet)}
    listed = choose_rows(scores, shown, rows)
    paths = {picture.path: None for model in models for picture in model.ranked if picture.number in shown}
    thumbnail = make_thumbnails(paths).__getitem__
    page = page_html(scores, models, pairs, name=name, listed=listed, sheet=sheet, thumbnail=thumbnail)
    content = page.encode("utf-8", "backslashreplace")
    write_whole(path, content)
    return len(content)


def shown_numbers(model: ModelFigures, sheet: int) -> set[int]:
    """Numbers of the pictures of which the page has tiles."""
    pictures = [*model.best(sheet), *model.worst(sheet)]
    pictures += [outlier.picture for outlier in (*model.uncertain, *model.disagreeing)]
    pictures += model.agreement.largest_differences(sheet) if model.agreement is not None else []
    return {picture.number for picture in pictures}


__all__ = ["write_report"]
