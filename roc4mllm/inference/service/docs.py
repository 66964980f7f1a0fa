"""
What the service says of itself: OpenAPI, and a page that shows it without any script or network.

FastAPI's own page fetches its scripts from another host, which not every machine can, or should.
"""

import json
from html import escape
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

DESCRIPTION = """Scores how good pictures look. Every score says its range and direction.

POST /score takes one form of one or many files and answers one record per file, in order. A picture that cannot be
scored is a record without a score and with an `error`; the request itself is still 200, also if it was the only one:
the service did its work, and clients read one form of answer. With `?strict=true` such an answer is 422.

Example: `curl -F file=@a.jpg -F file=@b.jpg http://127.0.0.1:8000/score`"""


class PictureRecord(BaseModel):
    """One picture."""

    model_config = ConfigDict(extra="allow")

    score: float | None = Field(description="in `score_range`; null if the picture failed")
    score_range: tuple[float, float]
    higher_is_better: bool
    normalized: float | None = Field(description="the score from 0 to 1")
    std: float | None = Field(description="spread of the predicted distribution, in the score's units")
    distribution: list[float] | None = Field(description="probability of each level, lowest first")
    attributes: dict[str, float | None] = Field(description="all scores; the first is `score`")
    attribute_ranges: dict[str, tuple[float, float]] | None = Field(None, description="where ranges differ")
    model: str
    revision: str | None
    version: str
    error: str | None = Field(description="why there is no score")


class Problem(BaseModel):
    """Why a request as a whole was not answered."""

    detail: str


class ModelFacts(BaseModel):
    """What scores here."""

    model: str
    revision: str | None
    version: str
    score_range: tuple[float, float]
    higher_is_better: bool
    attributes: dict[str, tuple[float, float]] = Field(description="range of each, main one first")
    limits: dict[str, int | float]


RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {"model": list[PictureRecord], "description": "One record per picture, in order"},
    400: {"model": Problem, "description": "The form cannot be read"},
    401: {"model": Problem, "description": "No valid API key, where one is needed"},
    403: {"model": Problem, "description": "URLs are not fetched here"},
    408: {"model": Problem, "description": "The body did not arrive in time"},
    413: {"model": Problem, "description": "Too many bytes or pictures in one request"},
    415: {"model": Problem, "description": "The body is neither a form nor JSON"},
    422: {
        "model": Problem | list[PictureRecord],
        "description": "Nothing to score; with `strict`: records, one failed",
    },
    429: {
        "model": Problem,
        "description": "No room for pictures, bytes or connections now; try again after `Retry-After` s",
    },
    503: {"model": Problem, "description": "The service is shutting down"},
    504: {"model": Problem, "description": "Not scored in time"},
}

FILE = {"type": "array", "items": {"type": "string", "format": "binary"}}
FILES = {
    "type": "object",
    "properties": {"file": FILE},
    "required": ["file"],
    "description": "encoded pictures; their fields may have any name",
}
URL = {"type": "array", "items": {"type": "string", "format": "uri"}, "minItems": 1}
URLS = {
    "type": "object",
    "properties": {"urls": URL},
    "required": ["urls"],
    "description": '{"urls": ["https://…", …]} at public addresses, if the service was started with --allow-urls',
}
CONTENT = {"multipart/form-data": {"schema": FILES}, "application/json": {"schema": URLS}}
BODY = {"requestBody": {"required": True, "content": CONTENT}}

PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{title}</title><style>
body {{ font: 1rem/1.5 system-ui, sans-serif; max-width: 50rem; margin: 2rem auto; padding: 0 1rem; color: #222 }}
code, pre {{ background: #f3f3f3; padding: .1rem .3rem }} pre {{ overflow: auto; padding: .6rem }}
td {{ vertical-align: top; padding: .1rem 1rem .1rem 0 }} h2 {{ margin-top: 2rem }}
</style></head><body><h1>{title}</h1>{description}
<p>The same for machines: <a href="openapi.json">openapi.json</a>.</p>{routes}<h2>Forms</h2>{forms}</body></html>
"""


def docs_page(schema: dict[str, Any]) -> str:
    """
    An OpenAPI description as one HTML page that needs nothing else.

    Args:
        schema (`dict`): What `FastAPI.openapi()` returns.
    """
    routes = [
        route(method, path, about) for path, methods in schema["paths"].items() for method, about in methods.items()
    ]
    schemas = schema.get("components", {}).get("schemas", {})
    forms = [
        f"<h3>{escape(name)}</h3><pre>{escape(json.dumps(form, indent=1))}</pre>" for name, form in schemas.items()
    ]
    info = schema["info"]
    paragraphs = [f"<p>{escape(text)}</p>" for text in info["description"].split("\n\n")]
    title = escape(f"{info['title']} {info['version']}")
    return PAGE.format(title=title, description="".join(paragraphs), routes="".join(routes), forms="".join(forms))


def route(method: str, path: str, about: dict[str, Any]) -> str:
    """One route of the page."""
    asked = {f"?{one['name']}": one.get("description", "") for one in about.get("parameters", [])}
    content = about.get("requestBody", {}).get("content", {})
    asked |= {kind: what["schema"].get("description", "") for kind, what in content.items()}
    answers = {status: answer["description"] for status, answer in about["responses"].items()}
    head = f"<h2><code>{escape(method.upper())} {escape(path)}</code></h2><p>{escape(about.get('summary', ''))}</p>"
    return head + table(asked) + table(answers)


def table(rows: dict[str, str]) -> str:
    """Names and what they mean."""
    cells = (f"<tr><td><code>{escape(name)}</code></td><td>{escape(text)}</td></tr>" for name, text in rows.items())
    return f"<table>{''.join(cells)}</table>"


__all__ = ["BODY", "DESCRIPTION", "RESPONSES", "ModelFacts", "docs_page"]
