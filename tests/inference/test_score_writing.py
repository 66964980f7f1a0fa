"""A table goes on where a crash broke it off, in every format: nothing twice, nothing half."""

import contextlib
import os
import tracemalloc
from pathlib import Path

import pytest

from roc4mllm.inference.bulk_scoring import remaining
from roc4mllm.inference.inputs.picture_input import PictureInput
from roc4mllm.inference.tables.path_counts import PathCounts
from roc4mllm.inference.tables.score_formats import ParquetPartsWriter
from roc4mllm.inference.tables.score_reading import read_table
from roc4mllm.inference.tables.score_table import make_row, table_columns
from roc4mllm.inference.tables.score_writing import TableFile, check_output

ATTRIBUTES = ["aesthetics", "color"]
COLUMNS = table_columns(ATTRIBUTES)
FORMATS = ["scores.csv", "scores.jsonl", "scores.parquet", "scores"]
RECORD = {
    "score": 5.5,
    "score_range": [1.0, 10.0],
    "normalized": 0.5,
    "std": 1.25,
    "attributes": {"aesthetics": 5.5, "color": 7.0},
    "model": "someone/scorer",
    "revision": None,
    "version": "0.1.0",
    "error": None,
}
FAILED = RECORD | {"score": None, "normalized": None, "std": None, "error": 'not a picture,\n"broken"\nin lines'}


def row(name: str) -> dict:
    return make_row(name, FAILED if "bad" in name else RECORD, ATTRIBUTES)


def interrupted(path: Path, names: list[str], resume: bool = False) -> Path:
    """What a run leaves that ends after these rows, of which only those are written that are not there."""
    table = TableFile(path, COLUMNS, resume=resume)
    with contextlib.suppress(KeyboardInterrupt), table:
        for item in remaining(map(PictureInput, names), table.found.paths):
            table.write(row(item.path))
        raise KeyboardInterrupt
    return table.partial


def names_in(path: Path) -> list[str]:
    return [entry["path"] for entry in read_table(path)]


@pytest.mark.parametrize("name", FORMATS)
def test_rows_so_far_are_kept_and_the_rest_is_added(tmp_path, name):
    interrupted(tmp_path / name, ["a.jpg", "bad.jpg"])
    with TableFile(tmp_path / name, COLUMNS, resume=True) as table:
        assert [table.found.paths.take(path) for path in ("a.jpg", "bad.jpg", "a.jpg")] == [True, True, False]
        assert table.found.origins == {("aesthetics", "someone/scorer", None, "0.1.0", None, None, "1", "10")}
        table.write(row("c.jpg"))
    assert names_in(tmp_path / name) == ["a.jpg", "bad.jpg", "c.jpg"]
    assert os.listdir(tmp_path) == [name]


@pytest.mark.parametrize("name", FORMATS)
def test_a_finished_table_takes_what_is_new(tmp_path, name):
    with TableFile(tmp_path / name, COLUMNS) as table:
        table.write(row("a.jpg"))
    with TableFile(tmp_path / name, COLUMNS, resume=True) as table:
        assert [table.found.paths.take("a.jpg"), len(table.found.paths)] == [True, 1]
        table.write(row("b.jpg"))
    assert names_in(tmp_path / name) == ["a.jpg", "b.jpg"]


@pytest.mark.parametrize("name", FORMATS)
def test_rows_of_an_interrupted_run_are_not_thrown_away_unasked(tmp_path, name):
    partial = interrupted(tmp_path / name, ["a.jpg"])
    with pytest.raises(ValueError, match="holds rows of an earlier run: --resume goes on with them"):
        TableFile(tmp_path / name, COLUMNS)
    assert names_in(partial) == ["a.jpg"]


@pytest.mark.parametrize("name", FORMATS)
def test_two_processes_do_not_write_one_table(tmp_path, name):
    with TableFile(tmp_path / name, COLUMNS), pytest.raises(ValueError, match="another process is writing"):
        TableFile(tmp_path / name, COLUMNS, resume=True)
    assert os.listdir(tmp_path) == [name]


@pytest.mark.parametrize("name", ["scores.csv", "scores.jsonl"])
def test_a_row_cut_anywhere_is_written_again_and_no_other(tmp_path, name):
    """The last row holds quotes and ends of lines, so that a cut may look like the end of a row."""
    partial = interrupted(tmp_path / name, ["a.jpg", "b.jpg", "bad.jpg"])
    whole = partial.read_bytes()
    for cut in range(whole.index(b"b.jpg"), len(whole)):
        partial.write_bytes(whole[:cut])
        interrupted(tmp_path / name, ["a.jpg", "b.jpg", "bad.jpg"], resume=True)
        assert partial.read_bytes() == whole, f"cut at {cut}"


def test_a_head_cut_anywhere_is_written_again(tmp_path):
    partial = interrupted(tmp_path / "s.csv", ["a.jpg"])
    head = partial.read_bytes().split(b"\n")[0] + b"\n"
    for cut in range(len(head)):
        partial.write_bytes(head[:cut])
        with TableFile(tmp_path / "s.csv", COLUMNS, resume=True) as table:
            assert not table.found.paths
            table.write(row("a.jpg"))
        assert names_in(tmp_path / "s.csv") == ["a.jpg"]
        os.replace(tmp_path / "s.csv", partial)


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("finished", [True, False])
def test_what_does_not_fit_is_refused_and_nothing_is_changed(tmp_path, name, finished):
    partial = interrupted(tmp_path / name, ["a.jpg"])
    if finished:
        with TableFile(tmp_path / name, COLUMNS, resume=True):
            pass
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(ValueError, match="has the columns path, score, .* not path, score"):
        TableFile(tmp_path / name, table_columns(["aesthetics"]), resume=True)
    other = [("aesthetics", "someone/scorer", None, "0.1.0", None, "0", "1")]
    with pytest.raises(
        ValueError, match=r"another attribute, model, version or range \(aesthetics, someone/scorer, 0.1.0, 1, 10\)"
    ):
        TableFile(tmp_path / name, COLUMNS, resume=True, origins=other)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    assert names_in(tmp_path / name if finished else partial) == ["a.jpg"]


