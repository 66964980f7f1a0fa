"""
Starts `roc4mllm score … --engine ray --resume` again and again on the cluster at RAY_ADDRESS, and kills each run
(SIGKILL) at a random moment; prints what was there after each kill. A process of its own, as `killed_runs.py` is:
`python killed_ray_runs.py KILLS FOLDER ARGUMENT …`, where FOLDER is the one of Parquet parts that is written.
"""

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import torch  # noqa: F401  (before the runs are forked, each of which would import it)
from killed_runs import start

import roc4mllm.cli.score  # noqa: F401
from roc4mllm.inference.tables.score_formats import ParquetPartsWriter


def kill_at_random(child: int, folder: Path, patience: float, wait: float) -> bool:
    """Kill a run some seconds after it wrote, or when patience is at an end; whether it was running."""
    before, deadline = rows(folder), time.monotonic() + patience
    while rows(folder) == before and time.monotonic() < deadline:
        time.sleep(0.005)
    time.sleep(wait)
    os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


def rows(folder: Path) -> int:
    """Rows that are there."""
    return sum(pq.read_metadata(part).num_rows for part in folder.glob("part-*.parquet"))


if __name__ == "__main__":
    ParquetPartsWriter.rows_per_part = 16  # of ten thousand: else these short runs would write one part
    kills, folder, *arguments = sys.argv[1:]
    dice = random.Random(2)
    arguments = ["score", *arguments, "-o", f"{folder}/", "--engine", "ray", "--resume"]
    left, killed = [], 0
    for number in range(int(kills)):  # every fourth while it starts
        patience = dice.uniform(0, 15) if number % 4 == 1 else 120
        killed += kill_at_random(start(arguments), Path(folder), patience, dice.uniform(0, 0.15))
        left.append(rows(Path(folder)))
    print(json.dumps({"killed": killed, "left": left}))
