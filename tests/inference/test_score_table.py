"""Rows are what the columns promise, survive every file format, and a file is whole or not there."""

import csv
import json
import math
import os
import sys
import tempfile
from pathlib import Path

import pandas as pd
import pytest

from roc4mllm.inference.tables.score_reading import as_number, read_table
from roc4mllm.inference.tables.score_table import as_path, attribute_column, encodable, make_row, shown, table_columns
from roc4mllm.inference.tables.score_writing import TableFile, check_output

ATTRIBUTES = ["aesthetics", "color", "std"]
RECORD = {
    "score": 5.123456789,
    "score_range": [1.0, 10.0],
    "higher_is_better": True,
    "normalized": 0.458161865,
    "std": 1.25,
    "distribution": [0.25, 0.75],
    "attributes": {"aesthetics": 5.123456789, "color": 7.0, "std": 2.0},
    "model": "someone/scorer",
    "revision": None,
    "version": "0.1.0",
    "error": None,
}
FAILED = RECORD | {"score": None, "normalized": None, "std": None, "distribution": None}
FAILED |= {"attributes": dict.fromkeys(ATTRIBUTES), "error": 'not a picture, or "broken"\nin two lines'}
NAMES = [
    "plain.jpg",
    'a,b"c\nd.jpg',
    "carriage\rreturn.jpg",
    "[bold red]x.jpg",
    "猫.jpg",
    "bad\udcff.jpg",
    " x .jpg",
    "=1+1",
]
FORMATS = [".csv", ".jsonl", ".parquet"]


def write(path: Path, records: dict[str, dict], alias: str | None = None) -> None:
    with TableFile(path, table_columns(ATTRIBUTES, alias)) as table:
        for name, record in records.items():
            table.write(make_row(name, record, ATTRIBUTES, alias))


def test_columns_are_the_documented_ones_in_order():
    assert table_columns(ATTRIBUTES, "aesthetic_score") == [
        "path", "score", "normalized", "std", "score_min", "score_max", "aesthetic_score", "color", "attribute_std",
        "attribute", "model", "revision", "version", "error",
    ]  # fmt: skip


@pytest.mark.parametrize("alias", ["score", "error", "color", "distribution"])
def test_alias_that_is_taken_is_refused(alias):
    with pytest.raises(ValueError, match=f"already has a column {alias}"):
        table_columns(ATTRIBUTES, alias)


@pytest.mark.parametrize("attribute", ["path", "score", "model", "error", "higher_is_better"])
def test_attribute_with_the_name_of_a_column_is_told_apart(attribute):
    assert attribute_column(attribute) == f"attribute_{attribute}"


def test_row_holds_the_record():
    row = make_row("a.jpg", RECORD, ATTRIBUTES, "aesthetic_score")
    assert row["score"] == row["aesthetic_score"] == 5.123456789
    assert (row["std"], row["attribute_std"], row["color"]) == (1.25, 2.0, 7.0)
    assert (row["score_min"], row["score_max"]) == (1.0, 10.0)
    assert (row["model"], row["revision"], row["error"]) == ("someone/scorer", None, None)


def test_failed_row_has_a_range_and_an_origin_but_no_number():
    row = make_row("a.jpg", FAILED, ATTRIBUTES, "aesthetic_score")
    numbers = ["score", "normalized", "std", "aesthetic_score", "color", "attribute_std"]
    assert [row[name] for name in numbers] == [None] * 6
    assert (row["score_max"], row["model"], row["version"]) == (10.0, "someone/scorer", "0.1.0")


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_no_number_is_left_out(value):
    assert make_row("a.jpg", RECORD | {"std": value}, ATTRIBUTES)["std"] is None


@pytest.mark.parametrize("ending", FORMATS)
def test_every_name_survives_every_format(tmp_path, ending):
    path = tmp_path / f"scores{ending}"
    write(path, dict.fromkeys(NAMES, RECORD) | {"broken.jpg": FAILED})
    rows = list(read_table(path))
    assert [as_path(row["path"]) for row in rows] == [*NAMES, "broken.jpg"]
    assert rows[-1]["error"] == FAILED["error"]
    assert rows[-1]["score"] is None
    assert [row["error"] for row in rows[:-1]] == [None] * len(NAMES)


@pytest.mark.parametrize("ending", FORMATS)
def test_numbers_are_exact_where_the_format_allows(tmp_path, ending):
    path = tmp_path / f"scores{ending}"
    write(path, {"a.jpg": RECORD})
    (row,) = read_table(path)
    assert row["score"] == ("5.123457" if ending == ".csv" else 5.123456789)


def test_csv_opens_with_pandas(tmp_path):
    path = tmp_path / "scores.csv"
    write(path, dict.fromkeys(NAMES, RECORD) | {"broken.jpg": FAILED}, alias="aesthetic_score")
    frame = pd.read_csv(path)
    assert list(frame.columns) == table_columns(ATTRIBUTES, "aesthetic_score")
    assert list(frame["path"]) == [encodable(name) for name in [*NAMES, "broken.jpg"]]
    assert frame["score"].isna().tolist() == [False] * len(NAMES) + [True]
    assert frame["error"].isna().tolist() == [True] * len(NAMES) + [False]
    assert frame["score"][0] == frame["aesthetic_score"][0] == 5.123457


