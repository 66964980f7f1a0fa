"""The name and shape in which the authors' scripts score, so that they change one import."""

import os
from typing import Any

from ..processing_roc4mllm.comments_aesthetics import with_numbers
from ..processing_roc4mllm.pipeline_image_aesthetics import is_picture
from .load_scorer import load_scorer


class Assessment:
    """
    A scorer that answers in sentences; [`load_scorer`] gives more, and records instead of errors.

    ```python
    >>> texts, scores = roc4mllm.Assessment("Ricardo-M/ROC4MLLM")(["a.jpg", "b.jpg"])
    ```

    Args:
        pretrained (`str` or `os.PathLike`): Hub name or folder of a ROC4MLLM model, in its authors' format or ours.
        device (`str`, `int` or `torch.device`, *optional*): As in [`~transformers.pipeline`].
        **kwargs: As in [`load_scorer`]: `dtype`, `batch_size`, ….

    Raises:
        ValueError: If the model writes no text.
    """

    def __init__(self, pretrained: str | os.PathLike[str], device: Any = None, **kwargs: Any):
        self.scorer = load_scorer(pretrained, device=device, **kwargs)
        if self.scorer.processor is None:
            raise ValueError(f"{os.fspath(pretrained)!r} writes no text; score with roc4mllm.load_scorer.")

    def __call__(self, images: Any, precision: int = 4) -> tuple[list[str], list[float]]:
        """
        Args:
            images (sequence): Pictures as in [`load_scorer`]; a single one counts as a list of one.
            precision (`int`, *optional*, defaults to 4): Decimals in the texts.

        Returns:
            `tuple[list[str], list[float]]`: For each picture, the scoring sentence with its score, and the score
            itself, unrounded; both in `score_range`. (Of the authors' two wrappers one gives the scores first.)

        Raises:
            PictureError: If a picture fails.
        """
        pictures = [images] if is_picture(images) else list(images)
        records = self.scorer(pictures, strict=True)
        sentence = self.scorer.processor.scoring_sentence()
        texts = [with_numbers(sentence, list(record["attributes"].values()), precision) for record in records]
        return texts, [record["score"] for record in records]


__all__ = ["Assessment"]
