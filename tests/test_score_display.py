"""The table of scores that a terminal shows."""

from roc4mllm.cli import score_display
from roc4mllm.cli.score_display import TableDisplay, table_head


def test_table_rounds_to_the_digits_that_the_range_gives_sense():
    row = {"path": "a.jpg", "score": 57.3149, "normalized": 0.573149, "std": 9.87654, "color": 0.51987, "error": None}
    row |= {"score_min": 0.0, "score_max": 100.0, "attribute_ranges": {"aesthetics": [0, 100], "color": [0, 1]}}
    row |= {"model": "someone/scorer", "revision": "abc", "version": "0.1.0", "higher_is_better": False}
    table = TableDisplay(["aesthetics", "color"])
    table.write(row)
    head, _, _, line = table.lines()
    assert head == (
        "score (aesthetics) 0 to 100, color 0 to 1, lower is better; "
        "model someone/scorer, revision abc; roc4mllm 0.1.0"
    )
    assert line.split() == ["57.3", "0.573", "9.9", "0.520", "a.jpg"]


def test_table_is_printed_a_page_at_a_time(capsys, monkeypatch):
    """However many rows there are, few wait; columns stay where they are."""
    monkeypatch.setattr(score_display, "PAGE", 3)
    row = {"normalized": 0.5, "std": 1.0, "error": None, "score_min": 0.0, "score_max": 10.0}
    row |= {"model": "tiny", "revision": None, "version": "0", "higher_is_better": True}
    table, printed = TableDisplay(["aesthetics"]), []
    for number in range(8):
        table.write(row | {"path": f"{number}.jpg", "score": 10.0 if number < 2 else 1.0})
        printed.append(len(capsys.readouterr().out.splitlines()))
    assert printed == [0, 0, 3 + 3, 0, 0, 3, 0, 0]
    monkeypatch.setattr(score_display, "SECONDS_PER_PAGE", -1.0)
    table.write(row | {"path": "8.jpg", "score": 1.0})
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[-1] for line in lines] == ["6.jpg", "7.jpg", "8.jpg"]
    assert {line.index("1.00") for line in lines} == {1}  # under the last digits of 10.00
    table.flush()
    assert capsys.readouterr().out == ""


def test_table_head_names_a_range_once_for_neighbours_that_share_it():
    row = {"score_min": 1.0, "score_max": 7.0, "higher_is_better": True}
    row |= {"model": "tiny", "revision": None, "version": "0"}
    row["attribute_ranges"] = {"aesthetics": [1.0, 7.0], "color": [1.0, 7.0], "noise": [0, 100], "blur": [0, 100]}
    expected = "score (aesthetics), color 1 to 7, noise, blur 0 to 100, higher is better; model tiny; roc4mllm 0"
    assert table_head(row, list(row["attribute_ranges"])) == expected
