"""
Charts as inline SVG, each one function that returns markup: no library, no script, colours from the page's style.

A `<title>` inside a mark is its tooltip; `role="img"` with a label is what a screen reader says instead of the marks.
All texts are escaped. Lengths are in units of the `viewBox`.
"""

import math
from collections.abc import Sequence

from .figures import AttributeFigures, Histogram, ticks
from .markup import escaped, number

WIDTH, HEIGHT = 460, 250
LEFT, RIGHT, TOP, BOTTOM = 44, 10, 26, 40  # room for axes
Point = tuple[float, float, str]  # x, y and a tooltip


def round_number(value: float) -> str:
    """The number of a tick, in more than six digits where those alone tell it from its neighbours."""
    short = f"{value:.6g}"
    return (short if float(short) == value else f"{value:.12g}").replace("-", "−")


def histogram_chart(histogram: Histogram, axis: str, unit: str = "pictures") -> str:
    """Bars with the mean as a line."""
    edges, counts = histogram.edges, histogram.counts
    x, y = Axis(edges[0], edges[-1], LEFT, WIDTH - RIGHT), Axis(0, max(counts) * 1.02, HEIGHT - BOTTOM, TOP)
    marks = [grid(y, whole=True), horizontal_axis(x, axis)]
    for low, high, count in zip(edges, edges[1:], counts, strict=False):
        share = f"{100 * count / sum(counts):.1f} %"
        tip = f"{round_number(low)} to {round_number(high)}: {count} {unit} ({share})"
        left, width, top = x(low) + 0.75, x(high) - x(low) - 1.5, y(count)
        marks.append(
            f'<rect class="bar" x="{left:.1f}" y="{top:.1f}" width="{max(width, 0.5):.1f}" '
            f'height="{y(0) - top:.1f}" rx="1.5"><title>{tip}</title></rect>'
        )
    middle = x(histogram.mean)
    anchor = "end" if middle > WIDTH * 0.7 else "start"
    marks.append(f'<line class="mean" x1="{middle:.1f}" x2="{middle:.1f}" y1="{TOP - 8}" y2="{y(0):.1f}"/>')
    shift = -5 if anchor == "end" else 5
    marks.append(text(middle + shift, TOP - 12, f"mean {number(histogram.mean)}", anchor, "strong"))
    fullest = max(range(len(counts)), key=counts.__getitem__)
    label = (
        f"Histogram of {axis}: {sum(counts)} {unit}, mean {number(histogram.mean)}, median "
        f"{number(histogram.median)}, most {round_number(edges[fullest])} to {round_number(edges[fullest + 1])}"
    )
    return svg(marks, label)


def scatter_chart(points: Sequence[Point], axes: tuple[str, str], identity: bool) -> str:
    """Dots, one per picture; with `identity` both axes go over the same values, and a line shows where they agree."""
    height = 300
    xs, ys = [x for x, _, _ in points], [y for _, y, _ in points]
    if identity:
        xs = ys = xs + ys
    x_ticks, y_ticks = ticks(min(xs), max(xs), 6), ticks(min(ys), max(ys), 6)
    x = Axis(x_ticks[0], x_ticks[-1], LEFT, WIDTH - RIGHT)
    y = Axis(y_ticks[0], y_ticks[-1], height - BOTTOM, TOP)
    marks = [grid(y), horizontal_axis(x, axes[0], bottom=height - BOTTOM), text(4, 13, axes[1])]
    if identity:
        ends = f'x1="{x(x.low):.1f}" y1="{y(x.low):.1f}" x2="{x(x.high):.1f}" y2="{y(x.high):.1f}"'
        marks.append(f'<line class="identity" {ends}><title>{escaped(" = ".join(axes))}</title></line>')
    radius = 3 if len(points) <= 500 else 1.8
    for value, other, tip in points:
        dot = f'<circle class="dot" cx="{x(value):.1f}" cy="{y(other):.1f}" r="{radius}">'
        marks.append(f"{dot}<title>{escaped(tip)}</title></circle>")
    return svg(marks, f"Scatter plot of {len(points)} pictures: {axes[1]} against {axes[0]}", height=height)


