"""
The command as a person uses it: in this process through `main`, because a fresh import costs seconds, and twice as a
process of its own. A tiny random model of three attributes scores; the bundled checkpoint where the test says so.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from command_errors import error_line
from tiny import photo, scorer_parts

import roc4mllm
from roc4mllm.cli.models import MODELS
from roc4mllm.inference.folder_revision import folder_revision
from roc4mllm.inference.load_scorer import BUNDLED_CHECKPOINT
from roc4mllm_cli import main, parse

ROOT = Path(__file__).resolve().parent.parent
ATTRIBUTES = ("aesthetics", "color", "light")
INPUTS = ["album/a.png", "album/b.png", "album/broken.jpg", "album/c.png", "missing.jpg", "*.gif", "empty"]
COLUMNS = [
    "path", "score", "normalized", "std", "score_min", "score_max", "color", "light",
    "attribute", "model", "revision", "version", "error",
]  # fmt: skip


@pytest.fixture(scope="session")
def model(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("models") / "tiny"
    model, processor = scorer_parts("llava", ATTRIBUTES, score_range=(1.0, 10.0))
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return str(folder)


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder: three pictures, a broken file, an empty folder."""
    (tmp_path / "album").mkdir()
    (tmp_path / "empty").mkdir()
    for seed, name in enumerate("abc", start=1):
        photo(seed).save(tmp_path / "album" / f"{name}.png")
    (tmp_path / "album" / "broken.jpg").write_text("no picture")
    (tmp_path / "album" / "notes.txt").write_text("not asked for")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def score(model: str, *arguments: str) -> int:
    return main(["score", "album", "missing.jpg", "*.gif", "empty", "-m", model, *arguments])


# score ---------------------------------------------------------------------------------------------------------------


def test_csv_has_one_row_per_input_in_input_order(model, capsys):
    assert score(model, "-o", "scores.csv") == 0
    frame = pd.read_csv("scores.csv")
    assert list(frame.columns) == COLUMNS
    assert list(frame["path"]) == INPUTS
    assert list(frame["error"].notna()) == [False, False, True, False, True, True, True]
    assert list(frame["score"].isna()) == list(frame["error"].notna())
    assert set(frame["model"]) == {"tiny"}
    assert set(frame["version"]) == {roc4mllm.__version__}
    assert (frame[["score_min", "score_max"]] == [1.0, 10.0]).all(axis=None)
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "3 of 7 scored, 4 failed (first: album/broken.jpg: " in printed.err
    assert "written to scores.csv" in printed.err


def test_numbers_are_those_of_the_scorer(model):
    score(model, "-o", "scores.csv", "--batch-size", "2")
    score(model, "-o", "scores.jsonl", "--batch-size", "1")
    score(model, "-o", "scores.parquet")
    csv, parquet = pd.read_csv("scores.csv"), pd.read_parquet("scores.parquet")
    lines = [json.loads(line) for line in Path("scores.jsonl").read_text().splitlines()]
    scorer = roc4mllm.load_scorer(model)
    seen = set()
    for row, path in enumerate(INPUTS[:4]):
        record = scorer(path)
        if record["error"]:
            assert lines[row]["error"] == record["error"]
            continue
        seen.add(round(record["score"], 3))
        expected = [record["score"], record["normalized"], record["std"], *list(record["attributes"].values())[1:]]
        names = ["score", "normalized", "std", "color", "light"]
        assert [lines[row][name] for name in names] == pytest.approx(expected, abs=5e-5)
        assert [parquet[name][row] for name in names] == pytest.approx(expected, abs=5e-5)
        assert [csv[name][row] for name in names] == pytest.approx(expected, abs=5e-5)
        assert [csv[name][row] for name in names] == [round(csv[name][row], 6) for name in names]
        assert lines[row]["distribution"] == pytest.approx(record["distribution"], abs=1e-5)
        assert lines[row]["higher_is_better"] is True
    assert len(seen) == 3


def test_pipe_gets_json_lines_and_stderr_the_summary(model, capsys):
    assert score(model) == 0
    printed = capsys.readouterr()
    rows = [json.loads(line) for line in printed.out.splitlines()]
    assert [row["path"] for row in rows] == INPUTS
    assert [row["score"] is None for row in rows] == [False, False, True, False, True, True, True]
    assert printed.err.splitlines()[-1].startswith("3 of 7 scored, 4 failed")


