"""The HTTP service on real sockets, in a thread of the test's process, and a client that can misbehave."""

import http.client
import json
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from roc4mllm.inference.service.app import create_app
from roc4mllm.inference.service.scoring_service import ScoringService
from roc4mllm.inference.service.server import listen, server_of

BOUNDARY = "d8ad0b5e"


@dataclass
class Answer:
    """What came back."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Running:
    """A running service."""

    port: int
    service: ScoringService

    def ask(self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> Answer:
        """One request on a connection of its own."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request(method, path, body, headers or {})
            return read_answer(connection.getresponse())
        finally:
            connection.close()

    def score(self, *files: bytes, path: str = "/score", names: Sequence[str] = (), **headers: str) -> Answer:
        """Pictures as a form."""
        return self.ask("POST", path, form(*files, names=names), FORM | headers)

    def wait_for(self, length: int) -> None:
        """Until that many pictures are in the queue."""
        end = time.monotonic() + 10
        while len(self.service.batcher) != length:
            assert time.monotonic() < end, f"{len(self.service.batcher)} pictures in the queue, expected {length}"
            time.sleep(0.01)

    def metric(self, line: str) -> float:
        """The value of one line of `/metrics`."""
        lines = self.ask("GET", "/metrics").body.decode().splitlines()
        return next((float(found.split()[-1]) for found in lines if found.startswith(f"{line} ")), 0.0)


FORM = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}


def read_answer(response: http.client.HTTPResponse) -> Answer:
    return Answer(response.status, {name.lower(): value for name, value in response.getheaders()}, response.read())


def form(*files: bytes, names: Sequence[str] = (), field: str = "file") -> bytes:
    """A form of files; their names may be anything that fits between quotes."""
    parts = []
    for number, content in enumerate(files):
        name = names[number] if names else f"{number}.png"
        head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{field}"; filename="{name}"\r\n\r\n'
        parts.append(head.encode("utf-8", "surrogateescape") + content + b"\r\n")
    return b"".join(parts) + f"--{BOUNDARY}--\r\n".encode()


@contextmanager
def connected(service: Running, *pieces: bytes) -> Iterator[socket.socket]:
    """A raw connection that has sent some bytes."""
    with socket.create_connection(("127.0.0.1", service.port), timeout=10) as connection:
        for piece in pieces:
            connection.sendall(piece)
        yield connection


def answered(connection: socket.socket) -> Answer:
    """What came back on it."""
    response = http.client.HTTPResponse(connection)
    response.begin()
    return read_answer(response)


def head(length: int | None = None, **headers: str) -> bytes:
    """The beginning of a POST /score."""
    lines = ["POST /score HTTP/1.1", "Host: x"]
    lines += [f"{name}: {value}" for name, value in (FORM | headers).items()]
    lines += [f"Content-Length: {length}"] if length is not None else ["Transfer-Encoding: chunked"]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


@dataclass
class Gate:
    """Holds a scorer's forward passes back while it is shut, and keeps the size of each."""

    scorer: Any
    sizes: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._open = threading.Event()
        self._open.set()
        self._forward = self.scorer.forward
        self.scorer.forward = self.forward

    def forward(self, batch: Any, **options: Any) -> Any:
        self.sizes.append(len(batch.sources))
        assert self._open.wait(30), "the gate was left shut"
        return self._forward(batch, **options)

    @contextmanager
    def shut(self) -> Iterator[None]:
        """Keep pictures waiting before the model."""
        self._open.clear()
        self.sizes.clear()
        try:
            yield
        finally:
            self._open.set()


@contextmanager
def running(scorer: Any, limits: Any = None, **options: Any) -> Iterator[Running]:
    """A service on a free port of the loopback."""
    app, listener = create_app(scorer, limits, **options), listen("127.0.0.1", 0)
    server = server_of(app)
    thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
    thread.start()
    end = time.monotonic() + 20
    while not server.started:
        assert thread.is_alive(), "the service ended at once"
        assert time.monotonic() < end, "the service did not start"
        time.sleep(0.01)
    try:
        yield Running(listener.getsockname()[1], app.state.service)
    finally:
        server.should_exit = True
        thread.join(20)
        assert not thread.is_alive(), "the service did not end"


def at_once(calls: Sequence[Any]) -> list[Any]:
    """The results of calls made from as many threads, in order."""
    results: list[Any] = [None] * len(calls)

    def run(index: int) -> None:
        results[index] = calls[index]()

    threads = [threading.Thread(target=run, args=(index,)) for index in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    return results
