"""
The HTTP service under load, beside what the same machine scores offline, on the bundled checkpoint and CPU.

    python benchmarks/serve.py            # prints the table; about four minutes
    python benchmarks/serve.py --write    # and saves it with machine and versions to benchmarks/results/serve.md
    python benchmarks/serve.py --seconds 10 --clients 16

The service is `roc4mllm serve` in a process of its own, the clients (`serve_load.py`) are another. This one scores
offline, before and after the load, so that a machine that slows down slows both: as `roc4mllm score` does, whose
workers read the pictures beside the model, and as one calls the pipeline, which reads and scores in turn. Batches are
the service's; the better of both is what it is held to. Single requests and direct calls are interleaved. Threads
wait for each other as the commands let them (`PATIENT_THREADS`), and freed memory is kept as there.
"""
# ruff: noqa: E402 (torch reads the environment when it is imported)

import argparse
import contextlib
import datetime
import http.client
import io
import json
import os
import platform
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from itertools import cycle, takewhile
from pathlib import Path
from typing import NamedTuple

from roc4mllm_cli.arguments import PATIENT_THREADS

os.environ.update(PATIENT_THREADS)

import torch
from serve_load import request_of

from roc4mllm import ImageAestheticsPipeline, load_scorer
from roc4mllm.cli.score import Job, write_file
from roc4mllm.inference.freed_memory import keep_freed_memory
from roc4mllm.inference.inputs.picture_input import PictureInput
from roc4mllm.inference.tables.score_writing import check_output
from roc4mllm_cli import build_parser

ROOT = Path(__file__).resolve().parent.parent
PHOTOS = sorted(path for path in (ROOT / "examples" / "photos").iterdir() if path.suffix in (".jpg", ".png"))
RESULTS = Path(__file__).parent / "results" / "serve.md"
LIBRARIES = ("torch", "transformers", "fastapi", "uvicorn")
PAIRS = 60
OFFLINE = ("roc4mllm score", "direct batches")
BATCHES = ("roc4mllm_batch_size_count", "roc4mllm_batch_size_sum")


