"""Tables as they are found: byte order marks, blanks, other separators and encodings, spreadsheets, long JSON."""

import io
import json
import re
import zipfile

import pytest

from roc4mllm.datasets_scripts import raw_tables
from roc4mllm.datasets_scripts.raw_tables import (
    RawRow,
    count,
    number,
    read_json_array,
    read_lines,
    read_spreadsheet,
    read_table,
    read_words,
)


def test_odd_headers_and_line_ends(write):
    content = '\ufeffworker, imagePair, score\r\n w1, a.jpg , 3\r\n\r\nw2,"b, c.jpg",4\r\n'
    path = write({"x.csv": content}) / "x.csv"
    rows = list(read_table(path, need=["worker", "imagePair", "score"]))
    assert rows == [
        RawRow("x.csv", 2, {"worker": "w1", "imagePair": "a.jpg", "score": "3"}),
        RawRow("x.csv", 4, {"worker": "w2", "imagePair": "b, c.jpg", "score": "4"}),
    ]


def test_equals_signs_as_separators_without_a_header(write):
    path = write({"region.csv": "4=Afghanistan\n248=Åland Islands\n"}) / "region.csv"
    rows = read_table(path, delimiter="=", columns=["id", "name"])
    assert [row.fields["name"] for row in rows] == ["Afghanistan", "Åland Islands"]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp1252", "utf-16"])
def test_encodings(write, encoding):
    path = write({"x.csv": "image,score\r\nÅré.jpg,1\r\n".encode(encoding)}) / "x.csv"
    assert next(read_table(path, need=["image"])).fields["image"] == "Åré.jpg"


def test_a_line_that_does_not_fit_is_a_problem_with_its_number(write):
    path = write({"x.csv": "image,score\na.jpg,1\nb.jpg\nc.jpg,1,2\n"}) / "x.csv"
    rows = list(read_table(path))
    assert [(row.where, row.problem) for row in rows if row.problem] == [
        ("x.csv, line 3", "1 cells, expected 2"),
        ("x.csv, line 4", "3 cells, expected 2"),
    ]
    assert rows[0].problem == ""


def test_a_missing_column_is_named(write):
    path = write({"x.csv": "image,mos\n"}) / "x.csv"
    with pytest.raises(ValueError, match=r"x.csv has no column score; it has image, mos"):
        list(read_table(path, need=["image", "score"]))
    path.write_text("")
    with pytest.raises(ValueError, match=r"x.csv has no column score; it has nothing"):
        list(read_table(path, need=["score"]))


def test_an_open_quotation_mark_is_refused(write):
    path = write({"x.csv": 'image,score\na.jpg,1\n"b.jpg,2\nc.jpg,3\n'}) / "x.csv"
    with pytest.raises(ValueError, match=r"x.csv, line 3.*quotation mark left open"):
        list(read_table(path))


def test_words(write):
    path = write({"x.txt": "a.jpg  0.5\n\nb.jpg\n24 Black and White\n"}) / "x.txt"
    first, short, long = read_words(path, ["image", "value"])
    assert (first.fields, first.problem) == ({"image": "a.jpg", "value": "0.5"}, "")
    assert (short.line, short.problem) == (3, "1 words, expected 2: image, value")
    assert long.problem == "4 words, expected 2: image, value"
    assert list(read_words(path, ["id", "name"]))[2].fields == {"id": "24", "name": "Black and White"}


def test_numbers_and_counts():
    assert count({"n": "3.0"}, "n") == 3
    assert count({"n": " 4"}, "n") == 4
    assert number({"n": "-1"}, "n") == -1
    for text in ("x", "", None, "2,5"):
        with pytest.raises(ValueError, match="n is .*, which is no number"):
            number({"n": text}, "n")
    with pytest.raises(ValueError, match="n is '2.5', which is no whole number"):
        count({"n": "2.5"}, "n")


def test_lines_keep_their_ends(write):
    path = write({"x": "\ufeffa\r\nb"}) / "x"
    assert list(read_lines(path)) == ["a\r\n", "b"]


