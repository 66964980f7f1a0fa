"""
Scored pictures as HTML: cards, a comparison, an explanation. Pure functions from records to text.

Pictures and the table travel inside the page, so nothing of them is written to the server's disk. Whatever comes from
a visitor or a model is escaped.
"""

import base64
import io
import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from PIL import Image

from ..explanation.drawing import drawn_legend, drawn_photo, drawn_similarity
from ..explanation.explain import Explanation
from .pictures import ScoredPicture, scores_csv

NOTHING = '<p class="hint">Nothing here yet: drop pictures above.</p>'
TOO_FEW = '<p class="hint">Drop at least two pictures that can be scored, to compare them.</p>'
ASK = '<p class="hint">Choose a picture, then press “Explain”.</p>'

Record = Mapping[str, Any]


# Cards ---------------------------------------------------------------------------------------------------------------


def scores_html(pictures: Sequence[ScoredPicture], attributes: Sequence[str], expected: int | None = None) -> str:
    """
    How many were scored, the table to download, and a card per picture in the order in which they came.

    Args:
        pictures (sequence of [`ScoredPicture`]): What was scored so far.
        attributes (sequence of `str`): What the model scores, the main attribute first.
        expected (`int`, *optional*): How many there will be, while others are still being scored: no table yet.
    """
    if not pictures:
        return NOTHING
    cards = f'<div class="cards">{"".join(map(card, pictures))}</div>'
    if expected is not None:
        return f'<div class="summary"><p>{len(pictures)} of {expected} …</p></div>{cards}'
    failed = sum(one.failed for one in pictures)
    done = f"{len(pictures) - failed} of {len(pictures)} scored" + (f", {failed} failed" if failed else "")
    table = data_url(scores_csv(pictures, attributes), "text/csv")
    link = f'<a class="download" download="scores.csv" href="{table}">Download CSV</a>'
    return f'<div class="summary"><p role="status">{done}</p>{link}</div>{cards}'


def card(one: ScoredPicture) -> str:
    """One picture: what it scores, or why it does not."""
    name = escape(one.upload.name)
    if one.failed:
        body = f'<h3>{name}</h3><p class="failure">No score: {escape(one.record["error"])}</p>'
    else:
        body = f"<h3>{name}</h3>" + score_line(one.record) + levels_chart([one.record]) + attribute_list(one.record)
        if one.record.get("text"):
            body += f"<blockquote>{escape(one.record['text'])}</blockquote>"
    return f'<article class="card{" failed" if one.failed else ""}">{thumbnail(one)}<div>{body}</div></article>'


def thumbnail(one: ScoredPicture) -> str:
    """The small picture; an empty text for a file that is none."""
    if one.thumbnail is None:
        return ""
    return f'<img src="{data_url(one.thumbnail, "image/jpeg")}" alt="{escape(one.upload.name)}">'


def score_line(record: Record) -> str:
    """The score with its range, direction and spread."""
    low, high = record["score_range"]
    spread = "" if record["std"] is None else f", spread {decimal(record['std'], high)}"
    return (
        f'<p class="score"><strong>{decimal(record["score"], high)}</strong> of {low:g} to {high:g} '
        f"<small>{direction(record)}{spread}</small></p>"
    )


def direction(record: Record) -> str:
    """Which end of the range is the good one, in words."""
    return "higher is better" if record["higher_is_better"] else "lower is better"


def decimal(value: float, highest: float) -> str:
    """A score to a thousandth of its range, or a little less: 0.573 of 1, 5.73 of 10, 57.3 of 100."""
    return f"{value:.{max(0, 3 - math.ceil(math.log10(abs(highest) or 1.0)))}f}"


# Levels and attributes -----------------------------------------------------------------------------------------------


def levels_chart(records: Sequence[Record]) -> str:
    """
    Shares of the levels as bars, of one picture or of two side by side; empty for a model without levels.

    Args:
        records (sequence of `dict`): One or two records of one model.
    """
    distributions = [record["distribution"] for record in records]
    if any(shares is None for shares in distributions):
        return ""
    highest = max(map(max, distributions))
    columns = []
    for level, label in enumerate(level_labels(records[0])):
        bars = "".join(f'<i style="height:{shares[level] / highest:.1%}"></i>' for shares in distributions)
        columns.append(f'<div class="level"><div class="bars">{bars}</div><span>{label}</span></div>')
    spoken = "; ".join(map(spoken_levels, records))
    kind = "levels two" if len(records) == 2 else "levels"
    return (
        f'<figure class="{kind}"><div role="img" aria-label="{escape(spoken)}">{"".join(columns)}</div>'
        f"<figcaption>share of each level, highest {highest:.0%}</figcaption></figure>"
    )


def level_labels(record: Record) -> list[str]:
    """The score that each level stands for."""
    (low, high), count = record["score_range"], len(record["distribution"])
    return [f"{low + (high - low) * level / (count - 1):.3g}" for level in range(count)]


