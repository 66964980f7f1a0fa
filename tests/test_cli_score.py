"""`roc4mllm score` on many pictures: names from stdin, data sets, resuming, two models, and what it tells of them."""

import io
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors.torch import load_file, save_file
from shards import make_tar
from tiny import photo, scorer_parts

from roc4mllm.cli import progress as progress_module
from roc4mllm.cli.cores import workers_that_pay
from roc4mllm.cli.progress import Progress
from roc4mllm.inference import freed_memory
from roc4mllm.inference.folder_revision import folder_revision
from roc4mllm.inference.tables.score_reading import read_table
from roc4mllm_cli import main

NAMES = [f"album/{name}.png" for name in "abcdef"]


def save(folder: Path, attributes: tuple[str, ...], score_range: tuple[float, float]) -> str:
    for part in scorer_parts("llava", attributes, score_range=score_range):
        part.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    return save(tmp_path_factory.mktemp("models") / "slow", ("aesthetics", "color"), (1.0, 10.0))


@pytest.fixture(scope="module")
def fast(tmp_path_factory) -> str:
    return save(tmp_path_factory.mktemp("models") / "fast", ("aesthetics",), (0.0, 1.0))


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "album").mkdir()
    for seed, name in enumerate(NAMES):
        photo(seed).save(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def give(monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))


def error_of(capsys: pytest.CaptureFixture, *arguments: str) -> str:
    assert main(["score", *arguments]) == 2
    return capsys.readouterr().err


# inputs --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("separator", "options"), [(b"\n", []), (b"\0", ["-z"])])
def test_names_on_stdin(model, monkeypatch, separator, options):
    give(monkeypatch, separator.join([b"album/a.png", b"", b"missing.jpg", b"album/\xff.png", b"album"]))
    assert main(["score", "-", "-m", model, "-o", "s.csv", "--num-workers", "0", *options]) == 0
    rows = list(read_table("s.csv"))
    assert [row["path"] for row in rows] == ["album/a.png", "missing.jpg", r"album/\udcff.png", *NAMES]
    assert [row["error"] is None for row in rows] == [True, False, False] + [True] * 6


def test_a_list_that_windows_wrote(model, monkeypatch):
    Path("album/odd.png\r").write_bytes(Path("album/a.png").read_bytes())
    give(monkeypatch, "\ufeffalbum/a.png\r\n\r\nalbum/odd.png\r\nmissing.jpg\r\n".encode())
    assert main(["score", "-", "-m", model, "-o", "s.jsonl", "--num-workers", "0"]) == 0
    rows = [(row["path"], row["error"]) for row in read_table("s.jsonl")]
    assert rows == [("album/a.png", None), ("album/odd.png\r", None), ("missing.jpg", "no such file")]


@pytest.mark.parametrize("name", ["", "nowhere/"])
def test_a_name_that_no_model_has(capsys, name):
    assert f"there is no folder {name!r}" in error_of(capsys, "album", "-m", name)


def test_names_that_come_slowly_are_scored_when_they_come(model, monkeypatch):
    """Through a pipe whose writer waits for the row of each name before it writes the next."""
    reading, writing = os.pipe()
    partial, told = Path("s.partial.jsonl"), []

    def write() -> None:
        with os.fdopen(writing, "wb", buffering=0) as pipe:
            for count, name in enumerate(NAMES, start=1):
                pipe.write(f"{name}\n".encode())
                deadline = time.monotonic() + 30
                while rows_in(partial) < count and time.monotonic() < deadline:
                    time.sleep(0.005)
                told.append(rows_in(partial))

    writer = threading.Thread(target=write)
    with os.fdopen(reading, "rb") as pipe:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(pipe))
        writer.start()
        assert main(["score", "-", "-m", model, "-o", "s.jsonl", "--num-workers", "0", "--batch-size", "1"]) == 0
        writer.join()
    assert told == [1, 2, 3, 4, 5, 6]
    assert [row["path"] for row in read_table("s.jsonl")] == NAMES


def rows_in(file: Path) -> int:
    return file.read_bytes().count(b"\n") if file.exists() else 0


def test_a_data_set(model, capsys):
    assert main(["score", "--dataset", "album", "-m", model, "-o", "s.jsonl", "--num-workers", "0"]) == 0
    rows = list(read_table("s.jsonl"))
    assert [row["path"] for row in rows] == [f"album/train#{row}/{Path(name).name}" for row, name in enumerate(NAMES)]
    assert all(row["error"] is None for row in rows)
    assert "the data set 'album' has the splits train; name one" in error_of(
        capsys, "--dataset", "album", "--split", "test", "-m", model
    )


