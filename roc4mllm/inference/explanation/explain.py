"""
Explanations of a score: what the model looked at, beside the score and its levels, for every family.

| family | shown | where |
|---|---|---|
| ROC4MLLM | attention from the score position to the picture | [`attention_map`] |
| EAT | sampling points and where they were moved from | [`moved_points`] |
| TANet | how alike each colour is to the others | [`colour_similarity`] |
| any other, or a backbone whose tokens have no place | gradient of the score | [`gradient_map`] |

None of them proves why a score is what it is: a map tells where a model looked, or to what it reacts.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
import torch
from PIL import Image

from ...processing_roc4mllm.image_reading_aesthetics import PictureError, read_image
from ...processing_roc4mllm.pipeline_image_aesthetics import ImageAestheticsPipeline
from ...whole_files import write_whole
from .maps import (
    WHOLE,
    Array,
    Box,
    NoPlacesError,
    attention_map,
    colour_similarity,
    gradient_map,
    is_flat,
    moved_points,
    seen_box,
)


@dataclass(frozen=True)
class Explanation:
    """
    What [`explain`] found, to be drawn, or laid over the picture by something else.

    Args:
        record (`dict`): What the scorer says of the picture.
        picture (`PIL.Image.Image`): The picture, upright, in RGB.
        method (`str`): `"attention"`, `"points"`, `"colours"` or `"gradient"`; `"none"` where nothing can be shown.
        caption (`str`): What is shown, in a sentence or two.
        box (`tuple` of four `float`, *optional*): Left, upper, right and lower edge of what the model sees, in shares
            of the picture's width and height; below 0 and above 1 where the picture is padded. All by default.
        heatmap (`np.ndarray` of shape `(rows, columns)`, *optional*): Over `box`. With `"attention"` shares of the
            attention, with `"colours"` mean cosine similarity, −1 to 1, with `"gradient"` units of no meaning.
        similarity (`np.ndarray` of shape `(cells, cells)`, *optional*): With `"colours"`: of each cell with each, row
            by row.
        sampling_points, reference_points (`np.ndarray` of shape `(groups, rows, columns, 2)`, *optional*): With
            `"points"`: (x, y) in shares of the picture's width and height.
    """

    record: dict[str, Any]
    picture: Image.Image
    method: str
    caption: str
    box: Box = WHOLE
    heatmap: Array | None = None
    similarity: Array | None = None
    sampling_points: Array | None = None
    reference_points: Array | None = None

    def draw(self) -> Image.Image:
        """The photograph with the map over it, and a panel with score, levels and caption, as an RGB picture."""
        from .drawing import draw_explanation  # a service may want the arrays alone

        return draw_explanation(self)

    def save(self, path: str | os.PathLike[str]) -> None:
        """
        Write what `draw` gives as a PNG.

        Raises:
            OSError: If the file cannot be written there.
        """
        buffer = BytesIO()
        self.draw().save(buffer, "PNG")
        write_whole(path, buffer.getvalue())


def explain(scorer: ImageAestheticsPipeline, image: Any, attribute: str | None = None) -> Explanation:
    """
    What a score rests on.

    ```python
    >>> explanation = roc4mllm.explain(roc4mllm.load_scorer(), "photo.jpg")
    >>> explanation.save("explanation.png")
    ```

    Args:
        scorer ([`ImageAestheticsPipeline`]): What `load_scorer` returns.
        image: One picture, as in a call of the scorer.
        attribute (`str`, *optional*): Whose score; the model's main attribute by default.

    Returns:
        [`Explanation`]. What cannot be laid over the picture is left out, and the caption says why.

    Raises:
        PictureError: If the picture cannot be read or scored.
        ValueError: If the model does not score the attribute.
    """
    asked = scorer._postprocess_params.get("attributes") or list(scorer.model.config.attributes)
    attribute = asked[0] if attribute is None else attribute
    if attribute not in asked:
        raise ValueError(f"the model does not score {attribute!r}; it scores {', '.join(asked)}")
    picture = read_image(image)
    batch = scorer.preprocess(picture, **scorer._preprocess_params)
    if batch.inputs is None:
        raise PictureError(str(batch.errors[0] or batch.failure))
    scorer.model.eval()
    (row,) = scorer.forward(batch)
    record = scorer.postprocess(row, attributes=[attribute])
    if record["error"] is not None:
        raise PictureError(record["error"])
    inputs = dict(batch.inputs.to(scorer.device).to(scorer.model.dtype))
    column = list(scorer.model.config.attributes).index(attribute)
    found = FAMILIES.get(scorer.model.config.model_type, explain_gradient)(scorer, inputs, column, picture)
    if found.get("heatmap") is not None and is_flat(found["heatmap"]):
        found["caption"] += " This is the same everywhere, so nothing is drawn over the picture."
    left, upper, right, lower = found.get("box", WHOLE)
    if left > 0 or upper > 0 or right < 1 or lower < 1:
        found["caption"] += " The model does not see the pale part of the picture."
    return Explanation(record=record, picture=picture, **found)


Found = dict[str, Any]  # fields of an Explanation
Inputs = Mapping[str, torch.Tensor]


def explain_attention(scorer: Any, inputs: Inputs, column: int, picture: Image.Image) -> Found:
    """A ROC4MLLM's attention; where its tokens have no place, the gradient."""
    try:
        heatmap = attention_map(scorer.model, inputs, column, num_pictures(scorer))
    except NoPlacesError as error:
        return explain_gradient(scorer, inputs, column, picture, f"Attention cannot be shown: {error}. Instead: ")
    rest = "text" if num_pictures(scorer) == 1 else "its fragments and to text"
    caption = (
        "Attention from the score position to each part of the picture, mean over heads and the later half of the "
        f"layers. {heatmap.sum():.0%} of all attention goes to the picture, the rest to {rest}."
    )
    return {"method": "attention", "caption": caption, "heatmap": heatmap, "box": box_of(scorer, picture)}


