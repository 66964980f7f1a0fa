"""
Pictures of many requests, scored together.

Two stages, each with threads of its own: pictures are decoded and prepared one by one, which no other picture can
spoil; one thread runs the model on whatever is prepared when it becomes free, up to `max_batch`, and sleeps only while
there is nothing. Every picture ends as a record in its own future. Python has no way to stop a thread in the middle of
a picture: one that is dropped too late is finished, and its record goes nowhere.
"""

import copy
import logging
import math
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Any

from ...processing_roc4mllm.image_reading_aesthetics import open_image
from ...processing_roc4mllm.picture_batches_aesthetics import REFUSALS, PicturePreparation, Unreadable, describe
from ...processing_roc4mllm.pipeline_image_aesthetics import ImageAestheticsPipeline, is_device_lost
from .prepared_pictures import Kind, join, kind_of

logger = logging.getLogger(__name__)

Record = dict[str, Any]
Source = bytes | Unreadable


class QueueFullError(RuntimeError):
    """There is no place for these pictures now; `retry_after` seconds later there may be."""

    def __init__(self, retry_after: int):
        super().__init__(f"the queue is full, try again in {retry_after} s")
        self.retry_after = retry_after


class Picture:
    """One picture on its way through the stages."""

    def __init__(self, source: Source, attributes: tuple[str, ...] | None):
        self.source: Source | None = source
        self.attributes = attributes
        self.future: Future[Record] = Future()
        self.inputs: Any = None  # of a batch of one, once it is prepared
        self.kind: Kind = ()


