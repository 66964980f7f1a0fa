"""What a new user does first, by the readme's own lines: score a folder, kill it, resume, pick the best, report."""

# ruff: noqa: T201 (counts are told)

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from pictures import encoded
from readme_commands import readme_commands
from tiny import photo

from roc4mllm.inference.tables.score_reading import read_table
from roc4mllm_cli import main


@pytest.mark.parametrize("count", [150, pytest.param(1000, marks=pytest.mark.slow)])
def test_a_folder_is_scored_killed_resumed_filtered_and_reported(count, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for number in range(count):
        folder = Path("photos", f"day{number % 3}")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number:03}.jpg").write_bytes(encoded(photo(number, 120, 80 + number % 150), "JPEG"))
    score, resumed = readme_commands("roc4mllm score photos/ --recursive -o scores.csv")
    report = readme_commands("roc4mllm report scores.csv")[0]
    kill_while_it_scores(score, Path("scores.partial.csv"))
    left = Path("scores.partial.csv").read_bytes().count(b"\n") - 1  # less the head; a torn row has no end
    assert 0 < left < count
    assert main(resumed[1:]) == 0
    assert f"{left} had a row already" in capsys.readouterr().err
    rows = list(read_table(Path("scores.csv")))
    assert Counter(row["path"] for row in rows) == dict.fromkeys(map(str, Path("photos").rglob("*.jpg")), 1)
    assert all(row["error"] is None for row in rows)

    assert main(["filter", "scores.csv", "--top-k", "50", "--copy-to", "best"]) == 0
    scores = {os.path.basename(row["path"]): float(row["score"]) for row in rows}
    best = sorted(scores, key=scores.__getitem__, reverse=True)[:50]
    assert sorted(os.listdir("best")) == sorted(best)
    assert scores[best[0]] - scores[best[-1]] > 1e-3
    assert main(report[1:]) == 0
    page = Path("report.html").read_text()
    assert f"Aesthetic scores of {count:,} pictures" in page
    assert page.count("data:image/jpeg") >= 40
    print(f"{count} pictures: killed after {left} rows, every one once after --resume, the best 50 copied, reported")


def kill_while_it_scores(command: list[str], partial: Path) -> None:
    """`kill -9` to the real command and its workers once it has written some rows."""
    words = [sys.executable, "-m", "roc4mllm_cli", *command[1:]]
    with subprocess.Popen(words, stderr=subprocess.PIPE, start_new_session=True) as process:
        while process.poll() is None and not (partial.exists() and partial.read_bytes().count(b"\n") > 20):
            time.sleep(0.005)
        assert process.poll() is None, process.stderr.read().decode()
        os.killpg(process.pid, signal.SIGKILL)
