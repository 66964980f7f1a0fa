"""
Models against each other, where several scored the same pictures. Only ranks are compared: units need not be the same.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .charts import scatter_chart
from .figures import MOST_OUTLIERS, ModelFigures, correlation, mean_ranks
from .markup import cards_html, count_of, escaped, note_html, number, table_html
from .model import MOST_DOTS, model_name, scale_text
from .rows import ScoredPicture
from .tiles import Tiles

FEWEST = 3  # pictures: two always correlate perfectly
MOST_PAIRS = 6


@dataclass(frozen=True)
class ModelPair:
    """
    Two scales that share pictures.

    Args:
        models (pair of [`ModelFigures`]):
            The two.
        pictures (list of pairs of [`ScoredPicture`]):
            Their rows of the same path, the largest difference of ranks first.
        places (list of pairs of `float`):
            Shares of the common pictures, 0 to 1, that each of them surpasses by its merit in either model.
        srcc (`float`):
            Spearman's rank correlation of the merits, −1 to 1: 1 where both order the pictures alike.
    """

    models: tuple[ModelFigures, ModelFigures]
    pictures: list[tuple[ScoredPicture, ScoredPicture]]
    places: list[tuple[float, float]]
    srcc: float

    @property
    def name(self) -> str:
        """Both models."""
        return " / ".join(map(model_name, self.models))

    def most_different(self, count: int) -> list[ScoredPicture]:
        """Pictures that the models rank most differently, as rows of the first."""
        return [first for first, _ in self.pictures[: min(count, MOST_OUTLIERS)]]


def find_pairs(models: Sequence[ModelFigures]) -> list[ModelPair]:
    """
    All pairs that share at least three pictures, six at most.

    Args:
        models (sequence of [`ModelFigures`]):
            One of each scale.

    Returns:
        `list[ModelPair]`
    """
    pairs = (compare_pair(first, second) for first, second in itertools.combinations(models, 2))
    return list(itertools.islice((pair for pair in pairs if pair is not None), MOST_PAIRS))


def compare_pair(first: ModelFigures, second: ModelFigures) -> ModelPair | None:
    """Two scales by the paths that both have."""
    rows = {picture.path: picture for picture in first.ranked}
    common = [(rows[other.path], other) for other in second.ranked if other.path in rows]
    if len(common) < FEWEST:
        return None
    scores = np.array([[picture.score for picture in pair] for pair in common])  # (n, 2)
    signs = [1 if model.scale.higher_is_better else -1 for model in (first, second)]
    ranks = np.stack([mean_ranks(scores[:, column] * signs[column]) for column in (0, 1)], axis=1)  # (n, 2)
    order = np.argsort(-np.abs(ranks[:, 0] - ranks[:, 1]), kind="stable")
    places = (ranks / (len(common) - 1))[order].tolist()
    srcc = correlation(ranks[:, 0], ranks[:, 1])
    return ModelPair((first, second), [common[place] for place in order], [(x, y) for x, y in places], srcc)


def comparison_section(models: Sequence[ModelFigures], pairs: Sequence[ModelPair], sheet: int, tiles: Tiles) -> str:
    """The models beside each other as markup."""
    rows = [
        [f"{model_name(model)}, {scale_text(model)}", f"{len(model.ranked):,}", number(model.scores.mean)]
        for model in models
    ]
    content = table_html(["model", "scored", "mean"], rows)
    if pairs:
        agreements = [[pair.name, f"{len(pair.pictures):,}", f"{pair.srcc:+.3f}"] for pair in pairs]
        content += note_html("Rank correlation on the pictures of both, 1 where both order them alike:")
        content += table_html(["models", "in both", "SRCC"], agreements)
    cards = cards_html([("Models and scales", content), *map(pair_card, pairs)])
    parts = [f'<section class="part"><h3>Agreement</h3>{cards}</section>']
    if pairs and (pictures := pairs[0].most_different(sheet)):
        places = pairs[0].places[: len(pictures)]
        reasons = [f"better than {100 * x:.0f} % by the first, {100 * y:.0f} % by the second" for x, y in places]
        found = tiles.sheet(pictures, "largest difference first", reasons)
        title = f"Ranked most differently: {escaped(pairs[0].name)}"
        parts.append(f'<section class="part"><h3><bdi>{title}</bdi></h3>{found}</section>')
    head = '<h2 id="models-title">Models side by side</h2>'
    return f'<section class="model" id="models" aria-labelledby="models-title">\n{head}\n{"".join(parts)}\n</section>'


def pair_card(pair: ModelPair) -> tuple[str, str]:
    """The scores of two models against each other, as a card."""
    axes = [f"{model_name(m)}{'' if m.scale.higher_is_better else ' (lower is better)'}" for m in pair.models]
    drawn = pair.pictures[:: -(-len(pair.pictures) // MOST_DOTS)]
    points = [(x.score, y.score, f"{x.path}: {number(x.score)} and {number(y.score)}") for x, y in drawn]
    return f"{count_of(len(pair.pictures))} in both", scatter_chart(points, (axes[0], axes[1]), identity=False)
