"""
Scoring many files on one machine: what reading and the model cost together, and the memory of the process that scores.

    python benchmarks/bulk.py            # prints the table; about fifteen minutes
    python benchmarks/bulk.py --write    # and saves it with machine and versions to benchmarks/results/bulk.md
    python benchmarks/bulk.py --trial    # few pictures and rounds: whether it runs at all

Photographs are generated JPEG files. One round measures, one after the other: reading alone (decoded and prepared by
as many workers as there are cores), the model alone (on prepared batches, with as many threads), `roc4mllm score` as a
whole, rows written to a CSV, and `[scorer(path) for path in paths]`. Start-up of Python and loading are left out of
all four. Ratios are medians over the rounds. If reading and the model shared the cores without any loss, a picture
would take the sum of both times: that is the bound. Threads
wait for each other as the command lets them (`PATIENT_THREADS`), and freed memory is kept as there.
The memory is the highest resident set of the scoring process, its workers apart, in a process of its own for each
number of inputs and each kind of table (Linux only); the files are hard links to a few small pictures.
"""
# ruff: noqa: E402 (torch reads the environment when it is imported)

import argparse
import contextlib
import datetime
import io
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from roc4mllm_cli.arguments import PATIENT_THREADS

os.environ.update(PATIENT_THREADS)

import numpy as np
import PIL
import pyarrow.parquet
import torch
import transformers
from family_models import eat
from PIL import Image
from scoring import cpu_name

import roc4mllm
from roc4mllm.cli.score import Job, write_file
from roc4mllm.inference.freed_memory import keep_freed_memory
from roc4mllm.inference.inputs.expansion import expand_inputs
from roc4mllm.inference.tables.score_formats import parquet_parts
from roc4mllm.inference.tables.score_writing import check_output
from roc4mllm.processing_roc4mllm.picture_stream_aesthetics import batches
from roc4mllm.trainer.image_scorers import fresh_config, new_image_processor
from roc4mllm_cli import build_parser

SIZES = ((1200, 800), (800, 1200), (1000, 1000), (640, 480))
PICTURES, ROUNDS, BATCH = 160, 3, 8
FEW, MANY = 1_000, 100_000
WORKERS = min(os.cpu_count() or 1, 8)
RESULTS = Path(__file__).parent / "results" / "bulk.md"


class Rates(NamedTuple):
    """Pictures per second of one round."""

    reading: float
    model: float
    whole: float
    one_by_one: float

    @property
    def bound(self) -> float:
        """If nothing were lost."""
        return 1 / (1 / self.reading + 1 / self.model)


# ---- what is scored -------------------------------------------------------------------------------------------------


def make_photographs(folder: Path, count: int) -> list[str]:
    """Smooth colours with fine grain, which JPEG files of photographs resemble in size and in time to decode."""
    dice = np.random.default_rng(0)
    for number in range(count):
        width, height = SIZES[number % len(SIZES)]
        coarse = Image.fromarray(dice.integers(0, 256, (24, 32, 3), dtype=np.uint8)).resize((width, height), 3)
        grain = dice.integers(-12, 13, (height, width, 1))
        pixels = (np.asarray(coarse) + grain).clip(0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:05}.jpg", quality=90)
    return [str(folder / f"{number:05}.jpg") for number in range(count)]


def scorers(device: str) -> dict[str, object]:
    """The bundled checkpoint, for which reading takes longest, and a model that takes longer itself."""
    keep_freed_memory()
    torch.manual_seed(0)
    config = fresh_config("eat-tiny", num_levels=10, score_range=(1.0, 10.0))
    model = roc4mllm.EATForImageAesthetics(config)
    heavy = roc4mllm.load_scorer(
        model, image_processor=new_image_processor(config), allow_untrained=True, device=device
    )
    return {"bundled": roc4mllm.load_scorer(device=device), "EAT (tiny, 224 x 224)": heavy}


# ---- speed ----------------------------------------------------------------------------------------------------------


def rates(scorer, paths: list[str], prepared: list, folder: Path) -> Rates:
    """One round."""
    return Rates(
        per_second(len(paths), lambda: list(batches(paths, scorer.preparation(), BATCH, WORKERS))),
        per_second(sum(len(batch.sources) for batch in prepared), lambda: [scorer.forward(b) for b in prepared]),
        per_second(len(paths), lambda: score_to_csv(scorer, paths, folder / "scores.csv")),
        per_second(len(paths), lambda: [scorer(path) for path in paths]),
    )


def per_second(count: int, run) -> float:
    """Pictures per second."""
    start = time.perf_counter()
    run()
    return count / (time.perf_counter() - start)


def score_to_csv(scorer, paths: list[str], output: Path) -> None:
    """What `roc4mllm score PATHS -o FILE` does once the model is loaded."""
    arguments = ["score", *paths, "-o", str(output), "--batch-size", str(BATCH), "--num-workers", str(WORKERS)]
    args = build_parser().parse_args(arguments)
    job = Job(args, scorer, scorer.model.config.attributes, expand_inputs(paths), len(paths))
    write_file(check_output(output), job)
    assert job.progress.failed == 0, job.summary()


def speed_rows(pictures: int, rounds: int, device: str) -> Iterator[str]:
    """A line for each scorer; on a GPU the whole is compared with the model alone, for reading is done beside it."""
    with tempfile.TemporaryDirectory() as name:
        paths = make_photographs(Path(name), pictures)
        for what, scorer in scorers(device).items():
            prepared = list(batches(paths[: 8 * BATCH], scorer.preparation(), BATCH, 0))
            score_to_csv(scorer, paths[: 2 * BATCH], Path(name) / "warm.csv")
            measured = [rates(scorer, paths, prepared, Path(name)) for _ in range(rounds)]
            shares = [rate.whole / (rate.bound if device == "cpu" else rate.model) for rate in measured]
            gains = [rate.whole / rate.one_by_one for rate in measured]
            cells = [f"{statistics.median(getattr(rate, field) for rate in measured):.1f}" for field in Rates._fields]
            yield f"| {what} | {' | '.join(cells)} | {spread(shares, 0.9)} | {spread(gains, 1.2)} |"


