"""Writing the folder: what is left out and said, what is kept to the byte, interruptions, workers, loading."""

import io
import json
import multiprocessing
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import datasets
import numpy as np
import pyarrow.parquet as pq
import pytest
from filelock import FileLock
from PIL import Image

from roc4mllm import read_ratings
from roc4mllm.datasets_scripts import convert as conversion
from roc4mllm.datasets_scripts import shards
from roc4mllm.datasets_scripts.convert import convert_data
from roc4mllm.datasets_scripts.generic_csv import generic_csv
from roc4mllm.datasets_scripts.picture_buffer import PictureBuffer, jpeg_size
from roc4mllm.datasets_scripts.schema import features
from roc4mllm.datasets_scripts.split_guard import id_set_hash
from roc4mllm.processing_roc4mllm.image_reading_aesthetics import PictureError, read_image

TABLE = generic_csv((1, 10), name="mine")
NUMBER = 12
SAME = "line {} is of the same picture, and no rater_id tells ratings apart"


@pytest.fixture
def raw(write, add_pictures):
    """Twelve pictures in two splits, three to a shard."""
    lines = [f"{i}.jpg,{1 + i / 2},{'test' if i % 4 == 3 else 'train'},t{i % 2}" for i in range(NUMBER)]
    add_pictures([f"{i}.jpg" for i in range(NUMBER)])
    return write({"mine.csv": "\n".join(["path,score,split,theme", *lines, ""])})


@pytest.fixture
def small_shards(raw):
    return sum(os.path.getsize(raw / "images" / f"{i}.jpg") for i in range(3)) - 1


