"""`roc4mllm serve`: what it refuses before it loads a model, and the real process up to its end by a signal."""

# ruff: noqa: T201 (counts are told)

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

import pytest
from pictures import encoded
from running_service import FORM, Running, form
from tiny import photo

from roc4mllm.cli import serve
from roc4mllm.inference.service.limits import ServiceLimits
from roc4mllm_cli import build_parser, main

ROOT = Path(__file__).resolve().parent.parent
KEY = "a-key-of-some-length"
FILES = [encoded(photo(seed, 400, 300), "JPEG") for seed in range(8)]


def error_line(capsys, *arguments: str) -> str:
    """The message of a command that the user has to change: one line, exit code 2, nothing on stdout."""
    try:
        code = main(["serve", *arguments])
    except SystemExit as exit:
        code = exit.code
    printed = capsys.readouterr()
    assert (code, printed.out) == (2, "")
    (line,) = printed.err.splitlines()
    assert line.startswith("roc4mllm: error: ")
    return line


@pytest.fixture
def no_model(monkeypatch):
    """What is wrong is said before minutes are spent on a model."""
    monkeypatch.setattr(serve, "load", lambda args: pytest.fail("a model was loaded"))


def test_defaults_are_those_of_the_limits_and_of_this_machine_alone():
    args = build_parser().parse_args(["serve"])
    assert {name: getattr(args, name) for name in asdict(ServiceLimits())} == asdict(ServiceLimits())
    assert (args.host, args.allow_urls, args.api_key_env, args.api_key_file) == ("127.0.0.1", False, None, None)


def test_wrong_limits(capsys, no_model):
    assert "--max-batch: expected a whole number of at least 1" in error_line(capsys, "--max-batch", "0")
    assert "timeout must be at least" in error_line(capsys, "--timeout", "-1")
    line = error_line(capsys, "--queue-size", "8")
    assert "a request of 32 files could never enter a queue of 8" in line


def test_a_taken_port_and_an_address_of_others(capsys, no_model):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert "in use" in error_line(capsys, "--port", str(taken.getsockname()[1]))
    assert "error" in error_line(capsys, "--host", "192.0.2.1", "--port", "0")


def test_keys(capsys, no_model, monkeypatch, tmp_path):
    file = tmp_path / "keys"
    file.write_text("first\n\n second \n")
    assert serve.read_keys(argparse.Namespace(api_key_env=None, api_key_file=str(file))) == ["first", "second"]
    monkeypatch.setenv("KEY", "third")
    assert serve.read_keys(argparse.Namespace(api_key_env="KEY", api_key_file=None)) == ["third"]
    monkeypatch.setenv("KEY", " ")
    assert "KEY holds no API key" in error_line(capsys, "--port", "0", "--api-key-env", "KEY")
    assert "ABSENT holds no API key" in error_line(capsys, "--port", "0", "--api-key-env", "ABSENT")
    file.write_text("two words\n")
    assert "holds no API key" in error_line(capsys, "--port", "0", "--api-key-file", str(file))
    assert "No such file" in error_line(capsys, "--port", "0", "--api-key-file", str(tmp_path / "absent"))
    assert "not allowed with" in error_line(capsys, "--api-key-file", "x", "--api-key-env", "y")


@pytest.mark.parametrize("name", ["fastapi", "uvicorn", "prometheus_client", "python_multipart"])
def test_a_missing_library_names_the_extra(capsys, no_model, monkeypatch, name):
    for module in [module for module in sys.modules if module.startswith("roc4mllm.inference.service")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, name, None)
    assert error_line(capsys).endswith(f"the service needs {name}: pip install 'roc4mllm[serve]'")


@pytest.fixture
def process(tmp_path):
    """The real process, its log, and its port."""
    command = [
        sys.executable,
        "-m",
        "roc4mllm_cli",
        "serve",
        "--port",
        "0",
        "--max-batch",
        "2",
        "--api-key-env",
        "KEY",
    ]
    with open(tmp_path / "log", "w") as log:
        process = subprocess.Popen(command, cwd=ROOT, env=os.environ | {"KEY": KEY}, stderr=log, stdout=log)
    yield process, tmp_path / "log"
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


def test_sigterm_finishes_what_was_accepted_and_refuses_the_rest(process):
    process, log = process
    service, secret = listening(process, log), {"X-API-Key": KEY}

    def ask(number):
        return service.ask("POST", "/score", form(*FILES[:4]), FORM | secret)

    def queue_length():
        lines = service.ask("GET", "/metrics", headers=secret).body.decode().splitlines()
        return next(float(line.split()[1]) for line in lines if line.startswith("roc4mllm_queue_length "))

    assert service.score(FILES[0]).status == 401
    with ThreadPoolExecutor(8) as pool:
        answers = [pool.submit(ask, number) for number in range(8)]
        while queue_length() < 20:
            assert not all(answer.done() for answer in answers), "they were too quick to be interrupted"
        process.send_signal(signal.SIGTERM)
        time.sleep(0.5)
        try:
            refused = service.ask("GET", "/ready").status == 503
        except OSError:
            refused = True
        finished = [answer.result() for answer in answers]
    assert refused
    assert [answer.status for answer in finished] == [200] * 8
    assert all(record["error"] is None for answer in finished for record in answer.json)
    scores = {round(record["score"], 4) for record in finished[0].json}
    assert len(scores) == 4
    assert process.wait(20) == 0
    lines = [json.loads(line) for line in log.read_text().splitlines()]  # every one is JSON
    statuses = [line["status"] for line in lines if line["event"] == "request" and line["method"] == "POST"]
    assert statuses == [401] + [200] * 8
    assert KEY not in log.read_text()
    print("SIGTERM with 8 requests of 4 pictures under way: 8 answered, 32 scores, exit code 0")
