"""
A stream of sources of pictures to batches, prepared in this process or in the workers of a `DataLoader`.

The sources are cut into windows, each of which one worker reads. Within a window pictures are put together by their
size, because a batch takes as long as its largest member where a model keeps the resolution, and a batch ends early
when its pictures would take too much memory. So batches come out of order; `Batch.places` says where they belong.
"""

import ctypes
import io
import os
import signal
import sys
import time
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset, get_worker_info
from transformers import BatchFeature

from .picture_batches_aesthetics import Batch, PicturePreparation, Unreadable, describe

PATIENCE = 1.0  # seconds that a window may take to fill: names on a pipe may come one a second
LOOK_AHEAD = 4  # batches that a window of a worker can be put together from
MAX_BATCH_PIXELS = 100_000_000  # decoded together, 300 MB as RGB; one picture alone may have more
UNKNOWN_SIZE = (5_000, 5_000)  # counted for a picture whose head is not at hand
PR_SET_PDEATHSIG = 1  # of Linux' prctl


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


class SourceStream:
    """An iterable of sources, read as it comes in the process that asks; an error of its own is its last element."""

    def __init__(self, sources: Iterable):
        self.sources = sources
        self.broken: str | None = None

    def __iter__(self) -> Iterator:
        try:
            yield from self.sources
        except Exception as error:  # whatever the iterable's own code raises
            self.broken = describe(error)
            yield Unreadable(self.broken)

    def __getitem__(self, source):
        """What workers are sent of a stream is the source itself; of a list, its index."""
        return source

    def __getstate__(self) -> dict[str, Any]:
        return {"sources": None, "broken": None}  # a generator cannot be sent to a worker, and need not be


def batches(sources, preparation: PicturePreparation, batch_size: int, num_workers: int) -> Iterator[Batch]:
    """
    Prepared batches; all pictures of a window come before those of the next.

    Args:
        sources (sequence or iterable): Pictures; an iterable is read lazily, by this process.
        preparation ([`PicturePreparation`]): Reads and prepares.
        batch_size (`int`): Most pictures per batch.
        num_workers (`int`): Processes that read and prepare; 0 does it in this one.

    Raises:
        TypeError: If `sources` is a set.
        ValueError: If `batch_size` is not positive.
        RuntimeError: After the last batch, if an iterable raised an error of its own. A generator has ended then, and
            nobody knows how many pictures were to come.
    """
    if not isinstance(batch_size, Integral) or batch_size < 1:
        raise ValueError(f"batch_size should be a positive integer value, but got batch_size={batch_size}")
    dataset = as_dataset(sources)
    items = dataset if isinstance(dataset, SourceStream) else range(len(dataset))
    under_way: dict[int, Any] = {}  # by place, what workers were sent
    loader = DataLoader(
        WindowItems(dataset),
        batch_sampler=windows(items, window_size(dataset, batch_size, num_workers), under_way),
        collate_fn=WindowPreparation(preparation, batch_size),
        num_workers=num_workers,
        prefetch_factor=1 if num_workers else None,  # a window is four batches; more would only take memory
        worker_init_fn=end_with_parent if num_workers else None,
    )
    for window in loader:
        for batch in window:
            batch.sources = UnderWay(dataset, [under_way.pop(place) for place in batch.places])
            yield as_tensors(batch)
    if isinstance(dataset, SourceStream) and dataset.broken is not None:
        raise RuntimeError(
            f"The iterable of pictures broke off at an error of its own ({dataset.broken}); what follows is lost. "
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


def window_size(dataset: SourceList | SourceStream, batch_size: int, num_workers: int) -> int:
    """Sources per window: without workers one batch, so that nothing is read before its turn."""
    if num_workers == 0:
        return batch_size
    if isinstance(dataset, SourceStream):
        return LOOK_AHEAD * batch_size
    share = len(dataset) // (2 * num_workers)  # so that there is work for all
    return min(max(share, batch_size), LOOK_AHEAD * batch_size)


def windows(items: Iterable, size: int, under_way: dict[int, Any]) -> Iterator[list[tuple[int, Any]]]:
    """Items with their places, `size` at a time, fewer where they come slowly; also noted in `under_way`."""
    window: list[tuple[int, Any]] = []
    begun = 0.0
    for place, item in enumerate(items):
        begun = begun if window else time.monotonic()
        under_way[place] = item
        window.append((place, item))
        if len(window) == size or time.monotonic() - begun > PATIENCE:
            yield window
            window = []
    if window:
        yield window


@dataclass
class UnderWay(Sequence):
    """The sources of a batch, fetched again when they are asked for: they are not sent back by workers."""

    sources: SourceList | SourceStream
    keys: list

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, index):
        return self.sources[self.keys[index]]


