"""
Scorers that read what the score head reads: to fit a person's taste, and to score by it.

Both are the pipeline of an existing scorer with the same model, processor and options.
Names of axes: B pictures, A attributes, C features.
"""

import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from ...processing_roc4mllm.picture_stream_aesthetics import SourceList
from ...processing_roc4mllm.pipeline_image_aesthetics import ImageAestheticsPipeline
from ..tables.score_table import GENERAL_SCORE
from .personal_taste import PersonalTaste


class FeatureScorer(ImageAestheticsPipeline):
    """
    A scorer whose records also hold `features`, a `torch.Tensor` of shape `(num_features,)` on the CPU or `None`: what
    the score head read for the first attribute asked for.

    Args:
        scorer ([`ImageAestheticsPipeline`]): What `load_scorer` returns.
    """

    _row_values = (*ImageAestheticsPipeline._row_values, "features")

    def __init__(self, scorer: ImageAestheticsPipeline):
        self.__dict__.update(scorer.__dict__)

    def _score(self, inputs: Any) -> Any:
        with reading_head_inputs(self.model.score_head) as seen:
            output: Any = super()._score(inputs)  # type: ignore[no-untyped-call]
        # A head reads one row for each picture, or one for each of its scores, in their order.
        features = seen[0].reshape(len(output.scores), -1, seen[0].shape[-1])  # (B, 1 or A, C)
        output["features"] = features.expand(-1, output.scores.shape[1], -1)  # (B, A, C)
        return output

    def postprocess(self, row: dict[str, Any], *args: Any, **kwargs: Any) -> dict[str, Any]:
        """The record of one picture."""
        record: dict[str, Any] = super().postprocess(row, *args, **kwargs)
        column = list(self.model.config.attributes).index(next(iter(record["attributes"])))
        return record | {"features": None if record["error"] else row["features"][column]}


class PersonalScorer(FeatureScorer):
    """
    A scorer by one person's taste: `score`, `normalized` and the entry in `attributes` are the personal ones, and
    `general_score` is the model's own. `std` and `distribution` are `None`: they describe how many people would vote.

    Args:
        scorer ([`ImageAestheticsPipeline`]): What `load_scorer` returns.
        taste ([`PersonalTaste`], `str` or `os.PathLike`): A taste, or the file of one.

    Raises:
        ValueError: If the taste was made for another model, or the file is none.
        OSError: If the file cannot be read.
    """

    _row_values = ("scores", GENERAL_SCORE)

    def __init__(self, scorer: ImageAestheticsPipeline, taste: PersonalTaste | str | os.PathLike[str]):
        super().__init__(scorer)
        self.taste = taste if isinstance(taste, PersonalTaste) else PersonalTaste.load(taste)
        self.taste.check_model(self.model)

    def check_first(self, attributes: Sequence[str] | None) -> None:
        """Refuse attributes of which the first, whose score is `score`, is not the one that the taste is of."""
        asked = attributes or self._postprocess_params.get("attributes") or self.model.config.attributes
        if asked[0] != self.taste.attribute:
            raise ValueError(
                f"this personal taste is of {self.taste.attribute!r}, but the first attribute asked for is "
                f"{asked[0]!r}; ask for {self.taste.attribute!r} first"
            )

    def _sanitize_parameters(self, *args: Any, **kwargs: Any) -> Any:
        self.check_first(kwargs.get("attributes"))
        return super()._sanitize_parameters(*args, **kwargs)  # type: ignore[no-untyped-call]

    def _score(self, inputs: Any) -> Any:
        output = super()._score(inputs)
        column = list(self.model.config.attributes).index(self.taste.attribute)
        general = output.scores[:, column]  # (B,)
        personal = self.taste.personal_scores(
            general.double().cpu().numpy(), output["features"][:, column].double().cpu().numpy()
        )  # (B,)
        output[GENERAL_SCORE] = general
        output.scores = output.scores.clone()
        output.scores[:, column] = torch.from_numpy(personal).to(general)
        return output

    def postprocess(self, row: dict[str, Any], *args: Any, **kwargs: Any) -> dict[str, Any]:
        """The record of one picture."""
        record: dict[str, Any] = super(FeatureScorer, self).postprocess(row, *args, **kwargs)
        return record | {GENERAL_SCORE: None if record["error"] else row[GENERAL_SCORE].item()}

    def save_pretrained(self, *args: Any, **kwargs: Any) -> None:
        """
        Raises:
            ValueError: Always: a folder would keep the model and lose the taste.
        """
        raise ValueError("a personal scorer is a model and a taste; keep the model's folder and the taste's file")


@contextmanager
def reading_head_inputs(score_head: torch.nn.Module) -> Iterator[list[torch.Tensor]]:
    """While active, the list that it gives takes up what `score_head` reads on this thread."""
    thread, seen = threading.get_ident(), []  # two threads may score with one model

    def keep(module: Any, args: tuple[torch.Tensor, ...]) -> None:
        if threading.get_ident() == thread:
            seen.append(args[0].detach())

    handle = score_head.register_forward_pre_hook(keep)
    try:
        yield seen
    finally:
        handle.remove()


def read_features(
    scorer: ImageAestheticsPipeline, pictures: Sequence[Any], attribute: str, **options: Any
) -> Iterator[dict[str, Any]]:
    """
    Records of pictures as `scorer` gives them, each with `features`, a `np.ndarray` of shape `(num_features,)` in
    float64, or `None` where the picture failed.

    Args:
        scorer ([`ImageAestheticsPipeline`]): What `load_scorer` returns.
        pictures (sequence): Pictures as in a call of the scorer.
        attribute (`str`): Whose features.
        **options: `batch_size`, `num_workers`.
    """
    for record in FeatureScorer(scorer)(SourceList(pictures), attributes=[attribute], **options):
        features = record["features"]
        yield record | {"features": None if features is None else features.double().numpy().astype(np.float64)}


__all__ = ["FeatureScorer", "PersonalScorer", "read_features"]
