"""
Scoring by Ray on one machine beside the runner of one machine: pictures per second as ratios, with the bundled model.

    python benchmarks/bulk_ray.py                  # prints the table; a quarter of an hour on two cores
    python benchmarks/bulk_ray.py --write          # and saves it to benchmarks/results/bulk_ray.md
    python benchmarks/bulk_ray.py --pictures 500 --rounds 1    # a trial

Both read the same generated pictures from a folder and make the same records, which are compared. Start-up is left
out: the time runs from the record after the first tenth to the last one. Each runner has its turn in each round, and
the ratio is the median over the rounds.
"""

import argparse
import datetime
import io
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import ray
import torch
import transformers
from PIL import Image

from roc4mllm import load_scorer
from roc4mllm.inference import ImageAestheticsScorer
from roc4mllm.inference.bulk_scoring import score_inputs
from roc4mllm.inference.inputs.expansion import expand_inputs
from roc4mllm.inference.ray_scoring import RayScorer, import_ray

LIMIT = 0.7  # Ray ÷ runner of one machine
SIZE = (320, 240)
RESULTS = Path(__file__).parent / "results" / "bulk_ray.md"
HEAD = "| what | limit | measured | detail | |\n|---|---:|---:|---|---|"
Scores = list[float]


def write_pictures(folder: str, count: int) -> None:
    """JPEG files of smooth random colours."""
    dice = np.random.RandomState(0)
    for number in range(count):
        noise = Image.fromarray(dice.randint(0, 255, (6, 8, 3), dtype=np.uint8))
        buffer = io.BytesIO()
        noise.resize(SIZE, Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=90)
        Path(folder, f"{number:06}.jpg").write_bytes(buffer.getvalue())


def runners(cores: int) -> dict[str, Any]:
    """What is compared, by name: functions from inputs to pairs of input and record."""
    local = load_scorer(device="cpu")

    def on_ray(actors: int) -> Any:
        scorer = RayScorer(ImageAestheticsScorer(device="cpu"), load_scorer(device="cpu"), actors=(actors, actors))
        return lambda inputs: scorer.score_inputs(inputs, batch_size=8, num_workers=0)

    names = {f"{actors} actors" if actors > 1 else "1 actor": on_ray(actors) for actors in sorted({1, cores})}
    return {"one machine": lambda inputs: score_inputs(local, inputs, batch_size=8, num_workers=cores)} | names


def rate(pairs: Iterator[tuple[Any, dict[str, Any]]], count: int) -> tuple[float, Scores]:
    """Pictures per second after the first tenth, and all scores."""
    scores: Scores = []
    start = 0.0
    for _, record in pairs:
        scores.append(record["normalized"])
        if len(scores) == count // 10:
            start = time.perf_counter()
    return (count - count // 10) / (time.perf_counter() - start), scores


def measure(folder: str, count: int, rounds: int, cores: int) -> dict[str, list[float]]:
    """The rates of all runners; they are refused where the scores differ."""
    rates: dict[str, list[float]] = {}
    expected: Scores | None = None
    for number in range(rounds):
        for name, run in runners(cores).items():
            found, scores = rate(run(expand_inputs([folder])), count)
            print(f"round {number + 1}, {name}: {found:.1f} pictures/s", file=sys.stderr, flush=True)
            expected = expected or scores
            np.testing.assert_allclose(scores, expected, atol=1e-5)
            assert np.std(scores) > 1e-3, "all pictures score alike"
            rates.setdefault(name, []).append(found)
    return rates


def table(rates: dict[str, list[float]]) -> Iterator[str]:
    """The lines of the table: most actors beside the one machine, and beside one actor."""
    alone, one, *more = rates
    most = [one, *more][-1]
    pairs = [(f"Ray, {most} ÷ {alone}", most, alone, LIMIT)] + [(f"{most} ÷ {one}", most, one, None) for _ in more]
    for what, first, second, limit in pairs:
        ratio = statistics.median(ours / theirs for ours, theirs in zip(rates[first], rates[second], strict=True))
        detail = " ÷ ".join(f"{statistics.median(rates[name]):.1f}" for name in (first, second)) + " pictures/s"
        told, verdict = ("reported", "") if limit is None else (f"≥ {limit}", "ok" if ratio >= limit else "NOT")
        yield f"| {what} | {told} | {ratio:.2f} | {detail} | {verdict} |"


def report(rates: dict[str, list[float]], args: argparse.Namespace, cores: int) -> str:
    """The table with machine and versions."""
    load = os.getloadavg()[0]
    about = f"{datetime.date.today()}; {platform.machine()}, {cores} cores, load {load:.1f}; Python "
    about += f"{platform.python_version()}, torch {torch.__version__}, transformers {transformers.__version__}, "
    about += f"ray {ray.__version__}."
    setting = f"{args.pictures} JPEG files of {SIZE[0]} × {SIZE[1]}, the bundled model, batches of 8; {args.rounds} "
    setting += f"round(s). The runner of one machine has {cores} reading processes, an actor of Ray one CPU."
    lines = "\n".join(table(rates))
    return (
        f"# Ray beside the runner of one machine\n\n`python benchmarks/bulk_ray.py --write`\n\n{setting}\n{about}\n\n"
        f"{HEAD}\n{lines}\n"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=5000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--write", action="store_true", help=f"save to {RESULTS.name}")
    args = parser.parse_args()
    cores = os.cpu_count() or 1
    import_ray().init(num_cpus=cores, include_dashboard=False, log_to_driver=False, logging_level="error")
    with tempfile.TemporaryDirectory() as folder:
        write_pictures(folder, args.pictures)
        text = report(measure(folder, args.pictures, args.rounds, cores), args, cores)
    print(text)
    if args.write:
        RESULTS.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