@pytest.mark.parametrize(("name", "content"), [("s.csv", b"\n"), ("s.csv", b"a.jpg,1\n"), ("s.jsonl", b'{"path":\n')])
def test_damage_before_the_last_row_is_told_and_not_cut_off(tmp_path, name, content):
    partial = interrupted(tmp_path / name, ["a.jpg", "b.jpg"])
    lines = partial.read_bytes().splitlines(keepends=True)
    partial.write_bytes(b"".join([*lines[:-1], content, lines[-1]]))
    with pytest.raises(ValueError, match=r"line \d"):
        TableFile(tmp_path / name, COLUMNS, resume=True)
    assert partial.read_bytes() == b"".join([*lines[:-1], content, lines[-1]])


def test_a_finished_table_is_as_it_was_after_a_run_that_added_nothing(tmp_path):
    with TableFile(tmp_path / "s.csv", COLUMNS) as table:
        table.write(row("a.jpg"))
    with contextlib.suppress(KeyboardInterrupt), TableFile(tmp_path / "s.csv", COLUMNS, resume=True):
        raise KeyboardInterrupt
    assert os.listdir(tmp_path) == ["s.csv"]


def test_a_folder_of_parts_may_be_there_and_stays_the_same_folder(tmp_path):
    """As a mounted one, which cannot be renamed."""
    (tmp_path / "scores").mkdir()
    inode = (tmp_path / "scores").stat().st_ino
    with TableFile(check_output(f"{tmp_path}/scores/"), COLUMNS) as table:
        table.write(row("a.jpg"))
        assert (tmp_path / "scores" / "unfinished").exists()
    assert (tmp_path / "scores").stat().st_ino == inode
    assert os.listdir(tmp_path / "scores") == ["part-00000.parquet"]
    with pytest.raises(ValueError, match="holds rows of an earlier run: --resume goes on"):
        TableFile(check_output(f"{tmp_path}/scores/"), COLUMNS)
    (tmp_path / "scores" / "part-00000-abc.parquet").touch()  # another tool's
    with pytest.raises(FileExistsError, match="holds other things"):
        check_output(tmp_path / "scores")


def test_parts_are_written_by_number_and_by_time(tmp_path, monkeypatch):
    monkeypatch.setattr(ParquetPartsWriter, "rows_per_part", 2)
    names = [f"{number}.jpg" for number in range(5)]
    with TableFile(tmp_path / "scores", COLUMNS) as table:
        for name in names[:3]:
            table.write(row(name))
        assert names_in(table.partial) == names[:2]  # the third would be lost in a crash, and scored again
        monkeypatch.setattr(ParquetPartsWriter, "seconds_per_part", -1.0)
        table.write(row(names[3]))
        table.write(row(names[4]))
        assert names_in(table.partial) == names
    assert len(list((tmp_path / "scores").iterdir())) == 3
    assert names_in(tmp_path / "scores") == names


def test_a_part_that_was_not_finished_is_not_read(tmp_path):
    partial = interrupted(tmp_path / "scores.parquet", ["a.jpg"])
    (partial / "part-00001.unfinished").write_bytes(b"PAR1 half")
    with TableFile(tmp_path / "scores.parquet", COLUMNS, resume=True) as table:
        table.write(row("b.jpg"))
    assert names_in(tmp_path / "scores.parquet") == ["a.jpg", "b.jpg"]


def test_an_input_listed_twice_needs_two_rows():
    inputs = [PictureInput(name) for name in ("a.jpg", "b.jpg", "a.jpg", "bad\udcff.jpg")]
    left = remaining(inputs, PathCounts(["a.jpg", r"bad\udcff.jpg"]))
    assert [item.path for item in left] == ["b.jpg", "a.jpg"]


def test_paths_are_counted_in_little_memory():
    names = [f"/data/photographs/of/2024/album/picture-{number:09}.jpg" for number in range(20_000)]
    tracemalloc.start()
    counts = PathCounts(names)
    for name in names[:100]:
        assert counts.take(name)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 24 * len(names)
    counts = PathCounts([*names, *names[:1000], *names[:10]])
    assert len(counts) == 21_010
    taken = [counts.take(name) for _ in range(4) for name in names]
    assert [sum(taken[start : start + 20_000]) for start in range(0, 80_000, 20_000)] == [20_000, 1000, 10, 0]
    assert not counts.take("")
    assert not PathCounts().take("")


def test_a_folder_of_other_things_is_not_taken_for_a_table(tmp_path):
    (tmp_path / "photos").mkdir()
    assert check_output(f"{tmp_path}/photos") == tmp_path / "photos"
    assert check_output(f"{tmp_path}/new/") == tmp_path / "new"
    (tmp_path / "photos" / "a.jpg").touch()
    with pytest.raises(FileExistsError, match="holds other things than parts of a table: name a new folder"):
        check_output(tmp_path / "photos")
