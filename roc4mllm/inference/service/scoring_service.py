"""
What the routes of the HTTP service share: a request's way from its body to its records, and when it is refused.
"""

import asyncio
import io
from collections.abc import Coroutine, Sequence
from concurrent.futures import Future
from typing import Any, TypeVar

from fastapi import HTTPException, Request
from PIL import Image
from starlette.requests import ClientDisconnect

from ...processing_roc4mllm.image_reading_aesthetics import PictureError
from ...processing_roc4mllm.picture_batches_aesthetics import Unreadable
from ...processing_roc4mllm.pipeline_image_aesthetics import ImageAestheticsPipeline
from .limits import ServiceLimits
from .metrics import ServiceMetrics
from .request_batcher import QueueFullError, Record, RequestBatcher, Source
from .request_bodies import HeldBytes, Share, UrlList, read_body
from .url_pictures import UrlReader

T = TypeVar("T")


class ScoringService:
    """
    What the routes share.

    Args:
        scorer ([`ImageAestheticsPipeline`]): What `load_scorer` returns.
        limits ([`ServiceLimits`]): What clients may ask.
        url_reader ([`UrlReader`], *optional*): Fetches what URLs lead to; without it they are refused.
    """

    def __init__(self, scorer: ImageAestheticsPipeline, limits: ServiceLimits, url_reader: UrlReader | None = None):
        self.scorer, self.limits, self.url_reader = scorer, limits, url_reader
        self.metrics = ServiceMetrics(lambda: len(self.batcher))
        self.batcher = RequestBatcher(
            scorer,
            max_batch=limits.max_batch,
            queue_size=limits.queue_size,
            max_pixels=limits.max_pixels,
            on_batch=self.metrics.batch_size.observe,
        )
        self.held = HeldBytes(limits.held_bytes)
        self.draining = False  # set when the process was told to end

    async def start(self) -> None:
        """
        Score a first picture: what is slow only once is over before a client comes.

        Raises:
            RuntimeError: If the model cannot score it.
        """
        self.batcher.start()
        grey = io.BytesIO()
        Image.new("RGB", (224, 224), "grey").save(grey, "PNG")
        (future,) = self.batcher.submit([grey.getvalue()])
        record = await asyncio.wrap_future(future)
        if record["error"]:
            raise RuntimeError(f"the model cannot score a grey picture: {record['error']}")

    @property
    def ready(self) -> bool:
        """Whether new pictures are taken."""
        return self.batcher.alive and not self.draining

    def check_ready(self) -> None:
        """Refuse new work where none is taken."""
        if not self.ready:
            raise HTTPException(
                503, "the service takes no more pictures, it is shutting down or broken", {"Retry-After": "5"}
            )

    async def records(self, request: Request, attributes: Sequence[str] | None) -> list[Record]:
        """Records of a request's pictures, in order."""
        self.check_ready()
        if len(self.batcher) >= self.limits.queue_size:  # said before the body is read
            raise too_many(QueueFullError(self.batcher.retry_after()))
        with self.held.share() as share:
            body = await read_body(request, self.limits, share)
            sources = await self._fetch(request, body, share) if isinstance(body, UrlList) else list(body)
            del body  # the batcher lets go of each picture once it is prepared
            try:
                futures = self.batcher.submit(sources, attributes)
            except QueueFullError as error:
                raise too_many(error) from error
            del sources
            records = await self._results(request, futures)
        request.state.pictures, request.state.failed = len(records), self.metrics.scored(records)
        return records

    async def _results(self, request: Request, futures: list["Future[Record]"]) -> list[Record]:
        """The records, unless the client leaves or the time is over; then nothing of it is left in the queue."""
        waiting = list(map(asyncio.wrap_future, futures))

        async def all_of_them() -> list[Record]:
            return [await record for record in waiting]

        try:
            async with asyncio.timeout(self.limits.timeout):
                return await unless_client_leaves(request, all_of_them())
        except TimeoutError as error:
            raise HTTPException(504, f"not scored within {self.limits.timeout:g} s", {"Retry-After": "5"}) from error
        finally:
            self.batcher.drop(futures)

    async def _fetch(self, request: Request, body: UrlList, share: Share) -> list[Source]:
        """What the URLs lead to, an error in the place of what cannot be fetched."""
        reader = self.url_reader
        if reader is None:
            raise HTTPException(403, "URLs are not fetched: the service was started without --allow-urls")

        async def fetch(url: str) -> Source:
            held = 0

            def hold(size: int) -> None:
                nonlocal held
                if share.size + size > self.limits.max_bytes:
                    raise PictureError(
                        f"too large: a request's pictures together, at most {self.limits.max_bytes} bytes"
                    )
                share.grow(size)
                held += size

            try:
                return await reader.read(url, hold)
            except PictureError as error:
                share.shrink(held)  # what came of it was thrown away
                return Unreadable(str(error))

        async def fetch_all() -> list[Source]:
            tasks = [asyncio.create_task(fetch(url)) for url in body.urls]
            try:
                return await asyncio.gather(*tasks)
            finally:
                for task in tasks:  # if one was refused, the others stop too
                    task.cancel()

        return await unless_client_leaves(request, fetch_all())

    def facts(self) -> dict[str, Any]:
        """What `/model` tells."""
        record = self.scorer.postprocess({"error": "no picture"})  # all that is known without one
        names = ("model", "revision", "version", "score_range", "higher_is_better")
        ranges = record.get("attribute_ranges") or dict.fromkeys(record["attributes"], record["score_range"])
        return {name: record[name] for name in names} | {"attributes": ranges, "limits": vars(self.limits)}


async def unless_client_leaves(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """
    Raises:
        ClientDisconnect: If the connection breaks off before the work is done, which is cancelled then.
    """
    task, leaving = asyncio.create_task(work), asyncio.create_task(left(request))
    try:
        await asyncio.wait((task, leaving), return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientDisconnect
        return task.result()
    finally:
        task.cancel()
        leaving.cancel()


async def left(request: Request) -> None:
    """Wait until the client is gone; its body has been read."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def too_many(error: QueueFullError) -> HTTPException:
    """The answer to what the queue has no place for."""
    return HTTPException(429, str(error), {"Retry-After": str(error.retry_after)})


__all__ = ["ScoringService"]