def test_terminal_gets_a_table_in_input_order(model, capsys, monkeypatch):
    Path("album", "[bold]d\x1b[31m.png").write_bytes(Path("album/a.png").read_bytes())
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert score(model) == 0
    head, empty, names, *rows = capsys.readouterr().out.splitlines()
    origin = f"model tiny, revision {folder_revision(model)}; roc4mllm {roc4mllm.__version__}"
    assert head == f"score (aesthetics) 1 to 10, higher is better; {origin}"
    assert empty == ""
    assert names.split() == ["score", "normalized", "std", "color", "light", "path"]
    assert [row.split()[5] for row in rows] == [r"album/[bold]d\x1b[31m.png", *INPUTS]
    assert [row.split()[0] == "-" for row in rows] == [False, False, False, True, False, True, True, True]
    assert rows[-1].endswith("]")
    assert "holds no picture" in rows[-1]


def test_strict_writes_every_row_and_exits_with_1(model):
    assert score(model, "--strict", "-o", "scores.csv") == 1
    assert list(pd.read_csv("scores.csv")["path"]) == INPUTS
    assert main(["score", "album/a.png", "-m", model, "--strict", "-o", "scores.csv"]) == 0


def test_recursive_finds_what_a_plain_run_does_not(model):
    Path("album", "sub").mkdir()
    photo(9).save("album/sub/d.png")
    main(["score", "album", "-m", model, "-o", "flat.csv"])
    main(["score", "album", "-m", model, "-o", "deep.csv", "--recursive"])
    flat, deep = list(pd.read_csv("flat.csv")["path"]), list(pd.read_csv("deep.csv")["path"])
    assert deep == [*flat, "album/sub/d.png"]


def test_attributes_choose_what_is_scored_and_the_first_is_the_score(model):
    main(["score", "album/a.png", "-m", model, "-o", "all.csv"])
    main(["score", "album/a.png", "-m", model, "-o", "some.csv", "--attributes", "light,color"])
    everything, some = pd.read_csv("all.csv").iloc[0], pd.read_csv("some.csv").iloc[0]
    assert list(some.index) == [name for name in COLUMNS if name != "light"]
    assert abs(everything["light"] - everything["color"]) > 1e-3
    # What stands before a score in the sentence changes it, so the pipeline is asked the same.
    record = roc4mllm.load_scorer(model)("album/a.png", attributes=["light", "color"])
    assert some["score"] == pytest.approx(record["attributes"]["light"], abs=5e-5)
    assert some["color"] == pytest.approx(record["attributes"]["color"], abs=5e-5)


def test_alias_repeats_the_score_and_filter_finds_it(model, capfdbinary):
    score(model, "--alias", "aesthetic_score", "-o", "scores.csv")
    frame = pd.read_csv("scores.csv")
    assert frame["aesthetic_score"].equals(frame["score"])
    frame[["path", "aesthetic_score"]].to_csv("two_columns.csv", index=False)
    best = frame.loc[frame["score"].idxmax(), "path"]
    capfdbinary.readouterr()
    assert main(["filter", "two_columns.csv", "--top-k", "1"]) == 0
    assert capfdbinary.readouterr().out == os.fsencode(best) + b"\n"


def test_pictures_are_not_touched(model):
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in Path("album").iterdir()}
    score(model, "-o", "scores.csv")
    main(["filter", "scores.csv", "--quantile", "0", "--copy-to", "picks"])
    assert {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in Path("album").iterdir()} == before


def test_untrained_head_is_refused_by_the_option_that_allows_it(capsys, here):
    model, processor = scorer_parts("llava")
    model.config.score_head_trained = False
    model.save_pretrained("untrained")
    processor.save_pretrained("untrained")
    capsys.readouterr()
    line = error_line(capsys, "score", "album", "-m", "./untrained")
    assert "never trained" in line
    assert "--allow-untrained" in line
    assert main(["score", "album/a.png", "-m", "./untrained", "--allow-untrained", "-o", "scores.csv"]) == 0


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["-o", "scores.txt"], "ends in .csv, .jsonl, .parquet"),
        (["-o", "missing/scores.csv"], "a folder that exists"),
        (["--alias", "score"], "already has a column score"),
        (["--batch-size", "0"], "at least 1, got '0'"),
        (["--num-workers", "-1"], "at least 0"),
        (["--attributes", "a,,b"], "distinct names"),
        (["--dtype", "int8"], "float32"),
        (["--no-such-option"], "unrecognized"),
        ([], "no folder './nowhere'"),
    ],
)
def test_wrong_arguments_are_refused_before_the_model_is_looked_for(capsys, arguments, reason):
    assert reason in error_line(capsys, "score", "album", "-m", "./nowhere", *arguments)