def spread(ratios: list[float], limit: float) -> str:
    """Median, lowest and highest, and whether the median reaches the limit."""
    middle = statistics.median(ratios)
    return f"{middle:.3f} ({min(ratios):.3f}–{max(ratios):.3f}) {'ok' if middle >= limit else 'NOT'}"


# ---- memory ---------------------------------------------------------------------------------------------------------


def memory_rows(few: int, many: int) -> Iterator[str]:
    """A line for each way that rows are written."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for number in range(16):
            pixels = np.random.default_rng(number).integers(0, 256, (48, 64, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"seed{number}.png")
        albums = [linked(folder, count) for count in (few, many)]
        for kind, ending in (("CSV", ".csv"), ("Parquet parts", "/")):
            small, large = (peak(album, f"{folder}/table-{album.name}{ending}") for album in albums)
            rows = count_rows(Path(f"{folder}/table-{albums[1].name}{ending}"))
            assert rows == many, f"{rows} rows of {many}"
            cells = [f"{few:,} to {many:,} inputs to {kind}", f"{small} MB, {large} MB", "≤ 1.1"]
            yield f"| {' | '.join(cells)} | {large / small:.3f} | {'ok' if large / small <= 1.1 else 'NOT'} |"


def count_rows(table: Path) -> int:
    """Rows of a CSV file or of a folder of Parquet parts."""
    if table.is_dir():
        return sum(pyarrow.parquet.read_metadata(part).num_rows for part in parquet_parts(table))
    with table.open() as file:
        return sum(1 for _ in file) - 1


def linked(folder: Path, count: int) -> Path:
    """A folder of so many files."""
    album = folder / f"album{count}"
    album.mkdir()
    for number in range(count):
        os.link(folder / f"seed{number % 16}.png", album / f"{number:06}.png")
    return album


def peak(album: Path, output: str) -> int:
    """Highest resident set, in MB, of a process that scores a folder."""
    command = [sys.executable, __file__, "--child", str(album), output]
    child = subprocess.run(command, capture_output=True, text=True, check=True)
    return int(child.stdout.splitlines()[-1])


def child(album: str, output: str) -> None:
    """Score a folder by a model that takes no time to speak of, and print the highest resident set in MB."""
    torch.set_num_threads(1)
    keep_freed_memory()
    model = eat().eval()
    scorer = roc4mllm.load_scorer(model, image_processor=new_image_processor(model.config), allow_untrained=True)
    options = ["--batch-size", "64", "--num-workers", str(WORKERS), "--allow-untrained"]
    args = build_parser().parse_args(["score", album, "-o", output, *options])
    with contextlib.redirect_stderr(io.StringIO()):
        write_file(check_output(output), Job(args, scorer, ["aesthetics"], expand_inputs([album]), None))
    status = Path("/proc/self/status").read_text()  # of this process alone: ru_maxrss also counts who started it
    print(int(status.split("VmHWM:")[1].split()[0]) >> 10)


# ---- the table ------------------------------------------------------------------------------------------------------

TABLE = """# Scoring many files on one machine

| scorer | reading alone | model alone | whole | one by one | whole ÷ bound (≥ 0.9) | whole ÷ one by one (≥ 1.2) |
|---|---|---|---|---|---|---|
{speed}

Pictures per second, medians of {rounds} rounds; ratios with lowest and highest. {pictures} generated JPEG files of up
to 1200 x 800 pixels, batches of {batch}, {workers} workers. Reading: decoded, resized and prepared. Whole: until the
last row is in a CSV. Bound: 1 / (1 / reading + 1 / model), if nothing were lost. One by one:
`[scorer(p) for p in paths]`. On a GPU the bound is the model alone{without}.

| memory of the scoring process | highest resident set | limit | ratio | |
|---|---|---|---|---|
{memory}

Measured {date} on {machine}.
Command: `python benchmarks/bulk.py --write`
"""


def main() -> None:
    """Parse and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help=f"save the table to {RESULTS.name}")
    parser.add_argument("--trial", action="store_true", help="few pictures and rounds")
    parser.add_argument("--child", nargs=2, metavar=("ALBUM", "OUTPUT"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        child(*arguments.child)
        return
    pictures, rounds = (48, 2) if arguments.trial else (PICTURES, ROUNDS)
    with contextlib.redirect_stderr(io.StringIO()):
        speed = list(speed_rows(pictures, rounds, "cpu"))
        if torch.cuda.is_available():
            name = torch.cuda.get_device_name()
            speed += [row.replace("| ", f"| {name}, ", 1) for row in speed_rows(pictures, rounds, "cuda")]
    text = TABLE.format(
        speed="\n".join(speed),
        memory="\n".join(memory_rows(200, 2_000) if arguments.trial else memory_rows(FEW, MANY)),
        without="" if torch.cuda.is_available() else "; none was at hand",
        rounds=rounds,
        pictures=pictures,
        batch=BATCH,
        workers=WORKERS,
        date=datetime.date.today().isoformat(),
        machine=f"{cpu_name()}, {os.cpu_count()} cores, {platform.system()}, Python {platform.python_version()}, "
        f"torch {torch.__version__}, transformers {transformers.__version__}, Pillow {PIL.__version__}",
    )
    print(text)
    if arguments.write:
        RESULTS.write_text(text)


if __name__ == "__main__":
    main()
