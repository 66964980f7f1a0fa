"""
The section of one scale in a report: its best and worst pictures, distributions, attributes, labels, outliers.
"""

from collections.abc import Callable

import numpy as np

from .charts import histogram_chart, key_html, radar_chart, rank_chart, scatter_chart
from .figures import Agreement, ModelFigures
from .markup import cards_html, count_of, escaped, note_html, number, stats_html, table_html
from .tiles import Tiles

MOST_DOTS = 2000
RADAR_SPOKES = range(3, 11)  # fewer make no shape, more no picture


def model_name(model: ModelFigures) -> str:
    """Model and revision."""
    return (model.scale.model or "unknown model") + (f" at {model.scale.revision}" if model.scale.revision else "")


def scale_text(model: ModelFigures) -> str:
    """Range and direction in words."""
    low, high = model.scale.low, model.scale.high
    units = "range not declared" if low is None or high is None else f"scores from {low:g} to {high:g}"
    return f"{units}, {'higher' if model.scale.higher_is_better else 'lower'} is better"


def part_titles(model: ModelFigures, sheet: int) -> list[tuple[str, str]]:
    """Names and titles of the parts that there are."""
    parts = [("best", "Best", bool(sheet)), ("worst", "Worst", bool(sheet) and len(model.ranked) > 1)]
    parts += [("scores", "Scores", True), ("attributes", "Attributes", bool(model.compared))]
    parts += [("labels", "Labels", model.agreement is not None)]
    parts += [("outliers", "Outliers", model.stds is not None or bool(model.attributes))]
    return [(part, title) for part, title, there in parts if there]


def model_section(place: int, model: ModelFigures, sheet: int, tiles: Tiles) -> str:
    """
    All of one scale as markup.

    Args:
        place (`int`):
            Its place among the scales, which ends all ids.
        model ([`ModelFigures`]):
            Its figures.
        sheet (`int`):
            Most pictures on a contact sheet; 0 leaves the sheets out.
        tiles ([`Tiles`]):
            The tiles of the page.

    Returns:
        `str`: a `<section>` with a part for each of `part_titles`.
    """
    contents: dict[str, Callable[[], str]] = {
        "best": lambda: tiles.sheet(model.best(sheet), "best first"),
        "worst": lambda: tiles.sheet(model.worst(sheet), "worst first"),
        "scores": lambda: score_part(model),
        "attributes": lambda: attribute_part(model),
        "labels": lambda: label_part(model.agreement, sheet, tiles) if model.agreement else "",
        "outliers": lambda: outlier_part(model, tiles),
    }
    lines = [f'<section class="model" id="model-{place}" aria-labelledby="model-{place}-title">']
    lines.append(f'<h2 id="model-{place}-title"><bdi>{escaped(model_name(model))}</bdi></h2>')
    lines += [f'<p class="facts">{scale_text(model)}</p>', model_stats(model)]
    for part, title in part_titles(model, sheet):
        name = f"{part}-{place}"
        lines.append(f'<section class="part" id="{name}" aria-labelledby="{name}-title">')
        lines += [f'<h3 id="{name}-title">{title}</h3>', contents[part](), "</section>"]
    return "\n".join([*lines, "</section>"])


def model_stats(model: ModelFigures) -> str:
    """The numbers that come first."""
    scores = np.array([picture.score for picture in model.ranked])
    numbers = {"Mean": model.scores.mean, "Median": model.scores.median, "Standard deviation": scores.std()}
    numbers |= {"Best": scores[0], "Worst": scores[-1]}
    stats = {"Scored": f"{len(scores):,}"} | {name: number(float(value)) for name, value in numbers.items()}
    return stats_html(stats.items())


def score_part(model: ModelFigures) -> str:
    """Histograms of scores and of their spread."""
    cards = [("How the scores are spread", histogram_chart(model.scores, "score"))]
    if model.stds is not None:
        note = note_html("Standard deviation of the levels behind each score: the wider, the less sure is the model.")
        cards.append(("How sure the model is", histogram_chart(model.stds, "std") + note))
    return cards_html(cards)


def attribute_part(model: ModelFigures) -> str:
    """What the best and the worst have in attributes, as ranks and in units."""
    share = f"{100 * (model.group or 0):.0f} %"
    groups = (f"best {share}", f"worst {share}")
    chart = radar_chart if len(model.compared) in RADAR_SPOKES else rank_chart
    note = note_html("The share of all pictures that each group surpasses on average: ranks need no common unit.")
    rows = [[item.name, *map(number, item.means), f"{item.srcc:+.2f}"] for item in model.compared]
    table = table_html(["mean of", "all", *groups, "SRCC"], rows)
    remark = note_html("SRCC: rank correlation of the attribute with the score, −1 to 1.")
    cards = [("The best against the worst", chart(model.compared, groups) + key_html(groups) + note)]
    return cards_html([*cards, ("In the attributes’ own units", table + remark)])


def label_part(agreement: Agreement, sheet: int, tiles: Tiles) -> str:
    """Labels against scores, and the pictures on which they differ most."""
    rated = sorted(agreement.pictures, key=lambda picture: picture.score)
    drawn = [rated[place] for place in np.linspace(0, len(rated) - 1, min(MOST_DOTS, len(rated))).round().astype(int)]
    points = [
        (float(p.label or 0), p.score, f"{p.path}: label {number(p.label or 0)}, score {number(p.score)}")
        for p in drawn
    ]
    chart = scatter_chart(points, ("label", "score"), agreement.same_units)
    if len(drawn) < len(rated):
        chart += note_html(f"{len(drawn):,} of {count_of(len(rated))}, evenly chosen by score.")
    cards = [("Score against label", chart)]
    stats = {"Pictures with label": f"{len(rated):,}"}
    stats |= {name: number(value) if np.isfinite(value) else "–" for name, value in agreement.values.items()}
    parts = [stats_html(stats.items())]
    if agreement.differences is None:
        parts.append(note_html("Labels lie outside the range of the scores: other units, so there is no mean error."))
    else:
        cards.append(("Score less label", histogram_chart(agreement.differences, "score − label")))
    parts.append(cards_html(cards))
    if worst := agreement.largest_differences(sheet):
        labels = [picture.label or 0.0 for picture in worst]
        differences = [picture.score - label for picture, label in zip(worst, labels, strict=True)]
        reasons = [f"label {number(x)}, score {y:+.3g}" for x, y in zip(labels, differences, strict=True)]
        parts.append(f"<h4>Largest differences</h4>\n{tiles.sheet(worst, 'largest difference first', reasons)}")
    return "\n".join(parts)


def outlier_part(model: ModelFigures, tiles: Tiles) -> str:
    """Pictures that stand out, with the rule that found them."""
    rule = "A picture stands out where its robust z-score, by median and median absolute deviation, exceeds 3.5."
    parts = [note_html(rule)]
    kinds = [("Least sure: the largest std", model.uncertain, model.stds is not None)]
    kinds += [("An attribute far from what the score suggests", model.disagreeing, bool(model.attributes))]
    for title, outliers, known in kinds:
        if known:
            reasons = [outlier.reason for outlier in outliers]
            pictures = [outlier.picture for outlier in outliers]
            found = tiles.sheet(pictures, "strongest first", reasons) if outliers else note_html("None stands out.")
            parts.append(f"<h4>{title}</h4>\n{found}")
    return "\n".join(parts)
