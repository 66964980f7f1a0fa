"""What a person types becomes an ordered list in which nothing is missing, and files are placed without a loss."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tiny import photo, shared_parts

from roc4mllm import load_scorer
from roc4mllm.inference.score_files import (
    PictureInput,
    copy_file,
    expand_inputs,
    link_file,
    place_files,
    score_inputs,
)


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
    inputs = expand_inputs(arguments, **options)
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


def test_url_is_left_to_the_scorer():
    assert paths("https://example.org/a.jpg?w=*") == ["https://example.org/a.jpg?w=*"]


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
            inputs = expand_inputs([folder], recursive=True)
        closed.chmod(0o700)
    assert [(os.path.basename(item.path), item.error) for item in inputs] == [
        ("b.jpg", None),
        ("a_closed", "the folder cannot be listed: Permission denied"),
    ]


def test_records_come_in_the_order_of_the_inputs_and_pictures_are_read_when_their_turn_comes(tmp_path):
    model, processor = shared_parts("llava")
    scorer = load_scorer(model, processor=processor)
    first, second = str(tmp_path / "first.png"), str(tmp_path / "second.png")
    photo(1).save(first)
    inputs = [PictureInput("x", "gone"), PictureInput(first), PictureInput("y", "empty"), PictureInput(second)]
    records = score_inputs(scorer, inputs, batch_size=1)
    start = [next(records), next(records)]
    photo(2).save(second)  # not there before: an eager reader would report it missing
    found = [*start, *records]
    assert [record["error"] for record in found] == ["gone", None, "empty", None]
    assert [found[1]["score"], found[3]["score"]] == [scorer(first)["score"], scorer(second)["score"]]
    assert abs(found[1]["score"] - found[3]["score"]) > 1e-3
    assert found[0].keys() == found[1].keys()
    assert found[0]["score_range"] == found[1]["score_range"]


def test_several_workers_give_the_same_records_in_the_same_order(tmp_path):
    model, processor = shared_parts("llava")
    scorer = load_scorer(model, processor=processor)
    names = [str(tmp_path / f"{number}.png") for number in range(5)]
    for number, name in enumerate(names):
        photo(number).save(name)
    inputs = [PictureInput(name) for name in [*names, str(tmp_path / "missing.png")]]
    alone = [record["score"] for record in score_inputs(scorer, inputs, batch_size=2, num_workers=0)]
    shared_out = [record["score"] for record in score_inputs(scorer, inputs, batch_size=2, num_workers=2)]
    assert shared_out == alone
    assert len(set(alone)) == 6


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
