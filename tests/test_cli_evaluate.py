"""`roc4mllm evaluate` as a person uses it, in this process; a tiny random model of two attributes scores."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from command_errors import error_line
from tiny import photo, scorer_parts

import roc4mllm
from roc4mllm.cli.evaluate import in_options
from roc4mllm.datasets_scripts.split_guard import GUARD_FILE, PictureSet
from roc4mllm.inference.folder_revision import folder_revision
from roc4mllm_cli import main

COUNT = 12


@pytest.fixture(scope="session")
def model(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("models") / "tiny"
    model, processor = scorer_parts("llava", ("aesthetics", "color"), num_levels=5, score_range=(1.0, 5.0))
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return str(folder)


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder: pictures and their ratings, in two splits."""
    (tmp_path / "album").mkdir()
    for seed in range(COUNT):
        photo(seed).save(tmp_path / "album" / f"{seed}.png")
    monkeypatch.chdir(tmp_path)
    frame = pd.DataFrame(
        {"path": [f"{seed}.png" for seed in range(COUNT)], "score": [1 + seed / 3 for seed in range(COUNT)]}
    )
    frame.assign(split=["train"] * 4 + ["test"] * 8, theme=["sea", "town"] * 6).to_csv("ratings.csv", index=False)
    return tmp_path


def evaluate(model: str, *arguments: str) -> int:
    return main(["evaluate", model, "ratings.csv", "--pictures", "album", "--bootstraps", "20", *arguments])


def test_table_goes_to_stdout_and_the_report_to_its_folder(model, capsys):
    assert evaluate(model, "--by", "theme", "--score-range", "1", "5", "-o", "new/report") == 0
    printed = capsys.readouterr()
    lines = printed.out.splitlines()
    assert lines[0] == f"model tiny, revision {folder_revision(model)}; roc4mllm {roc4mllm.__version__}"
    assert lines[1] == "data ratings.csv: 12 pictures, 12 scored, 0 failed"
    assert "  town *  6" in printed.out
    assert printed.err.splitlines()[-1] == (
        "metrics.json, predictions.csv, report.png, report.html written to new/report"
    )
    assert list(pd.read_csv("new/report/predictions.csv")["picture"]) == [f"{seed}.png" for seed in range(COUNT)]
    for name in ("metrics.json", "predictions.csv", "report.html"):
        assert str(Path.cwd()) not in Path("new/report", name).read_text()


def test_json_is_what_the_folder_holds(model, capsys):
    assert evaluate(model, "--json", "--split", "test", "--cut", "2.5", "--seed", "3", "-o", "report") == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads(Path("report/metrics.json").read_text())
    assert (printed["pictures"], printed["data"], printed["seed"]) == (8, "ratings.csv, split test", 3)
    result = printed["attributes"]["aesthetics"]
    assert (result["n"], result["cut"], result["score_range"]) == (8, 2.5, [1.0, 5.0])
    assert printed["notes"][0] == "nothing tells what this model was trained on: these pictures may be among it"
    assert (printed["overlap"], printed["protocols"]) == (None, [])
    assert printed["notes"][1:] == ["aesthetics: the data state no score range, so the model's is taken, 1 to 5"]
    assert list(printed["attributes"]) == ["aesthetics"]  # the data rate no color


def test_pictures_of_the_training_are_an_error_or_mark_the_result(model, capsys):
    frame = pd.read_csv("ratings.csv").assign(split_protocol="mine-random")
    frame.to_csv("ratings.csv", index=False)
    rated = roc4mllm.read_ratings("ratings.csv", pictures="album")
    shutil.copytree(model, "trained")
    PictureSet.of(rated.take([0, 1, 7]).outlines()).save("trained")
    assert evaluate("trained", "--split", "test") == 2
    assert (
        "1 of 8 test pictures were trained on (trained: mine-random/test, mine-random/train; test: mine-random/test)"
        in (error := capsys.readouterr().err)
    )
    assert "the first: 7.png" in error
    assert "or --allow-leak for a result that is marked" in error
    assert evaluate("trained", "--split", "test", "--allow-leak", "-o", "report") == 0
    printed = capsys.readouterr().out
    assert "data ratings.csv, split test (mine-random/test): 8 pictures" in printed
    assert "LEAK: 1 of 8 test pictures were trained on" in printed
    told = json.loads(Path("report/metrics.json").read_text())
    assert told["overlap"]["shared"] == 1
    assert told["notes"][0].startswith("LEAK: ")
    assert '<p class="leak">LEAK: 1 of 8' in Path("report/report.html").read_text()
    Path("trained", GUARD_FILE).write_bytes(b"damaged")
    assert evaluate("trained") == 2
    assert "trained_on.safetensors cannot be read" in capsys.readouterr().err


def test_attribute_with_a_column_of_its_own_is_compared_without_being_named(model, capsys):
    frame = pd.read_csv("ratings.csv").assign(Color=3.0, contrast=2.0)
    frame.to_csv("ratings.csv", index=False)
    assert evaluate(model, "--json") == 0
    assert list(json.loads(capsys.readouterr().out)["attributes"]) == ["aesthetics", "color"]
    frame.drop(columns="score").to_csv("ratings.csv", index=False)
    assert evaluate(model, "--json") == 0
    found = json.loads(capsys.readouterr().out)["attributes"]
    assert list(found) == ["color"]
    assert found["color"]["metrics"]["srcc"]["reason"] == "all labels are 3"


