"""
Small pieces of markup that all parts of a report use, and the one way in which text enters it: `escaped`.
"""

import html
import math
from collections.abc import Iterable, Sequence

from ..tables.score_table import shown


def escaped(text: str) -> str:
    """Text of others as markup can hold it: neither markup, nor control characters, nor changes of direction."""
    return html.escape(shown(text))


def number(value: float) -> str:
    """A number in about four digits: 3.613, 57.36, 1243, 0.00012, 1.2e+12; 0 for what rounding has left of it."""
    if abs(value) < 1e-9:
        return "0"
    if not 1e-3 <= abs(value) < 1e9:
        return f"{value:.3g}"
    return f"{value:.{min(max(3 - math.floor(math.log10(abs(value))), 0), 3)}f}"


def count_of(count: int, unit: str = "picture") -> str:
    """A number with its unit: 1 picture, 1,200 pictures."""
    return f"{count:,} {unit}{'' if count == 1 else 's'}"


def stats_html(stats: Iterable[tuple[str, str]]) -> str:
    """Numbers that stand out, each with its name."""
    return f'<dl class="stats">{"".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in stats)}</dl>'


def cards_html(cards: Iterable[tuple[str, str]]) -> str:
    """Framed parts with their titles, beside each other where there is room."""
    framed = (f'<div class="card"><h4>{title}</h4>{content}</div>' for title, content in cards)
    return f'<div class="cards">{"".join(framed)}</div>'


def note_html(words: str) -> str:
    """A remark; its text is our own."""
    return f'<p class="note">{words}</p>'


def table_html(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A small table of numbers, the names of its rows in the first column; names may be of others."""
    first, *others = map(escaped, head)
    titles = f'<th scope="col">{first}</th>' + "".join(
        f'<th scope="col" class="number">{name}</th>' for name in others
    )
    lines = []
    for name, *values in rows:
        cells = "".join(f'<td class="number">{escaped(value)}</td>' for value in values)
        lines.append(f'<tr><th scope="row"><bdi>{escaped(name)}</bdi></th>{cells}</tr>')
    return f'<div class="scroll"><table><thead><tr>{titles}</tr></thead><tbody>{"".join(lines)}</tbody></table></div>'
