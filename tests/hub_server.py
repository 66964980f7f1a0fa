"""
A small Hub on the loopback, for tests: connections, who asks, what is recorded, what breaks off.

It has two addresses, as the Hub has: `url`, which knows users and repositories, and a storage for large files, which
must never see a token. Every request is recorded. One that the Hub would not understand is answered with 400 and
listed in `problems`, which tests assert to be empty. What is answered stands in `hub_routes`.

Large files go by git-lfs, the road of every server that is not the Hub itself: set `HF_HUB_DISABLE_XET=1`. The Hub's
chunked storage (Xet) has a closed protocol inside a compiled client, and is not imitated: no test goes that road.
"""

import json
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
from hub_routes import HUB, STORAGE, HubError, Repo, Route
from huggingface_hub import constants


@dataclass(frozen=True)
class Request:
    """What came, and what went back."""

    method: str
    path: str
    status: int
    has_token: bool
    range: str | None
    sent: int


class HubServer:
    """
    The Hub, as a context manager.

    Args:
        users (`dict[str, str]`): Names by token; a user may write what lies under the name.
    """

    def __init__(self, users: dict[str, str]):
        self.users = users
        self.repos: dict[tuple[str, str], Repo] = {}
        self.objects: dict[str, bytes] = {}  # what the storage holds, by SHA-256
        self.requests: list[Request] = []
        self.problems: list[str] = []
        self.cuts: list[tuple[str, int]] = []  # method and byte at which the storage drops the next such connection
        self.modes: dict[str, str] = {}  # how preupload told each path to come
        self.servers = [ThreadingHTTPServer(("127.0.0.1", 0), handler(self, routes)) for routes in (HUB, STORAGE)]
        self.url, self.storage = (f"http://127.0.0.1:{server.server_address[1]}" for server in self.servers)

    def __enter__(self) -> "HubServer":
        for server in self.servers:
            server.daemon_threads = True
            threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        for server in self.servers:
            server.shutdown()
            server.server_close()

    def cut(self, method: str, after: int, times: int = 1) -> None:
        """Drop the next connections to the storage that carry more than `after` bytes, when these have passed."""
        self.cuts += [(method, after)] * times

    def take_cut(self, method: str, size: int) -> int:
        """How many of `size` bytes get through."""
        for cut in self.cuts:
            if cut[0] == method and cut[1] < size:
                self.cuts.remove(cut)
                return cut[1]
        return size

    def files(self, kind: str, name: str, revision: str = "main") -> dict[str, bytes]:
        """Content of a repository by path."""
        repo = self.repos[kind, name]
        return {path: blob.data for path, blob in repo.commits[repo.resolve(revision)].items()}

    @contextmanager
    def recorded(self) -> Iterator[list[Request]]:
        """The requests that come inside the block, filled at its end."""
        start, found = len(self.requests), []
        yield found
        found += self.requests[start:]


