"""
Starts `roc4mllm score … --resume` again and again, kills each run (SIGKILL, its workers too) at a random moment, and
lets the last one finish; prints what was there after each kill. A process of its own, since it forks after importing
torch, which costs seconds: `python killed_runs.py MODEL COUNT JOBS`, the jobs as JSON: `[[INPUTS, OUTPUT, KILLS], …]`.
"""

import contextlib
import json
import os
import random
import signal
import sys
import time
from collections.abc import Collection
from pathlib import Path

import psutil
import pyarrow.parquet
import torch

from roc4mllm.inference.tables.score_formats import ParquetPartsWriter, parquet_parts
from roc4mllm_cli import main

LONGEST = 0.1  # seconds from the row at which a run is killed to the kill; every fourth run does not get that far
NEAR_END = 80  # of the last rows none is chosen, so that no run is through when it is to be killed


def start(arguments: list[str]) -> int:
    """A run in a process group of its own; its process id."""
    child = os.fork()
    if child:
        return child
    os.setpgid(0, 0)
    torch.set_num_threads(1)  # OpenMP's threads do not survive a fork
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    code = 70
    try:
        code = main(arguments)
    finally:
        os._exit(code)


def kill_at_random(child: int, dice: random.Random, partial: Path, rows: int) -> bool:
    """Kill a run while it loads, or some time after it has written so many rows; whether it was still running."""
    if dice.random() < 0.25:
        time.sleep(dice.uniform(0, 0.5))
    else:
        deadline = time.monotonic() + 30
        while whole_rows(partial) < rows and time.monotonic() < deadline and os.waitpid(child, os.WNOHANG) == (0, 0):
            time.sleep(0.005)
        time.sleep(dice.uniform(0, LONGEST))
    try:
        if dice.random() < 0.5:
            os.killpg(child, signal.SIGKILL)
        else:
            os.kill(child, signal.SIGKILL)  # as where memory runs out; its workers have to end by themselves
        os.waitpid(child, 0)
    except (ProcessLookupError, ChildProcessError):  # it was through
        return False
    return True


def whole_rows(partial: Path) -> int:
    """Rows of a run so far; what is torn does not count."""
    if partial.is_dir():
        return sum(pyarrow.parquet.read_metadata(part).num_rows for part in parquet_parts(partial))
    return partial.read_bytes().count(b"\n") if partial.exists() else 0


def count_orphans(groups: Collection[int]) -> int:
    """Processes of killed runs, which each had a group of their own, that still live after a while."""
    time.sleep(0.5)
    count = 0
    for process in psutil.process_iter(["status"]):
        with contextlib.suppress(ProcessLookupError):
            count += process.info["status"] != psutil.STATUS_ZOMBIE and os.getpgid(process.pid) in groups
    return count


def run_and_kill(model: str, count: int, inputs: list[str], output: str, kills: int, dice: random.Random) -> dict:
    """Kill a run over `count` inputs `kills` times, at moments spread over it, then let it finish."""
    path = Path(output)
    partial = path.with_name(f"{path.stem}.partial{path.suffix}") if path.suffix else path
    arguments = ["score", *inputs, "-m", model, "-o", output, "--resume", "--num-workers", "2"]
    left, killed, groups = [0], 0, set()
    for number in range(kills):
        share = dice.uniform(0, 2 / (kills - number + 1))  # of what is left, so that the last kill comes near the end
        rows = left[-1] + max(1, int(share * (count - NEAR_END - left[-1])))
        child = start([*arguments, "--batch-size", "4"])
        groups.add(child)
        killed += kill_at_random(child, dice, partial, rows)
        left.append(whole_rows(partial))
    _, status = os.waitpid(start(arguments), 0)
    code = os.waitstatus_to_exitcode(status)
    return {"orphans": count_orphans(groups), "killed": killed, "left": left[1:], "exit": code}


if __name__ == "__main__":
    ParquetPartsWriter.seconds_per_part = 0.05  # of a minute: else these short runs would write one part
    model, count, jobs = sys.argv[1:]
    dice = random.Random(1)
    for inputs, output, kills in json.loads(jobs):
        print(json.dumps(run_and_kill(model, int(count), inputs, output, kills, dice)), flush=True)