def radar_chart(compared: Sequence[AttributeFigures], groups: tuple[str, str]) -> str:
    """Mean ranks of the best and of the worst group on one spoke per attribute, the lowest rank in the centre."""
    width, radius = 460, 108
    centre = (width / 2, 140)

    def point(spoke: int, share: float) -> tuple[float, float]:
        angle = 2 * math.pi * spoke / len(compared)
        return centre[0] + radius * share * math.sin(angle), centre[1] - radius * share * math.cos(angle)

    def ring(shares: Sequence[float]) -> str:
        return " ".join(f"{x:.1f},{y:.1f}" for x, y in (point(spoke, share) for spoke, share in enumerate(shares)))

    marks = [f'<polygon class="ring" points="{ring([share] * len(compared))}"/>' for share in (0.25, 0.75, 1)]
    marks.append(
        f'<polygon class="chance" points="{ring([0.5] * len(compared))}"><title>all pictures</title></polygon>'
    )
    for spoke, figures in enumerate(compared):
        end, tip = point(spoke, 1), point(spoke, 1.13)
        marks.append(f'<line class="spoke" x1="{centre[0]}" y1="{centre[1]}" x2="{end[0]:.1f}" y2="{end[1]:.1f}"/>')
        side = tip[0] - centre[0]
        anchor = "middle" if abs(side) < 8 else "start" if side > 0 else "end"
        marks.append(text(tip[0], tip[1] + 4, figures.name, anchor, longest=16))
    for place, group in enumerate(groups):
        kind = ("best", "worst")[place]
        marks.append(f'<polygon class="area {kind}" points="{ring([item.ranks[place] for item in compared])}"/>')
        for spoke, figures in enumerate(compared):
            x, y = point(spoke, figures.ranks[place])
            tip_text = f"{figures.name}, {group}: above {100 * figures.ranks[place]:.0f} % of the pictures"
            dot = f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="4">'
            marks.append(f"{dot}<title>{escaped(tip_text)}</title></circle>")
    lowest = max(point(spoke, 1.13)[1] for spoke in range(len(compared)))  # of an odd number of spokes far above
    return svg(marks, spoken(compared, groups), width, round(lowest + 16))


def rank_chart(compared: Sequence[AttributeFigures], groups: tuple[str, str]) -> str:
    """The same ranks as `radar_chart`, a line per attribute: for fewer than three, or more than a radar can show."""
    room, step = 120, 26
    height = TOP + step * len(compared) + BOTTOM
    x = Axis(0, 100, room, WIDTH - 14)
    marks = [horizontal_axis(x, "pictures surpassed, in %", bottom=height - BOTTOM, pieces=4)]
    middle = f'x1="{x(50):.1f}" x2="{x(50):.1f}" y1="{TOP - 12}" y2="{height - BOTTOM}"'
    marks.append(f'<line class="identity" {middle}><title>all pictures</title></line>')
    for line, figures in enumerate(compared):
        y = TOP + step * line + 4
        ends = [x(100 * rank) for rank in figures.ranks]
        marks.append(text(room - 12, y + 4, figures.name, "end", longest=16))
        marks.append(f'<line class="between" x1="{ends[0]:.1f}" x2="{ends[1]:.1f}" y1="{y}" y2="{y}"/>')
        for place, group in enumerate(groups):
            tip = f"{figures.name}, {group}: above {100 * figures.ranks[place]:.0f} % of the pictures"
            kind = ("best", "worst")[place]
            dot = f'<circle class="{kind}" cx="{ends[place]:.1f}" cy="{y}" r="5.5">'
            marks.append(f"{dot}<title>{escaped(tip)}</title></circle>")
    return svg(marks, spoken(compared, groups), WIDTH, height)