def content(folder):
    """Names and bytes of all files of a result."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def save(path, picture, **options):
    picture.save(path, **options)
    return path.read_bytes()


# What comes out ------------------------------------------------------------------------------------------------------


def test_pictures_keep_their_bytes_and_no_folder(raw, convert):
    converted = convert(TABLE)
    assert converted.report.rows == {"train": 9, "test": 3}
    for row in converted.rows:
        assert row["image"] == {"bytes": (raw / "images" / row["image_id"]).read_bytes(), "path": row["image_id"]}
    assert sorted(content(converted.folder)) == [
        "README.md",
        "data/test-00000-of-00001.parquet",
        "data/train-00000-of-00001.parquet",
        "report.json",
    ]
    assert str(raw) not in "".join(map(str, content(converted.folder).values()))


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def test_load_dataset_needs_the_folder_alone(raw, convert, cache):
    converted = convert(TABLE)
    loaded = datasets.load_dataset(str(converted.folder))
    assert {split: len(part) for split, part in loaded.items()} == {"train": 9, "test": 3}
    assert loaded["train"].features == features()
    streamed = datasets.load_dataset(str(converted.folder), split="test", streaming=True)
    rows = list(streamed)
    assert [row["image_id"] for row in rows] == ["3.jpg", "7.jpg", "11.jpg"]
    pictures = [np.asarray(row["image"], dtype=int) for row in rows]
    assert np.abs(pictures[0] - pictures[1]).max() > 10
    for row, other in zip(rows, loaded["test"], strict=True):
        assert row["image"].tobytes() == other["image"].tobytes()
        assert {**row, "image": None} == {**other, "image": None}


def test_train_and_evaluate_read_it_as_it_is(raw, convert, cache):
    folder = convert(TABLE).folder
    rated = read_ratings(folder, split="train")
    assert (len(rated), rated.score_range, rated.range_guessed, rated.warnings) == (9, (1.0, 10.0), False, [])
    assert rated[1]["scores"] == {"aesthetics": 1.5}
    assert rated[1]["columns"]["split_protocol"] == "mine-own"
    shard = next(folder.glob("data/train-*"))
    assert len(read_ratings(shard)) == 9  # and each file of it


def test_votes_and_comments_are_read_too(write, add_pictures, convert, cache):
    write({"a.csv": "path,r1,r2,r3,comment\n0.jpg,1,0,3,calm\n1.jpg,4,0,0,\n"})
    add_pictures(["0.jpg", "1.jpg"])
    rated = read_ratings(convert(generic_csv((1, 3))).folder)
    assert rated.num_levels == 3
    assert (rated[0]["votes"], rated[0]["comment"]) == ({"aesthetics": [1, 0, 3]}, "calm")
    assert rated[0]["stds"]["aesthetics"] == pytest.approx(0.75**0.5)


def test_the_card(raw, convert):
    card = (converted := convert(TABLE)).folder.joinpath("README.md").read_text()
    test = id_set_hash(["11.jpg", "7.jpg", "3.jpg", "3.jpg"])
    assert converted.report.id_set_hash["test"] == test
    assert id_set_hash(["11.jpg", "7.jpg"]) != test
    for text in (
        "**`mine-own`**",
        f"| test | 3 | `{test}` |",
        "num_examples: 9",
        "path: data/train-*.parquet",
        "**Terms.**",
    ):
        assert text in card
    assert "Of 12 raw rows there were left out: none." in card


# What is left out ----------------------------------------------------------------------------------------------------


@pytest.fixture
def broken(raw):
    """Rows without a picture, with a broken one, twice, and out of range."""
    (raw / "images" / "5.jpg").write_bytes((raw / "images" / "5.jpg").read_bytes()[:300])
    (raw / "images" / "6.jpg").write_text("<html>not found</html>")
    with (raw / "mine.csv").open("a") as file:
        file.write("gone.jpg,5,train,\n4.jpg,9,train,\n7.jpg,99,test,\n8.jpg,abc,test,\n9.jpg,3\n1.jpg,3,dev2,\n")
    return raw


def test_everything_that_is_left_out_is_counted_and_listed(broken, convert):
    report = convert(TABLE).report
    assert report.rows == {"train": 7, "test": 3}
    assert report.read == NUMBER + 6
    problems = report.problems
    assert [(bad["where"], bad["reason"]) for bad in problems.bad_rows] == [
        ("mine.csv, line 16", "score is 99.0; expected a number from 1 to 10"),
        ("mine.csv, line 17", "score is 'abc', which is no number"),
        ("mine.csv, line 18", "2 cells, expected 4"),
        ("mine.csv, line 19", "split is 'dev2'; expected train, validation, test"),
    ]
    assert problems.missing == [{"where": "mine.csv, line 14", "image_id": "gone.jpg", "picture": "gone.jpg"}]
    assert problems.duplicates == [{"where": "mine.csv, line 15", "image_id": "4.jpg", "reason": SAME.format(6)}]
    assert [entry["image_id"] for entry in problems.unreadable] == ["5.jpg", "6.jpg"]
    assert problems.unreadable[1]["reason"].startswith("not a picture")
    assert sum(map(len, problems.lost().values())) + sum(report.rows.values()) == report.read


def test_strict_stops_before_a_picture_is_read(broken, tmp_path, monkeypatch):
    monkeypatch.setattr(conversion, "write_shard", None)
    with pytest.raises(ValueError, match=r"4 bad rows, the first: where: mine.csv, line 16") as error:
        convert_data(TABLE, broken, tmp_path / "out", strict=True)
    assert "1 missing" in str(error.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["raw"]


@pytest.mark.parametrize("workers", [1, 2])
def test_strict_stops_at_a_picture_that_cannot_be_read(raw, tmp_path, workers, small_shards):
    (raw / "images" / "9.jpg").write_bytes(b"\xff\xd8 no more")
    with pytest.raises(ValueError, match=r"1 unreadable, the first: where: mine.csv, line 11; image_id: 9.jpg"):
        convert_data(TABLE, raw, tmp_path / "out", strict=True, workers=workers, shard_bytes=small_shards)
    assert not (tmp_path / "out").exists()


def test_without_any_picture_the_error_says_so(write, tmp_path):
    write({"mine.csv": "path,score\na.jpg,3\n"})
    with pytest.raises(ValueError, match=r"holds no pictures. Of the rows: 1 missing, the first: .*a.jpg"):
        convert_data(TABLE, tmp_path / "raw", tmp_path / "out")
    write({"a.jpg": "no picture"})
    with pytest.raises(ValueError, match="Nothing to write: 1 unreadable"):
        convert_data(TABLE, tmp_path / "raw", tmp_path / "out")
    write({"mine.csv": "path,score\n"})
    with pytest.raises(ValueError, match="the tables have no rows"):
        convert_data(TABLE, tmp_path / "raw", tmp_path / "out")
    assert not (tmp_path / "out").exists()


# Interruptions and workers -------------------------------------------------------------------------------------------


def test_two_workers_write_what_one_does(broken, convert, small_shards):
    one = convert(TABLE, "one", shard_bytes=small_shards)
    two = convert(TABLE, "two", shard_bytes=small_shards, workers=2)
    assert content(one.folder) == content(two.folder)
    assert len(list(one.folder.glob("data/train-*-of-00003.parquet"))) == 3
    assert not multiprocessing.active_children()


def test_workers_end_with_a_process_that_is_killed(tmp_path):
    code = """
