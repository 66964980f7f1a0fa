"""What stands round every request: its line in the log, its numbers in the metrics, an end that clients can read."""

import asyncio
import logging
import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .metrics import ServiceMetrics

logger = logging.getLogger(__name__)

LINGER = 2.0  # seconds
PROBES = ("/health", "/ready", "/metrics")  # asked every few seconds


class RequestRecorder:
    """
    ASGI middleware.

    An answer that is sent before the body was read (413, 401, …) closes the connection. Closed at once, with bytes
    still on their way, the system would reset it, and the client might never see the answer: so the rest is read and
    thrown away for a moment.

    Args:
        app (ASGI application): What answers.
        metrics ([`ServiceMetrics`]): Told of every request.
        paths (`frozenset[str]`): What is counted by name; everything else is "other", or clients could fill the memory
            with names.
    """

    def __init__(self, app: ASGIApp, metrics: ServiceMetrics, paths: frozenset[str]):
        self.app, self.metrics, self.paths = app, metrics, paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        start = time.perf_counter()
        watched = WatchedRequest(scope, receive, send)
        try:
            await self.app(scope, watched.receive, watched.send)
        finally:
            self._record(scope, watched.status, time.perf_counter() - start)

    def _record(self, scope: Scope, status: int, seconds: float) -> None:
        path = scope["path"] if scope["path"] in self.paths else "other"
        self.metrics.answered(path, status, seconds)
        level = logging.DEBUG if path in PROBES and status < 500 else logging.INFO
        fields = {"method": scope["method"], "path": scope["path"], "status": status, "ms": round(seconds * 1e3, 1)}
        fields |= {name: scope["state"][name] for name in ("pictures", "failed") if name in scope.get("state", {})}
        fields["client"] = scope["client"][0] if scope.get("client") else None
        logger.log(level, "request", extra={"fields": fields})


class WatchedRequest:
    """A request's channels, watched for how it ends."""

    def __init__(self, scope: Scope, receive: Receive, send: Send):
        self._receive, self._send = receive, send
        names = {name for name, _ in scope["headers"]}
        self._body_waits = b"content-length" in names or b"transfer-encoding" in names
        self.status = 500  # what is sent for the application if it raises

    async def receive(self) -> Message:
        """The next part of the body."""
        message = await self._receive()
        if message["type"] != "http.request" or not message.get("more_body"):
            self._body_waits = False
        return message

    async def send(self, message: Message) -> None:
        """Send, and linger after the last part if the client is still sending."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            if self._body_waits:
                message["headers"] = [*message["headers"], (b"connection", b"close")]
        elif self._body_waits and not message.get("more_body"):
            await self._send({**message, "more_body": True})
            await self._drain()
            message = {"type": "http.response.body", "body": b""}
        await self._send(message)

    async def _drain(self) -> None:
        try:
            async with asyncio.timeout(LINGER):
                while self._body_waits:
                    await self.receive()
        except TimeoutError:
            pass  # long enough for an answer to be read


__all__ = ["RequestRecorder"]
