"""Files are placed without a loss."""

import os
from pathlib import Path

import pytest

from roc4mllm.inference.file_placing import copy_file, link_file, place_files


def place(sources, folder, put):
    return list(place_files([str(source) for source in sources], str(folder), put))


@pytest.mark.parametrize("put", [copy_file, link_file])
def test_equal_names_get_numbers_and_nothing_is_overwritten(tmp_path, put):
    for name in ("one/cat.jpg", "two/cat.jpg", "three/cat.jpg", "picks/cat-2.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    sources = [tmp_path / folder / "cat.jpg" for folder in ("one", "two", "three")]
    placed = place(sources, tmp_path / "picks", put)
    assert [Path(target).name for _, target, _ in placed] == ["cat.jpg", "cat-3.jpg", "cat-4.jpg"]
    assert [Path(target).read_text() for _, target, _ in placed] == ["one/cat.jpg", "two/cat.jpg", "three/cat.jpg"]
    assert (tmp_path / "picks" / "cat-2.jpg").read_text() == "picks/cat-2.jpg"
    assert [source.read_text() for source in sources] == ["one/cat.jpg", "two/cat.jpg", "three/cat.jpg"]


@pytest.mark.parametrize("put", [copy_file, link_file])
def test_missing_source_is_reported_and_the_rest_goes_on(tmp_path, put):
    (tmp_path / "b.jpg").write_text("b")
    (tmp_path / "picks").mkdir()
    placed = place([tmp_path / "a.jpg", tmp_path / "b.jpg"], tmp_path / "picks", put)
    assert placed[0] == (str(tmp_path / "a.jpg"), None, "no such file")
    assert placed[1][2] is None
    assert os.listdir(tmp_path / "picks") == ["b.jpg"]


def test_copy_keeps_the_time_of_the_picture(tmp_path):
    source, target = tmp_path / "a.jpg", tmp_path / "b.jpg"
    source.write_text("a")
    os.utime(source, (1_000_000_000, 1_000_000_000))
    copy_file(str(source), str(target))
    assert target.stat().st_mtime == 1_000_000_000


def test_link_is_valid_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("a.jpg").write_text("a")
    Path("picks").mkdir()
    link_file("a.jpg", "picks/a.jpg")
    monkeypatch.chdir("picks")
    assert Path("a.jpg").is_symlink()
    assert Path("a.jpg").read_text() == "a"
