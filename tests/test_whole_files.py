"""Files that are whole or absent, whatever happens while they are written."""

import os
import stat

import pytest

from roc4mllm.whole_files import whole_file, write_whole


def test_a_file_takes_the_place_of_the_old_one_when_it_is_closed(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("old")
    with whole_file(path, encoding="utf-8", newline="") as file:
        file.write("new")
        file.flush()
        assert path.read_text() == "old"
    assert [(found.name, found.read_text()) for found in tmp_path.iterdir()] == [("a.csv", "new")]


def test_what_fails_on_its_way_leaves_nothing(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("old")

    def write() -> None:
        with whole_file(path) as file:
            file.write("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write()
    assert [(found.name, found.read_text()) for found in tmp_path.iterdir()] == [("a.csv", "old")]


def test_two_writers_of_one_file_do_not_mix(tmp_path):
    path = tmp_path / "a.csv"
    with whole_file(path) as first, whole_file(path) as second:
        first.write("first")
        second.write("second")
    assert path.read_text() == "first"  # closed last


def test_links_are_followed_and_others_may_read_as_the_user_says(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "target")
    before = os.umask(0o027)
    try:
        write_whole(tmp_path / "link", b"x")
    finally:
        os.umask(before)
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "target").read_bytes() == b"x"
    assert stat.S_IMODE((tmp_path / "target").stat().st_mode) == 0o640


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    with pytest.raises(OSError, match=r"cannot write .*no such.*|cannot write .*name a file in a folder that exists"):
        write_whole(tmp_path / "missing" / "a.csv", b"x")
    with pytest.raises(PermissionError, match="it is a folder"):
        write_whole(tmp_path, b"x")