def test_failed_pictures_are_counted_and_all_failed_is_code_1(model, capsys):
    half = Path("album/3.png").read_bytes()[:-500]
    Path("album/3.png").write_bytes(half)
    assert evaluate(model) == 0
    printed = capsys.readouterr().out
    assert "12 pictures, 11 scored, 1 failed" in printed
    assert "ratings.csv, line 5: 3.png: " in printed
    for seed in range(COUNT):
        Path(f"album/{seed}.png").write_bytes(half)
    assert evaluate(model, "-o", "report") == 1
    assert "12 pictures, 0 scored, 12 failed" in capsys.readouterr().out
    assert json.loads(Path("report/metrics.json").read_text())["attributes"]["aesthetics"]["n"] == 0


def test_bad_rows_stop_or_are_written_to_a_file(model, capsys):
    with Path("ratings.csv").open("a") as file:
        file.write("12.png,3,test,sea\n0.png,nine,test,sea\n")
    line = error_line(capsys, "evaluate", model, "ratings.csv", "--pictures", "album")
    assert "line 14" in line
    assert "--skip-bad-rows" in line
    assert evaluate(model, "--skip-bad-rows", "bad.csv") == 0
    assert list(pd.read_csv("bad.csv")["line"]) == [14, 15]
    assert "2 bad rows are left out and stand in bad.csv" in capsys.readouterr().err


def test_another_range_is_refused_with_both_and_the_options_that_help(model, capsys):
    line = error_line(capsys, "evaluate", model, "ratings.csv", "--pictures", "album", "--score-range", "0", "100")
    assert "go from 0 to 100, the model's scores from 1 to 5" in line
    assert "--rescale" in line
    assert evaluate(model, "--score-range", "0", "100", "--rescale") == 0
    assert "aesthetics: predictions are mapped linearly from 1 to 5 to 0 to 100" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["./nowhere", "ratings.csv"], "there is no folder './nowhere'"),
        (["./nowhere", "nowhere.csv"], "nowhere.csv"),
        (["./nowhere", "ratings.csv", "-o", "ratings.csv"], "expected a folder for the report, got the file"),
        (["./nowhere", "ratings.csv", "--bootstraps", "-1"], "at least 0"),
        (["./nowhere", "ratings.csv", "--cut", "high"], "expected a number, got 'high'"),
        (["./nowhere"], "DATA"),
    ],
)
def test_wrong_arguments_are_refused_before_a_model_is_loaded(capsys, arguments, reason):
    assert reason in error_line(capsys, "evaluate", *arguments)


def test_what_does_not_fit_the_model_or_the_data_is_named(model, capsys):
    data = [model, "ratings.csv", "--pictures", "album"]
    assert "the model does not score taste; it scores aesthetics, color" in error_line(
        capsys, "evaluate", *data, "--attributes", "taste"
    )
    assert "No column for the attribute 'color'" in error_line(
        capsys, "evaluate", *data, "--attributes", "aesthetics,color"
    )
    assert "no column 'style' to group by" in error_line(capsys, "evaluate", *data, "--by", "style")
    assert "the cut 9 is not inside the score range of aesthetics, 1 to 5" in error_line(
        capsys, "evaluate", *data, "--cut", "9"
    )
    pd.read_csv("ratings.csv").rename(columns={"score": "liked"}).to_csv("ratings.csv", index=False)
    assert "the file has 'path', 'liked', 'split', 'theme'" in error_line(capsys, "evaluate", *data)


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("State the score_range, or set rescale=True to", "State the --score-range, or set --rescale to"),
        ("pass their folder as pictures.", "pass their folder with --pictures."),
        ("the model's range; a file with skip_bad_rows", "the model's range; a file with --skip-bad-rows"),
        ("no column 'my score_range' in /data/score_range.csv", None),
        ("""no file "it's score_range", nor rescale=True/cut=5 or x_score_range""", None),
        ("score_range.csv, line 3: as pictureset", None),
    ],
)
def test_only_names_of_arguments_become_options(message, shown):
    assert in_options(message) == (shown or message)


def test_without_matplotlib_one_line_says_what_to_install(model, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert evaluate(model, "-o", "report") == 0
    assert [path.name for path in sorted(Path("report").iterdir())] == ["metrics.json", "predictions.csv"]
    assert 'pip install "roc4mllm[plots]"' in capsys.readouterr().err.splitlines()[-1]


def test_bundled_checkpoint_goes_by_its_name(capsys):
    assert evaluate("roc4mllm-tiny", "--score-range", "1", "7") == 0
    assert capsys.readouterr().out.startswith("model roc4mllm-tiny, revision sha256:")


def test_help_needs_neither_torch_nor_transformers():
    code = """
import sys
from roc4mllm_cli import main
try:
    main(["evaluate", "--help"])
finally:
    print(sorted(sys.modules))
"""
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert "MODEL DATA" in child.stdout
    assert not {"'torch'", "'transformers'", "'numpy'"} & set(child.stdout.splitlines()[-1].strip("[]").split(", "))
