"""What a person types becomes an ordered stream in which nothing is missing."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from roc4mllm.inference.inputs.expansion import expand_inputs
from roc4mllm.inference.inputs.picture_input import PictureInput


@pytest.fixture
def album(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder as people have it; the content of the files does not matter here."""
    names = ["b.jpg", "a.PNG", "notes.txt", ".hidden.jpg", "._a.PNG", "sub/c.heic", "sub/deep/d.webp", ".cache/e.jpg"]
    for name in names:
        path = tmp_path / "album" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "album"


@contextmanager
def another_user() -> Iterator[None]:
    """Root may read everything, so step down where the tests run as root."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def paths(*arguments: str, **options) -> list[str]:
    inputs = list(expand_inputs(arguments, **options))
    assert [item.error for item in inputs] == [None] * len(inputs)
    return [item.path for item in inputs]


def test_folder_gives_its_pictures_by_name(album):
    assert paths("album") == ["album/a.PNG", "album/b.jpg"]
    assert paths("album/") == ["album/a.PNG", "album/b.jpg"]


def test_recursive_goes_into_visible_folders_only(album):
    expected = ["album/a.PNG", "album/b.jpg", "album/sub/c.heic", "album/sub/deep/d.webp"]
    assert paths("album", recursive=True) == expected


def test_order_is_that_of_the_arguments_and_repeats_are_kept(album):
    assert paths("album/b.jpg", "album", "album/b.jpg") == ["album/b.jpg", "album/a.PNG", "album/b.jpg", "album/b.jpg"]


def test_named_file_is_taken_whatever_its_name(album):
    assert paths("album/notes.txt", "album/.hidden.jpg") == ["album/notes.txt", "album/.hidden.jpg"]


def test_glob_is_what_the_shell_would_give(album):
    assert paths("album/*.jpg") == ["album/b.jpg"]
    assert paths("album/*") == ["album/a.PNG", "album/b.jpg", "album/notes.txt", "album/sub/c.heic"]


def test_double_star_lists_every_file_once(album):
    expected = ["album/a.PNG", "album/b.jpg", "album/notes.txt", "album/sub/c.heic", "album/sub/deep/d.webp"]
    assert paths("album/**") == expected


def test_file_whose_name_looks_like_a_glob(album):
    (album / "a[1].jpg").touch()
    (album / "a1.jpg").touch()
    assert paths("album/a[1].jpg") == ["album/a[1].jpg"]


@pytest.mark.parametrize("url", ["https://example.org/a.jpg?w=*", "HTTP://example.org/a.jpg"])
def test_url_is_left_to_the_scorer(url):
    assert [*expand_inputs([url])] == [PictureInput(url)]


@pytest.mark.parametrize(
    ("argument", "reason"),
    [
        ("missing.jpg", "no such file"),
        ("", "no such file"),
        ("album/*.gif", "no file matches"),
        ("album/**/*.gif", "no file matches"),
        ("album/sub/deep/empty", "holds no picture"),
        ("pipe.jpg", "not a regular file"),
        ("dangling.jpg", "no such file"),
        ("album/b.jpg/c.jpg", "cannot be read: Not a directory"),
    ],
)
def test_what_gives_no_picture_is_one_row_with_the_reason(album, argument, reason):
    (album / "sub" / "deep" / "empty").mkdir()
    os.mkfifo("pipe.jpg")
    os.symlink("nowhere.jpg", "dangling.jpg")
    (found,) = expand_inputs([argument])
    assert found.path == argument
    assert reason in found.error


def test_folder_with_pictures_below_says_how_to_reach_them(album):
    (album / "outer").mkdir()
    (album / "outer" / "inner").mkdir()
    (found,) = expand_inputs(["album/outer"])
    assert "--recursive" in found.error
    (found,) = expand_inputs(["album/outer"], recursive=True)
    assert "--recursive" not in found.error


def test_folder_that_cannot_be_listed_is_a_row_and_the_rest_goes_on():
    with tempfile.TemporaryDirectory() as folder:  # pytest's own folders are closed to other users further up
        os.chmod(folder, 0o755)
        closed = Path(folder, "a_closed")
        closed.mkdir(mode=0o700)
        Path(folder, "b.jpg").touch()
        if os.geteuid() != 0:
            closed.chmod(0)
        with another_user():
            inputs = list(expand_inputs([folder], recursive=True))
        closed.chmod(0o700)
    assert [(os.path.basename(item.path), item.error) for item in inputs] == [
        ("b.jpg", None),
        ("a_closed", "the folder cannot be listed: Permission denied"),
    ]
