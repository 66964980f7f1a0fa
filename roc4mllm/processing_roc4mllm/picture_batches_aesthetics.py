"""
From sources of pictures to batches for a model, in this process or in the workers of a `DataLoader`.

A picture that cannot be read or prepared keeps its place as an item with an `error`.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch.utils.data import DataLoader, Dataset, IterableDataset
from transformers import BatchFeature

from .image_reading_aesthetics import read_image


@dataclass
class Batch:
    """
    Pictures prepared together.

    Args:
        sources (`list`): What came in, in order; kept so that a part of the batch can be prepared again.
        errors (`list[str | None]`): Why a picture could not be prepared, `None` where it could.
        inputs (`BatchFeature`, *optional*): Model inputs of the pictures without an error, in order.
    """

    sources: list
    errors: list[str | None]
    inputs: BatchFeature | None = None

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
        pictures, errors = zip(*(read_or_error(source) for source in sources), strict=True)
        batch = Batch(list(sources), list(errors))
        readable = [pictures[index] for index in batch.good]
        if not readable:
            return batch
        try:
            batch.inputs = self.prepare(images=readable, **self.options)
        except (ValueError, RuntimeError, ZeroDivisionError, MemoryError) as error:
            if len(readable) == 1:
                batch.errors[batch.good[0]] = describe(error)
            else:
                self._prepare_apart(batch, pictures)
        return batch

    def _prepare_apart(self, batch: Batch, pictures: Sequence) -> None:
        """One picture spoiled the batch: find it, and prepare the others together."""
        for index in batch.good:
            try:
                self.prepare(images=[pictures[index]], **self.options)
            except (ValueError, RuntimeError, ZeroDivisionError, MemoryError) as error:
                batch.errors[index] = describe(error)
        if batch.good:
            batch.inputs = self.prepare(images=[pictures[index] for index in batch.good], **self.options)


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
    text = " ".join(str(error).split())
    return text if isinstance(error, ValueError) and text else f"{type(error).__name__}: {text}"


@dataclass
class Unreadable:
    """Stands for an element that its own container could not hand out."""

    error: str


class SourceList(Dataset):
    """A sequence of sources; one whose element cannot be fetched (a damaged `datasets` column) keeps its place."""

    def __init__(self, sources: Sequence):
        self.sources = sources

    def __len__(self) -> int:
        return len(self.sources)

    def __getitem__(self, index: int):
        try:
            return self.sources[index]
        except (OSError, ValueError, SyntaxError) as error:
            return Unreadable(describe(error))


class SourceStream(IterableDataset):
    """An iterable of sources, read as it comes."""

    def __init__(self, sources: Iterable):
        self.sources = sources

    def __iter__(self):
        return iter(self.sources)


def batches(sources, preparation: PicturePreparation, batch_size: int, num_workers: int) -> DataLoader:
    """
    Prepared batches in input order.

    Args:
        sources (sequence or iterable): Pictures; an iterable is read lazily, by one worker at most.
        preparation ([`PicturePreparation`]): Reads and prepares.
        batch_size (`int`): Pictures per batch.
        num_workers (`int`): Processes that read and prepare; 0 does it in this one.
    """
    if hasattr(sources, "__len__") and hasattr(sources, "__getitem__"):
        dataset = SourceList(sources)
    else:
        dataset, num_workers = SourceStream(sources), min(num_workers, 1)
    return DataLoader(dataset, batch_size=batch_size, num_workers=num_workers, collate_fn=preparation)


__all__ = ["Batch", "PicturePreparation", "batches", "describe"]