def test_nothing_and_both(capsys):
    told = "name pictures (files, folders, shards, - for names on stdin), or a data set with --dataset"
    assert told in error_of(capsys)
    assert told in error_of(capsys, "album", "--dataset", "album")


def test_names_that_end_with_nul_and_were_not_said_to(model, monkeypatch):
    give(monkeypatch, b"album/a.png\0album/b.png\0")
    assert main(["score", "-", "-m", model, "-o", "s.csv"]) == 0
    (row,) = read_table("s.csv")
    assert "say --null" in row["error"]


def test_a_table_is_no_input_of_itself(model):
    Path("album/s.csv").write_text("old")
    assert main(["score", "album/*", "-m", model, "-o", "album/s.csv"]) == 0
    assert [row["path"] for row in read_table("album/s.csv")] == NAMES


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["album", "--split", "test"], "--split is of a data set"),
        (["album", "--config", "large"], "--config is of a data set"),
        (
            ["--dataset", "album", "--revision", "v2"],
            "--revision is of a data set on the Hub, and 'album' is a folder",
        ),
        (["album", "-z"], "--null is for names on stdin"),
        (["album", "--resume", "--personal", "p", "-o", "s.csv"], "rows do not tell whose taste they are of"),
        (["album", "-o", "out.v2/"], "needs a name without a dot"),
    ],
)
def test_options_that_do_not_fit(capsys, arguments, reason):
    assert reason in error_of(capsys, *arguments)


# resuming ------------------------------------------------------------------------------------------------------------


def test_resuming_scores_what_is_missing(model, capsys):
    assert main(["score", *NAMES[:3], "-m", model, "-o", "s.csv"]) == 0
    first = list(read_table("s.csv"))
    capsys.readouterr()
    assert main(["score", "album", "-m", model, "-o", "s.csv", "--resume"]) == 0
    assert "3 of 3 scored, 0 failed; 3 had a row already; written to s.csv" in capsys.readouterr().err
    rows = list(read_table("s.csv"))
    assert rows[:3] == first
    assert [row["path"] for row in rows] == NAMES
    assert main(["score", "album", "-m", model, "-o", "s.csv", "--resume"]) == 0
    assert list(read_table("s.csv")) == rows


def test_rows_of_an_interrupted_run_are_pointed_to(model, capsys):
    Path("s.partial.csv").write_text("path,score\n")
    told = error_of(capsys, "album", "-m", model, "-o", "s.csv")
    assert "s.partial.csv' holds rows of an earlier run: --resume goes on with them, or delete" in told
    assert Path("s.partial.csv").read_text() == "path,score\n"


def test_resuming_with_another_model_is_refused(model, fast, capsys):
    assert main(["score", "album", "-m", fast, "-o", "s.csv"]) == 0
    before = Path("s.csv").read_bytes()
    told = error_of(capsys, "album", "-m", model, "-o", "s.csv", "--resume", "--attributes", "aesthetics")
    assert "the rows so far are of another attribute, model, version or range (aesthetics, fast, " in told
    assert "than this run's (aesthetics, slow, " in told
    assert Path("s.csv").read_bytes() == before
    assert sorted(os.listdir()) == ["album", "s.csv"]


def train_on(folder: str) -> None:
    """As a training would, change the weights and nothing else."""
    file = Path(folder, "model.safetensors")
    weights = load_file(file)
    weights["score_head.weight"] += 1e-3
    save_file(weights, file, metadata={"format": "pt"})


def test_a_model_that_was_trained_on_is_another_one(model, capsys, tmp_path):
    """Its folder has the same name."""
    assert main(["score", *NAMES[:3], "-m", model, "-o", "s.csv"]) == 0
    trained = shutil.copytree(model, str(tmp_path / "again" / "slow"))
    train_on(trained)
    told = error_of(capsys, "album", "-m", trained, "-o", "s.csv", "--resume")
    assert re.search(r"model, version or range \(aesthetics, slow, sha256:\w{16}, .* than this run's", told)
    assert main(["score", "album", "-m", trained, "-o", "t.csv"]) == 0
    Path("both.csv").write_text(Path("s.csv").read_text() + Path("t.csv").read_text().partition("\n")[2])
    assert "mixes scores that cannot be compared: slow (revision sha256:" in _filter_error(capsys)


