"""
The demo as it is served: who may reach it, how much it takes, and what it leaves behind, which is nothing.

The page (`page`) asks no other host for anything, and the server tells nobody of its use. Uploads lie in a folder
of this process alone; they are deleted after a quarter of an hour, and all of them when it ends.
"""

import importlib
import importlib.metadata
import os
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from .page import build_page

OLDEST_GRADIO = 6  # `theme` and `css` belong to `launch` from there on
MAX_FILES = 20  # scored at once
MAX_MEGABYTES = 20  # of one file
SESSIONS = 100  # whose results are remembered
CSS = Path(__file__).with_name("demo.css")
FONTS = ["system-ui", "sans-serif"]  # of the visitor's device: a named font would be fetched
# Gradio's page runs scripts of its own in line; what matters here is that no other host is asked for anything.
POLICY = (
    "default-src 'self' data: blob: 'unsafe-inline' 'unsafe-eval'; connect-src 'self' data: blob:; "
    "frame-ancestors 'self'; form-action 'self'; base-uri 'self'"
)

Messages = Callable[[dict[str, Any]], Awaitable[None]]


def check_gradio() -> None:
    """
    Make sure, before a model is loaded, that Gradio can be used; it is not imported yet.

    Raises:
        ImportError: If it is not installed, or too old.
    """
    try:
        version = importlib.metadata.version("gradio")
    except importlib.metadata.PackageNotFoundError as error:
        raise ImportError("the demo needs Gradio: pip install 'roc4mllm[demo]'") from error
    if int(version.split(".")[0]) < OLDEST_GRADIO:
        raise ImportError(f"the demo needs Gradio {OLDEST_GRADIO} or newer, found {version}: pip install -U gradio")


@contextmanager
def serve_demo(
    scorer: Any,
    *,
    host: str = "127.0.0.1",
    port: int | None = None,
    share: bool = False,
    max_files: int = MAX_FILES,
    max_megabytes: int = MAX_MEGABYTES,
) -> Iterator[Any]:
    """
    Serve the page for as long as the block lasts.

    Args:
        scorer (`ImageAestheticsPipeline`): What `load_scorer` returns.
        host (`str`, *optional*, defaults to `"127.0.0.1"`): Address to listen on; `"0.0.0.0"` for every interface.
        port (`int`, *optional*): Port to listen on; the first free one from 7860 by default.
        share (`bool`, *optional*, defaults to `False`): Also open a public link, through a server of Gradio's makers.
        max_files (`int`, *optional*, defaults to 20): Pictures that are scored at once.
        max_megabytes (`int`, *optional*, defaults to 20): Size of one file.

    Yields:
        `gradio.Blocks`: running, with `local_url` and `share_url`.

    Raises:
        ImportError: If Gradio is not installed, or too old.
        OSError: If it cannot listen there.
    """
    check_gradio()
    with TemporaryDirectory(prefix="roc4mllm-demo-", ignore_cleanup_errors=True) as folder:
        # read when Gradio is imported, and the folder also at each upload
        os.environ |= {"GRADIO_ANALYTICS_ENABLED": "False", "GRADIO_TEMP_DIR": folder}
        gradio = importlib.import_module("gradio")
        page = build_page(gradio, scorer, max_files)
        address = {"server_name": host, "server_port": port, "share": share}
        limits = {"max_file_size": max_megabytes * 2**20}
        body = (max_files + 1) * max_megabytes * 2**20  # of all files of one drop, and what stands between them
        try:
            launch(page, **address, **limits, **fixed_options(gradio, max_bytes=body))
            yield page
        finally:
            page.close(verbose=False)


def launch(page: Any, **options: Any) -> None:
    """Begin to serve; Gradio's own error speaks of arguments that the user never gave."""
    try:
        page.launch(**options)
    except OSError as error:
        place = f"{options['server_name']}, port {options['server_port'] or '7860 or one of the next 99'}"
        raise OSError(f"cannot listen on {place}: taken, or not of this machine; choose another") from error


def fixed_options(gradio: Any, max_bytes: int) -> dict[str, Any]:
    """Options of `launch` that nobody chooses; those named False would be on by default or by an environment."""
    middleware = importlib.import_module("starlette.middleware")
    theme = gradio.themes.Default(font=FONTS, font_mono=["monospace"])
    # its own grey is too pale to be read on white
    theme.set(body_text_color_subdued="*neutral_600", body_text_color_subdued_dark="*neutral_300")
    off = dict.fromkeys(("enable_monitoring", "run_history", "ssr_mode", "mcp_server", "pwa", "inbrowser"), False)
    return off | {
        "theme": theme,
        "css_paths": CSS,
        "footer_links": [],
        "state_session_capacity": SESSIONS,
        "app_kwargs": {"middleware": [middleware.Middleware(Guard, max_bytes=max_bytes)]},
        "prevent_thread_lock": True,
        "quiet": True,
    }


class Guard:
    """
    ASGI middleware: no request is larger than one drop may be, and no answer lets a browser ask another host.

    Args:
        app: What it stands before.
        max_bytes (`int`): Largest body of a request.
    """

    def __init__(self, app: Any, max_bytes: int):
        self.app, self.max_bytes = app, max_bytes

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Messages) -> None:
        """Answer one request."""

        async def send_with_policy(message: dict[str, Any]) -> None:
            if message["type"] == "http.response.start":
                added = [(b"content-security-policy", POLICY.encode()), (b"referrer-policy", b"no-referrer")]
                message = message | {"headers": [*message.get("headers", []), *added]}
            await send(message)

        refusal = self.refusal(scope) if scope["type"] == "http" else None
        if refusal is None:
            await self.app(scope, receive, send_with_policy)
            return
        status, text = refusal
        headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"connection", b"close")]
        await send_with_policy({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": text.encode()})

    def refusal(self, scope: dict[str, Any]) -> tuple[int, str] | None:
        """Status and reason, if the body is too large or does not tell its size beforehand."""
        if scope["method"] not in ("POST", "PUT", "PATCH"):
            return None
        headers = dict(scope["headers"])
        length = headers.get(b"content-length", b"")
        if not length.isdigit():
            return (411, "The request does not tell its length.") if b"transfer-encoding" in headers else None
        if int(length) > self.max_bytes:
            return 413, f"The request is too large: {int(length)} bytes, at most {self.max_bytes} are taken."
        return None


__all__ = ["check_gradio", "serve_demo"]
