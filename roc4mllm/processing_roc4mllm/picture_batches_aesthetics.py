"""
Pictures to one batch of a model's inputs. A picture that cannot be read or prepared keeps its place with an error.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from transformers import BatchFeature

from .image_reading_aesthetics import read_image

# What processors and models raise on a picture they cannot take. TypeError and AttributeError are mistakes and stop.
REFUSALS = (ValueError, RuntimeError, ArithmeticError, LookupError, MemoryError)


@dataclass
class Batch:
    """
    Pictures prepared together.

    Args:
        sources (`list`): What came in, in order; kept so that a part of the batch can be prepared again.
        errors (`list[str | None]`): Why a picture could not be prepared, `None` where it could.
        inputs (`BatchFeature`, *optional*): Model inputs of the pictures without an error, in order.
        failure (`str`, *optional*): Why these pictures, each of which can be prepared, could not be together; there
            are no inputs then, and parts of the batch may be tried.
        places (`list[int]`, *optional*): Where the sources stand in the stream that the batch was taken from.
    """

    sources: list
    errors: list[str | None]
    inputs: Any = None
    failure: str | None = None
    places: list[int] = field(default_factory=list)

    @property
    def good(self) -> list[int]:
        """Indices of the pictures that `inputs` holds."""
        return [index for index, error in enumerate(self.errors) if error is None]


@dataclass
class PicturePreparation:
    """
    Reads pictures and prepares them for the model; light enough to be sent to worker processes.

    Args:
        prepare (callable): A processor or an image processor.
        options (`dict`, *optional*): Its arguments besides the pictures.
    """

    prepare: Callable[..., BatchFeature]
    options: dict[str, Any] = field(default_factory=dict)

    def __call__(self, sources: Sequence) -> Batch:
        """Read every source, then prepare those that could be read in one call."""
        read = [read_or_error(source) for source in sources]
        batch = Batch(list(sources), [error for _, error in read])
        pictures = [picture for picture, _ in read]
        if not batch.good or self._prepare_together(batch, pictures):
            return batch
        for index in batch.good:  # one picture spoiled the batch: find it
            batch.errors[index] = self._error_alone(pictures[index])
        if batch.good:
            self._prepare_together(batch, pictures)
        return batch

    def _prepare_together(self, batch: Batch, pictures: Sequence) -> bool:
        """Set the batch's inputs, or its failure."""
        try:
            batch.inputs = self.prepare(images=[pictures[index] for index in batch.good], **self.options)
            batch.failure = None
        except REFUSALS as error:
            batch.failure = describe(error)
        return batch.failure is None

    def _error_alone(self, picture) -> str | None:
        """Why a picture cannot be prepared, if it cannot."""
        try:
            self.prepare(images=[picture], **self.options)
        except REFUSALS as error:
            return describe(error)
        return None


@dataclass
class Unreadable:
    """Stands for an element that its own container could not hand out."""

    error: str


def read_or_error(source) -> tuple[Any, str | None]:
    """`(picture, None)`, or `(None, why not)`."""
    if isinstance(source, Unreadable):
        return None, source.error
    try:
        return read_image(source), None
    except (ValueError, MemoryError) as error:
        return None, describe(error)


def describe(error: BaseException) -> str:
    """One line about an error."""
    text, name = " ".join(str(error).split()), type(error).__name__
    if not text:
        return name
    return text if isinstance(error, ValueError) else f"{name}: {text}"


__all__ = ["REFUSALS", "Batch", "PicturePreparation", "Unreadable", "describe"]
