"""`roc4mllm filter`: from a table of scores to the pictures worth keeping."""

import os
import weakref
from pathlib import Path

import pandas as pd
import pytest
from command_errors import error_line
from tiny import photo

from roc4mllm.cli.filter import Scored, ScoredRows, pick
from roc4mllm.inference.tables.score_table import encodable
from roc4mllm_cli import main


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with three pictures in an album."""
    (tmp_path / "album").mkdir()
    for seed, name in enumerate("abc", start=1):
        photo(seed).save(tmp_path / "album" / f"{name}.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


TWO_MODELS = [
    {"path": "a", "score": 5.0, "model": "one", "score_min": 1, "score_max": 10},
    {"path": "b", "score": 0.9, "model": "two", "score_min": 0, "score_max": 1},
]


def scored(*scores: float, higher_is_better: bool = True) -> ScoredRows:
    """Rows named 0, 1, 2, … of one model."""
    scale = {"model": "tiny", "score_min": 1, "score_max": 10, "higher_is_better": higher_is_better}
    return ScoredRows({"path": str(number), "score": score} | scale for number, score in enumerate(scores))


class Watched(dict):
    """A row that can be referred to weakly."""


def names(rows: list[Scored]) -> str:
    return "".join(row.path for row in rows)


def test_top_k_is_best_first_with_ties_in_file_order():
    assert names(pick(scored(3, 9, 5, 9, 5), top_k=4)) == "1324"
    assert names(pick(scored(3, 9, 5, 9, 5), top_k=99)) == "13240"


@pytest.mark.parametrize(
    ("quantile", "expected"), [(0.0, "43210"), (0.5, "432"), (0.6, "43"), (0.75, "43"), (0.9, "4"), (1.0, "4")]
)
def test_quantile_keeps_what_is_at_or_above_it(quantile, expected):
    assert names(pick(scored(1, 2, 3, 4, 5), quantile=quantile)) == expected


def test_quantile_keeps_all_ties_at_its_limit():
    assert names(pick(scored(2, 2, 2, 1), quantile=0.9)) == "012"


def test_quantile_is_exact_where_floating_point_is_not():
    rows = scored(*range(1, 102))
    assert 0.07 * 100 > 7
    assert len(pick(rows, quantile=0.07)) == 94  # place 7 itself passes


def test_min_score_includes_the_limit():
    assert names(pick(scored(4.9, 5, 5.1), min_score=5)) == "21"


def test_lower_is_better_turns_every_rule_round():
    for rule, expected in (({"top_k": 2}, "01"), ({"quantile": 0.5}, "01"), ({"min_score": 3}, "012")):
        assert names(pick(scored(1, 2, 3, 4, higher_is_better=False), **rule)) == expected


@pytest.mark.parametrize("rule", [{"top_k": 1}, {"min_score": 0.5}])
def test_scores_of_two_models_are_not_compared(rule):
    others = [{"path": "c", "score": 1, "revision": "v2", "higher_is_better": False}]
    told = r"one 1 to 10; two 0 to 1; unknown model \(revision v2\) without a range, lower is better\. Use"
    with pytest.raises(ValueError, match=told):
        pick(ScoredRows([*TWO_MODELS, *others]), **rule)


def test_quantile_ranks_each_model_by_itself():
    rows = [*TWO_MODELS, TWO_MODELS[1] | {"path": "c", "score": 0.1}]
    assert names(pick(ScoredRows(rows), quantile=0.9)) == "ab"


@pytest.mark.parametrize("score", [0.9, 10.1, -1])
def test_min_score_outside_the_range_is_refused_with_the_range(score):
    with pytest.raises(ValueError, match=r"scores can be 1 to 10 \(higher is better\), those of the file are 3 to 5"):
        pick(scored(3, 5), min_score=score)


def test_min_score_without_declared_range_is_held_against_the_scores():
    rows = [{"path": "a", "aesthetic_score": "3"}, {"path": "b", "aesthetic_score": "5"}]
    assert names(pick(ScoredRows(rows), min_score=4)) == "b"
    with pytest.raises(ValueError, match="3 to 5"):
        pick(ScoredRows(rows), min_score=6)


@pytest.mark.parametrize(
    "row",
    [
        {"path": "a", "score": "9", "error": "half of the picture is missing"},
        {"path": "a", "score": None, "error": None},
        {"path": "a", "score": "nan", "error": None},
        {"path": "a", "score": "inf", "error": None},
    ],
)
def test_row_with_an_error_or_without_a_number_never_passes(row):
    rows = ScoredRows([row, {"path": "b", "score": "1", "error": None}])
    assert names(pick(rows, quantile=0)) == "b"


def test_score_that_is_no_number_names_its_row():
    with pytest.raises(ValueError, match="row 2, score: expected a number, got 'good'"):
        list(ScoredRows([{"path": "a", "score": "1"}, {"path": "b", "score": "good"}]))


def test_missing_column_names_those_there_are():
    with pytest.raises(ValueError, match="no column 'aesthetic_score'; name one of path, rating with --alias"):
        list(ScoredRows([{"path": "a", "rating": "1"}]))
    (row,) = ScoredRows([{"path": "a", "rating": "1"}], "rating")
    assert row.score == 1


@pytest.mark.parametrize("value", ["False", "false", "0", False])
def test_direction_is_read_from_the_file(value):
    (row,) = ScoredRows([{"path": "a", "score": "1", "higher_is_better": value}])
    assert row.scale.higher_is_better is False


@pytest.mark.parametrize("rule", [{"top_k": 3}, {"min_score": 9.999}])
def test_rows_that_do_not_pass_are_not_held(rule):
    alive = weakref.WeakValueDictionary()

    def rows():
        for number in range(10_000):
            row = Watched(
                {"path": str(number), "score": (number * 7919) % 10_000 / 1000, "score_min": 0, "score_max": 10}
            )
            alive[number] = row
            assert len(alive) < 5
            yield row
            del row

    assert [row.score for row in pick(ScoredRows(rows()), **rule)] == [9.999, 9.998, 9.997][: rule.get("top_k", 1)]


def table(path: str, **scores: float) -> None:
    pd.DataFrame({"path": list(scores), "score": list(scores.values())}).to_csv(path, index=False)


def test_min_score_prints_the_range_it_compares_with(capfdbinary):
    table("scores.csv", a=3.25, b=5.5)
    assert main(["filter", "scores.csv", "--min-score", "4"]) == 0
    printed = capfdbinary.readouterr()
    assert printed.out == b"b\n"
    assert printed.err.decode().splitlines() == [
        "scores can be 3.25 to 5.5 (higher is better), those of the file are 3.25 to 5.5",
        "1 of 2 rows pass",
    ]


def test_list_gives_the_very_bytes_of_names(capfdbinary):
    odd = ['album/a,b"c\nd.png', os.fsdecode(b"album/bad\xff.png"), "album/猫.png"]
    for seed, name in enumerate(odd):
        photo(seed).save(os.fsencode(name).decode("utf-8", "surrogateescape"), format="png")
    table("scores.csv", **{encodable(name): 1.0 for name in odd})
    assert main(["filter", "scores.csv", "--quantile", "0", "--null"]) == 0
    listed = capfdbinary.readouterr().out.split(b"\0")
    assert sorted(listed) == sorted([b"", *map(os.fsencode, odd)])
    assert main(["filter", "scores.csv", "--quantile", "0", "--copy-to", "picks"]) == 0
    assert sorted(os.listdir(b"picks")) == sorted(os.path.basename(os.fsencode(name)) for name in odd)


def test_a_name_that_no_file_can_have_stops_no_list(capfdbinary):
    Path("scores.jsonl").write_text('{"path": "a\\ud800", "score": 2}\n{"path": "b\\udcff", "score": 1}\n')
    assert main(["filter", "scores.jsonl", "--top-k", "2"]) == 0
    assert capfdbinary.readouterr().out == b"a\\ud800\nb\xff\n"


def test_copies_of_equal_names_are_told_apart(capsys):
    for folder in ("one", "two", "picks"):
        Path(folder).mkdir()
        Path(folder, "cat.jpg").write_text(folder)
    table("scores.csv", **{"one/cat.jpg": 1, "two/cat.jpg": 2})
    assert main(["filter", "scores.csv", "--top-k", "2", "--copy-to", "picks"]) == 0
    content = {path.name: path.read_text() for path in Path("picks").iterdir()}
    assert content == {"cat.jpg": "picks", "cat-2.jpg": "two", "cat-3.jpg": "one"}
    assert "2 of 2 copied to picks" in capsys.readouterr().err


def test_links_point_to_the_pictures(capsys):
    table("scores.csv", **{"album/a.png": 1, "album/b.png": 2})
    assert main(["filter", "scores.csv", "--top-k", "1", "--symlink-to", "new/picks"]) == 0
    assert Path("new/picks/b.png").resolve() == Path("album/b.png").resolve()
    assert os.listdir("new/picks") == ["b.png"]


def test_missing_source_is_counted_and_the_others_are_copied(capsys):
    table("scores.csv", **{"gone.png": 2, "album/a.png": 1})
    assert main(["filter", "scores.csv", "--top-k", "2", "--copy-to", "picks"]) == 1
    printed = capsys.readouterr().err
    assert "gone.png was not copied: no such file" in printed
    assert "1 of 2 copied to picks, 1 failed" in printed
    assert os.listdir("picks") == ["a.png"]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["nowhere.csv", "--top-k", "1"], "'nowhere.csv': No such file or directory"),
        (["scores.csv"], "--top-k --quantile --min-score is required"),
        (["scores.csv", "--top-k", "1", "--quantile", "0.5"], "not allowed with"),
        (["scores.csv", "--top-k", "0"], "at least 1"),
        (["scores.csv", "--quantile", "90"], "a share from 0 to 1"),
        (["scores.csv", "--min-score", "high"], "expected a number, got 'high'"),
        (["scores.csv", "--min-score", "-1"], "--min-score -1 is outside the range"),
        (["scores.csv", "--top-k", "1", "--alias", "rating"], "no column 'rating'"),
        (["scores.csv", "--top-k", "1", "--copy-to", "scores.csv"], "got the file 'scores.csv'"),
        (["album/a.png", "--top-k", "1"], "ends in .csv"),
    ],
)
def test_wrong_filter_arguments_end_as_one_line(capsys, arguments, reason):
    table("scores.csv", a=3.25, b=5.5)
    assert reason in error_line(capsys, "filter", *arguments).split("error: ", 1)[1]
