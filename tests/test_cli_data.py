"""`roc4mllm data` as a person uses it, in this process."""

import csv
import json

import datasets
import pytest
from command_errors import error_line
from tiny import photo

from roc4mllm_cli import main


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """The current folder: a download of four pictures and a table."""
    (tmp_path / "raw").mkdir()
    for seed in range(4):
        photo(seed).save(tmp_path / "raw" / f"{seed}.jpg")
    lines = [f"{seed}.jpg,{2 + seed},{'test' if seed > 1 else 'train'}" for seed in range(4)]
    (tmp_path / "raw" / "mine.csv").write_text("\n".join(["path,score,split", *lines, ""]))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_list(capsys):
    assert main(["data", "--list"]) == 0
    printed = capsys.readouterr().out
    for name in (
        "ava",
        "ava-captions",
        "tad66k",
        "icaa17k",
        "icaa20k",
        "para",
        "para-raters",
        "aadb",
        "flickr-aes",
        "eva",
    ):
        assert f"\n{name}: " in f"\n{printed}"
    for name in ("spaq", "koniq10k", "baid", "oasis-beauty", "csv"):
        assert f"\n{name}: " in printed
    assert "--protocol tanet: the random" in printed
    assert "refrain from redistributing" in printed


def test_a_table_becomes_a_data_set_that_evaluate_and_train_read(capsys, here):
    options = ["--score-range", "1", "7", "--source", "mine", "--workers", "1"]
    with (here / "raw" / "mine.csv").open("a") as file:
        file.write("gone.jpg,3,train\n")
    assert main(["data", "csv", "raw", "out", *options]) == 0
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.splitlines()[0] == "written to out: train 2, test 2; protocol mine-own"
    assert printed.err.splitlines()[1].startswith("1 missing, the first: where: mine.csv, line 6; image_id: gone.jpg")
    assert main(["evaluate", "roc4mllm-tiny", "out", "--split", "test", "--json", "-o", "report"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told
    with (here / "report" / "predictions.csv").open() as file:
        scores = [float(row["aesthetics_predicted"]) for row in csv.DictReader(file)]
    assert len(scores) == 2
    assert abs(scores[0] - scores[1]) > 1e-3
    assert main(["train", "--data", "out", "--split", "train", "--dry-run", "-o", "scorer", "--eval-share", "0"]) == 0
    assert "2 rows, 2 pictures" in capsys.readouterr().out


def test_a_name_and_its_options(capsys):
    assert "expected NAME RAW_DIR OUT_DIR; roc4mllm data --list shows" in error_line(capsys, "data", "ava")
    assert "no data set 'avva'; there are ava, " in error_line(capsys, "data", "avva", "raw", "out")
    assert "csv needs --score-range" in error_line(capsys, "data", "csv", "raw", "out")
    assert "--score-range is for csv; baid knows" in error_line(
        capsys, "data", "baid", "raw", "out", "--score-range", "0", "1"
    )
    wrong = ("csv", "raw", "out", "--score-range", "1", "7", "--column", "score")
    assert "--column takes ROLE=COLUMN" in error_line(capsys, "data", *wrong)
    assert "holds none of train_set.csv" in error_line(capsys, "data", "baid", "raw", "out")
    assert "AVA has no protocol 'best'; it has official (" in error_line(
        capsys, "data", "ava", "raw", "out", "--protocol", "best"
    )


def test_strict(capsys, here):
    (here / "raw" / "1.jpg").write_bytes(b"no picture")
    arguments = ("csv", "raw", "out", "--score-range", "1", "7", "--strict", "--workers", "2")
    assert "Not all rows can be written: 1 unreadable" in error_line(capsys, "data", *arguments)
    assert not (here / "out").exists()


def test_columns_of_other_names_and_smaller_pictures(here):
    (here / "own.csv").write_text("photo,quality,light\nraw/0.jpg,3,2\n")
    options = ["--column", "image=photo", "--column", "score=quality", "--attributes", "light", "--max-side", "16"]
    assert main(["data", "csv", "own.csv", "out", "--score-range", "1", "7", *options]) == 0
    (row,) = datasets.load_dataset("out", split="train")
    assert max(row["image"].size) == 16
    assert (row["score"], row["attributes"][0]["name"], row["source"]) == (3, "light", "csv")


def test_pictures_made_smaller_need_a_name_to_be_known_again(capsys, here):
    options = ["--score-range", "1", "10", "--max-side", "16", "--workers", "1"]
    assert main(["data", "csv", "raw", "unnamed", *options]) == 0
    assert "4 pictures were made smaller: evaluate knows them again" in capsys.readouterr().err
    assert main(["data", "csv", "raw", "named", *options, "--source", "mine"]) == 0
    assert "made smaller" not in capsys.readouterr().err
    (here / "raw" / "evil\x1b[2J.csv").write_text("path,score\n0.jpg,3\nbad\x1b[2J.jpg,3\n")
    assert main(["data", "csv", "raw/evil\x1b[2J.csv", "evil", "--score-range", "1", "10"]) == 0
    assert "\x1b" not in capsys.readouterr().err


def test_without_the_libraries_the_extra_is_named(capsys, monkeypatch):
    import sys

    for name in [name for name in sys.modules if name.startswith("roc4mllm.datasets_scripts")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert error_line(capsys, "data", "--list").endswith('pip install "roc4mllm[data]"')