class Service(NamedTuple):
    """A running service."""

    port: int
    pid: int

    def metric(self, name: str) -> float:
        """The value of one line of `/metrics`."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port)
        connection.request("GET", "/metrics")
        lines = connection.getresponse().read().decode().splitlines()
        connection.close()
        return next(float(line.split()[-1]) for line in lines if line.startswith(f"{name} "))


class Row(NamedTuple):
    """One line of the table; without a limit, a figure that is only reported."""

    what: str
    limit: str
    measured: str
    detail: str
    ok: bool | None = None

    def __str__(self) -> str:
        verdict = {None: "", True: "ok", False: "NOT"}[self.ok]
        return f"| {self.what} | {self.limit} | {self.measured} | {self.detail} | {verdict} |"


@contextmanager
def service(batch_size: int) -> Iterator[Service]:
    """`roc4mllm serve` on a free port, ended by SIGTERM."""
    command = [sys.executable, "-m", "roc4mllm_cli", "serve", "--port", "0", "--max-batch", str(batch_size)]
    with tempfile.NamedTemporaryFile("w+") as log, subprocess.Popen(command, cwd=ROOT, stderr=log) as process:
        try:
            yield Service(port_in(log.name, process), process.pid)
        finally:
            process.terminate()
            process.wait(60)


def port_in(log: str, process: subprocess.Popen) -> int:
    """Where the service listens, once its log tells."""
    while process.poll() is None:
        time.sleep(0.1)
        for line in Path(log).read_text().splitlines():
            if '"listening"' in line:
                return int(json.loads(line)["url"].rsplit(":", 1)[1])
    raise SystemExit(f"the service ended: {Path(log).read_text()}")


def score_command(scorer: ImageAestheticsPipeline, batch_size: int, seconds: float) -> tuple[float, float]:
    """
    What `roc4mllm score -o FILE` does with many pictures once the model is loaded: pictures per second until the last
    row is written, and processor seconds per picture, those of its workers too.
    """
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "scores.csv"
        args = build_parser().parse_args(["score", str(PHOTOS[0]), "-o", str(output), "--batch-size", str(batch_size)])
        start, cpu = time.perf_counter(), os.times()
        inputs = takewhile(lambda _: time.perf_counter() - start < seconds, cycle(PHOTOS))
        pictures = (PictureInput(str(path)) for path in inputs)
        job = Job(args, scorer, scorer.model.config.attributes, pictures, count=None)
        with contextlib.redirect_stderr(io.StringIO()):
            write_file(check_output(output), job)
        taken = time.perf_counter() - start
    assert job.progress.failed == 0, job.summary()
    spent = sum(end - begin for begin, end in zip(cpu[:4], os.times()[:4], strict=True))
    return job.progress.done / taken, spent / job.progress.done


def direct_batches(scorer: ImageAestheticsPipeline, batch_size: int, seconds: float) -> tuple[float, float]:
    """The same of direct calls with whole batches, files in memory."""
    pictures = [path.read_bytes() for path in PHOTOS]
    wanted = [pictures[index % len(pictures)] for index in range(4 * batch_size)]
    start, cpu, done = time.perf_counter(), time.process_time(), 0
    while (taken := time.perf_counter() - start) < seconds:
        done += sum(record["error"] is None for record in scorer(wanted, batch_size=batch_size))
    return done / taken, (time.process_time() - cpu) / done


def load(running: Service, clients: int, seconds: float) -> tuple[dict, list[float]]:
    """What the clients saw, and the service's memory in MB at a quarter of the time and at its end."""
    command = [sys.executable, Path(__file__).parent / "serve_load.py", running.port, clients, seconds, *PHOTOS]
    with subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE) as process:
        memory = []
        for share in (0.25, 0.75):
            time.sleep(share * seconds)
            memory.append(running.metric("process_resident_memory_bytes") / 1e6)
        return json.loads(process.stdout.read()), memory


def single_requests(running: Service, scorer: ImageAestheticsPipeline, pictures: list[bytes]) -> list[list[float]]:
    """Milliseconds of single requests and of direct calls, interleaved."""
    connection = socket.create_connection(("127.0.0.1", running.port))
    answers = connection.makefile("rb")
    requests = [request_of(picture) for picture in pictures]

    def ask(number: int) -> None:
        connection.sendall(requests[number])
        length = 0
        while (line := answers.readline()) != b"\r\n":
            if line.lower().startswith(b"content-length:"):
                length = int(line[15:])
        assert b'"error":null' in answers.read(length)

    times: list[list[float]] = [[], []]
    for number in range(PAIRS + len(pictures)):
        for kept, call in zip(times, (ask, lambda number: scorer(pictures[number])), strict=True):
            start = time.perf_counter()
            call(number % len(pictures))
            kept.append((time.perf_counter() - start) * 1e3)
    connection.close()
    return [kept[len(pictures) :] for kept in times]


