"""
Contact sheets: whole pictures in rows, each with its score, the levels behind it and its name.
"""

import os
from collections.abc import Callable, Sequence

import numpy as np

from .charts import level_bars
from .markup import escaped, number
from .rows import ScoredPicture
from .thumbnails import Thumbnail


class Tiles:
    """
    The tiles of a page.

    Args:
        thumbnail (function of `str`):
            Makes the thumbnail of a path; it is called once for a path that stands on several sheets.
    """

    def __init__(self, thumbnail: Callable[[str], Thumbnail]) -> None:
        self.thumbnail = thumbnail
        self.made: dict[str, Thumbnail] = {}
        self.ratios: set[int] = set()

    def sheet(self, pictures: Sequence[ScoredPicture], order: str, reasons: Sequence[str] = ()) -> str:
        """A contact sheet; `reasons` say, one for each picture, why it stands there."""
        whys = reasons or [""] * len(pictures)
        tiles = "\n".join(self.tile(picture, why) for picture, why in zip(pictures, whys, strict=True))
        return f'<ol class="sheet" aria-label="{order}">\n{tiles}\n</ol>'

    def tile(self, picture: ScoredPicture, reason: str) -> str:
        """A picture, which links to its row."""
        if picture.path not in self.made:
            self.made[picture.path] = self.thumbnail(picture.path)
        small = self.made[picture.path]
        name, score = os.path.basename(picture.path) or picture.path, number(picture.score)
        levels = level_bars(picture.distribution) if picture.distribution else ""
        lines = [
            f'<li class="tile {self.ratio(small)}"><a href="#row-{picture.number}" title="{escaped(picture.path)}">',
            picture_html(small, f"{name}, score {score}"),
            f'<span class="line"><strong>{score}</strong>{levels}</span><bdi class="name">{escaped(name)}</bdi>',
            f'<span class="why">{escaped(reason)}</span>' if reason else "",
            "</a></li>",
        ]
        return "".join(lines)

    def ratio(self, small: Thumbnail) -> str:
        """The class that gives the tile the picture's proportions; a panorama stands whole in a tile of 3 : 1."""
        ratio = int(np.clip(round(20 * small.width / small.height) * 5, 45, 300))
        self.ratios.add(ratio)
        return f"ratio-{ratio}"

    def rules(self) -> str:
        """Those classes; a `style` attribute on each tile would need a weaker Content-Security-Policy."""
        return "".join(f".ratio-{ratio} {{ --ratio: {ratio / 100:g}; }}\n" for ratio in sorted(self.ratios))


def picture_html(small: Thumbnail, alt: str) -> str:
    """The picture, or why there is none."""
    if small.uri is None:
        return f'<span class="picture gone">{escaped(small.error or "no picture")}</span>'
    size = f'width="{small.width}" height="{small.height}"'
    return f'<img class="picture" loading="lazy" {size} alt="{escaped(alt)}" src="{small.uri}">'