import os, signal, time
from concurrent.futures import ProcessPoolExecutor
from roc4mllm.datasets_scripts.convert import begin_worker
executor = ProcessPoolExecutor(2, initializer=begin_worker)
print(*{executor.submit(os.getpid).result() for _ in range(9)}, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    workers = [int(number) for number in done.stdout.split()]
    assert workers, done.stderr
    for _ in range(200):
        if not (left := [number for number in workers if is_running(number)]):
            return
        time.sleep(0.05)
    raise AssertionError(f"processes {left} are left")


def is_running(number):
    """Whether there is a process that has not ended; one that nobody waits for counts as ended."""
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return False
    status = Path(f"/proc/{number}/stat")
    return not status.exists() or status.read_text().rpartition(")")[2].split()[0] != "Z"


def test_an_interrupted_run_goes_on(broken, convert, tmp_path, monkeypatch, small_shards):
    whole = content(convert(TABLE, "whole", shard_bytes=small_shards).folder)
    written = []

    def interrupted(job):
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(job.path)
        return shards.write_shard(job)

    monkeypatch.setattr(conversion, "write_shard", interrupted)
    with pytest.raises(KeyboardInterrupt):
        convert_data(TABLE, broken, tmp_path / "out", shard_bytes=small_shards)
    assert not (tmp_path / "out").exists()
    partial = tmp_path / ".out.partial"
    torn = next(path for path in (partial / "data").glob("*.parquet") if str(path) != written[0])
    torn.write_bytes(b"")  # as a power cut leaves what was not on disk yet

    again = []
    monkeypatch.setattr(conversion, "write_shard", lambda job: again.append(job.path) or shards.write_shard(job))
    assert content(convert(TABLE, shard_bytes=small_shards).folder) == whole
    assert written[0] not in again
    assert str(torn) in again
    assert not partial.exists()


@pytest.mark.parametrize("change", ["max_side", "score", "picture"])
def test_shards_of_another_plan_are_not_gone_on_with(raw, convert, tmp_path, monkeypatch, small_shards, change):
    def interrupted(job):
        shards.write_shard(job)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(conversion, "write_shard", interrupted)
        with pytest.raises(KeyboardInterrupt):
            convert_data(TABLE, raw, tmp_path / "out", shard_bytes=small_shards)
    assert list((tmp_path / ".out.partial" / "data").glob("*.parquet"))
    options = {"shard_bytes": small_shards}
    if change == "max_side":
        options["max_side"] = 16
    elif change == "score":
        (raw / "mine.csv").write_text((raw / "mine.csv").read_text().replace("0.jpg,1.0", "0.jpg,1.25"))
    else:
        shutil.copy(raw / "images" / "1.jpg", raw / "images" / "0.jpg")
    fresh = content(convert(TABLE, "fresh", **options).folder)
    assert content(convert(TABLE, **options).folder) == fresh


@pytest.mark.parametrize("max_side", [0, -5, 10.5, "64"])
def test_a_size_that_is_none(raw, tmp_path, max_side):
    with pytest.raises(ValueError, match=rf"whole number of pixels, at least 1, got {max_side!r}"):
        convert_data(TABLE, raw, tmp_path / "out", max_side=max_side)


def test_a_folder_that_exists_is_not_touched(raw, tmp_path):
    (tmp_path / "out").mkdir()
    with pytest.raises(FileExistsError, match="exists; name a new folder"):
        convert_data(TABLE, raw, tmp_path / "out")
    with pytest.raises(FileNotFoundError, match="No folder"):
        convert_data(TABLE, raw, tmp_path / "none" / "out")


def test_two_runs_do_not_write_to_one_folder(raw, tmp_path):
    with FileLock(tmp_path / ".out.lock"), pytest.raises(OSError, match="Another process is converting"):
        convert_data(TABLE, raw, tmp_path / "out")


# Pictures ---------------------------------------------------------------------------------------------------------


def load_picture(path, max_side=None):
    """The bytes that are kept of a picture, and whether it was made smaller."""
    buffer = PictureBuffer(10)
    buffer.add(b"before")
    was_made_smaller = buffer.read(str(path), max_side)
    assert buffer.to_arrow().to_pylist() == [b"before", bytes(buffer[1])]
    return bytes(buffer[1]), was_made_smaller


def test_what_cannot_be_read_leaves_no_trace(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"no picture")
    buffer = PictureBuffer(10)
    for name in ("a.jpg", "none.jpg", "."):
        with pytest.raises(PictureError):
            buffer.read(str(tmp_path / name))
    buffer.add(b"after")
    assert buffer.to_arrow().to_pylist() == [b"after"]
    buffer.clear()
    assert buffer.to_arrow().to_pylist() == []


def test_longer_pictures_are_made_smaller_and_others_are_not(raw, convert):
    large = Image.effect_noise((300, 200), 80).convert("RGB")
    save(raw / "images" / "0.jpg", large, quality=95)
    save(raw / "images" / "1.jpg", large.resize((100, 100)), quality=95)
    converted = convert(TABLE, max_side=100)
    rows = converted.by_id
    assert converted.report.resized == 1
    small = Image.open(io.BytesIO(rows["0.jpg"]["image"]["bytes"]))
    assert small.size == (100, 67)
    expected = np.asarray(read_image(str(raw / "images" / "0.jpg")).resize((100, 67), Image.Resampling.LANCZOS), int)
    assert np.abs(np.asarray(small, int) - expected).mean() < 3
    assert rows["1.jpg"]["image"]["bytes"] == (raw / "images" / "1.jpg").read_bytes()


def test_a_smaller_picture_is_upright_and_keeps_its_profile(tmp_path):
    exif = Image.Exif()
    exif[274] = 6
    picture = Image.linear_gradient("L").convert("RGB").resize((60, 40))
    save(tmp_path / "a.jpg", picture, exif=exif, icc_profile=b"profile")
    data, was_resized = load_picture(str(tmp_path / "a.jpg"), 30)
    small = Image.open(io.BytesIO(data))
    assert was_resized
    assert (small.size, small.getexif().get(274), small.info["icc_profile"]) == ((20, 30), None, b"profile")


def test_another_format_that_is_made_smaller_gets_its_name(raw, convert):
    Image.new("RGBA", (90, 20), (200, 10, 10, 128)).save(raw / "images" / "a.png")
    with (raw / "mine.csv").open("a") as file:
        file.write("a.png,5,train,\n")
    assert convert(TABLE, "kept").by_id["a.png"]["image"]["path"] == "a.png"
    assert convert(TABLE, "smaller", max_side=45).by_id["a.png"]["image"]["path"] == "a.jpg"


@pytest.mark.parametrize(
    "kind, options",
    [("JPEG", {}), ("JPEG", {"progressive": True}), ("PNG", {}), ("WEBP", {}), ("BMP", {}), ("GIF", {}), ("TIFF", {})],
)
def test_whole_pictures_of_all_kinds_pass_and_torn_ones_do_not(tmp_path, kind, options):
    path = tmp_path / "a.jpg"
    data = save(path, Image.effect_noise((64, 48), 90).convert("RGB"), format=kind, **options)
    assert load_picture(str(path)) == (data, False)
    assert (jpeg_size(data) == (64, 48)) == (kind == "JPEG")
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(PictureError):
        load_picture(str(path))


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_grey_and_cmyk_pass(tmp_path, mode):
    data = save(tmp_path / "a.jpg", Image.effect_noise((64, 48), 90).convert(mode))
    assert jpeg_size(data) == (64, 48)
    assert load_picture(str(tmp_path / "a.jpg"), 32)[1]


def test_jpegs_that_do_not_end_as_they_should_are_decoded(tmp_path):
    path = tmp_path / "a.jpg"
    data = save(path, Image.effect_noise((64, 48), 90).convert("RGB"))
    padded = data + b"\0\0"  # as some cameras do
    path.write_bytes(padded)
    assert jpeg_size(padded) is None
    assert load_picture(str(path)) == (padded, False)
    for bad in (
        b"",
        data[:-2],
        data[:2] + data[-2:],
        data[:20] + data[-2:],
        b"\xff\xd8\xff\xc0\0\x11\x08\0\0\0\0\3" + data[-2:],
    ):
        path.write_bytes(bad)
        with pytest.raises(PictureError):
            load_picture(str(path))


def test_row_groups_stay_small(raw, convert, monkeypatch):
    monkeypatch.setattr(shards, "ROW_GROUP_BYTES", 1000)
    (file,) = convert(TABLE).folder.glob("data/train-*")
    assert pq.read_metadata(file).num_row_groups > 2


def test_the_report_is_plain_json(broken, convert):
    told = json.loads((convert(TABLE).folder / "report.json").read_text())
    assert told["counts"] == {"bad_rows": 4, "duplicates": 1, "missing": 1, "unreadable": 2}
    assert told["options"]["max_side"] is None
