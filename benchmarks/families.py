"""
Pictures per second of TANet, EAT and ELTA at their published sizes, beside transformers' own networks, on CPU.

    python benchmarks/families.py               # prints the table; about half an hour
    python benchmarks/families.py --write       # and saves it with machine and versions to results/families.md
    python benchmarks/families.py --busy        # where others use the machine too: one thread, its processor time
    python benchmarks/families.py --rounds 1    # a look; such numbers are not to be committed

In each round, ours and the yardsticks take the same batch one after the other, so that a machine that slows down
slows all; each ratio is the median over the rounds. TANet's and ELTA's yardsticks are their own networks called alone:
they share their weights, so that both sides read the same memory. Clocks are those of `scoring.py`.
"""

import argparse
import datetime
import os
import statistics
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
import transformers
from scoring import Call, Clock, cpu_name, timed
from torch import nn
from transformers import SwinConfig, SwinModel

from roc4mllm import (
    EATConfig,
    EATForImageAesthetics,
    ELTAConfig,
    ELTAForImageAesthetics,
    TANetConfig,
    TANetForImageAesthetics,
)
from roc4mllm.inference.freed_memory import keep_freed_memory

ROUNDS = {1: 15, 8: 7, 32: 5}  # by the size of the batch
SWIN_BASE = {"embed_dim": 128, "depths": [2, 2, 18, 2], "num_heads": [4, 8, 16, 32], "window_size": 7}
RESULTS = Path(__file__).parent / "results" / "families.md"


class Comparison(NamedTuple):
    """A family, what it stands beside, how many pixels a side its pictures have, and the least ratio of speeds."""

    name: str
    model: nn.Module
    yardsticks: dict[str, nn.Module]
    side: int
    limit: float


SEED = 3


def comparisons() -> Iterator[Comparison]:
    """One after the other, so that only one stands in memory; drawn with seeds with which each reacts to pictures."""
    torch.manual_seed(SEED)
    tanet = trained(TANetForImageAesthetics(TANetConfig(theme_calibrated=True)))
    networks = {"MobileNetV2": tanet.perception.mobilenet, "ResNet-18": tanet.theme.scene_network}
    yield Comparison("TANet", tanet, networks, side=224, limit=0.9)
    eat = trained(EATForImageAesthetics(EATConfig.of_size("base")))
    yield Comparison("EAT-base", eat, {"Swin-B": SwinModel(SwinConfig(**SWIN_BASE)).eval()}, side=224, limit=0.6)
    elta = trained(ELTAForImageAesthetics(ELTAConfig()))
    yield Comparison("ELTA", elta, {"Swin V2-B": elta.swin}, side=256, limit=0.97)


def trained(model: nn.Module) -> nn.Module:
    """In evaluation, with a head that reacts to what it reads."""
    torch.manual_seed(0)
    for name, parameter in model.named_parameters():
        if "score_head" in name and parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=2 / parameter.shape[1] ** 0.5)
    model.config.score_head_trained = True
    return model.eval()


def pictures(side: int, count: int) -> torch.Tensor:
    """Random ones, each of its own brightness, `(B, 3, H, W)`."""
    torch.manual_seed(1)
    return torch.randn(count, 3, side, side) + torch.linspace(-1, 1, count).view(-1, 1, 1, 1)


def check(case: Comparison) -> None:
    """Speed of a wrong result means nothing: refuse to time a model that is blind or sees its neighbours."""
    inputs = pictures(case.side, 2)
    together = case.model(inputs).scores
    assert together.diff(dim=0).abs() > 1e-3, together
    alone = torch.cat([case.model(inputs[[index]]).scores for index in (0, 1)])
    torch.testing.assert_close(together, alone, atol=5e-5, rtol=0)


def measure(case: Comparison, size: int, rounds: int, clock: Clock) -> str:
    """A line of the table: ours ÷ yardsticks in pictures per second, at one size of the batch."""
    inputs = pictures(case.side, size)
    calls: list[Call] = [partial(network, inputs) for network in (case.model, *case.yardsticks.values())]
    for call in calls * (3 if size == 1 else 1):
        call()
    times = [[timed(call, clock) for call in calls] for _ in range(rounds)]  # milliseconds, ours first
    ratios = [sum(others) / own for own, *others in times]
    ratio = statistics.median(ratios)
    low, _, high = statistics.quantiles(ratios, n=4, method="inclusive") if rounds > 1 else [ratio] * 3
    speeds = [1e3 * size / statistics.median(column) for column in zip(*times, strict=True)]
    detail = "; ".join(
        f"{name} {speed:.1f}" for name, speed in zip((case.name, *case.yardsticks), speeds, strict=True)
    )
    verdict = "ok" if ratio >= case.limit else "NOT"
    what = f"{case.name} ÷ {' + '.join(case.yardsticks)}, {case.side} px"
    return f"| {what} | {size} | ≥ {case.limit:.2f} | {ratio:.3f} | {low:.3f}–{high:.3f} | {detail} | {verdict} |"


def head(clock: str, rounds: dict[int, int]) -> str:
    """What stands above the rows: the set-up, the machine and the versions."""
    shown = ", ".join(f"{count} at batch {size}" for size, count in rounds.items())
    return f"""# TANet, EAT and ELTA beside the networks they are made of

`python benchmarks/families.py --write`

Published sizes, random weights, float32, prepared pictures in memory. TANet is that of AVA, calibrated. A sum of two
yardsticks is the time of both. Speeds are pictures per second, medians; the ratio is the median over interleaved
rounds ({shown}), beside it the middle half of them.
ROC4MLLM's published size, of 7 billion weights, does not fit here; its parts are timed in `mplug_owl2.md`.
glibc keeps freed memory (`keep_freed_memory` says why).
{datetime.date.today()}; {cpu_name()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; \
{torch.get_num_threads()} thread(s) by {clock}; torch {torch.__version__}, transformers {transformers.__version__}.

| ratio of speeds | batch | limit | measured | middle half | pictures per second | |
|---|---:|---:|---:|---|---|---|
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help=f"save the table to results/{RESULTS.name}")
    parser.add_argument("--busy", action="store_true", help="one thread, timed by its processor time")
    parser.add_argument("--rounds", type=int, metavar="N", help="rounds at every batch size (default: 15, 7 and 5)")
    parser.add_argument("--batches", type=int, nargs="+", default=list(ROUNDS), metavar="N", help="default: 1 8 32")
    options = parser.parse_args()
    torch.set_num_threads(1 if options.busy else torch.get_num_threads())
    keep_freed_memory()
    clock = time.thread_time if options.busy else time.perf_counter
    rounds = {size: options.rounds or ROUNDS.get(size, 5) for size in options.batches}
    table = head("processor time (`--busy`)" if options.busy else "wall time", rounds)
    print(table, end="", flush=True)
    with torch.no_grad():
        for case in comparisons():
            check(case)
            for size, count in rounds.items():
                line = measure(case, size, count, clock)
                print(line, flush=True)
                table += f"{line}\n"
    if options.write:
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(table, encoding="utf-8")


if __name__ == "__main__":
    main()
