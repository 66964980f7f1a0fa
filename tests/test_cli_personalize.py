"""`personalize`, `score --personal` and `explain` as a person uses them, on tiny models of two attributes."""

import io
import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from command_errors import error_line
from PIL import Image
from tiny import photo, scorer_parts

from roc4mllm import load_scorer
from roc4mllm.inference.personal.personal_taste import PersonalTaste
from roc4mllm_cli import main

COUNT = 16


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("models") / "tiny"
    model, processor = scorer_parts("llava", ("aesthetics", "color"), score_range=(1.0, 10.0))
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def general(model) -> list[float]:
    """The model's scores of the pictures in the album."""
    return [record["score"] for record in load_scorer(model)([photo(seed) for seed in range(COUNT)], batch_size=8)]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, general) -> Path:
    """The current folder: an album, ratings by Anna, who likes what the model does not, and by Bob."""
    (tmp_path / "album").mkdir()
    for seed in range(COUNT):
        photo(seed).save(tmp_path / "album" / f"{seed}.png")
    rows = [{"path": f"album/{seed}.png", "score": round(11 - value, 3)} for seed, value in enumerate(general)]
    pd.DataFrame(rows).to_csv(tmp_path / "anna.csv", index=False)
    both = [row | {"rater": "anna"} for row in rows] + [row | {"rater": "bob", "score": 5} for row in rows[:8]]
    pd.DataFrame(both).to_csv(tmp_path / "both.csv", index=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


# personalize ---------------------------------------------------------------------------------------------------------


def test_prints_both_scores_side_by_side_and_writes_a_small_file(model, capsys):
    assert main(["personalize", model, "anna.csv", "-o", "anna.safetensors", "--score-range", "1", "10"]) == 0
    printed = capsys.readouterr()
    head, _, title, first, second, gain, _, verdict = printed.out.splitlines()
    assert head == "aesthetics for one person, 1 to 10, 16 pictures; model tiny"
    assert "left-out pictures" in title
    taste = PersonalTaste.load("anna.safetensors")
    assert float(first.split()[1]) == pytest.approx(taste.general_srcc, abs=1e-3)
    assert float(second.split()[1]) == pytest.approx(taste.personal_srcc, abs=1e-3)
    assert taste.general_srcc == pytest.approx(-1.0)
    assert gain.split()[0] == "gain"
    assert verdict.endswith(".")
    assert "written to anna.safetensors (0." in printed.err or "written to anna.safetensors (1." in printed.err
    assert Path("anna.safetensors").stat().st_size < 2000
    assert (taste.model, taste.attribute, taste.num_ratings) == ("tiny", "aesthetics", COUNT)


def test_rater_attribute_and_range_are_chosen(model, capsys):
    line = error_line(capsys, "personalize", model, "both.csv", "-o", "x.safetensors")
    assert "several people (rater: anna, bob); choose one with --rater" in line
    assert "no row has the rater 'eve'; there are anna, bob" in error_line(
        capsys, "personalize", model, "both.csv", "-o", "x.safetensors", "--rater", "eve"
    )
    options = ["--rater", "bob", "--attribute", "color", "--score-range", "1", "5"]
    assert main(["personalize", model, "both.csv", "-o", "bob.safetensors", *options]) == 2  # anna's go up to 10
    frame = pd.read_csv("both.csv")
    frame["score"] = frame["score"].clip(upper=5)
    frame.to_csv("both.csv", index=False)
    capsys.readouterr()
    assert main(["personalize", model, "both.csv", "-o", "bob.safetensors", *options]) == 0
    printed = capsys.readouterr()
    assert printed.out.startswith("color for bob, 1 to 10, 8 pictures; model tiny\n")
    assert "ratings of 1 to 5 are mapped linearly to the model's 1 to 10" in printed.err
    assert "do not vary" in printed.out or "No taste" in printed.out or "cannot be told" in printed.out
    taste = PersonalTaste.load("bob.safetensors")
    assert (taste.attribute, taste.num_ratings, taste.general_srcc) == ("color", 8, None)


def test_picture_rated_twice_counts_once_and_a_broken_one_is_named(model, capsys):
    lines = Path("anna.csv").read_text().splitlines()
    Path("anna.csv").write_text("\n".join([*lines, lines[1]]) + "\n")
    data = Path("album/5.png").read_bytes()
    Path("album/5.png").write_bytes(data[: len(data) // 2])  # its header says nothing of it
    assert main(["personalize", model, "anna.csv", "-o", "anna.safetensors"]) == 0
    printed = capsys.readouterr()
    assert "left out:" in printed.err
    assert "5.png" in printed.err
    assert PersonalTaste.load("anna.safetensors").num_ratings == COUNT - 1


def test_scores_by_a_taste(model, capsys, general):
    main(["personalize", model, "anna.csv", "-o", "anna.safetensors"])
    capsys.readouterr()
    assert main(["score", "album", "missing.jpg", "-m", model, "--personal", "anna.safetensors", "-o", "s.csv"]) == 0
    frame = pd.read_csv("s.csv")
    assert list(frame.columns) == [
        "path", "score", "normalized", "std", "score_min", "score_max", "general_score", "color",
        "attribute", "model", "revision", "version", "error",
    ]  # fmt: skip
    scored = frame[frame["error"].isna()].set_index("path")
    expected = dict(zip([f"album/{seed}.png" for seed in range(COUNT)], general, strict=True))
    assert scored["general_score"].to_dict() == pytest.approx(expected, abs=5e-5)
    assert (scored["score"] - scored["general_score"]).abs().max() > 0.1
    assert scored["score"].between(1, 10).all()
    assert scored["std"].isna().all()
    missing = frame[frame["path"] == "missing.jpg"].iloc[0]
    assert missing[["score", "general_score"]].isna().all()
    assert missing["error"] == "no such file"
    capsys.readouterr()
    main(["score", "album/1.png", "-m", model, "--personal", "anna.safetensors"])
    row = json.loads(capsys.readouterr().out)
    assert row["score"] == pytest.approx(scored.loc["album/1.png", "score"], abs=1e-5)
    assert row["general_score"] == pytest.approx(scored.loc["album/1.png", "general_score"], abs=1e-5)
    assert row["std"] is row["distribution"] is None


def test_terminal_shows_the_general_score_too(model, capsys, monkeypatch):
    main(["personalize", model, "anna.csv", "-o", "anna.safetensors"])
    capsys.readouterr()
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert main(["score", "album/1.png", "-m", model, "--personal", "anna.safetensors"]) == 0
    _, _, names, _ = capsys.readouterr().out.splitlines()
    assert names.split() == ["score", "general_score", "normalized", "color", "path"]


def test_without_a_taste_the_table_is_as_it_was(model):
    main(["score", "album/1.png", "-m", model, "-o", "s.csv"])
    assert "general_score" not in pd.read_csv("s.csv").columns


def test_taste_of_another_model_or_attribute_is_refused_before_scoring(model, capsys):
    main(["personalize", model, "anna.csv", "-o", "anna.safetensors"])
    line = error_line(capsys, "score", "album", "--personal", "anna.safetensors", "-o", "s.csv")
    assert (
        "'anna.safetensors': this personal taste was made for the score range 1 to 10, but the model has 1 to 7"
        in line
    )
    line = error_line(
        capsys, "score", "album", "-m", model, "--personal", "anna.safetensors", "--attributes", "color", "-o", "s.csv"
    )
    assert "is of 'aesthetics', but the first attribute asked for is 'color'" in line
    assert not list(Path().glob("s*.csv"))


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["anna.csv", "-o", "anna.pt"], "is a .safetensors file, got 'anna.pt'"),
        (["anna.csv", "-o", "missing/anna.safetensors"], "name a file in a folder that exists"),
        (["missing.csv", "-o", "x.safetensors"], "missing.csv"),
        (
            ["anna.csv", "-o", "x.safetensors", "--attribute", "light"],
            "does not score light; it scores aesthetics, color",
        ),
        (["anna.csv", "-o", "x.safetensors", "--rater", "eve"], "no column rater"),
        (["words.csv", "-o", "x.safetensors"], "no row has a score of 'aesthetics'"),
        (["words.csv", "-o", "x.safetensors", "--rater", "anna"], "no row of 'anna' has a score of 'aesthetics'"),
        (["few.csv", "-o", "x.safetensors"], "needs 5 rated pictures at least, got 4"),
        (
            ["hundred.csv", "-o", "x.safetensors"],
            "do not fit the model's 1 to 10; state their range with --score-range",
        ),
    ],
)
def test_wrong_input_is_one_line(model, capsys, arguments, reason):
    pd.read_csv("anna.csv").head(4).to_csv("few.csv", index=False)
    pd.read_csv("anna.csv").assign(score="", comment="nice", rater="anna").to_csv("words.csv", index=False)
    hundred = pd.read_csv("anna.csv")
    hundred["score"] *= 9
    hundred.to_csv("hundred.csv", index=False)
    assert reason in error_line(capsys, "personalize", model, *arguments)
    assert not Path("x.safetensors").exists()