def measure(clients: int, seconds: float, batch_size: int) -> Iterator[Row]:
    """All rows."""
    keep_freed_memory()
    scorer, pictures = load_scorer(), [path.read_bytes() for path in PHOTOS]

    def offline() -> list[tuple[float, float]]:
        return [method(scorer, batch_size, seconds / 4) for method in (score_command, direct_batches)]

    direct_batches(scorer, batch_size, 1)  # warm up
    measured = [offline()]
    with service(batch_size) as running:
        load(running, clients, 2)  # warm up
        before = [running.metric(name) for name in ("process_cpu_seconds_total", *BATCHES)]
        seen, memory = load(running, clients, seconds)
        after = [running.metric(name) for name in ("process_cpu_seconds_total", *BATCHES)]
        cpu, batches, batched = (end - start for start, end in zip(before, after, strict=True))
        measured.append(offline())
        single, alone = map(statistics.median, single_requests(running, scorer, pictures))
    means = [tuple(map(statistics.mean, zip(*both, strict=True))) for both in zip(*measured, strict=True)]
    yield from loaded_rows(seen, memory, dict(zip(OFFLINE, (rate for rate, _ in means), strict=True)))
    each = ", ".join(f"{name} {seconds * 1e3:.1f}" for name, (_, seconds) in zip(OFFLINE, means, strict=True))
    yield Row("processor time per picture", "reported", f"{cpu / batched * 1e3:.1f} ms", f"{each} ms")
    yield Row("pictures per forward pass", "reported", f"{batched / batches:.2f}", f"at most {batch_size}")
    yield Row("processor time of the service", "reported", f"{cpu / seconds:.2f} cores", f"of {os.cpu_count()}")
    yield Row("processor time of the clients", "reported", f"{seen['cpu_share']:.2f} cores", "one process")
    detail = f"median of {PAIRS} pairs; {single:.1f} − {alone:.1f} ms"
    yield Row("single request − direct call", "≤ 5 ms", f"{single - alone:.1f} ms", detail, single - alone <= 5)


def loaded_rows(seen: dict, memory: list[float], offline: dict[str, float]) -> Iterator[Row]:
    """What the clients saw, beside pictures per second offline."""
    problems = sum(seen["problems"].values())
    yield Row("answers other than a score", "0", str(problems), f"of {seen['answers']} requests", not problems)
    cuts = statistics.quantiles(seen["latencies"], n=100, method="inclusive")
    ratio = cuts[98] / cuts[49]
    yield Row("p99 ÷ p50", "≤ 3", f"{ratio:.2f}", f"{cuts[98]:.3f} ÷ {cuts[49]:.3f} s", ratio <= 3)
    rate, best = len(seen["latencies"]) / seen["seconds"], max(offline.values())
    for name, other in offline.items():
        limit, ok = ("≥ 0.8", rate >= 0.8 * other) if other == best else ("reported", None)
        yield Row(f"throughput ÷ {name}", limit, f"{rate / other:.2f}", f"{rate:.1f} ÷ {other:.1f} pictures/s", ok)
    growth = memory[1] / memory[0]
    detail = f"{memory[1]:.0f} ÷ {memory[0]:.0f} MB"
    yield Row("memory at the end ÷ at a quarter", "≤ 1.05", f"{growth:.3f}", detail, growth <= 1.05)


def head(options: argparse.Namespace) -> str:
    """What stands above the rows: the set-up, the machine and the versions."""
    cpuinfo = Path("/proc/cpuinfo").read_text().splitlines() if sys.platform == "linux" else []
    cpu = next((line.split(":")[1].strip() for line in cpuinfo if "model name" in line), platform.processor())
    versions = ", ".join(f"{name} {version(name)}" for name in LIBRARIES)
    return f"""# The HTTP service

`python benchmarks/serve.py --write`

The bundled checkpoint, float32, on the {len(PHOTOS)} pictures of examples/photos. {options.clients} clients for \
{options.seconds:g} s, each with one picture a request over a connection that stays open; batches of at most \
{options.batch_size}, offline and in the service. Offline: `roc4mllm score` with its workers, and direct calls of the \
pipeline. Service, clients and offline scoring share one machine.
{datetime.date.today()}; {cpu}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} before; \
{torch.get_num_threads()} thread(s) per forward pass; {versions}.

| what | limit | measured | detail | |
|---|---|---:|---|---|
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help=f"save the table to results/{RESULTS.name}")
    parser.add_argument("--seconds", type=float, default=60, help="how long the clients ask")
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--batch-size", type=int, default=8)
    options = parser.parse_args()
    table = head(options)
    print(table, end="", flush=True)
    for row in measure(options.clients, options.seconds, options.batch_size):
        print(row, flush=True)
        table += f"{row}\n"
    if options.write:
        RESULTS.write_text(table, encoding="utf-8")


if __name__ == "__main__":
    main()