def spoken(compared: Sequence[AttributeFigures], groups: tuple[str, str]) -> str:
    """The ranks in words."""
    shares = (f"{item.name} {100 * item.ranks[0]:.0f} and {100 * item.ranks[1]:.0f} %" for item in compared)
    return f"Pictures surpassed by the {groups[0]} and the {groups[1]} on average: {', '.join(shares)}"


def key_html(groups: tuple[str, str]) -> str:
    """What the lines of `radar_chart` and the dots of `rank_chart` stand for."""
    marks = {"best": groups[0], "worst": groups[1], "chance": "all pictures"}
    dashes = {"best": "", "worst": ' stroke-dasharray="6 3"', "chance": ' stroke-dasharray="4 3"'}
    lines = (
        f'<span><svg viewBox="0 0 22 10" aria-hidden="true"><path class="{kind}" stroke-width="2" d="M0 5h22"'
        f"{dashes[kind]}/></svg> {name}</span>"
        for kind, name in marks.items()
    )
    return f'<p class="key">{"".join(lines)}</p>'


def level_bars(distribution: Sequence[float]) -> str:
    """The probabilities of the levels, lowest level left, as a chart the size of a word."""
    top, step = max(distribution), 60 / len(distribution)
    bars = []
    for place, share in enumerate(distribution):
        height = 16 * share / top
        size = f'width="{max(step - 1, 0.5):.1f}" height="{height:.1f}"'
        bars.append(f'<rect class="bar" x="{place * step:.1f}" y="{16 - height:.1f}" {size}/>')
    return f'<svg class="levels" viewBox="0 0 60 16" aria-hidden="true">{"".join(bars)}</svg>'


# Parts ---------------------------------------------------------------------------------------------------------------


class Axis:
    """Values from `low` to `high` on a line from `start` to `end`; calling it places a value."""

    def __init__(self, low: float, high: float, start: float, end: float) -> None:
        self.low, self.high, self.start, self.end = low, high, start, end

    def __call__(self, value: float) -> float:
        """Where the value stands."""
        return self.start + (self.end - self.start) * (value - self.low) / (self.high - self.low)

    def ticks(self, pieces: int) -> list[float]:
        """Round values on the axis."""
        rounding = 1e-9 * (self.high - self.low)
        return [
            tick for tick in ticks(self.low, self.high, pieces) if self.low - rounding <= tick <= self.high + rounding
        ]


def grid(y: Axis, whole: bool = False) -> str:
    """Horizontal lines with their values; `whole` leaves out fractions, as counts need."""
    parts = []
    for tick in y.ticks(6):
        if whole and tick != round(tick):
            continue
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(tick):.1f}" y2="{y(tick):.1f}"/>')
        parts.append(text(LEFT - 7, y(tick) + 4, round_number(tick), "end"))
    return "".join(parts)


def horizontal_axis(x: Axis, title: str, bottom: float = HEIGHT - BOTTOM, pieces: int = 6) -> str:
    """The line below a chart, its values and what they are."""
    parts = [f'<line class="axis" x1="{x.start:.1f}" x2="{x.end:.1f}" y1="{bottom}" y2="{bottom}"/>']
    parts += [text(x(tick), bottom + 16, round_number(tick), "middle") for tick in x.ticks(pieces)]
    return "".join(parts) + text((x.start + x.end) / 2, bottom + 34, title, "middle", "name")


def text(x: float, y: float, words: str, anchor: str = "start", kind: str = "", longest: int = 60) -> str:
    """Words; what is longer than `longest` characters is cut, with the whole as its tooltip."""
    mark = f' class="{kind}"' if kind else ""
    cut = len(words) > longest
    content = escaped(words[: longest - 1] + "…" if cut else words) + (
        f"<title>{escaped(words)}</title>" if cut else ""
    )
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{mark}>{content}</text>'


def svg(marks: Sequence[str], label: str, width: float = WIDTH, height: float = HEIGHT) -> str:
    """The marks as one picture with a name."""
    return (
        f'<svg class="chart" viewBox="0 0 {width} {height}" role="img" aria-label="{escaped(label)}">'
        f"{''.join(marks)}</svg>"
    )
