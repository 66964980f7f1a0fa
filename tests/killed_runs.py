"""
Starts `roc4mllm score … --resume` again and again, kills each run (SIGKILL, its workers too) at a random moment, and
lets the last one finish; prints what was there after each kill. A process of its own, since it forks after importing
torch, which costs seconds: `python killed_runs.py MODEL FOLDER OUTPUT KILLS [OUTPUT KILLS …]`.
"""

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import psutil
import torch

from roc4mllm.inference.tables.score_formats import ParquetPartsWriter
from roc4mllm.inference.tables.score_reading import read_table
from roc4mllm_cli import main

LONGEST = 0.15  # seconds from the first new row to the kill; every fourth run does not get that far


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


def kill_at_random(child: int, dice: random.Random, partial: Path) -> bool:
    """Kill a run while it loads or while it writes; whether it was still running."""
    before, deadline = size(partial), time.monotonic() + (dice.uniform(0, 0.5) if dice.random() < 0.25 else 30)
    while size(partial) == before and time.monotonic() < deadline and os.waitpid(child, os.WNOHANG) == (0, 0):
        time.sleep(0.002)
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


def size(partial: Path) -> int:
    """Bytes of a file, or of the files in a folder."""
    return (
        sum(path.stat().st_size for path in partial.glob("*.parquet"))
        if partial.is_dir()
        else (partial.stat().st_size if partial.exists() else 0)
    )


def whole_rows(partial: Path) -> int:
    """Rows that the killed run left; what is torn does not count."""
    if partial.is_dir():
        return len(read_table(partial))
    return partial.read_bytes().count(b"\n") if partial.exists() else 0


def count_orphans() -> int:
    """Processes of killed runs that still live after a while."""
    time.sleep(0.5)
    return (
        sum("killed_runs" in " ".join(found.info["cmdline"] or []) for found in psutil.process_iter(["cmdline"])) - 1
    )


def run_and_kill(model: str, folder: str, output: Path, kills: int, dice: random.Random) -> dict:
    """Kill a run `kills` times, then let it finish."""
    partial = output.with_name(f"{output.stem}.partial{output.suffix}")
    arguments = ["score", folder, "-m", model, "-o", str(output), "--resume", "--num-workers", "2"]
    left, killed = [], 0
    for _ in range(kills):
        killed += kill_at_random(start([*arguments, "--batch-size", "4"]), dice, partial)
        left.append(whole_rows(partial))
    _, status = os.waitpid(start(arguments), 0)
    return {"orphans": count_orphans(), "killed": killed, "left": left, "exit": os.waitstatus_to_exitcode(status)}


if __name__ == "__main__":
    ParquetPartsWriter.seconds_per_part = 0.05  # of a minute: else these short runs would write one part
    model, folder, *jobs = sys.argv[1:]
    dice = random.Random(1)
    for output, kills in zip(jobs[::2], jobs[1::2], strict=True):
        print(json.dumps(run_and_kill(model, folder, Path(output), int(kills), dice)))
