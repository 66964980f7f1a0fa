"""Files as people have them, odd ones too, give records with the line that an editor shows; so do data sets."""

import io
import json
import pickle
from pathlib import Path

import pytest
from PIL import Image

from roc4mllm.trainer.rating_data import RatingError, read_ratings
from roc4mllm.trainer.rating_sources import open_source


@pytest.fixture
def cache(monkeypatch, tmp_path) -> None:
    """What the `datasets` library converts is kept out of the home of whoever runs the tests."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def write(path: Path, text: str, encoding: str = "utf-8") -> Path:
    path.write_bytes(text.encode(encoding))
    return path


def records(path: Path, split: str | None = None) -> list[tuple[int, dict]]:
    return [(record.number, record.fields) for record in open_source(path, split)]


def picture(folder: Path, name: str, colour: str = "red") -> str:
    folder.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 6), colour).save(folder / name)
    return name


def png(colour: str) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 6), colour).save(buffer, "PNG")
    return buffer.getvalue()


# CSV -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "path,score\na.png,4.5\n",
        "\ufeffpath,score\r\na.png,4.5\r\n",
        "path;score\na.png;4.5",
        "path\tscore\na.png\t4.5\n",
        "path, score\na.png, 4.5\n",  # as FLICKR-AES has it
        '"path","score"\n"a.png","4.5"\n',
        "\n\npath,score\n\na.png,4.5\n,,\n",
        ",path,score\n0,a.png,4.5\n",  # as pandas writes it with its index
    ],
)
def test_odd_but_clear_csv_files_are_read(tmp_path, text):
    ((_, fields),) = records(write(tmp_path / "r.csv", text))
    assert fields == {"path": "a.png", "score": "4.5"}


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_record_has_the_line_on_which_it_begins(tmp_path, end):
    lines = ["\ufeffpath,comment", 'a.png,"one', "two", '"', "", "b.png,x", ",", 'c.png,"y', '"', "d.png,z"]
    found = records(write(tmp_path / "r.csv", end.join(lines)))
    assert [(number, fields["path"]) for number, fields in found] == [
        (2, "a.png"), (6, "b.png"), (8, "c.png"), (10, "d.png")
    ]  # fmt: skip
    assert found[0][1]["comment"] == f"one{end}two{end}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty: expected a first line that names the columns"),
        ('path,score\na.png,4\nb.png,"never closed\nc.png,5\n', "r.csv, line 3: .*quotation mark left open"),
        ('path,score\na.png,"4"5\n', "r.csv, line 2: .*quotation mark"),
        ("path,score,score\na.png,4,5\n", "two columns of the name score"),
        ("a.png,4.5\nb.png,3\n", "No column of pictures: looked for path, image.*the file has 'a.png', '4.5'"),
        ("a.png 4.5\nb.png 3\n", "No column of pictures.*the file has 'a.png 4.5'"),
        ("path=score\na.png=4\n", "No column of pictures.*the file has 'path=score'"),
        ("path,width\na.png,4\n", "No column of scores, votes or comments: looked for aesthetics, score, mean"),
        ("path,score\n", "r.csv holds no rows"),
    ],
)
def test_files_that_are_unclear_are_refused_in_words(tmp_path, text, message):
    picture(tmp_path, "a.png")
    with pytest.raises(ValueError, match=message):
        read_ratings(write(tmp_path / "r.csv", text))


@pytest.mark.parametrize(("encoding", "start"), [("latin-1", ""), ("utf-16", "")])
def test_text_that_is_not_utf8_is_refused(tmp_path, encoding, start):
    path = write(tmp_path / "r.csv", "path,score\nmüde.png,4\n", encoding)
    with pytest.raises(ValueError, match="r.csv is not text in UTF-8"):
        read_ratings(path)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (
            "a.png,4,warm, soft",
            r"4 cells where the first line names 3 columns, left over: \['soft'\] \(a text with a comma",
        ),
        ("a.png,4", "2 cells where the first line names 3 columns"),
    ],
)
def test_a_row_with_too_many_or_too_few_cells_is_bad(tmp_path, row, reason):
    picture(tmp_path, "a.png")
    with pytest.raises(RatingError, match=f"line 3: {reason}"):
        read_ratings(write(tmp_path / "r.csv", f"path,score,comment\na.png,3,fine\n{row}\n"))


# JSON ----------------------------------------------------------------------------------------------------------------


def test_json_lines_may_differ_in_their_keys(tmp_path):
    path = write(tmp_path / "r.jsonl", '{"path": "a.png", "score": 4}\n\n{"path": "b.png", "comment": "x"}\n')
    assert open_source(path).columns == ["path", "score", "comment"]
    assert records(path) == [(1, {"path": "a.png", "score": 4}), (3, {"path": "b.png", "comment": "x"})]


def test_damaged_json_lines_are_bad_rows(tmp_path):
    picture(tmp_path, "a.png")
    path = write(tmp_path / "r.jsonl", '{"path": "a.png", "score": 4}\n[1, 2]\n{"path": "a.png", "sco\n')
    with pytest.raises(RatingError) as caught:
        read_ratings(path)
    assert [number for number, _ in caught.value.bad_rows] == [2, 3]
    assert "line 2: expected a JSON object, got [1, 2]" in str(caught.value)
    assert "line 3: not JSON (" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "unit", "numbers"),
    [
        ('[{"a": 1}, {"a": 2}]', "entry", [1, 2]),
        ('[\n  {\n    "a": 1\n  },\n  {\n    "a": 2\n  }\n]\n', "line", [2, 5]),
        ('{"a": 1}', "line", [1]),
        ('{"a": 1}\n{"a": 2}\n', "line", [1, 2]),
        ("[]", "line", []),
    ],
)
def test_json_entries_are_found_by_line_or_else_counted(tmp_path, text, unit, numbers):
    source = open_source(write(tmp_path / "r.json", text))
    assert (source.unit, [record.number for record in source]) == (unit, numbers)
    assert [record.fields for record in source] == [{"a": 1}, {"a": 2}][: len(numbers)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[{"a": 1},\n{"a": 2}', "r.json, line 2, column 9: Expecting value"),
        ('[{"a": 1},\n{"a": 2', "r.json, line 2, column 8"),
        ('[{"a": 1}]\n[]', "text after the list"),
        ("a b c", "r.json, line 1, column 1: Expecting value"),
    ],
)
def test_a_json_file_that_is_cut_off_or_none_is_refused(tmp_path, text, message):
    with pytest.raises(ValueError, match=message):
        open_source(write(tmp_path / "r.json", text))


# Folders and data sets -----------------------------------------------------------------------------------------------


def image_folder(folder: Path, table: str) -> Path:
    """An ImageFolder of two pictures."""
    picture(folder, "a.png")
    picture(folder, "b.png")
    rows = [{"file_name": "a.png", "score": 2.0}, {"file_name": "b.png", "score": 4.0}]
    if table.endswith(".csv"):
        text = "file_name,score\n" + "".join(f"{row['file_name']},{row['score']}\n" for row in rows)
    else:
        text = "".join(json.dumps(row) + "\n" for row in rows)
    return write(folder / table, text)


@pytest.mark.parametrize(("table", "place"), [("metadata.csv", 2), ("metadata.jsonl", 1)])
def test_an_image_folder_is_read_by_its_metadata(tmp_path, table, place):
    image_folder(tmp_path, table)
    rated = read_ratings(tmp_path, score_range=(1, 5))
    assert [row["image"] for row in rated] == [str(tmp_path / "a.png"), str(tmp_path / "b.png")]
    assert [row["scores"]["aesthetics"] for row in rated] == [2.0, 4.0]
    assert rated[0]["where"] == f"{table}, line {place}"


def test_an_image_folder_of_several_splits_asks_for_one(tmp_path):
    image_folder(tmp_path / "train", "metadata.csv")
    assert read_ratings(tmp_path)[0]["where"] == "train/metadata.csv, line 2"
    image_folder(tmp_path / "test", "metadata.csv")
    with pytest.raises(ValueError, match="has the splits test, train; name the one to read with split"):
        read_ratings(tmp_path)
    with pytest.raises(ValueError, match="has no split 'dev'; it has test, train"):
        read_ratings(tmp_path, split="dev")
    rated = read_ratings(tmp_path, split="test")
    assert rated[1]["image"] == str(tmp_path / "test" / "b.png")


def test_a_column_of_a_file_may_name_the_split(tmp_path):
    path = write(tmp_path / "r.csv", "path,score,split\na.png,1,train\nb.png,2,test\n")
    assert records(path, "test") == [(3, {"path": "b.png", "score": "2", "split": "test"})]
    assert len(records(path)) == 2
    with pytest.raises(ValueError, match="r.csv holds no rows of the split 'dev'"):
        read_ratings(path, split="dev")
    with pytest.raises(ValueError, match="has no column 'split'"):
        records(write(tmp_path / "r.csv", "path,score\na.png,1\n"), "test")


def embedded(**columns):
    """A data set of three pictures that it holds itself."""
    from datasets import Dataset, Image

    pictures = [{"bytes": png(colour), "path": None} for colour in ("red", "lime", "red")]
    dataset = Dataset.from_dict({"photo": pictures, "score": [1.0, 2.0, 3.0], **columns})
    return dataset.cast_column("photo", Image())


def test_a_folder_of_parquet_with_pictures_in_it_is_read(tmp_path, cache):
    embedded(theme=["sea", "sea", "city"]).to_parquet(tmp_path / "data" / "train-0.parquet")
    rated = read_ratings(tmp_path / "data", score_range=(1, 5))
    assert rated[1]["image"] == {"bytes": png("lime"), "path": None}
    assert (rated[1]["scores"], rated[2]["columns"]) == ({"aesthetics": 2.0}, {"theme": "city"})
    assert rated[2]["where"] == "data, row 3"
    assert rated.warnings == ["duplicates: 2 rows show 1 pictures between them"]  # equal bytes
    assert list(pickle.loads(pickle.dumps(rated))) == list(rated)
    assert [len(part) for part in rated.split(0.5, seed=0)] in ([1, 2], [2, 1])


def test_pictures_of_a_data_set_keep_their_rows_when_bad_ones_are_left_out(tmp_path):
    from datasets import ClassLabel

    dataset = embedded(theme=[0, -1, 1]).cast_column("theme", ClassLabel(names=["sea", "city"]))
    dataset = dataset.map(lambda row: {"score": None if row["score"] == 1.0 else row["score"]})
    rated = read_ratings(dataset, score_range=(1, 5), skip_bad_rows=tmp_path / "bad.csv")
    assert [row["image"]["bytes"] for row in rated] == [png("lime"), png("red")]
    assert [row["columns"]["theme"] for row in rated] == [None, "city"]
    assert (tmp_path / "bad.csv").read_text().startswith("row,reason,score,theme\n1,")


def test_columns_of_plain_bytes_are_pictures(tmp_path, cache):
    import pyarrow
    import pyarrow.parquet

    rows = [{"image": png("red"), "mos": 3.0, "votes": [1, 0, 1]}, {"image": b"no picture", "mos": 2.0, "votes": None}]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "r.parquet")
    with pytest.raises(RatingError, match="row 2: not a picture") as caught:
        read_ratings(tmp_path / "r.parquet", score_range=(1, 5))
    assert len(caught.value.bad_rows) == 1
    rated = read_ratings(tmp_path / "r.parquet", score_range=(1, 5), skip_bad_rows=tmp_path / "bad.csv")
    assert rated[0]["image"] == {"bytes": png("red"), "path": None}
    assert rated[0]["votes"] == {"aesthetics": [1.0, 0.0, 1.0]}


def test_several_unnamed_columns_of_pictures_are_refused():
    from datasets import Image

    dataset = embedded(other=[{"bytes": png("red"), "path": None}] * 3).cast_column("other", Image())
    with pytest.raises(ValueError, match="several columns of pictures .photo, other."):
        read_ratings(dataset)
    assert read_ratings(dataset.rename_column("other", "image"), score_range=(1, 5))[1]["image"]["bytes"] == png("red")


# What is no source ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["nowhere.csv", "./nowhere", "a/b/c", "~/ratings", "folder/nowhere.parquet"])
def test_what_looks_like_a_path_is_never_looked_for_on_the_hub(name):
    with pytest.raises(FileNotFoundError, match="No such file or folder"):
        open_source(name)


def test_a_name_that_the_hub_does_not_answer_is_told(tmp_path, monkeypatch, cache):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="'someone/ratings' is no file of ratings, and the datasets library cannot"):
        open_source("someone/ratings")


def test_other_files_and_objects_are_refused(tmp_path):
    with pytest.raises(ValueError, match="Cannot tell the format of 'r.xlsx': expected .csv"):
        open_source(write(tmp_path / "r.xlsx", "x"))
    with pytest.raises(TypeError, match="Got list; expected a path"):
        open_source([{"path": "a.png"}])