def test_file_that_is_no_taste(model, capsys):
    Path("x.safetensors").write_text("hello")
    assert "'x.safetensors' is no personal taste" in error_line(
        capsys, "score", "album", "-m", model, "--personal", "x.safetensors"
    )
    assert "nothing.safetensors" in error_line(
        capsys, "score", "album", "-m", model, "--personal", "nothing.safetensors"
    )


def verdict_of(capsys) -> str:
    return capsys.readouterr().out.split("\n\n")[-1]


def test_without_a_taste_the_numbers_are_those_of_the_general_score(model, capsys):
    """As many noisy ratings as tempt a head somewhere when a picture is left out."""
    frame = pd.read_csv("anna.csv").head(10)
    found = []
    for seed in range(12):
        frame["score"] = np.random.default_rng(seed).uniform(3, 8, len(frame)).round(1)
        frame.to_csv("noise.csv", index=False)
        assert main(["personalize", model, "noise.csv", "-o", "x.safetensors", "--score-range", "1", "10"]) == 0
        printed, taste = capsys.readouterr().out, PersonalTaste.load("x.safetensors")
        if taste.strength is None:
            assert not taste.weight.any()
            assert taste.personal_srcc == pytest.approx(taste.general_srcc)
            assert f"the personal score is the general one, moved by {taste.bias:+.2f}." in printed
            assert "gain      +0.000" in printed
            found.append("each picture was left out in turn" in printed)
        if any(found):
            return
    raise AssertionError(f"no seed shows it: {found}")


