"""
From sources of pictures to batches for a model, in this process or in the workers of a `DataLoader`.

A picture that cannot be read or prepared keeps its place as an item with an `error`.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch.utils.data import DataLoader, Dataset, IterableDataset
from transformers import BatchFeature

from .image_reading_aesthetics import read_image

# What processors raise on a picture they cannot take. TypeError and AttributeError are programming mistakes and stop.
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
    """

    sources: list
    errors: list[str | None]
    inputs: Any = None
    failure: str | None = None

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
        except Exception as error:  # whatever a container's own decoder raises
            if index >= len(self):
                raise  # which ends a `for` loop
            return Unreadable(describe(error))


class SourceStream(IterableDataset):
    """An iterable of sources, read as it comes; an error of its own is its last element."""

    def __init__(self, sources: Iterable):
        self.sources = sources

    def __iter__(self) -> Iterator:
        try:
            yield from self.sources
        except Exception as error:  # whatever the iterable's own code raises
            yield Unreadable(describe(error))


def batches(sources, preparation: PicturePreparation, batch_size: int, num_workers: int) -> Iterator[Batch]:
    """
    Prepared batches in input order.

    Args:
        sources (sequence or iterable): Pictures; an iterable is read lazily, by one worker at most.
        preparation ([`PicturePreparation`]): Reads and prepares.
        batch_size (`int`): Pictures per batch.
        num_workers (`int`): Processes that read and prepare; 0 does it in this one.

    Raises:
        TypeError: If `sources` is a set.
        RuntimeError: After the last batch, if an iterable raised an error of its own. A generator has ended then, and
            nobody knows how many pictures were to come.
    """
    dataset = as_dataset(sources)
    is_stream = isinstance(dataset, SourceStream)
    workers = min(num_workers, 1) if is_stream else num_workers
    for batch in DataLoader(dataset, batch_size=batch_size, num_workers=workers, collate_fn=preparation):
        yield batch
        if is_stream and isinstance(last := batch.sources[-1], Unreadable):
            raise RuntimeError(
                f"The iterable of pictures broke off at an error of its own ({last.error}); what follows is lost. "
                "Pass a list of paths or the column of a data set: they go on after a broken picture."
            )


def as_dataset(sources) -> SourceList | SourceStream:
    """Sources that a `DataLoader` can read."""
    if isinstance(sources, set | frozenset):
        raise TypeError("got a set of pictures, which has no order; expected a list, so that scores can be told apart")
    if hasattr(sources, "iloc"):  # pandas, whose [index] looks for a label
        sources = sources.tolist()
    if hasattr(sources, "__len__") and hasattr(sources, "__getitem__"):
        return SourceList(sources)
    return SourceStream(sources)


__all__ = ["Batch", "PicturePreparation", "batches", "describe"]
