"""Running the service: a listening socket, patience with clients that ends, and a shutdown that drops nothing."""

import asyncio
import logging
import socket
from types import FrameType

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol

logger = logging.getLogger(__name__)

HEADER_SECONDS = 10.0  # for the headers of a request, from its connection or its first byte
MAX_CONNECTIONS = 900  # 503 beyond it; most systems let a process have 1024 files open
LINGER_SECONDS = 5  # after the time limits of body and scoring, for answers on their way


class PatientProtocol(H11Protocol):
    """HTTP/1.1 that waits for a request's headers, but not for ever, which uvicorn would."""

    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client came."""
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        """Some of a request, or of several."""
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
    family, kind, protocol, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    listener = socket.socket(family, kind, protocol)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(address)
    except OSError:
        listener.close()
        raise
    return listener


def server_of(app: FastAPI) -> ServiceServer:
    """The server of an application that `create_app` made, to be run on a listener."""
    config = uvicorn.Config(
        app,
        http=PatientProtocol,
        ws="none",
        lifespan="on",
        log_config=None,  # its loggers write where all others do
        access_log=False,  # `RequestRecorder` writes one
        server_header=False,
        proxy_headers=False,
        limit_concurrency=MAX_CONNECTIONS,
        timeout_graceful_shutdown=int(2 * app.state.service.limits.timeout + LINGER_SECONDS),
    )
    return ServiceServer(config)


__all__ = ["listen", "server_of"]
