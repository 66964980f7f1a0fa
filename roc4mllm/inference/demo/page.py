"""
The page of the demo: Gradio's components, and what happens when a visitor uses them.

Gradio is passed in, so that this file imports without it, and the handlers can be called with a stand-in. What is
shown is made in `pictures` and `cards`.
"""

import os
from collections.abc import Iterator
from html import escape
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

from ...processing_roc4mllm.image_reading_aesthetics import PictureError
from ..tables.score_table import shown
from .cards import ASK, NOTHING, TOO_FEW, comparison_html, direction, explanation_html, scores_html
from .pictures import (
    ScoredPicture,
    Upload,
    attributes_of,
    chosen,
    explain_picture,
    numbered,
    score_uploads,
    writes_text,
)

KEEP = 900  # seconds that an upload stays on disk, to be explained
QUEUE = 16  # visitors that may wait; the next is told to come back


def build_page(gradio: Any, scorer: Any, max_files: int) -> Any:
    """
    The page, not yet served.

    Args:
        gradio: The module.
        scorer (`ImageAestheticsPipeline`): What `load_scorer` returns.
        max_files (`int`): Pictures that are scored at once.

    Returns:
        `gradio.Blocks`
    """
    with gradio.Blocks(title="Image aesthetics", analytics_enabled=False, delete_cache=(60, KEEP)) as page:
        gradio.HTML(introduction(scorer, max_files))
        parts = lay_out(gradio, scorer)
        connect(gradio, parts, Handlers(scorer, gradio, max_files))
    page.queue(max_size=QUEUE, api_open=False)
    return page


def lay_out(gradio: Any, scorer: Any) -> SimpleNamespace:
    """The components by name, from top to bottom. Radio buttons: a menu's list stays open where Tab leaves it."""
    parts, attributes = SimpleNamespace(), attributes_of(scorer)
    parts.files = gradio.File(label="Drop pictures here", file_count="multiple", height=180, elem_id="pictures")
    parts.files.async_move_resource_to_block_cache = take_upload
    parts.with_text = gradio.Checkbox(label="Write a comment", visible=writes_text(scorer), elem_id="comment")
    parts.pictures = gradio.State([], time_to_live=4 * KEEP)
    with gradio.Tabs():
        with gradio.Tab("Scores"):
            parts.scores = gradio.HTML(NOTHING, elem_id="scores")
        with gradio.Tab("Compare"):
            with gradio.Row():
                parts.first = gradio.Radio([], label="First picture", elem_id="first")
                parts.second = gradio.Radio([], label="Second picture", elem_id="second")
            parts.comparison = gradio.HTML(TOO_FEW, elem_id="comparison")
        with gradio.Tab("Explain"):
            parts.subject = gradio.Radio([], label="Picture", elem_id="subject")
            options = {"value": attributes[0], "visible": len(attributes) > 1}
            parts.attribute = gradio.Radio(attributes, label="Score", elem_id="attribute", **options)
            parts.button = gradio.Button("Explain", variant="primary", elem_id="explain")
            parts.explanation = gradio.HTML(ASK, elem_id="explanation")
    return parts


def connect(gradio: Any, parts: SimpleNamespace, handlers: "Handlers") -> None:
    """What is called when, with which components' values, and whose values it returns."""
    # one model, one picture at a time: an explanation hooks into the model
    on_model = {"concurrency_limit": 1, "concurrency_id": "model", "api_visibility": "undocumented"}
    gradio.on(
        [parts.files.change, parts.with_text.change],
        handlers.score,
        inputs=[parts.files, parts.with_text, parts.pictures],
        outputs=[parts.pictures, parts.scores, parts.first, parts.second, parts.comparison, parts.subject]
        + [parts.explanation],
        preprocess=False,  # it would lose the visitor's names and leave an empty file behind for each upload
        trigger_mode="always_last",
        show_progress_on=parts.scores,
        api_name="score",
        **on_model,
    )
    gradio.on(
        [parts.first.input, parts.second.input],
        handlers.compare,
        inputs=[parts.first, parts.second, parts.pictures],
        outputs=parts.comparison,
        api_name="compare",
        api_visibility="undocumented",
        concurrency_limit=None,
    )
    parts.button.click(
        handlers.explain,
        inputs=[parts.subject, parts.attribute, parts.pictures],
        outputs=parts.explanation,
        api_name="explain",
        **on_model,
    )


