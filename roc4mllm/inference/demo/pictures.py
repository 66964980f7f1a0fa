"""
What the demo knows of the pictures of one visitor: scored one by one, and what can be made of them afterwards.

No Gradio here, so that all of it can be called and tested without a page.
"""

import io
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from PIL import Image

from ...processing_roc4mllm.image_reading_aesthetics import PictureError, read_image
from ..explanation.explain import Explanation, explain
from ..tables.score_table import make_row, table_columns
from ..tables.score_writing import TableFile

THUMBNAIL = 480  # pixels of the longer edge: sharp on a phone's screen, and some 30 kB
GONE = "the picture is no longer kept here; drop it again"


@dataclass(frozen=True)
class Upload:
    """
    A file that a visitor dropped.

    Args:
        name (`str`): What the visitor calls it.
        path (`str`): Where it lies for now; the same content has the same path.
    """

    name: str
    path: str


@dataclass(frozen=True)
class ScoredPicture:
    """
    A picture with what the scorer said of it.

    Args:
        upload ([`Upload`]): The file.
        with_text (`bool`): Whether a comment was asked for.
        record (`dict`): The scorer's record; with an error and no score where it failed.
        thumbnail (`bytes`, *optional*): A small JPEG; `None` where the file is no picture.
    """

    upload: Upload
    with_text: bool
    record: dict[str, Any]
    thumbnail: bytes | None = None

    @property
    def failed(self) -> bool:
        """Whether there is an error instead of a score."""
        return self.record["error"] is not None


def attributes_of(scorer: Any) -> list[str]:
    """What a scorer's model scores, the main attribute first."""
    return list(getattr(scorer.model.config, "attributes", ["aesthetics"]))


def writes_text(scorer: Any) -> bool:
    """Whether a scorer's model can comment on a picture."""
    return scorer.processor is not None


# Scoring -------------------------------------------------------------------------------------------------------------


def score_uploads(
    scorer: Any,
    uploads: Sequence[Upload],
    *,
    with_text: bool = False,
    most: int,
    earlier: Sequence[ScoredPicture] = (),
) -> Iterator[ScoredPicture]:
    """
    Score the files of one visitor, one picture in memory at a time.

    Args:
        scorer (`ImageAestheticsPipeline`):
            What `load_scorer` returns.
        uploads (sequence of [`Upload`]):
            The files.
        with_text (`bool`, *optional*, defaults to `False`):
            Ask for a comment; a model that writes none is not asked.
        most (`int`):
            How many are scored; each file beyond is a result with an error.
        earlier (sequence of [`ScoredPicture`], *optional*):
            What was scored before: taken over where nothing differs, so that removing one of twenty pictures does
            not score nineteen again. Failures are tried again.

    Yields:
        [`ScoredPicture`]: one for each upload, in order.
    """
    with_text = with_text and writes_text(scorer)
    known = {(one.upload, one.with_text): one for one in earlier if not one.failed}
    for count, upload in enumerate(uploads, start=1):
        if count > most:
            error = f"not scored: at most {most} pictures at once"
            yield ScoredPicture(upload, with_text, scorer.postprocess({"error": error}))
        elif (upload, with_text) in known:
            yield known[upload, with_text]
        else:
            yield score_upload(scorer, upload, with_text)


def score_upload(scorer: Any, upload: Upload, with_text: bool) -> ScoredPicture:
    """Score one file, which is decoded once for the score and the thumbnail."""
    try:
        picture = read_upload(upload)
    except PictureError as error:
        return ScoredPicture(upload, with_text, scorer.postprocess({"error": str(error)}))
    record = scorer(picture, text=True) if with_text else scorer(picture)
    return ScoredPicture(upload, with_text, record, thumbnail_of(picture))


def read_upload(upload: Upload) -> Image.Image:
    """
    The picture, upright, in RGB.

    Raises:
        PictureError: If it cannot be read, or was deleted in the meantime.
    """
    if not os.path.exists(upload.path):
        raise PictureError(GONE)
    picture: Image.Image = read_image(upload.path)
    return picture


def thumbnail_of(picture: Image.Image) -> bytes:
    """A small JPEG of a picture."""
    small = picture.copy()
    small.thumbnail((THUMBNAIL, THUMBNAIL))
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=82)
    return buffer.getvalue()


# What can be made of scored pictures ---------------------------------------------------------------------------------


def explain_picture(scorer: Any, one: ScoredPicture, attribute: str | None = None) -> Explanation:
    """
    What a score rests on.

    Raises:
        PictureError: If the picture was deleted in the meantime or cannot be scored.
        ValueError: If the model does not score the attribute.
    """
    return explain(scorer, read_upload(one.upload), attribute)


def scores_csv(pictures: Sequence[ScoredPicture], attributes: Sequence[str]) -> bytes:
    """The table that `roc4mllm score -o scores.csv` would write of the same pictures, with the visitor's names."""
    with TemporaryDirectory(prefix="roc4mllm-") as folder:
        path = Path(folder, "scores.csv")
        with TableFile(path, table_columns(attributes)) as table:
            for one in pictures:
                table.write(make_row(one.upload.name, one.record, attributes))
        return path.read_bytes()


def numbered(pictures: Sequence[ScoredPicture]) -> list[tuple[str, int]]:
    """Names to choose from and the positions that they stand for, of the pictures that have a score."""
    return [(f"{place + 1}. {one.upload.name}", place) for place, one in enumerate(pictures) if not one.failed]


def chosen(pictures: Sequence[ScoredPicture], place: object) -> ScoredPicture | None:
    """The picture at a position that a page sent; `None` where no scored picture is there."""
    if isinstance(place, bool) or not isinstance(place, int) or not 0 <= place < len(pictures):
        return None
    return None if pictures[place].failed else pictures[place]


__all__ = [
    "ScoredPicture",
    "Upload",
    "attributes_of",
    "chosen",
    "explain_picture",
    "numbered",
    "score_uploads",
    "scores_csv",
    "writes_text",
]
