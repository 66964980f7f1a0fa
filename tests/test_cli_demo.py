"""
`roc4mllm demo`: what it passes on and says; where Gradio is installed, the page that it serves (`pytest -m slow`).
"""

import http.client
import importlib.metadata
import importlib.util
import io
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
from command_errors import error_line
from tiny import photo

from roc4mllm import load_scorer
from roc4mllm.cli import demo
from roc4mllm.inference.demo.serve_demo import POLICY
from roc4mllm_cli import main


@pytest.fixture
def served(monkeypatch) -> list[dict]:
    """Options of each page that would have been served; Ctrl-C follows at once."""
    calls = []

    @contextmanager
    def serve(scorer, **options):
        calls.append({"scorer": scorer, **options})
        share_url = "https://x.example" if options["share"] else None
        yield SimpleNamespace(local_url="http://127.0.0.1:7860/", share_url=share_url)
        calls.append("ended")

    def interrupt(self):
        raise KeyboardInterrupt

    monkeypatch.setattr(demo, "serve_demo", serve)
    monkeypatch.setattr(demo, "check_gradio", lambda: None)
    monkeypatch.setattr(demo, "load", lambda args: "scorer")
    monkeypatch.setattr(threading.Event, "wait", interrupt)
    return calls


def test_by_default_only_this_machine_reaches_the_page(served, capsys):
    assert main(["demo"]) == 130
    limits = {"max_files": 20, "max_megabytes": 20}
    assert served[0] == {"scorer": "scorer", "host": "127.0.0.1", "port": None, "share": False, **limits}
    assert "http://127.0.0.1:7860/" in capsys.readouterr().err


def test_options_are_passed_on(served, capsys):
    assert main(["demo", "--host", "0.0.0.0", "--port", "80", "--share", "--max-files", "3"]) == 130
    assert served[0] | {"host": "0.0.0.0", "port": 80, "share": True, "max_files": 3} == served[0]
    assert "Everybody who knows the address can use it at https://x.example" in capsys.readouterr().err


def test_a_port_that_cannot_be_is_refused_before_a_model_is_loaded(served, capsys):
    assert "at most 65535" in error_line(capsys, "demo", "--port", "65536")
    assert served == []


def test_without_gradio_it_says_what_to_install(monkeypatch, capsys):
    def missing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", missing)
    monkeypatch.setattr(demo, "load", lambda args: pytest.fail("the model was loaded first"))
    assert main(["demo"]) == 2
    assert "pip install 'roc4mllm[demo]'" in capsys.readouterr().err


# The page as it is served, by a process of its own -------------------------------------------------------------------


class Page:
    """What a client can ask the running demo."""

    def __init__(self, process: subprocess.Popen, port: int, folder: Path):
        self.process, self.port, self.folder = process, port, folder

    def ask(self, method: str, path: str, body: bytes | None = None, **headers: str) -> tuple[int, str, dict]:
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)) as connection:
            connection.request(method, path, body, {name.replace("_", "-"): text for name, text in headers.items()})
            answer = connection.getresponse()
            return answer.status, answer.read().decode(), dict(answer.headers)

    def upload(self, name: str, content: bytes, **headers: str) -> tuple[int, str]:
        head = f'--b\r\nContent-Disposition: form-data; name="files"; filename="{name}"\r\n\r\n'.encode()
        body = head + content + b"\r\n--b--\r\n"
        kind = {"content_type": "multipart/form-data; boundary=b"}
        return self.ask("POST", "/gradio_api/upload", body, **kind | headers)[:2]

    def call(self, name: str, *values: object) -> list | None:
        """What a handler returns at last; `None` where it fails."""
        body = json.dumps({"data": values, "session_hash": "visitor"}).encode()
        _, text, _ = self.ask("POST", f"/gradio_api/call/{name}", body, content_type="application/json")
        _, events, _ = self.ask("GET", f"/gradio_api/call/{name}/{json.loads(text)['event_id']}")
        kind, data = events.strip().split("\n\n")[-1].split("\n")
        return json.loads(data.removeprefix("data: ")) if kind == "event: complete" else None

    def kept(self) -> list[str]:
        return sorted(path.name for path in self.folder.rglob("*") if path.is_file())


def as_file(path: str, name: str = "a.png") -> dict:
    return {"path": path, "orig_name": name, "meta": {"_type": "gradio.FileData"}}


