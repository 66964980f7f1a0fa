"""`roc4mllm serve`: what it refuses before it loads a model, and the real process up to its end by a signal."""

# ruff: noqa: T201 (counts are told)

import argparse
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from command_errors import error_line
from pictures import encoded
from readme_commands import readme_commands
from running_service import FORM, Running, form
from tiny import photo

from roc4mllm.cli import serve
from roc4mllm.inference.service.limits import ServiceLimits
from roc4mllm_cli import build_parser

ROOT = Path(__file__).resolve().parent.parent
KEY = "a-key-of-some-length"
FILES = [encoded(photo(seed, 400, 300), "JPEG") for seed in range(8)]


@pytest.fixture
def no_model(monkeypatch):
    """What is wrong is said before minutes are spent on a model."""
    monkeypatch.setattr(serve, "load", lambda args: pytest.fail("a model was loaded"))


def test_defaults_are_those_of_the_limits_and_of_this_machine_alone():
    args = build_parser().parse_args(["serve"])
    assert {name: getattr(args, name) for name in asdict(ServiceLimits())} == asdict(ServiceLimits())
    assert (args.host, args.allow_urls, args.api_key_env, args.api_key_file) == ("127.0.0.1", False, None, None)


def test_wrong_limits(capsys, no_model):
    assert "--max-batch: expected a whole number of at least 1" in error_line(capsys, "serve", "--max-batch", "0")
    assert "timeout must be a number of seconds above 0" in error_line(capsys, "serve", "--timeout", "-1")
    assert "at most 65535, got '70000'" in error_line(capsys, "serve", "--port", "70000")
    line = error_line(capsys, "serve", "--queue-size", "8")
    assert "a request of 32 files could never enter a queue of 8" in line


def test_a_taken_port_and_an_address_of_others(capsys, no_model):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        told = error_line(capsys, "serve", "--port", str(port))
        assert f"cannot listen on '127.0.0.1', port {port}: Address already in use; choose another" in told
    assert "cannot listen on '192.0.2.1'" in error_line(capsys, "serve", "--host", "192.0.2.1", "--port", "0")
    assert "no name of a host" in error_line(capsys, "serve", "--host", "é" * 70, "--port", "0")


def test_keys(capsys, no_model, monkeypatch, tmp_path):
    file = tmp_path / "keys"
    file.write_text("first\n\n second \n")
    assert serve.read_keys(argparse.Namespace(api_key_env=None, api_key_file=str(file))) == ["first", "second"]
    monkeypatch.setenv("KEY", "third")
    assert serve.read_keys(argparse.Namespace(api_key_env="KEY", api_key_file=None)) == ["third"]
    monkeypatch.setenv("KEY", " ")
    assert "KEY holds no API key" in error_line(capsys, "serve", "--port", "0", "--api-key-env", "KEY")
    assert "ABSENT holds no API key" in error_line(capsys, "serve", "--port", "0", "--api-key-env", "ABSENT")
    file.write_text("two words\n")
    assert "holds no API key" in error_line(capsys, "serve", "--port", "0", "--api-key-file", str(file))
    assert "No such file" in error_line(capsys, "serve", "--port", "0", "--api-key-file", str(tmp_path / "absent"))
    file.write_bytes(b"k\xff\n")
    assert "keys' holds no API key" in error_line(capsys, "serve", "--port", "0", "--api-key-file", str(file))
    file.write_text("first\nsecond\n", encoding="utf-8-sig")
    assert serve.read_keys(argparse.Namespace(api_key_env=None, api_key_file=str(file))) == ["first", "second"]
    assert "not allowed with" in error_line(capsys, "serve", "--api-key-file", "x", "--api-key-env", "y")


@pytest.mark.parametrize("name", ["fastapi", "uvicorn", "prometheus_client", "python_multipart"])
def test_a_missing_library_names_the_extra(capsys, no_model, monkeypatch, name):
    for module in [module for module in sys.modules if module.startswith("roc4mllm.inference.service")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, name, None)
    assert error_line(capsys, "serve").endswith(f"the service needs {name}: pip install 'roc4mllm[serve]'")


@pytest.fixture(scope="module")
def process(tmp_path_factory):
    """The real process, as the readme starts one with a key, its log, and a client."""
    (command,) = [words for words in readme_commands("roc4mllm serve") if "--api-key-env" in words]
    here = ["--host", "127.0.0.1", "--port", "0", "--max-batch", "2"]
    file = tmp_path_factory.mktemp("service") / "log"
    with open(file, "w") as log:
        command = [sys.executable, "-m", "roc4mllm_cli", *command[1:], *here]
        process = subprocess.Popen(command, cwd=ROOT, env=os.environ | {"API_KEY": KEY}, stderr=log, stdout=log)
    yield process, file, listening(process, file)
    process.kill()
    process.wait()