@contextmanager
def client(hub: HubServer, token: str | None, home: Path) -> Iterator[None]:
    """This process, and those that it starts, as a client of the server: huggingface_hub reads most when imported."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment(hub, token, home).items():
            patch.setenv(name, value)
        if token is None:
            patch.delenv("HF_TOKEN", raising=False)
        patch.setattr(constants, "ENDPOINT", hub.url)
        patch.setattr(constants, "HF_HUB_OFFLINE", False)
        patch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        patch.setattr(constants, "HF_TOKEN_PATH", str(home / "token"))
        yield


def environment(hub: HubServer, token: str | None, home: Path, offline: bool = False) -> dict[str, str]:
    """Variables of a process that is a client of the server."""
    told = {"HF_ENDPOINT": hub.url, "HF_HOME": str(home), "HF_HUB_OFFLINE": str(int(offline))}
    return told | {"HF_HUB_DISABLE_XET": "1"} | ({"HF_TOKEN": token} if token else {})


def handler(hub: HubServer, routes: list[Route]) -> type[BaseHTTPRequestHandler]:
    """A class of handlers, as `http.server` wants one, that follow the routes."""

    def answer(self: "Handler") -> None:
        self.hub, self.routes = hub, routes
        self.answer()

    methods = {f"do_{name}": answer for name in ("GET", "HEAD", "POST", "PUT")}
    return type("HubHandler", (Handler,), methods)


class Handler(BaseHTTPRequestHandler):
    """One request: found in the routes, answered, recorded."""

    protocol_version = "HTTP/1.1"
    hub: HubServer
    routes: list[Route]

    def log_message(self, *_: object) -> None:
        """Nothing: requests are recorded."""

    def answer(self) -> None:
        self.sent, self.status = 0, 0
        parts = urlsplit(self.path)
        self.query = {key: values[0] for key, values in parse_qs(parts.query).items()}
        try:
            for methods, pattern, route in self.routes:
                if self.command in methods and (match := re.fullmatch(pattern, parts.path)):
                    # unquoted now: a branch may be `trial/2`, which comes as one part of the path
                    route(self, **{key: value and unquote(value) for key, value in match.groupdict().items()})
                    break
            else:
                raise HubError(404, "", "Sorry, we can't find the page you are looking for.")
        except HubError as error:
            self.read_body()
            self.reply({"error": str(error)}, status=error.status, headers=error.headers)
        except AssertionError as error:
            self.hub.problems.append(f"{self.command} {self.path}: {error}")
            self.reply({"error": f"not understood: {error}"}, status=400)
        except ConnectionError:
            self.close_connection = True  # the client has gone, or was cut off on purpose
        self.hub.requests.append(
            Request(
                self.command,
                unquote(parts.path),
                self.status,
                "Authorization" in self.headers,
                self.headers["Range"],
                self.sent,
            )
        )

    # ---- what came --------------------------------------------------------------------------------------------------

    def read_body(self) -> bytes:
        """The body, once; of a connection to be cut off, only its beginning."""
        length = int(self.headers.get("Content-Length") or 0)
        passing = self.hub.take_cut("PUT", length) if self.command == "PUT" else length
        if passing < length:
            self.rfile.read(passing)
            self.connection.shutdown(socket.SHUT_RDWR)
            raise ConnectionAbortedError
        if hasattr(self, "body_read") and self.body_read is self.headers:
            return b""
        self.body_read = self.headers
        return self.rfile.read(length)

    def json_body(self) -> Any:
        return json.loads(self.read_body())

    def user(self) -> str | None:
        """Whose token came, `None` without one."""
        header = self.headers["Authorization"]
        if header is None:
            return None
        token = header.removeprefix("Bearer ")
        if token not in self.hub.users:
            raise HubError(401, "", "Invalid credentials in Authorization header")
        return self.hub.users[token]

    def repo(self, kind: str | None, id: str, write: bool = False) -> Repo:
        """The repository, for one who may see it."""
        user, repo = self.user(), self.hub.repos.get((kind or "model", id))
        owns = user is not None and id.startswith(f"{user}/")
        if repo is None or (repo.private and not owns):
            raise HubError(401 if user is None else 404, "RepoNotFound", "Repository not found")
        if write and not owns:
            raise HubError(401 if user is None else 403, "", "you have no right to write here")
        return repo

    # ---- what goes back ---------------------------------------------------------------------------------------------

    def reply(self, content: Any = None, status: int = 200, headers: dict[str, str] | None = None) -> None:
        """Send JSON, bytes, or nothing but headers."""
        is_raw = isinstance(content, bytes)
        body = content if is_raw else b"" if content is None else json.dumps(content).encode()
        self.status = status
        self.send_response(status)
        named = {"Content-Type": "application/octet-stream" if is_raw else "application/json"} | (headers or {})
        for name, value in ({"Content-Length": str(len(body))} | named).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.send(body)

    def send(self, body: bytes) -> None:
        """Send a body, or as much of it as was asked to get through."""
        is_download = self.routes is STORAGE and self.command == "GET"
        self.sent = self.hub.take_cut("GET", len(body)) if is_download else len(body)
        self.wfile.write(body[: self.sent])
        self.wfile.flush()
        if self.sent < len(body):
            self.connection.shutdown(socket.SHUT_RDWR)
            raise ConnectionAbortedError

    def reply_file(self, data: bytes, headers: dict[str, str]) -> None:
        """Send a file or the part of it that was asked for."""
        headers = {"Accept-Ranges": "bytes"} | headers
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers["Range"] or "")
        if wanted is None:
            self.reply(data, headers=headers | {"Content-Length": str(len(data))})
            return
        start, stop = int(wanted[1]), min(int(wanted[2] or len(data) - 1) + 1, len(data))
        if start >= len(data):
            raise HubError(416, "", "Requested range not satisfiable", **{"Content-Range": f"bytes */{len(data)}"})
        self.reply(data[start:stop], 206, headers | {"Content-Range": f"bytes {start}-{stop - 1}/{len(data)}"})