def test_words_behind_options_are_inputs_too():
    args = parse(["score", "a.jpg", "-o", "s.csv", "b.jpg", "--recursive", "c.jpg"])
    assert (args.paths, args.output, args.recursive) == (["a.jpg", "b.jpg", "c.jpg"], "s.csv", True)
    assert parse(["score", "-o", "s.csv", "b.jpg"]).paths == ["b.jpg"]
    assert parse(["report", "a.csv", "-o", "r.html", "b.csv"]).scores == ["a.csv", "b.csv"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["score", "a.jpg", "-m", "x", "b.jpg", "--wrong"], "b.jpg --wrong"),
        (["filter", "a", "--top-k", "1", "b"], "b"),
    ],
)
def test_words_that_mean_nothing_are_refused(capsys, words, told):
    assert f"unrecognized arguments: {told} (see" in error_line(capsys, *words)


def test_a_pipe_is_not_replaced_by_a_table(capsys, tmp_path):
    os.mkfifo(tmp_path / "s.csv")
    assert "a pipe or a device" in error_line(
        capsys, "score", "album", "-m", "./nowhere", "-o", str(tmp_path / "s.csv")
    )


def test_parquet_without_pyarrow_is_refused_before_the_model_is_looked_for(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    line = error_line(capsys, "score", "album", "-m", "./nowhere", "-o", "scores.parquet")
    assert "pip install 'roc4mllm[data]'" in line


def test_what_the_model_or_the_machine_lacks_is_named(model, capsys):
    assert "it scores aesthetics, color, light" in error_line(
        capsys, "score", "album", "-m", model, "--attributes", "taste"
    )
    assert "on warp:9: " in error_line(capsys, "score", "album", "-m", model, "--device", "warp:9")
    assert "cannot load user/nowhere: " in error_line(capsys, "score", "album", "-m", "user/nowhere")
    assert not Path("scores.csv").exists()


# models and the process ----------------------------------------------------------------------------------------------


def test_models_are_listed_as_text_and_as_json(capsys):
    assert main(["models"]) == 0
    text = capsys.readouterr().out
    assert main(["models", "--json"]) == 0
    entries = json.loads(capsys.readouterr().out)
    families = ["roc4mllm-tiny", "ROC4MLLM", "Ricardo-M/ROC4MLLM", "OneAlign, Q-Align, DeQA-Score"]
    families += ["TANet", "EAT", "ELTA"]
    assert [entry["name"] for entry in entries] == [entry.name for entry in MODELS] == families
    for entry in entries:
        assert all(entry.values())
        assert all(value in text for value in entry.values())


def test_ranges_listed_for_the_bundled_checkpoint_are_its_own():
    config = json.loads((BUNDLED_CHECKPOINT / "config.json").read_text())
    beauty, *technical = [f"{low:g} to {high:g}" for low, high in config["score_range"]]
    listed = f"beauty {beauty}; {', '.join(config['attributes'][1:])} {technical[0]}; higher is better"
    assert MODELS[0].score_range == listed
    assert len(set(technical)) == 1
    assert config["higher_is_better"] is True


def run_process(*arguments: str, **options) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "roc4mllm_cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, **options)


def test_example_photos_are_scored_by_the_bundled_checkpoint():
    photos = ROOT / "examples" / "photos"
    if not photos.is_dir():
        pytest.skip("the example photos do not travel with the wheel")
    child = run_process("score", str(photos), "--strict")
    assert child.returncode == 0, child.stderr
    rows = [json.loads(line) for line in child.stdout.splitlines()]
    assert len(rows) == len([path for path in photos.iterdir() if path.suffix in (".png", ".jpg")])
    assert all(row["score_min"] <= row["score"] <= row["score_max"] for row in rows)
    assert len({round(row["score"], 3) for row in rows}) == len(rows)
    assert child.stderr.splitlines() == [f"{len(rows)} of {len(rows)} scored, 0 failed"]


def test_reader_that_leaves_early_causes_no_traceback(model):
    command = [sys.executable, "-m", "roc4mllm_cli", "score", *["album"] * 50, "-m", model, "--batch-size", "1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        assert json.loads(child.stdout.readline())["path"] == "album/a.png"
        child.stdout.close()
        errors = child.stderr.read()
    assert child.returncode == 1
    assert errors == ""


def test_version_is_that_of_the_package_and_needs_no_import():
    code = (
        "import sys; from roc4mllm_cli import main\ntry: main(['--version'])\nfinally: print('torch' in sys.modules)"
    )
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert child.stdout.splitlines() == [f"roc4mllm {roc4mllm.__version__}", "False"]


def test_traceback_is_shown_when_asked_for():
    with pytest.raises(FileNotFoundError):
        main(["--traceback", "filter", "nowhere.csv", "--top-k", "1"])