def listening(process, log: Path) -> Running:
    end = time.monotonic() + 120
    while time.monotonic() < end and process.poll() is None:
        time.sleep(0.1)
        for line in log.read_text().splitlines():
            if '"listening"' in line:
                return Running(int(json.loads(line)["url"].rsplit(":", 1)[1]), None)
    raise AssertionError(log.read_text())


def test_the_lines_of_curl_in_the_readme(process, tmp_path):
    _, _, service = process
    for name, content in (("a.jpg", FILES[0]), ("b.jpg", FILES[1]), ("broken.jpg", b"no picture")):
        (tmp_path / name).write_bytes(content)
    lines = readme_commands("curl")
    (two, chosen, strict, url) = [answer(line, tmp_path, service) for line in lines]
    assert two[0] == 200
    assert abs(two[1][0]["score"] - two[1][1]["score"]) > 1e-3
    assert (chosen[0], list(chosen[1][0]["attributes"])) == (200, ["sharpness", "noise"])
    assert (strict[0], "not a picture" in strict[1][0]["error"]) == (422, True)
    assert (url[0], "not a public address" in url[1][0]["error"]) == (200, True)
    assert answer(lines[0], tmp_path, service, key="x")[0] == 401


def answer(line: list[str], folder: Path, service: Running, key: str = KEY) -> tuple[int, Any]:
    """Status and JSON of a line of curl, where it is not installed of the same request; to no host but this."""
    there = {"http://127.0.0.1:8000": f"http://127.0.0.1:{service.port}", "https://example.org": "http://127.0.0.1:9"}
    for old, new in there.items():
        line = [word.replace(old, new) for word in line]
    line = [word.replace("$API_KEY", key) for word in line]
    if not any("Authorization" in word for word in line):
        line += ["-H", f"Authorization: Bearer {key}"]
    if shutil.which("curl"):
        told = subprocess.run([*line, "-s", "-w", "\n%{http_code}"], cwd=folder, capture_output=True, timeout=60)
        body, _, status = told.stdout.rpartition(b"\n")
        return int(status), json.loads(body)
    parser = argparse.ArgumentParser()
    for option in ("-F", "-H", "-d"):
        parser.add_argument(option, action="append", default=[])
    args = parser.parse_args([word for word in line[1:] if not word.startswith("http:")])
    (url,) = [word for word in line if word.startswith("http:")]
    files = [(folder / part.partition("=@")[2]).read_bytes() for part in args.F]
    headers = dict(header.split(": ", 1) for header in args.H)
    found = service.ask("POST", url, args.d[0] if args.d else form(*files), ({} if args.d else FORM) | headers)
    return found.status, found.json


def test_sigterm_finishes_what_was_accepted_and_refuses_the_rest(process):
    process, log, service = process
    secret = {"X-API-Key": KEY}

    def ask(number):
        try:
            return service.ask("POST", "/score", form(*FILES[:4]), FORM | secret)
        except OSError:
            return None  # no connection is taken any more

    def queue_length():
        lines = service.ask("GET", "/metrics", headers=secret).body.decode().splitlines()
        return next(float(line.split()[1]) for line in lines if line.startswith("roc4mllm_queue_length "))

    assert service.score(FILES[0]).status == 401
    with ThreadPoolExecutor(8) as pool:
        answers = [pool.submit(ask, number) for number in range(8)]
        while (accepted := queue_length()) < 20:  # of a busy machine's eight, the last may come after the signal
            assert not all(answer.done() for answer in answers), "they were too quick to be interrupted"
        process.send_signal(signal.SIGTERM)
        time.sleep(0.5)
        try:
            refused = service.ask("GET", "/ready").status == 503
        except OSError:
            refused = True
        finished = [answer.result() for answer in answers]
    assert refused
    answered = [answer for answer in finished if answer and answer.status == 200]
    late = [answer.status for answer in finished if answer and answer.status != 200]
    assert len(answered) * 4 >= accepted
    assert set(late) <= {503}
    assert all(record["error"] is None for answer in answered for record in answer.json)
    scores = {round(record["score"], 4) for record in answered[0].json}
    assert len(scores) == 4
    assert process.wait(20) == 0
    lines = [json.loads(line) for line in log.read_text().splitlines()]  # every one is JSON
    statuses = [line["status"] for line in lines if line["event"] == "request" and line["method"] == "POST"]
    sent = 1 + len(answered) + len(late)
    assert sorted(statuses[-sent:]) == sorted([401] + [200] * len(answered) + late)
    assert KEY not in log.read_text()
    print(f"SIGTERM with {accepted:.0f} pictures under way: {4 * len(answered)} scored, exit code 0")