class RequestBatcher:
    """
    Args:
        scorer ([`ImageAestheticsPipeline`]): What `load_scorer` returns.
        max_batch (`int`): Pictures per forward pass.
        queue_size (`int`): Pictures that may be in here at once, in whatever stage.
        max_pixels (`int`): A larger picture is an error, and is not decoded.
        num_preparers (`int`, *optional*): Threads that decode and prepare; by default one less than there are
            processors, at least one, at most four.
        on_batch (`Callable[[int], None]`, *optional*): Told the size of each batch.
    """

    def __init__(
        self,
        scorer: ImageAestheticsPipeline,
        max_batch: int,
        queue_size: int,
        max_pixels: int,
        num_preparers: int | None = None,
        on_batch: Callable[[int], None] | None = None,
    ):
        self.scorer, self.max_batch, self.queue_size, self.max_pixels = scorer, max_batch, queue_size, max_pixels
        self._on_batch = on_batch
        self._pad_token_id = 0 if scorer.processor is None else scorer.processor.tokenizer.pad_token_id or 0
        self._changed = threading.Condition()  # guards all that follows
        self._waiting: deque[Picture] = deque()
        self._prepared: deque[Picture] = deque()
        self._unfinished: set[Picture] = set()
        self._closing = False
        self._is_lost = False  # the accelerator: no batch from then on would succeed
        self._seconds_per_picture = 0.1  # a first guess
        count = num_preparers or min(4, max(1, (os.cpu_count() or 1) - 1))
        processor = scorer.preparation().prepare
        # A copy for each: a tokenizer that two threads use at once mixes their settings up, or raises.
        copies = (copy.deepcopy(processor) for _ in range(count))
        stages: list[Callable[[], None]] = [partial(self._prepare_pictures, own) for own in copies]
        self._threads = [threading.Thread(target=stage, daemon=True) for stage in (*stages, self._score_batches)]

    # ---- for requests -----------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to work."""
        self.scorer.model.eval()  # a Trainer may have left dropout on
        for thread in self._threads:
            thread.start()

    def submit(self, sources: Sequence[Source], attributes: Sequence[str] | None = None) -> list["Future[Record]"]:
        """
        Futures of the records of some pictures, in order.

        Args:
            sources (sequence): Encoded pictures; an [`Unreadable`] becomes a record with its error.
            attributes (sequence of `str`, *optional*): Tell only these.

        Raises:
            QueueFullError: If there is no place for all of them; then none is taken.
        """
        pictures = [Picture(source, tuple(attributes) if attributes else None) for source in sources]
        with self._changed:
            if len(self._unfinished) + len(pictures) > self.queue_size:
                raise QueueFullError(self.retry_after())
            self._unfinished.update(pictures)
            self._waiting.extend(pictures)
            self._changed.notify_all()
        return [picture.future for picture in pictures]

    def drop(self, futures: Sequence["Future[Record]"]) -> None:
        """Forget pictures that nobody waits for any more; what is being worked on now is finished."""
        dropped = {future for future in futures if future.cancel()}
        if not dropped:
            return
        with self._changed:
            for queue in (self._waiting, self._prepared):
                gone = [picture for picture in queue if picture.future in dropped]
                for picture in gone:
                    queue.remove(picture)
                self._unfinished.difference_update(gone)
            self._changed.notify_all()

    def __len__(self) -> int:
        """Pictures that are in here now."""
        return len(self._unfinished)

    def retry_after(self) -> int:
        """Seconds until what is in here now should be scored."""
        return max(1, math.ceil(len(self) * self._seconds_per_picture))

    @property
    def alive(self) -> bool:
        """Whether all threads are at work, on a device that answers."""
        return not self._is_lost and all(thread.is_alive() for thread in self._threads)

    def close(self) -> None:
        """Finish what was taken, then stop."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    # ---- first stage ------------------------------------------------------------------------------------------------

    def _prepare_pictures(self, processor: Any) -> None:
        while picture := self._next_waiting():
            try:
                self._prepare(picture, processor)
            except Exception as error:  # a mistake in the code; the thread has other pictures to prepare
                self._fail(picture, error)

    def _next_waiting(self) -> Picture | None:
        """The next picture to be prepared, or `None` when there will be none. Two batches ahead of the model is far
        enough: what is prepared is larger than the file was."""

        def wanted() -> bool:
            return bool(self._waiting) and len(self._prepared) < 2 * self.max_batch

        with self._changed:
            self._changed.wait_for(lambda: wanted() or (self._closing and not self._waiting))
            return self._waiting.popleft() if self._waiting else None

    def _prepare(self, picture: Picture, processor: Any) -> None:
        source, picture.source = picture.source, None  # the file's bytes are not needed again
        batch = PicturePreparation(processor, self.scorer.preparation().options)([within(source, self.max_pixels)])
        if error := batch.errors[0] or batch.failure:
            self._finish(picture, {"error": error})
            return
        picture.inputs, picture.kind = batch.inputs, kind_of(batch.inputs)
        with self._changed:
            if picture.future.cancelled():
                self._unfinished.discard(picture)
            else:
                self._prepared.append(picture)
            self._changed.notify_all()

    # ---- second stage -----------------------------------------------------------------------------------------------

    def _score_batches(self) -> None:
        while pictures := self._next_batch():
            try:
                self._score(pictures)
            except Exception as error:  # a mistake in the code; the thread has other pictures to score
                for picture in pictures:
                    self._fail(picture, error)

    def _next_batch(self) -> list[Picture]:
        """What is prepared now and can stand in one batch with the oldest of it; empty when nothing more will come."""
        with self._changed:
            self._changed.wait_for(lambda: self._prepared or (self._closing and not self._unfinished))
            kind = self._prepared[0].kind if self._prepared else ()
            batch = [picture for picture in self._prepared if picture.kind == kind][: self.max_batch]
            for picture in batch:
                self._prepared.remove(picture)
            self._changed.notify_all()
            return batch

    def _score(self, pictures: list[Picture]) -> None:
        start = time.monotonic()
        if self._on_batch is not None:
            self._on_batch(len(pictures))
        for picture, row in zip(pictures, self._rows(pictures), strict=True):
            self._finish(picture, row)
        seconds = (time.monotonic() - start) / len(pictures)
        self._seconds_per_picture += 0.1 * (seconds - self._seconds_per_picture)

    def _rows(self, pictures: list[Picture]) -> list[dict[str, Any]]:
        """Raw results, or an error, per picture. A batch that fails, as by lack of memory, is halved down to one."""
        try:
            batch = join([picture.inputs for picture in pictures], self._pad_token_id)
            rows: list[dict[str, Any]] = self.scorer.forward(batch)
            return rows
        except REFUSALS as error:
            reason = describe(error)  # only the text: the traceback holds the activations of the failed batch
            self._is_lost = self._is_lost or is_device_lost(error)
        if len(pictures) == 1:
            return [{"error": reason}]
        logger.warning("a batch of %d pictures failed (%s); trying halves of it", len(pictures), reason)
        half = len(pictures) // 2
        return self._rows(pictures[:half]) + self._rows(pictures[half:])

    # ---- ends -------------------------------------------------------------------------------------------------------

    def _finish(self, picture: Picture, row: dict[str, Any]) -> None:
        record = self.scorer.postprocess(row, attributes=picture.attributes)
        self._leave(picture)
        if picture.future.set_running_or_notify_cancel():
            picture.future.set_result(record)

    def _fail(self, picture: Picture, error: Exception) -> None:
        logger.error("a picture failed in the service itself", exc_info=error)
        self._leave(picture)
        if not picture.future.done() and picture.future.set_running_or_notify_cancel():
            picture.future.set_exception(RuntimeError(describe(error)))

    def _leave(self, picture: Picture) -> None:
        with self._changed:
            self._unfinished.discard(picture)
            self._changed.notify_all()


def within(source: Source | None, max_pixels: int) -> Any:
    """The source itself, or an error in its place if its header tells of more pixels; nothing is decoded."""
    try:
        width, height = open_image(source).size
    except Exception:  # on damaged headers decoders raise nearly anything
        return source  # reading it will raise the same, and tell
    if width * height > max_pixels:
        return Unreadable(f"too many pixels: {width} x {height}, at most {max_pixels} are read here")
    return source


__all__ = ["QueueFullError", "RequestBatcher"]