def test_parquet_has_the_same_types_when_every_row_failed(tmp_path):
    write(tmp_path / "good.parquet", {"a.jpg": RECORD})
    write(tmp_path / "bad.parquet", {"a.jpg": FAILED})
    good, bad = (pd.read_parquet(tmp_path / name).dtypes.to_dict() for name in ("good.parquet", "bad.parquet"))
    assert good == bad
    assert str(good["score"]) == "float64"


def test_json_lines_tell_direction_distribution_and_ranges(tmp_path):
    record = RECORD | {"attribute_ranges": {"aesthetics": [1.0, 10.0], "color": [0.0, 1.0]}}
    write(tmp_path / "scores.jsonl", {"a.jpg": record, "猫.jpg": FAILED})
    lines = (tmp_path / "scores.jsonl").read_text(encoding="utf-8").splitlines()
    row = json.loads(lines[0])
    assert list(row)[: len(table_columns(ATTRIBUTES))] == table_columns(ATTRIBUTES)
    assert (row["higher_is_better"], row["distribution"]) == (True, [0.25, 0.75])
    assert row["attribute_ranges"]["color"] == [0.0, 1.0]
    assert "猫" in lines[1]


def test_interrupted_file_keeps_the_old_one_and_the_rows_so_far(tmp_path):
    path = tmp_path / "scores.csv"
    path.write_text("old")
    table = TableFile(path, table_columns(ATTRIBUTES))
    table.write(make_row("a.jpg", RECORD, ATTRIBUTES))
    with pytest.raises(KeyboardInterrupt), table:
        raise KeyboardInterrupt
    assert path.read_text() == "old"
    assert [row["path"] for row in read_table(table.partial)] == ["a.jpg"]


@pytest.mark.parametrize("ending", FORMATS)
def test_file_without_a_row_is_not_left_behind_by_an_error(tmp_path, ending):
    with pytest.raises(RuntimeError), TableFile(tmp_path / f"scores{ending}", ["path"]):
        raise RuntimeError
    assert os.listdir(tmp_path) == []


def test_rows_are_on_disk_while_scoring_goes_on(tmp_path):
    with TableFile(tmp_path / "scores.csv", table_columns(ATTRIBUTES)) as table:
        table.write(make_row("a.jpg", RECORD, ATTRIBUTES))
        assert len(table.partial.read_text().splitlines()) == 2
        assert not (tmp_path / "scores.csv").exists()
    assert os.listdir(tmp_path) == ["scores.csv"]


def test_written_file_has_the_permissions_of_any_new_file(tmp_path):
    (tmp_path / "any").touch()
    write(tmp_path / "scores.csv", {"a.jpg": RECORD})
    assert (tmp_path / "scores.csv").stat().st_mode == (tmp_path / "any").stat().st_mode


def test_symbolic_link_to_the_table_stays_a_link(tmp_path):
    (tmp_path / "link.csv").symlink_to("real.csv")
    write(check_output(tmp_path / "link.csv"), {"a.jpg": RECORD})
    assert (tmp_path / "link.csv").is_symlink()
    assert len(list(read_table(tmp_path / "real.csv"))) == 1


@pytest.mark.parametrize("name", ["scores", "scores.txt", "scores.csv.gz", ".csv"])
def test_output_of_unknown_format_is_refused(tmp_path, name):
    with pytest.raises(ValueError, match=r"ends in .csv, .jsonl, .parquet"):
        check_output(tmp_path / name)


def test_output_in_a_missing_folder_is_refused(tmp_path):
    with pytest.raises(OSError, match="No such file or directory; name a file in a folder that exists"):
        check_output(tmp_path / "missing" / "scores.csv")


def test_output_that_is_a_folder_is_refused(tmp_path):
    (tmp_path / "scores.csv").mkdir()
    with pytest.raises(OSError, match="it is a folder"):
        check_output(tmp_path / "scores.csv")


def test_output_in_a_closed_folder_is_refused():
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o555)
        root = os.geteuid() == 0
        if root:
            os.seteuid(65534)  # root may write anywhere
        try:
            with pytest.raises(OSError, match="Permission denied"):
                check_output(Path(folder, "scores.csv"))
        finally:
            if root:
                os.seteuid(0)
            os.chmod(folder, 0o755)


def test_check_leaves_nothing_behind_and_the_old_file_alone(tmp_path):
    (tmp_path / "scores.csv").write_text("old")
    assert check_output(tmp_path / "scores.csv") == (tmp_path / "scores.csv").resolve()
    assert os.listdir(tmp_path) == ["scores.csv"]
    assert (tmp_path / "scores.csv").read_text() == "old"


