"""
The HTTP service: pictures in, records out, those of many clients scored together.

`create_app` makes the application, `server` runs it, `ScoringService` does the work.
"""

import asyncio
import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import Depends, FastAPI, HTTPException, Query, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse
from fastapi.security import APIKeyHeader, HTTPAuthorizationCredentials, HTTPBearer
from starlette.requests import ClientDisconnect

from ...processing_roc4mllm.pipeline_image_aesthetics import ImageAestheticsPipeline, __version__
from ...processing_roc4mllm.prompt_roc4mllm import check_attributes
from .docs import BODY, DESCRIPTION, RESPONSES, ModelFacts, docs_page
from .limits import ServiceLimits
from .metrics import CONTENT_TYPE
from .request_recorder import RequestRecorder
from .scoring_service import ScoringService
from .url_pictures import UrlReader

CLIENT_LEFT = 499  # nobody reads it; for log and metrics
PROBLEMS = {status: answer for status, answer in RESPONSES.items() if status != 200}
AUTHORS = "The path of the authors' server: one record for one picture, a list for several"
DOCS_HEADERS = {"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'"}

Attributes = Annotated[str | None, Query(description="score only these, separated by commas; the first is `score`")]
Strict = Annotated[bool, Query(description="answer 422 if a picture fails, with the same records")]


def key_check(keys: Sequence[str]) -> Any:
    """A dependency that refuses whoever does not know one of the keys."""
    encoded = [key.encode() for key in keys]

    def check(
        bearer: Annotated[HTTPAuthorizationCredentials | None, Depends(HTTPBearer(auto_error=False))],
        header: Annotated[str | None, Depends(APIKeyHeader(name="X-API-Key", auto_error=False))],
    ) -> None:
        given = [(bearer.credentials if bearer else "").encode(), (header or "").encode()]  # one may be for a proxy
        # every key is compared, each in a time that tells nothing about where they differ
        if not sum([secrets.compare_digest(one, key) for one in given for key in encoded]):
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

    @app.exception_handler(ClientDisconnect)
    async def client_left(request: Request, error: ClientDisconnect) -> Response:
        return Response(status_code=CLIENT_LEFT)

    add_scoring_routes(app, service, [key_check(api_keys)] if api_keys else [])
    add_open_routes(app, service)
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
        return HTMLResponse(docs_page(app.openapi()), headers=DOCS_HEADERS)

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
        records = await service.records(request, chosen(attributes))
        failed = any(record["error"] for record in records)
        return JSONResponse(records, status_code=422 if strict and failed else 200)

    @app.post("/api/roc4mllm", summary=AUTHORS, dependencies=guards, responses=PROBLEMS, openapi_extra=BODY)
    async def score_as_the_authors(request: Request) -> Response:
        records = await service.records(request, None)
        return JSONResponse(records[0] if len(records) == 1 else records)

    @app.get("/model", summary="What scores, in which units, within which limits", dependencies=guards)
    async def model() -> ModelFacts:
        return ModelFacts.model_validate(service.facts())

    @app.get("/metrics", summary="For Prometheus", dependencies=guards, response_class=Response)
    async def metrics() -> Response:
        return Response(service.metrics.text(), media_type=CONTENT_TYPE)


__all__ = ["ScoringService", "create_app"]
