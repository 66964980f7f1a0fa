"""
The HTTP service: pictures in, records out, those of many clients scored together.

`create_app` makes the application; `service_server` runs it.
"""

import asyncio
import io
import secrets
from collections.abc import AsyncIterator, Coroutine, Sequence
from concurrent.futures import Future
from contextlib import asynccontextmanager
from typing import Annotated, Any, TypeVar

from fastapi import Depends, FastAPI, HTTPException, Query, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse
from fastapi.security import APIKeyHeader, HTTPAuthorizationCredentials, HTTPBearer
from PIL import Image
from starlette.requests import ClientDisconnect

from ..processing_roc4mllm.image_reading_aesthetics import PictureError
from ..processing_roc4mllm.picture_batches_aesthetics import Unreadable
from ..processing_roc4mllm.pipeline_image_aesthetics import ImageAestheticsPipeline, __version__
from ..processing_roc4mllm.prompt_roc4mllm import check_attributes
from .request_batcher import QueueFullError, Record, RequestBatcher, Source
from .request_bodies import HeldBytes, Share, UrlList, read_body
from .request_recorder import RequestRecorder
from .service_docs import BODY, DESCRIPTION, RESPONSES, ModelFacts, docs_page
from .service_limits import ServiceLimits
from .service_metrics import CONTENT_TYPE, ServiceMetrics
from .url_pictures import UrlReader

T = TypeVar("T")

CLIENT_LEFT = 499  # nobody reads it; for log and metrics

Attributes = Annotated[str | None, Query(description="score only these, separated by commas; the first is `score`")]
Strict = Annotated[bool, Query(description="answer 422 if a picture fails, with the same records")]


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
            raise HTTPException(503, "the service is shutting down", {"Retry-After": "5"})

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
            try:
                content = await reader.read(url)
            except PictureError as error:
                return Unreadable(str(error))
            if share.size + len(content) > self.limits.max_bytes:
                return Unreadable(f"too large: all pictures of a request, at most {self.limits.max_bytes} bytes")
            share.grow(len(content))
            return content

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


def key_check(keys: Sequence[str]) -> Any:
    """A dependency that refuses whoever does not know one of the keys."""
    encoded = [key.encode() for key in keys]

    def check(
        bearer: Annotated[HTTPAuthorizationCredentials | None, Depends(HTTPBearer(auto_error=False))],
        header: Annotated[str | None, Depends(APIKeyHeader(name="X-API-Key", auto_error=False))],
    ) -> None:
        given = (bearer.credentials if bearer else header or "").encode()
        # every key is compared, each in a time that tells nothing about where they differ
        if not sum([secrets.compare_digest(given, key) for key in encoded]):
            raise HTTPException(401, "a valid API key is needed", {"WWW-Authenticate": "Bearer"})

    return Depends(check)


def create_app(
    scorer: ImageAestheticsPipeline,
    limits: ServiceLimits | None = None,
    api_keys: Sequence[str] = (),
    allow_urls: bool = False,
    url_reader: UrlReader | None = None,
) -> FastAPI:
    """
    The service as an ASGI application; `app.state.service` is its [`ScoringService`].

    Args:
        scorer ([`ImageAestheticsPipeline`]): What `load_scorer` returns.
        limits ([`ServiceLimits`], *optional*): What clients may ask.
        api_keys (sequence of `str`, *optional*): Who knows one of them may score; with none, everybody may.
        allow_urls (`bool`, *optional*, defaults to `False`): Fetch pictures from public addresses.
        url_reader ([`UrlReader`], *optional*): Does so, within limits of its own.
    """
    limits = limits or ServiceLimits()
    if allow_urls and url_reader is None:
        url_reader = UrlReader(limits.max_bytes, limits.timeout / 2)
    service = ScoringService(scorer, limits, url_reader)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        await service.start()
        yield
        await asyncio.to_thread(service.batcher.close)

    app = FastAPI(
        title="roc4mllm",
        version=__version__,
        description=DESCRIPTION,
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
    )
    app.state.service = service
    add_open_routes(app, service)
    add_scoring_routes(app, service, [key_check(api_keys)] if api_keys else [])
    paths = frozenset(route.path for route in app.routes if hasattr(route, "path"))
    app.add_middleware(RequestRecorder, metrics=service.metrics, paths=paths)
    return app


def add_open_routes(app: FastAPI, service: ScoringService) -> None:
    """What needs no key."""

    @app.get("/health", summary="Whether the process is alive")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/ready", summary="Whether pictures are taken", responses={503: RESPONSES[503]})
    async def ready() -> dict[str, str]:
        service.check_ready()
        return {"status": "ready"}

    @app.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        return HTMLResponse(docs_page(app.openapi()), headers={"Content-Security-Policy": "style-src 'unsafe-inline'"})

    @app.get("/", include_in_schema=False)
    async def root() -> RedirectResponse:
        return RedirectResponse("docs")


def add_scoring_routes(app: FastAPI, service: ScoringService, guards: list[Any]) -> None:
    """What needs a key, if there are any."""
    known = list(service.scorer.model.config.attributes)

    def chosen(attributes: str | None) -> list[str] | None:
        names = [name.strip() for name in attributes.split(",")] if attributes is not None else None
        try:
            check_attributes(names, known)
        except (TypeError, ValueError) as error:
            raise HTTPException(422, str(error)) from error
        return names

    @app.post("/score", summary="Score pictures", dependencies=guards, responses=RESPONSES, openapi_extra=BODY)
    async def score(request: Request, attributes: Attributes = None, strict: Strict = False) -> Response:
        try:
            records = await service.records(request, chosen(attributes))
        except ClientDisconnect:
            return Response(status_code=CLIENT_LEFT)
        failed = any(record["error"] for record in records)
        return JSONResponse(records, status_code=422 if strict and failed else 200)

    @app.post("/api/roc4mllm", summary="The path of the authors' server", dependencies=guards, openapi_extra=BODY)
    async def score_as_the_authors(request: Request) -> Response:
        try:
            records = await service.records(request, None)
        except ClientDisconnect:
            return Response(status_code=CLIENT_LEFT)
        return JSONResponse(records[0] if len(records) == 1 else records)

    @app.get("/model", summary="What scores, in which units, within which limits", dependencies=guards)
    async def model() -> ModelFacts:
        return ModelFacts.model_validate(service.facts())

    @app.get("/metrics", summary="For Prometheus", dependencies=guards, response_class=Response)
    async def metrics() -> Response:
        return Response(service.metrics.text(), media_type=CONTENT_TYPE)


__all__ = ["ScoringService", "create_app"]