def test_resuming_another_attribute_is_refused(model, capsys):
    assert main(["score", *NAMES[:2], "-m", model, "-o", "s.csv", "--attributes", "color"]) == 0
    told = error_of(capsys, "album", "-m", model, "-o", "s.csv", "--resume", "--attributes", "aesthetics")
    assert "(color, slow, " in told
    assert "(aesthetics, slow, " in told
    assert len(list(read_table("s.csv"))) == 2


def test_resuming_needs_a_file(capsys):
    assert "--resume needs a file to write: name it with -o" in error_of(capsys, "album", "--resume")


def test_a_folder_of_parts_is_read_by_filter(model, capsys):
    assert main(["score", "album", "-m", model, "-o", "scores/"]) == 0
    assert os.listdir("scores") == ["part-00000.parquet"]
    capsys.readouterr()
    assert main(["filter", "scores", "--top-k", "2"]) == 0
    printed = capsys.readouterr()
    assert len(printed.out.splitlines()) == 2
    assert "not finished" not in printed.err
    Path("scores/unfinished").touch()
    assert main(["filter", "scores", "--top-k", "2"]) == 0
    assert "scores is of a run that is not finished: rows are missing" in capsys.readouterr().err
    assert main(["report", "scores", "-o", "r.html"]) == 0
    assert "not finished" in capsys.readouterr().err


def test_the_best_of_shards_are_copied_out_of_them(model, capsys):
    make_tar(Path("a.tar"), {Path(name).name: Path(name).read_bytes() for name in NAMES[:3]})
    pq.write_table(pa.table({"image": [Path(name).read_bytes() for name in NAMES[3:5]]}), "b.parquet")
    assert main(["score", "a.tar", "b.parquet", NAMES[5], "-m", model, "-o", "s.csv"]) == 0
    assert main(["filter", "s.csv", "--quantile", "0", "--copy-to", "best"]) == 0
    assert "6 of 6 copied to best" in capsys.readouterr().err
    names = {"b-0.png": "d.png", "b-1.png": "e.png"}
    copies = {names.get(path.name, path.name): path.read_bytes() for path in Path("best").iterdir()}
    assert copies == {Path(name).name: Path(name).read_bytes() for name in NAMES}
    assert main(["filter", "s.csv", "--quantile", "0", "--symlink-to", "links"]) == 1
    assert "1 of 6 linked to links, 5 failed" in capsys.readouterr().err


# two models ----------------------------------------------------------------------------------------------------------


def test_a_cascade(model, fast, capsys):
    assert main(["score", "album", "-m", fast, "-o", "fast.csv"]) == 0
    alone = {row["path"]: float(row["score"]) for row in read_table("fast.csv")}
    middle = sorted(alone.values())
    low, high = (middle[1] + middle[2]) / 2, (middle[3] + middle[4]) / 2
    band = ["--cascade", fast, "--band", str(low), str(high)]
    capsys.readouterr()
    assert main(["score", "album", "-m", model, "-o", "both.csv", *band]) == 0
    assert "2 of 6 with a fast score from" in capsys.readouterr().err
    for row in read_table("both.csv"):
        inside = low <= alone[row["path"]] <= high
        assert row["model"] == ("slow" if inside else "fast")
        assert (row["score_max"], row["color"] is None) == (("10.0", False) if inside else ("1.0", True))
        assert float(row["fast_score"]) == pytest.approx(alone[row["path"]], abs=1e-5)
        assert (row["fast_model"], row["fast_revision"]) == ("fast", folder_revision(fast))
    assert main(["score", "album", "-m", model, "-o", "both.csv", "--resume", *band]) == 0
    assert "mixes scores that cannot be compared" in _filter_error(capsys)


@pytest.mark.parametrize("name", ["s.csv", "s.jsonl", "s.parquet"])
def test_resuming_with_another_band_is_refused(model, fast, capsys, name):
    assert main(["score", "album", "-m", fast, "-o", "fast.csv"]) == 0
    scores = sorted(float(row["score"]) for row in read_table("fast.csv"))
    ends = [str((one + other) / 2) for one, other in zip(scores[:-1], scores[1:], strict=True)]
    run = ["score", "album", "-m", model, "-o", name, "--cascade", fast, "--resume", "--band"]
    assert main([*run, ends[1], ends[3]]) == 0
    before = Path(name).read_bytes()
    capsys.readouterr()
    for band, decided in ((ends[0], ends[3]), "by fast, and its"), ((ends[2], ends[3]), "by slow, and its"):
        assert main([*run, *band]) == 2
        told = capsys.readouterr().err
        assert "the rows so far are of another band: 'album/" in told
        assert decided in told
        assert "resume with the same band" in told
    assert main([*run, ends[1], ends[3]]) == 0
    assert Path(name).read_bytes() == before


