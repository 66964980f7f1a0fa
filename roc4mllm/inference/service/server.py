"""Running the service: a listening socket, patience with clients that ends, and a shutdown that drops nothing."""

import asyncio
import contextlib
import logging
import socket
import sys
from types import FrameType

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol

logger = logging.getLogger(__name__)

HEADER_SECONDS = 10.0  # for the headers of a request, from its connection or its first byte
REFUSAL_SECONDS = 1.0
MAX_CONNECTIONS = 4000  # each may hold 64 KiB of a body that nobody has asked for yet
OTHER_FILES = 100  # of this process: the model's, the log, downloads, connections that are being refused
FULL_BODY = b'{"detail":"too many connections, try again in 1 s"}'
FULL = b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 1\r\nConnection: close\r\nContent-Type: application/json\r\n"
FULL += b"Content-Length: %d\r\n\r\n%s" % (len(FULL_BODY), FULL_BODY)
WAITING = 2048  # connections that the system holds until they are accepted
LINGER_SECONDS = 5  # after the time limits of body and scoring, for answers on their way


class PatientProtocol(H11Protocol):
    """
    HTTP/1.1 that waits for a request's headers, but not for ever, which uvicorn would; and that refuses connections
    beyond what the process can have open with the status of a full queue, where uvicorn would answer 503.
    """

    _deadline: asyncio.TimerHandle | None = None
    _refused = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client came."""
        super().connection_made(transport)
        beyond = len(self.connections) - self.config.app.state.max_connections  # type: ignore[union-attr]
        if beyond > 0:
            self._refuse(REFUSAL_SECONDS if beyond < OTHER_FILES // 2 else 0.0)
        else:
            self._watch()

    def _refuse(self, linger: float) -> None:
        """
        Answer whatever will be asked. What comes of it is thrown away for a moment, or a client that is still sending
        would not see the answer, only that the connection was reset.
        """
        self._refused = True
        self.config.app.state.service.metrics.answered("other", 429, 0.0)  # type: ignore[union-attr]
        self.transport.write(FULL)
        self.transport.write_eof()
        self._deadline = self.loop.call_later(linger, self.transport.close)

    def data_received(self, data: bytes) -> None:
        """Some of a request, or of several."""
        if self._refused:
            return
        super().data_received(data)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """The client left."""
        super().connection_lost(exc)
        self._stop()

    def _watch(self) -> None:
        """Begin to count while headers are incomplete; end when they have become a request."""
        answering = self.cycle is not None and not self.cycle.response_complete
        if answering or self.transport.is_closing():
            self._stop()
        elif self._deadline is None:
            self._deadline = self.loop.call_later(HEADER_SECONDS, self.transport.close)

    def _stop(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


class ServiceServer(uvicorn.Server):
    """uvicorn, which says where it listens, and which a signal ends with code 0 once what it accepted is answered."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Say where, once clients can come."""
        await super().startup(sockets)
        for listener in sockets or []:
            listener.listen(WAITING)
            host, port = listener.getsockname()[:2]
            url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
            model = self.config.app.state.service.facts()["model"]  # type: ignore[union-attr]
            logger.info("listening", extra={"fields": {"url": url, "model": model}})

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to end; at a second signal, end."""
        self.force_exit = self.should_exit
        self.should_exit = True
        self.config.app.state.service.draining = True  # type: ignore[union-attr]


def listen(host: str, port: int) -> socket.socket:
    """
    A socket that has its address and does not take connections yet: that a port is taken is known before a model is
    loaded.

    Raises:
        OSError: If the address cannot be had.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, address = found[0]
        with contextlib.ExitStack() as opened:
            listener = opened.enter_context(socket.socket(family, kind, protocol))
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            opened.pop_all()  # it stays open
    except (OSError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "no name of a host"
        raise OSError(f"cannot listen on {host!r}, port {port}: {reason}; choose another --host or --port") from error
    return listener


def allow_files(wanted: int) -> int:
    """Let this process have so many files open, or as many as the system allows; returns how many that are."""
    if sys.platform == "win32":
        return wanted  # it counts no sockets
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    infinite = resource.RLIM_INFINITY
    allowed = wanted if hard == infinite else min(wanted, hard)
    if soft == infinite or soft >= allowed:
        return allowed
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    except (OSError, ValueError):  # macOS has a limit of its own below the one that it tells
        return soft
    return allowed


def server_of(app: FastAPI) -> ServiceServer:
    """The server of an application that `create_app` made, to be run on a listener."""
    files = allow_files(4 * MAX_CONNECTIONS)
    connections = app.state.max_connections = max(1, min(MAX_CONNECTIONS, files - OTHER_FILES))
    config = uvicorn.Config(
        app,
        http=PatientProtocol,
        ws="none",
        lifespan="on",
        log_config=None,  # its loggers write where all others do
        access_log=False,  # `RequestRecorder` writes one
        server_header=False,
        proxy_headers=False,
        backlog=max(1, (files - connections) // 2),  # accepted at once, before one of them can be refused
        timeout_graceful_shutdown=int(2 * app.state.service.limits.timeout + LINGER_SECONDS),
    )
    return ServiceServer(config)


__all__ = ["listen", "server_of"]