def test_copies_of_one_picture_name_the_general_score(model, capsys):
    for copy in range(8):
        photo(1).save(f"album/copy-{copy}.png")
    pd.DataFrame({"path": [f"album/copy-{copy}.png" for copy in range(8)], "score": range(1, 9)}).to_csv("c.csv")
    assert main(["personalize", model, "c.csv", "-o", "x.safetensors", "--batch-size", "3"]) == 0
    assert verdict_of(capsys).startswith("The general score is the same for all these pictures")
    assert PersonalTaste.load("x.safetensors").strength is None


def test_rater_without_a_name_is_shown_and_can_be_chosen(model, capsys):
    frame = pd.read_csv("both.csv")
    frame.loc[frame["rater"] == "bob", "rater"] = ""
    frame.to_csv("both.csv", index=False)
    assert "(rater: (blank), anna)" in error_line(capsys, "personalize", model, "both.csv", "-o", "x.safetensors")
    assert main(["personalize", model, "both.csv", "-o", "x.safetensors", "--rater", "(blank)"]) == 0
    assert capsys.readouterr().out.startswith("aesthetics for (blank), 1 to 10, 8 pictures")


def test_folder_without_ratings_is_refused(model, capsys):
    line = error_line(capsys, "personalize", model, "album", "-o", "x.safetensors")
    assert "the folder 'album' holds no ratings; name a table with path and score, or put a metadata.csv" in line


@pytest.mark.parametrize(("highest", "is_named"), [(5, True), (6, False)])
def test_stars_are_named(model, capsys, highest, is_named):
    frame = pd.read_csv("anna.csv")
    frame["score"] = np.arange(COUNT) % highest + 1
    frame.to_csv("stars.csv", index=False)
    assert main(["personalize", model, "stars.csv", "-o", "x.safetensors"]) == 0
    line = capsys.readouterr().err
    assert "the ratings state no range, so the model's is taken, 1 to 10" in line
    assert ("if they are 1 to 5 stars, say --score-range 1 5" in line) == is_named


@pytest.mark.parametrize(
    "command",
    [["score", "album", "-m"], ["explain", "album/1.png", "-o", "w.png", "-m"], ["personalize"], ["evaluate"]],
    ids=lambda command: command[0],
)
def test_folder_that_is_no_model(here, capsys, command):
    (here / "nothing").mkdir()
    ending = {"personalize": ["anna.csv", "-o", "x.safetensors"], "evaluate": ["anna.csv"]}.get(command[0], [])
    line = error_line(capsys, *command, "./nothing", *ending)
    assert "cannot load ./nothing: there is no config.json in the folder './nothing'" in line


# explain -------------------------------------------------------------------------------------------------------------


def test_explain_writes_a_picture(model, capsys):
    assert main(["explain", "album/1.png", "-m", model, "-o", "why.png", "--attribute", "color"]) == 0
    printed = capsys.readouterr()
    assert printed.out == ""
    score = load_scorer(model)("album/1.png")["attributes"]["color"]
    (line,) = printed.err.splitlines()[-1:]
    assert line.startswith(f"color {score:.3f} of 1 to 10; Attention from the score position")
    assert line.endswith("Written to why.png")
    with Image.open("why.png") as drawn:
        assert drawn.width > 1000
        assert np.asarray(drawn.convert("RGB")).std() > 10


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["album/1.png", "-o", "why.jpg"], "an explanation is a .png file"),
        (["album/1.png", "-o", "album/1.png"], "would overwrite the picture"),
        (["album/1.png", "-o", "missing/why.png"], "name a file in a folder that exists"),
        (["missing.png", "-o", "why.png"], "missing.png: no such file"),
        (["broken.png", "-o", "why.png"], "broken.png: not a picture"),
        (["album", "-o", "why.png"], "'album' is not one picture"),
        (["-", "-o", "why.png"], "'-' is not one picture"),
        (["album/1.png", "-o", "why.png", "--attribute", "light"], "does not score light"),
        (["album/1.png", "-o", "why.png", "-m", "./nothing"], "there is no folder './nothing'"),
    ],
)
def test_explain_says_in_one_line_what_is_wrong(model, capsys, monkeypatch, arguments, reason):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO()))
    Path("broken.png").write_text("no picture")
    before = Path("album/1.png").read_bytes()
    extra = [] if "-m" in arguments else ["-m", model]
    assert reason in error_line(capsys, "explain", *arguments, *extra)
    assert not Path("why.png").exists()
    assert Path("album/1.png").read_bytes() == before
