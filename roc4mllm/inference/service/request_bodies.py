"""
From the body of a request to encoded pictures, within the limits while it arrives.

A false or missing Content-Length changes nothing: bytes are counted as they come. They stay in memory, bounded per
request and over all requests; nothing is written to disk, and the name of a file is not looked at.
"""

import asyncio
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager
from typing import Annotated

from fastapi import HTTPException, Request
from pydantic import BaseModel, Field, StringConstraints, ValidationError
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from .limits import ServiceLimits

RETRY_AFTER = {"Retry-After": "1"}
ONLY_FILES = "expected a form of files and nothing else; with curl: -F file=@photo.jpg"


class UrlList(BaseModel):
    """Pictures by their addresses."""

    urls: Annotated[list[Annotated[str, StringConstraints(max_length=4096)]], Field(min_length=1)]


class HeldBytes:
    """
    How much of all bodies together is in memory.

    Args:
        limit (`int`): The most there may be.
    """

    def __init__(self, limit: int):
        self.limit, self.total = limit, 0

    @contextmanager
    def share(self) -> Iterator["Share"]:
        """What one request holds, given back at the end."""
        share = Share(self)
        try:
            yield share
        finally:
            self.total -= share.size


class Share:
    """One request's part of [`HeldBytes`]."""

    def __init__(self, held: HeldBytes):
        self._held, self.size = held, 0

    def grow(self, size: int) -> None:
        """
        Raises:
            HTTPException: 429 if all requests together would hold too much.
        """
        if self._held.total + size > self._held.limit:
            raise HTTPException(429, "the bodies of all requests are too large together; try again", RETRY_AFTER)
        self._held.total += size
        self.size += size

    def shrink(self, size: int) -> None:
        """Give some of it back before the request ends."""
        self._held.total -= size
        self.size -= size


async def read_body(request: Request, limits: ServiceLimits, share: Share) -> list[bytes] | UrlList:
    """
    The encoded pictures of a request, or the URLs that stand for them.

    Raises:
        HTTPException: 400, 408, 413, 415, 422, 429.
        starlette.requests.ClientDisconnect: If the client left.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in ("multipart/form-data", "application/json"):
        raise HTTPException(415, f"got a body of type {kind or 'unknown'!r}; expected multipart/form-data with files")
    chunks = limited(request, limits.max_bytes, share)
    try:
        async with asyncio.timeout(limits.timeout):
            if kind == "application/json":
                return url_list(b"".join([chunk async for chunk in chunks]), limits)
            return await read_form(request, chunks, limits)
    except TimeoutError as error:
        raise HTTPException(408, f"the body did not arrive within {limits.timeout:g} s") from error


async def limited(request: Request, max_bytes: int, share: Share) -> AsyncGenerator[bytes, None]:
    """The body in chunks as they arrive, up to the limits."""
    too_large = HTTPException(413, f"the body is larger than {max_bytes} bytes")
    announced = request.headers.get("content-length", "")
    if announced.isascii() and announced.isdigit() and int(announced) > max_bytes:
        raise too_large
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > max_bytes:
            raise too_large
        share.grow(len(chunk))
        yield chunk


def url_list(body: bytes, limits: ServiceLimits) -> UrlList:
    """The URLs of a JSON body."""
    try:
        found = UrlList.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        raise HTTPException(422, f'expected {{"urls": ["https://…", …]}}: {first["msg"]}') from error
    check_count(len(found.urls), limits)
    return found


def check_count(count: int, limits: ServiceLimits) -> None:
    """Refuse more pictures than one request may bring."""
    if count > limits.max_files:
        raise HTTPException(413, f"more than {limits.max_files} pictures in one request")


class FormInMemory(MultiPartParser):
    """A parser that keeps files in memory: their size is limited before they get here."""

    spool_max_size = 0  # of `SpooledTemporaryFile`: never over to disk
    ended = False

    def on_end(self) -> None:
        """The last boundary was read."""
        self.ended = True


async def read_form(request: Request, chunks: AsyncGenerator[bytes, None], limits: ServiceLimits) -> list[bytes]:
    """The files of a form, in its order, whatever their fields are called."""

    async def whole() -> AsyncGenerator[bytes, None]:
        async for chunk in chunks:
            yield chunk
        if not parser.ended:  # what was cut off would just be missing from the form
            raise MultiPartException("it breaks off before its last boundary")

    parser = FormInMemory(request.headers, whole(), max_files=limits.max_files, max_fields=16, max_part_size=1024)
    try:
        form = await parser.parse()
    except MultiPartException as error:
        if error.message.startswith("Too many files"):
            check_count(limits.max_files + 1, limits)
        if error.message.startswith(("Part exceeded", "Too many fields")):  # of what is no file
            raise HTTPException(422, ONLY_FILES) from error
        raise HTTPException(400, f"not a readable form: {error.message}") from error
    try:
        values = [value for _, value in form.multi_items()]
        files = [value for value in values if isinstance(value, UploadFile)]
        if len(files) < len(values) or not files:
            raise HTTPException(422, ONLY_FILES)
        return [await file.read() for file in files]
    finally:
        await form.close()


__all__ = ["HeldBytes", "Share", "UrlList", "read_body"]