def spoken_levels(record: Record) -> str:
    """The distribution in words, for those who hear the page."""
    shares = zip(level_labels(record), record["distribution"], strict=True)
    return ", ".join(f"level {label}: {share:.0%}" for label, share in shares)


def attribute_list(record: Record) -> str:
    """The further attributes, each with its range and a bar; the first is the score itself."""
    further = list(record["attributes"].items())[1:]
    if not further:
        return ""
    lines = []
    for name, value in further:
        low, high = range_of(record, name)
        meter = f'<meter min="{low:g}" max="{high:g}" value="{value:.6g}" aria-hidden="true"></meter>'
        number = f"{decimal(value, high)} <small>of {low:g} to {high:g}</small>"
        lines.append(f"<div><dt>{escape(name)}</dt><dd>{meter}<span>{number}</span></dd></div>")
    return f'<dl class="attributes">{"".join(lines)}</dl>'


def range_of(record: Record, attribute: str) -> Sequence[float]:
    """The range of one attribute: its own, or the one that all share."""
    found: Sequence[float] = record.get("attribute_ranges", {}).get(attribute, record["score_range"])
    return found


# Comparison ----------------------------------------------------------------------------------------------------------


def comparison_html(first: ScoredPicture | None, second: ScoredPicture | None) -> str:
    """Two pictures of one model side by side: which scores higher and by how much, levels, attributes."""
    if first is None or second is None:
        return TOO_FEW
    pictures = "".join(
        f"<figure>{thumbnail(one)}<figcaption><i></i>{escape(one.upload.name)}</figcaption></figure>"
        for one in (first, second)
    )
    levels = levels_chart([first.record, second.record])
    return (
        f'<p role="status" class="verdict">{verdict(first, second)}</p><div class="pair">{pictures}</div>'
        f"{comparison_table(first, second)}{levels}"
    )


def verdict(first: ScoredPicture, second: ScoredPicture) -> str:
    """The comparison in a sentence."""
    high = first.record["score_range"][1]
    scores = [decimal(one.record["score"], high) for one in (first, second)]
    if scores[0] == scores[1]:
        return f"Both score {scores[0]}."
    better, worse = (first, second) if first.record["score"] > second.record["score"] else (second, first)
    gap = decimal(abs(first.record["score"] - second.record["score"]), high)
    names = escape(better.upload.name), escape(worse.upload.name)
    return f"<b>{names[0]}</b> scores {gap} higher than <b>{names[1]}</b> ({direction(first.record)})."


def comparison_table(first: ScoredPicture, second: ScoredPicture) -> str:
    """Every attribute of both, and by how much the first lies above the second."""
    head = "".join(f'<th scope="col">{name}</th>' for name in ("", "first", "second", "difference"))
    rows = []
    for name, value in first.record["attributes"].items():
        low, high = range_of(first.record, name)
        other = second.record["attributes"][name]
        gap = signed(value - other, high)
        cells = "".join(f"<td>{text}</td>" for text in (decimal(value, high), decimal(other, high), gap))
        rows.append(f'<tr><th scope="row">{escape(name)} <small>{low:g} to {high:g}</small></th>{cells}</tr>')
    return f'<table class="comparison"><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table>'


def signed(difference: float, highest: float) -> str:
    """A difference with its sign, and none where it is shown as nothing."""
    text = decimal(abs(difference), highest)
    if not float(text):
        return text
    return f"+{text}" if difference > 0 else f"\N{MINUS SIGN}{text}"


# Explanation ---------------------------------------------------------------------------------------------------------


def explanation_html(explanation: Explanation, name: str) -> str:
    """The photograph with the map over it, its legend, and in words what it shows."""
    attribute = next(iter(explanation.record["attributes"]))
    overlay = f'<img class="overlay" src="{picture_url(drawn_photo(explanation))}" alt="{escape(name)}, with a map">'
    keys = [*drawn_legend(explanation), *drawn_similarity(explanation)]
    legends = "".join(f'<img class="legend" src="{picture_url(key, "PNG")}" alt="">' for key in keys)
    caption = f"<p>{escape(explanation.caption)}</p>"
    return (
        f'<figure class="explanation">{overlay}<figcaption><h3>{escape(name)}: {escape(attribute)}</h3>'
        f"{score_line(explanation.record)}{levels_chart([explanation.record])}{legends}{caption}</figcaption></figure>"
    )


def picture_url(picture: Image.Image, kind: str = "JPEG") -> str:
    """A picture as an address that holds it; a photograph as JPEG, text as PNG."""
    buffer = io.BytesIO()
    picture.save(buffer, kind, **({"quality": 90} if kind == "JPEG" else {}))
    return data_url(buffer.getvalue(), f"image/{kind.lower()}")


def data_url(content: bytes, kind: str) -> str:
    """An address that holds its content."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


__all__ = ["ASK", "NOTHING", "TOO_FEW", "comparison_html", "direction", "explanation_html", "scores_html"]