def explain_points(scorer: Any, inputs: Inputs, column: int, picture: Image.Image) -> Found:
    """An EAT's sampling points."""
    try:
        sampling, reference = moved_points(scorer.model, inputs["pixel_values"])
    except NoPlacesError as error:
        return explain_gradient(scorer, inputs, column, picture, f"Points cannot be shown: {error}. Instead: ")
    left, upper, right, lower = box = box_of(scorer, picture)
    start, extent = np.array([left, upper]), np.array([right - left, lower - upper])
    outside = ((sampling < 0) | (sampling > 1)).any(-1)  # (G, h, w)
    caption = (
        f"Dots: where the last deformable block looks, {len(sampling)} groups in colours of their own. Lines: how far "
        "each was moved from its reference point."
    )
    if outside.any():
        caption += f" {outside.sum()} of {outside.size} points lie outside the picture, where there is nothing to see."
    points = {"sampling_points": start + sampling * extent, "reference_points": start + reference * extent}
    return {"method": "points", "caption": caption, "box": box, **points}


def explain_colours(scorer: Any, inputs: Inputs, column: int, picture: Image.Image) -> Found:
    """A TANet's similarity of colours."""
    similarity = colour_similarity(scorer.model, inputs["pixel_values"])  # (P, P)
    cells = len(similarity)
    others = (similarity.sum(1) - similarity.diagonal()) / (cells - 1)  # (P,)
    side = scorer.model.config.colour_grid
    caption = (
        f"How alike the mean colour of each of {side} by {side} cells is to all others, as a cosine of prepared "
        "colours. Small squares: these colours, and each with each, row by row."
    )
    heatmap = others.reshape(side, side)
    box = box_of(scorer, picture)
    return {"method": "colours", "caption": caption, "heatmap": heatmap, "similarity": similarity, "box": box}


def explain_gradient(scorer: Any, inputs: Inputs, column: int, picture: Image.Image, reason: str = "") -> Found:
    """What any model can tell: to what its score reacts."""
    try:
        heatmap = gradient_map(scorer.model, inputs, column, num_pictures(scorer))
    except NoPlacesError as error:
        without = f"{reason}nothing is drawn, for {error}." if reason else f"Nothing is drawn, for {error}."
        return {"method": "none", "caption": without}
    shown = "how strongly the score reacts to each part of the picture (size of its gradient)."
    caption = f"{reason}{shown}" if reason else shown.capitalize()
    return {"method": "gradient", "caption": caption, "heatmap": heatmap, "box": box_of(scorer, picture)}


def num_pictures(scorer: Any) -> int:
    """How often the model is shown a picture: a second time where its processor adds fragments."""
    return 2 if getattr(scorer.processor, "fragment_size", None) else 1


def box_of(scorer: Any, picture: Image.Image) -> Box:
    """The part of a picture that a scorer's model sees."""
    processor = scorer.image_processor if scorer.processor is None else scorer.processor.image_processor
    return seen_box(processor, picture.size)


FAMILIES = {"roc4mllm": explain_attention, "eat": explain_points, "tanet": explain_colours}

__all__ = ["Explanation", "explain"]