def introduction(scorer: Any, max_files: int) -> str:
    """What the page is, in two lines."""
    record = scorer.postprocess({"error": ""})
    low, high = record["score_range"]
    what = f"{escape(record['model'])} scores {escape(attributes_of(scorer)[0])} from {low:g} to {high:g}"
    limits = f"Up to {max_files} pictures at once; they are deleted after {KEEP // 60} minutes."
    return f"<h1>Image aesthetics</h1><p>{what}; {direction(record)}. {limits}</p>"


class Handlers:
    """
    What happens on the page, from the values of its components to new ones.

    Args:
        scorer (`ImageAestheticsPipeline`): What `load_scorer` returns.
        gradio: The module.
        max_files (`int`): Pictures that are scored at once.
    """

    def __init__(self, scorer: Any, gradio: Any, max_files: int):
        self.scorer, self.gradio, self.max_files = scorer, gradio, max_files
        self.attributes = attributes_of(scorer)

    def score(self, files: Any, with_text: bool, earlier: list[ScoredPicture]) -> Iterator[tuple[Any, ...]]:
        """Score what lies in the drop zone, and fill every part of the page anew; cards come as they are ready."""
        uploads = uploads_of(files)
        pictures: list[ScoredPicture] = []
        results = score_uploads(self.scorer, uploads, with_text=bool(with_text), most=self.max_files, earlier=earlier)
        for one in results:
            pictures.append(one)
            if len(pictures) < len(uploads):
                rest = [self.gradio.skip()] * 5
                yield self.gradio.skip(), scores_html(pictures, self.attributes, expected=len(uploads)), *rest
        choices = numbered(pictures)
        places = [place for _, place in choices] + [None, None]
        first, second = (self.gradio.Radio(choices=choices, value=place) for place in places[:2])
        subject = self.gradio.Radio(choices=choices, value=places[0])
        comparison = comparison_html(chosen(pictures, places[0]), chosen(pictures, places[1]))
        explanation = ASK if choices else NOTHING
        yield pictures, scores_html(pictures, self.attributes), first, second, comparison, subject, explanation

    def compare(self, first: Any, second: Any, pictures: list[ScoredPicture]) -> str:
        """Two pictures side by side."""
        return comparison_html(chosen(pictures, first), chosen(pictures, second))

    def explain(self, subject: Any, attribute: str, pictures: list[ScoredPicture]) -> str:
        """What the score of one picture rests on."""
        one = chosen(pictures, subject)
        if one is None:
            return ASK if numbered(pictures) else NOTHING
        try:
            return explanation_html(explain_picture(self.scorer, one, attribute), one.upload.name)
        except (PictureError, RuntimeError) as error:  # the latter as where memory runs out
            raise self.gradio.Error(f"{one.upload.name}: {error}", print_exception=False) from error


def uploads_of(files: Any) -> list[Upload]:
    """What the drop zone holds, as Gradio passes it on unprocessed: it has checked that each path is an upload's."""
    return [Upload(shown(file["orig_name"] or os.path.basename(file["path"])), file["path"]) for file in files or []]


async def take_upload(path: str | Path | None) -> str | None:
    """
    Take the path of an upload as it is.

    Gradio's own would fetch a URL that a caller names instead of a file, and copy what it has already.

    Raises:
        ValueError: If it is a URL.
    """
    if path is not None and urlsplit(str(path)).scheme in ("http", "https"):
        raise ValueError(f"got the URL {shown(str(path))}; expected a file that was uploaded")
    return None if path is None else str(path)


__all__ = ["KEEP", "QUEUE", "build_page"]