# JSON ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("piece", [64, 1 << 20])
def test_entries_of_a_long_file_come_one_by_one(write, monkeypatch, piece):
    monkeypatch.setattr(raw_tables, "JSON_PIECE", piece)
    entries = [{"imgid": number, "text": "x" * (number % 200)} for number in range(50)]
    path = write({"x.json": json.dumps({"dataset": "AVA", "images": entries, "more": [1]}, indent=1)}) / "x.json"
    rows = list(read_json_array(path, "images"))
    assert [row.fields for row in rows] == entries
    assert rows[49].where == "x.json, entry 50"


def test_damaged_json_is_refused_and_odd_entries_are_problems(write):
    path = write({"x.json": '{"images": [{"a": 1}, 5, {"a": '}) / "x.json"
    rows = read_json_array(path, "images")
    assert next(rows).fields == {"a": 1}
    assert next(rows).problem == "expected a JSON object"
    with pytest.raises(ValueError, match="cut off or damaged behind entry 2"):
        next(rows)
    with pytest.raises(ValueError, match="has no list 'pictures'"):
        next(read_json_array(path, "pictures"))


@pytest.mark.parametrize("entry", ["[" * 100_000, '{"a": ' + "9" * 5000 + "}"], ids=["brackets", "digits"])
def test_json_that_python_does_not_take_is_refused(write, entry):
    path = write({"x.json": f'{{"images": [{{"a": 1}}, {entry}]}}'}) / "x.json"
    with pytest.raises(ValueError, match="x.json is damaged behind entry 1"):
        list(read_json_array(path, "images"))


# Spreadsheets --------------------------------------------------------------------------------------------------------


def test_spreadsheet(write, spreadsheet):
    rows = [["Image name", "MOS", "Night scene"], ["00001.jpg", 60.5, 0.0], ["", "", ""], ["00002.jpg", "", 1.0]]
    path = write({"x.xlsx": spreadsheet(rows)}) / "x.xlsx"
    assert list(read_spreadsheet(path, need=["MOS"])) == [
        RawRow("x.xlsx", 2, {"Image name": "00001.jpg", "MOS": "60.5", "Night scene": "0.0"}),
        RawRow("x.xlsx", 4, {"Image name": "00002.jpg", "MOS": "", "Night scene": "1.0"}),
    ]


@pytest.mark.parametrize(
    ("rows", "old", "new"),
    [([["a"]], "<si><t>a</t></si>", ""), ([[1.0, 2.0]], 'r="B1"', 'r="ZZZZZZZ1"')],
    ids=["no such text", "no such column"],
)
def test_a_damaged_spreadsheet_is_refused(write, spreadsheet, rows, old, new):
    with zipfile.ZipFile(io.BytesIO(spreadsheet(rows))) as file:
        parts = {name: file.read(name).decode() for name in file.namelist()}
    path = write({"x.xlsx": b""}) / "x.xlsx"
    with zipfile.ZipFile(path, "w") as file:
        for name, text in parts.items():
            file.writestr(name, text.replace(old, new))
    with pytest.raises(ValueError, match="x.xlsx is damaged in row 1"):
        list(read_spreadsheet(path))


def test_what_is_no_spreadsheet_is_refused(write, monkeypatch, spreadsheet):
    path = write({"x.xlsx": b"image,score"}) / "x.xlsx"
    with pytest.raises(ValueError, match="not a spreadsheet that can be read"):
        list(read_spreadsheet(path))
    encrypted = bytearray(spreadsheet([["a"]]))
    for mark in (b"PK\x03\x04", b"PK\x01\x02"):
        for found in re.finditer(mark, bytes(encrypted)):
            encrypted[found.start() + (6 if mark[2] == 3 else 8)] |= 1  # the flag of a password
    path.write_bytes(encrypted)
    with pytest.raises(ValueError, match="x.xlsx is not a spreadsheet that can be read"):
        list(read_spreadsheet(path))
    path.write_bytes(spreadsheet([["a"]]))
    monkeypatch.setattr(raw_tables, "MAX_SHEET_BYTES", 10)
    with pytest.raises(ValueError, match="larger than 10 bytes"):
        list(read_spreadsheet(path))