def test_resuming_with_a_fast_model_that_was_changed_is_refused(model, fast, tmp_path, capsys):
    fast = shutil.copytree(fast, str(tmp_path / "again" / "fast"))
    run = ["score", "album", "-m", model, "-o", "s.csv", "--cascade", fast, "--band", "0", "1", "--resume"]
    assert main(run) == 0
    assert {row["model"] for row in read_table("s.csv")} == {"slow"}  # whose revision is the same
    assert main(run) == 0
    train_on(fast)
    capsys.readouterr()
    assert main(run) == 2
    assert "the rows so far are of another attribute, model" in capsys.readouterr().err


def _filter_error(capsys: pytest.CaptureFixture) -> str:
    assert main(["filter", "both.csv", "--top-k", "2"]) == 2
    return capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--cascade", "x"], "--cascade FAST_MODEL and --band LOW HIGH go together"),
        (["--band", "1", "2"], "--cascade FAST_MODEL and --band LOW HIGH go together"),
        (["--cascade", "x", "--band", "1", "2", "--personal", "p"], "--cascade and --personal cannot be combined"),
    ],
)
def test_options_of_a_cascade_that_do_not_fit(capsys, arguments, reason):
    assert reason in error_of(capsys, "album", "-o", "s.csv", *arguments)


# what is told --------------------------------------------------------------------------------------------------------


def test_workers_are_one_per_core_that_may_be_used(monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3, 5}, raising=False)
    assert workers_that_pay() == 2
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)), raising=False)
    assert workers_that_pay() == 8


def test_a_log_gets_a_line_now_and_then(model, capsys, monkeypatch):
    monkeypatch.setattr(progress_module, "SECONDS_PER_LINE", -1.0)
    Path("album/c.png").write_bytes(b"broken")
    assert main(["score", "album", "-m", model, "--batch-size", "2"]) == 0
    printed = capsys.readouterr()
    assert len([json.loads(line) for line in printed.out.splitlines()]) == 6
    *lines, last = printed.err.splitlines()
    assert [line.split(" pictures")[0] for line in lines] == [f"roc4mllm: {count} of 6" for count in range(1, 7)]
    assert "/s, 0 failed, " in lines[0]
    assert lines[-1].endswith(" 1 failed, 0:00:00 left")
    assert last.startswith("5 of 6 scored, 1 failed (first: album/c.png: ")


def test_time_left_counts_only_what_this_run_does(monkeypatch):
    clock = iter([0.0, 100.0])
    monkeypatch.setattr(progress_module.time, "monotonic", lambda: next(clock))
    progress = Progress(7250)
    progress.skipped = 5000
    progress.start, progress.done = 0.0, 50
    assert progress.line() == "roc4mllm: 5050 of 7250 pictures, 0.5/s, 0 failed, 1:13:20 left"


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc gives large blocks back at once")
def test_what_is_freed_is_kept_for_the_next_block():
    """In a process of its own: what malloc does depends on all that was done before."""
    code = """
import resource, runpy, sys
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    bytearray(64 << 20)  # 16 384 pages
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
print([faults(), faults(), runpy.run_path(sys.argv[1])["keep_freed_memory"](), faults(), faults()])
"""
    child = subprocess.run([sys.executable, "-c", code, freed_memory.__file__], capture_output=True, text=True)
    _, without, told, _, kept = json.loads(child.stdout.lower())
    assert told
    assert kept < 256 < 16_000 < without


def test_pictures_whose_names_begin_as_the_table_are_scored(model, here):
    for name in ("photo1.png", "s.csv.png", "s.partial.png"):
        photo(1).save(here / name)
    for output in ("photo/", "s.csv"):
        assert main(["score", "photo1.png", "s.csv.png", "s.partial.png", "-m", model, "-o", output]) == 0
        assert len(list(read_table(here / output))) == 3
    assert main(["score", *sorted(map(str, here.glob("s.*"))), "-m", model, "-o", "s.csv", "--resume"]) == 0
    assert {row["path"] for row in read_table(here / "s.csv")} >= {str(here / "s.csv.png"), "s.csv.png"}
    assert str(here / "s.csv") not in {row["path"] for row in read_table(here / "s.csv")}
