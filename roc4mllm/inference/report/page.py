"""
The page of a report: one file with style, script, charts and small pictures in it, which loads nothing.

Its Content-Security-Policy allows nothing but `data:` pictures and the one style and the one script by their hashes,
so that no text of a table could run or fetch anything even if it were not escaped; all of them are.
"""

import base64
import datetime
import hashlib
from collections.abc import Callable, Iterator, Sequence
from importlib import resources

from .comparison import ModelPair, comparison_section
from .figures import ModelFigures, group_failures
from .markup import count_of, escaped, note_html
from .model import model_name, model_section, part_titles
from .rows import FailedPicture, Scores
from .table import rows_table
from .thumbnails import Thumbnail
from .tiles import Tiles

MOST_REASONS = 50  # of failures that are listed, the most frequent first
MOST_EXAMPLES = 20  # pictures that one reason lists

PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<a class="skip" href="#table">Skip to the table</a>
<header>
<h1>{title}</h1>
<p class="facts">{facts}</p>
</header>
<nav aria-label="Sections"><ul>{links}</ul></nav>
<main>
{body}
</main>
<footer>{footer}</footer>
<dialog id="large">
<div class="large"></div>
<form method="dialog">
<button type="button" data-step="-1">← Previous</button>
<button type="button" data-step="1">Next →</button>
<button>Close</button>
</form>
</dialog>
<script>{script}</script>
</body>
</html>
"""


def page_html(
    scores: Scores,
    models: Sequence[ModelFigures],
    pairs: Sequence[ModelPair] = (),
    *,
    name: str,
    listed: set[int],
    sheet: int,
    thumbnail: Callable[[str], Thumbnail],
) -> str:
    """
    Compose the page.

    Args:
        scores ([`Scores`]):
            All rows.
        models (list of [`ModelFigures`]):
            The figures of each scale.
        pairs (list of [`ModelPair`], *optional*):
            Scales that share pictures.
        name (`str`):
            What was reported: the names of the tables.
        listed (`set[int]`):
            Numbers of the rows that the table lists.
        sheet (`int`):
            Most pictures on a contact sheet.
        thumbnail (function of `str`):
            Makes the thumbnail of a path.

    Returns:
        `str`: the page, complete.
    """
    tiles = Tiles(thumbnail)
    several = len(models) > 1
    sections = [model_section(place, model, sheet, tiles) for place, model in enumerate(models)]
    if several:
        sections.insert(0, comparison_section(models, pairs, sheet, tiles))
        links = [("models", "Side by side")]
        links += [(f"model-{place}", model_name(model)) for place, model in enumerate(models)]
    else:
        links = [(f"{part}-0", title) for model in models for part, title in part_titles(model, sheet)]
    if scores.failures:
        sections.append(failure_section(scores.failures))
        links.append(("failures", f"Failures ({len(scores.failures)})"))
    sections.append(table_section(scores, models, listed))
    links.append(("table", "Table"))
    style = read_asset("report.css") + tiles.rules()
    script = read_asset("report.js")
    return PAGE.format(
        policy=f"default-src 'none'; img-src data:; style-src '{digest(style)}'; script-src '{digest(script)}'; "
        "base-uri 'none'; form-action 'none'",
        title=f"Aesthetic scores of {count_of(scores.distinct)}",
        facts=" · ".join(page_facts(scores, models, name)),
        links="".join(f'<li><a href="#{target}">{escaped(title)}</a></li>' for target, title in links),
        body="\n".join(sections),
        footer=f"Made by roc4mllm report. Scores by roc4mllm {escaped(', '.join(scores.versions) or 'unknown')}.",
        style=style,
        script=script,
    )


def read_asset(name: str) -> str:
    """Style or script of the page; line ends as HTML reads them, for the hash is taken over those."""
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


def digest(content: str) -> str:
    """A source expression of a Content-Security-Policy."""
    return "sha256-" + base64.b64encode(hashlib.sha256(content.encode()).digest()).decode("ascii")


def page_facts(scores: Scores, models: Sequence[ModelFigures], name: str) -> Iterator[str]:
    """What stands below the title."""
    yield f"<bdi>{escaped(name)}</bdi>"
    if len(models) > 1:
        yield f"{len(models)} models or scales, never mixed"
    yield f"{scores.rows - len(scores.failures):,} scored, {len(scores.failures):,} failed"
    today = datetime.date.today()
    yield f"{today.day} {today:%B %Y}"


def failure_section(failures: Sequence[FailedPicture]) -> str:
    """Failures by reason."""
    groups: list[str] = []
    reasons = group_failures(failures)
    for reason, members in reasons[:MOST_REASONS]:
        lines = "".join(
            f"<li><bdi>{escaped(member.path)}</bdi>: {escaped(member.error)}</li>"
            for member in members[:MOST_EXAMPLES]
        )
        more = f"<li>… and {len(members) - MOST_EXAMPLES:,} more</li>" if len(members) > MOST_EXAMPLES else ""
        summary = f"<summary><strong>{len(members):,}</strong> × {escaped(reason)}</summary>"
        groups.append(f"<details{'' if groups else ' open'}>{summary}<ul>{lines}{more}</ul></details>")
    if len(reasons) > MOST_REASONS:
        rest = sum(len(members) for _, members in reasons[MOST_REASONS:])
        groups.append(note_html(f"… and {rest:,} for {len(reasons) - MOST_REASONS:,} other reasons"))
    head = f'<h2 id="failures-title">{count_of(len(failures))} failed</h2>\n<div class="card">{"".join(groups)}</div>'
    return f'<section class="model" id="failures" aria-labelledby="failures-title">\n{head}\n</section>'


def table_section(scores: Scores, models: Sequence[ModelFigures], listed: set[int]) -> str:
    """The table with its search."""
    note = ""
    if len(listed) < scores.rows:
        note = note_html(
            f"{len(listed):,} of {scores.rows:,} rows: the pictures shown above, failures, then others evenly spaced "
            "by rank. Charts and figures are of all rows. The option --rows lists more."
        )
    return (
        '<section class="model" id="table" aria-labelledby="table-title"><h2 id="table-title">Table</h2>'
        f'{note}<div class="tools"><label for="search">Search</label><input id="search" type="search" '
        'aria-controls="rows" autocomplete="off" placeholder="name, model or error"><output id="count" for="search">'
        f"</output></div>{rows_table(scores, models, listed)}</section>"
    )