@dataclass
class WindowItems(Dataset):
    """What a `DataLoader` fetches for an item of a window: its place and its source, remote files as their bytes."""

    sources: SourceList | SourceStream

    def __getitem__(self, item: tuple[int, Any]) -> tuple[int, Any]:
        place, key = item
        source = self.sources[key]
        if not hasattr(source, "read_bytes") or isinstance(source, os.PathLike):
            return place, source
        try:
            return place, source.read_bytes()
        except Exception as error:  # whatever a file system's own code raises
            return place, Unreadable(describe(error))


@dataclass
class WindowPreparation:
    """The batches of one window, prepared one after the other."""

    preparation: PicturePreparation
    batch_size: int

    def __call__(self, window: Sequence[tuple[int, Any]]) -> list[Batch]:
        done = []
        for part in by_size(window, self.batch_size):
            batch = self.preparation([source for _, source in part])
            batch.places = [place for place, _ in part]
            done.append(as_arrays(batch) if get_worker_info() else batch)
        return done


def as_arrays(batch: Batch) -> Batch:
    """
    A batch as a worker sends it: without its sources, and with arrays for tensors, which would go through shared
    memory. Of that there are 64 MB in a container of Docker's, and a worker that finds none says nothing and waits.
    """
    batch.sources = []
    if batch.inputs is not None:
        values = {key: value.numpy() if torch.is_tensor(value) else value for key, value in batch.inputs.items()}
        batch.inputs = WorkerInputs(values, [key for key, value in batch.inputs.items() if torch.is_tensor(value)])
    return batch


def as_tensors(batch: Batch) -> Batch:
    """A batch as the model takes it."""
    if isinstance(batch.inputs, WorkerInputs):
        values, tensors = batch.inputs.values, batch.inputs.tensors
        batch.inputs = BatchFeature(values | {key: torch.from_numpy(values[key]) for key in tensors})
    return batch


@dataclass
class WorkerInputs:
    """Model inputs on their way from a worker, some of which were tensors."""

    values: dict[str, Any]
    tensors: list[str]


def end_with_parent(worker: int) -> None:
    """Let a worker be killed with the process that started it: blocked on a full pipe, it would stay for ever."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def by_size(window: Sequence[tuple[int, Any]], batch_size: int) -> Iterator[list[tuple[int, Any]]]:
    """The window in parts for one batch each: neighbours in size, at most `batch_size` and MAX_BATCH_PIXELS."""
    sizes = [(0, 0)] if len(window) == 1 else [size_of(source) for _, source in window]
    if len(window) > batch_size:  # else the order is the stream's own
        order = sorted(range(len(window)), key=lambda index: sizes[index])
        window, sizes = [window[index] for index in order], [sizes[index] for index in order]
    part: list[tuple[int, Any]] = []
    pixels = 0
    for item, (width, height) in zip(window, sizes, strict=True):
        if part and (len(part) == batch_size or pixels + width * height > MAX_BATCH_PIXELS):
            yield part
            part, pixels = [], 0
        part.append(item)
        pixels += width * height
    yield part


def size_of(source) -> tuple[int, int]:
    """Width and height, from the head of a file; zeros where reading will fail."""
    if isinstance(source, dict):
        source = source.get("path") if source.get("bytes") is None else source["bytes"]
    if isinstance(source, Image.Image):
        return source.size
    if isinstance(source, bytes):
        source = io.BytesIO(source)
    elif isinstance(source, str) and "://" in source:
        return UNKNOWN_SIZE
    elif not isinstance(source, str | os.PathLike) or not os.path.isfile(source):
        return 0, 0
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a bomb: who decodes it refuses it
            with Image.open(source) as image:
                return image.size
    except Exception:  # decoders raise nearly anything; who reads the picture meets it again and says so
        return 0, 0


__all__ = ["SourceList", "batches"]