@pytest.mark.parametrize("use", [check_output, lambda path: list(read_table(path))])
def test_parquet_without_pyarrow_names_the_extra(tmp_path, monkeypatch, use):
    monkeypatch.setitem(sys.modules, "pyarrow", None)  # what an import finds where it is not installed
    with pytest.raises(ImportError, match=r"pip install 'roc4mllm\[data\]'"):
        use(tmp_path / "scores.parquet")


def test_table_of_pandas_is_read_as_ours(tmp_path):
    write(tmp_path / "ours.csv", {"a.jpg": RECORD, "broken.jpg": FAILED})
    frame = pd.read_csv(tmp_path / "ours.csv")
    frame.to_csv(tmp_path / "theirs.csv", index=False, encoding="utf-8-sig")
    frame.to_parquet(tmp_path / "theirs.parquet")
    frame.to_json(tmp_path / "theirs.jsonl", orient="records", lines=True)
    for ending in FORMATS:
        good, bad = read_table(tmp_path / f"theirs{ending}")
        assert float(good["score"]) == 5.123457
        assert good["error"] is None
        assert bad["score"] is None
        assert bad["error"] == FAILED["error"]


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.csv", b"\x89PNG\r\n", "not a .csv file"),
        ("a.csv", b"", "is empty"),
        ("a.csv", b"name,score\na.jpg,5\n", "row 1 has no path; its columns are name, score"),
        ("a.csv", b"path,score\na.jpg,5\n,6\n", "row 2 has no path"),
        ("a.csv", b"path;score\na.jpg;5,1\n", "columns are path;score \\(a .csv file has commas"),
        ("a.csv", b'path,score\n"a.jpg,5\nb.jpg,6\n', "behind line 1: unexpected end of data"),
        ("a.jsonl", b'{"path": "a.jpg"}\n{"path": \n', "line 2: expected a JSON object"),
        ("a.jsonl", b'["a.jpg"]\n', "line 1: expected a JSON object"),
        ("a.jsonl", b"[" * 100_000, "line 1: expected a JSON object"),
        ("a.parquet", b"PAR1", "not a .parquet file"),
        ("a.txt", b"path,score", "ends in .csv"),
        ("scores", b"path,score\na.jpg,5\n", "cannot tell the format of .*scores': expected a .csv"),
    ],
)
def test_what_is_no_table_is_refused_with_the_place(tmp_path, name, content, reason):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=reason):
        list(read_table(tmp_path / name))


def test_json_lines_of_other_tools_may_have_a_mark_and_empty_lines(tmp_path):
    (tmp_path / "a.jsonl").write_text('\ufeff{"path": "a.jpg", "score": 1}\n\n{"path": "b.jpg", "score": 2}\n \n')
    assert [row["path"] for row in read_table(tmp_path / "a.jsonl")] == ["a.jpg", "b.jpg"]


def test_a_folder_without_parts_is_no_table(tmp_path):
    (tmp_path / "part-0-of-1.parquet").touch()
    with pytest.raises(ValueError, match=r"holds no parts of a table \(part-00000"):
        list(read_table(tmp_path))
    (tmp_path / "unfinished").touch()  # a run that has just begun
    assert list(read_table(tmp_path)) == []


@pytest.mark.parametrize("value", [10**400, "1" * 400, 1e300, float("inf"), "-inf", "nan"])
def test_what_no_sum_can_hold_is_no_number(value):
    assert as_number(value, "") is None
    assert as_number("-1e99", "") == -1e99


@pytest.mark.parametrize("value", ["1_0", True, "3,5", [1]])
def test_what_only_python_takes_for_a_number_is_refused(value):
    with pytest.raises(ValueError, match="a: expected a number, got"):
        as_number(value, "a")


def test_broken_bytes_of_a_name_come_back(tmp_path):
    assert encodable("bad\udcff.jpg") == r"bad\udcff.jpg"
    assert as_path(r"bad\udcff.jpg") == "bad\udcff.jpg"
    (tmp_path / r"bad\udcff.jpg").touch()  # a file of exactly this name is meant first
    assert as_path(str(tmp_path / r"bad\udcff.jpg")) == str(tmp_path / r"bad\udcff.jpg")


def test_csv_ends_lines_as_unix_tools_expect(tmp_path):
    write(tmp_path / "scores.csv", {"a.jpg": RECORD, "cr\r.jpg": RECORD})
    content = (tmp_path / "scores.csv").read_bytes()
    assert b"\r\n" not in content
    assert content.endswith(b"0.1.0,\n")
    assert [row[0] for row in csv.reader(content.decode().splitlines(keepends=True))][-1] == "cr\r.jpg"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("猫 é.jpg", "猫 é.jpg"),
        ("narrow\u202fspace", "narrow\u202fspace"),  # macOS puts it into the names of screenshots
        ("\x1b[31mred", r"\x1b[31mred"),
        ("a\nb\rc\x00\x9b", r"a\nb\rc\x00\x9b"),
        ("\u202egpj", r"\u202egpj"),  # right-to-left override: gpj.exe would be shown as exe.jpg
        ("bad\udcff", r"bad\udcff"),
        ("\u2028", r"\u2028"),
    ],
)
def test_terminal_gets_no_control_characters(text, expected):
    assert shown(text) == expected