def png(seed: int) -> bytes:
    buffer = io.BytesIO()
    photo(seed).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> Iterator[Page]:
    """The demo of the bundled model for at most three pictures of one MiB; ended by SIGTERM, it leaves nothing."""
    if importlib.util.find_spec("gradio") is None:
        pytest.skip("needs Gradio: pip install 'roc4mllm[demo]'")
    folder = tmp_path_factory.mktemp("temporary")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "roc4mllm_cli", "demo", "--port", str(port), "--max-files", "3"]
    environment = os.environ | {"TMPDIR": str(folder), "GRADIO_ANALYTICS_ENABLED": "True", "GRADIO_SHARE": "True"}
    with subprocess.Popen(
        [*command, "--max-megabytes", "1"], env=environment, stderr=subprocess.PIPE, text=True
    ) as process:
        lines = iter(process.stderr.readline, "")
        assert any(f"http://127.0.0.1:{port}" in line for line in lines), "it ended without an address"
        yield Page(process, port, folder)
        process.send_signal(signal.SIGTERM)
        process.stderr.read()
        assert process.wait(30) == 128 + signal.SIGTERM
    assert list(folder.iterdir()) == []


@pytest.mark.slow
class TestServedPage:
    def test_scores_comparison_and_explanation(self, page):
        contents = {"1.png": png(1), "2.jpg": b"no picture", "3.png": png(2)}
        files = []
        for name, content in contents.items():
            _, text = page.upload(name, content)
            files.append(as_file(json.loads(text)[0], name))
        assert page.kept() == sorted(contents)
        assert [path.stat().st_mode & 0o077 for path in page.folder.iterdir()] == [0]
        scores = page.call("score", files, True)[1]
        assert "2 of 3 scored, 1 failed" in scores
        assert scores.count("<blockquote>") == 2
        record = load_scorer()(contents["1.png"])
        assert f"{record['score']:.2f}</strong> of 1 to 7" in scores
        assert "3.png" in page.call("compare", 0, 2)[0]
        assert "3.png: sharpness" in page.call("explain", 2, "sharpness")[0]
        assert page.call("explain", 2, "beauty") is None

    def test_more_files_than_the_limit_are_errors(self, page):
        path = json.loads(page.upload("1.png", png(1))[1])[0]
        scores = page.call("score", [as_file(path)] * 5, False)[1]
        assert "3 of 5 scored, 2 failed" in scores
        assert scores.count("at most 3 pictures at once") == 2

    def test_a_client_cannot_make_the_server_read_or_fetch_anything_else(self, page, tmp_path):
        secret = tmp_path / "secret.png"
        secret.write_bytes(png(1))
        with socket.create_server(("127.0.0.1", 0)) as listener:
            listener.settimeout(1)
            url = f"http://127.0.0.1:{listener.getsockname()[1]}/x.png"
            for path in (url, url.replace("http", "HTTP"), str(secret), "/etc/hostname", "../secret.png"):
                scored = page.call("score", [as_file(path)], False)
                assert scored is None or "0 of 1 scored, 1 failed" in scored[1], path
            with pytest.raises(TimeoutError):
                listener.accept()

    def test_too_large_uploads_are_refused_and_leave_nothing(self, page):
        before = page.kept()
        assert page.upload("large.png", bytes(2**20 + 1000))[0] == 413
        assert page.ask("POST", "/gradio_api/upload", b"", content_length=str(5 << 20))[0] == 413
        assert page.ask("POST", "/gradio_api/upload", transfer_encoding="chunked")[0] == 411
        assert page.kept() == before

    def test_a_name_cannot_lead_out_of_the_folder(self, page):
        status, text = page.upload("../../../escaped.png", png(3))
        assert status == 200
        assert Path(json.loads(text)[0]).resolve().is_relative_to(page.folder.resolve())

    def test_the_page_asks_no_other_host_and_the_switches_are_off(self, page):
        for path in ("/", "/theme.css"):
            status, text, headers = page.ask("GET", path)
            assert (status, headers["content-security-policy"]) == (200, POLICY)
            assert "googleapis" not in text
        config = json.loads(page.ask("GET", "/config")[1])
        assert (config["analytics_enabled"], config["footer_links"]) == (False, [])
        assert page.ask("GET", "/gradio_api/info")[0] == 200
        assert page.ask("GET", "/monitoring")[0] != 200
