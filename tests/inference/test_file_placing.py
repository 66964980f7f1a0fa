"""Pictures are placed without a loss, those inside shards too."""

import io
import os
import resource
import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pictures import encoded
from shards import make_tar
from tiny import photo

from roc4mllm.inference.file_placing import copy_file, link_file, place_files
from roc4mllm.inference.inputs.expansion import expand_inputs
from roc4mllm.inference.tables.score_table import as_path, encodable

GIF = encoded(photo(), "GIF")


def place(sources, folder, link=False):
    return list(place_files([str(source) for source in sources], str(folder), link=link))


@pytest.mark.parametrize("link", [False, True])
def test_equal_names_get_numbers_and_nothing_is_overwritten(tmp_path, link):
    for name in ("one/cat.jpg", "two/cat.jpg", "three/cat.jpg", "picks/cat-2.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    sources = [tmp_path / folder / "cat.jpg" for folder in ("one", "two", "three")]
    placed = place(sources, tmp_path / "picks", link)
    assert [Path(target).name for _, target, _ in placed] == ["cat.jpg", "cat-3.jpg", "cat-4.jpg"]
    assert [Path(target).read_text() for _, target, _ in placed] == ["one/cat.jpg", "two/cat.jpg", "three/cat.jpg"]
    assert (tmp_path / "picks" / "cat-2.jpg").read_text() == "picks/cat-2.jpg"
    assert [source.read_text() for source in sources] == ["one/cat.jpg", "two/cat.jpg", "three/cat.jpg"]


@pytest.mark.parametrize("link", [False, True])
def test_missing_source_is_reported_and_the_rest_goes_on(tmp_path, link):
    (tmp_path / "b.jpg").write_text("b")
    (tmp_path / "picks").mkdir()
    placed = place([tmp_path / "a.jpg", tmp_path / "b.jpg"], tmp_path / "picks", link)
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


# Inside shards -------------------------------------------------------------------------------------------------------


def paths_of(*shards: str) -> list[str]:
    """The `path` of their rows, as a reader of the table takes it."""
    return [as_path(encodable(item.path)) for item in expand_inputs(shards)]


@pytest.fixture
def picks(tmp_path) -> Path:
    (tmp_path / "picks").mkdir()
    return tmp_path / "picks"


@pytest.mark.parametrize(("ending", "mode"), [("tar", "w"), ("tar.gz", "w:gz"), ("TXZ.tar.xz", "w:xz")])
def test_members_of_archives_are_copied(tmp_path, picks, ending, mode):
    members = {"a/cat.jpg": b"first", "b/cat.jpg": b"second", os.fsdecode(b"\xff.png"): b"third", "dog.jpg": b"fourth"}
    shard = make_tar(tmp_path / f"s.{ending}", members, mode)
    (tmp_path / "cat.jpg").write_bytes(b"a file")
    paths = paths_of(shard)
    placed = place([paths[2], paths[1], tmp_path / "cat.jpg", paths[0], paths[0]], picks)
    assert all(error is None for _, _, error in placed)
    content = {path.name: path.read_bytes() for path in picks.iterdir()}
    assert {name: content.pop(name) for name in ("cat.jpg", os.fsdecode(b"\xff.png"))} == {
        "cat.jpg": b"a file",
        os.fsdecode(b"\xff.png"): b"third",
    }
    assert sorted(content.items()) == [("cat-2.jpg", b"first"), ("cat-3.jpg", b"first"), ("cat-4.jpg", b"second")]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("../../etc/a.png", "a.png"),
        ("/etc/b.png", "b.png"),
        ("..\\..\\c.png", "c.png"),
        ("a\nb:c.png", "a_b_c.png"),
        ("...png", "png.gif"),
        (".hidden.png", "hidden.png"),
        ("x" * 240 + ".png", "x" * 200 + ".png"),
    ],
)
def test_no_name_in_an_archive_leads_elsewhere(tmp_path, picks, name, expected):
    (path,) = paths_of(make_tar(tmp_path / "s.tar", {name: GIF}))
    before = sorted(tmp_path.rglob("*"))
    ((source, target, error),) = place([path], picks)
    assert (source, target, error) == (path, str(picks / expected), None)
    assert sorted(tmp_path.rglob("*")) == sorted([*before, picks / expected])


@pytest.mark.parametrize("names", [None, ["cat", "..", "../../etc/", "cat", "http://a.org/b.gif?c=d", "", "x"]])
def test_rows_of_parquet_files_are_copied(tmp_path, picks, names):
    contents = [GIF + bytes([row]) for row in range(6)]
    columns = {"image": [*contents, b"text"]} | ({} if names is None else {"id": names})
    pq.write_table(pa.table(columns), tmp_path / "rows.parquet", row_group_size=2)
    paths = paths_of(str(tmp_path / "rows.parquet"))
    placed = place([paths[row] for row in (5, 0, 6, 3)], picks)
    assert [(source, error) for source, _, error in placed] == [(paths[row], None) for row in (0, 3, 5, 6)]
    assert [Path(target).read_bytes() for _, target, _ in placed] == [*(contents[row] for row in (0, 3, 5)), b"text"]
    expected = {"rows-0.gif", "rows-3.gif", "rows-5.gif", "rows-6"}
    assert set(os.listdir(picks)) == (expected if names is None else {"cat.gif", "cat-2.gif", "picture.gif", "x"})
    assert len(place(paths, picks)) == 7
    assert {path.parent for path in tmp_path.rglob("*") if path.is_file()} == {tmp_path, picks}


def test_what_is_no_longer_in_a_shard_is_reported(tmp_path, picks):
    shard = make_tar(tmp_path / "s.tar", {"a.jpg": b"a", "b.jpg": b"b", "twice.jpg": b"1"})
    more = [f"{shard}/gone.jpg", str(tmp_path / "none.tar" / "a.jpg"), f"{tmp_path}/rows.parquet#9"]
    pq.write_table(pa.table({"image": [b"a"], "id": ["new"]}), tmp_path / "rows.parquet")
    placed = place([*paths_of(shard), *more, f"{tmp_path}/rows.parquet#0/old"], picks)
    errors = {source.removeprefix(f"{tmp_path}/"): error for source, _, error in placed if error is not None}
    assert errors.pop("rows.parquet#9").startswith("cannot be read")
    assert errors == {
        "s.tar/gone.jpg": "it is no longer in the archive",
        "none.tar/a.jpg": "no such file",
        "rows.parquet#0/old": f"this row is {tmp_path}/rows.parquet#0/new now",
    }
    assert sorted(os.listdir(picks)) == ["a.jpg", "b.jpg", "twice.jpg"]
    Path(shard).write_bytes(Path(shard).read_bytes()[:1100])
    *_, (_, target, error) = place([f"{shard}/b.jpg"], picks)
    assert target is None
    assert "breaks off" in error


def test_a_folder_that_is_called_like_an_archive_holds_files(tmp_path, picks):
    (tmp_path / "s.tar").mkdir()
    (tmp_path / "s.tar" / "a.jpg").write_bytes(b"a")
    ((_, target, _),) = place([tmp_path / "s.tar" / "a.jpg"], picks, link=True)
    assert Path(target).is_symlink()


def test_no_link_leads_into_a_shard(tmp_path, picks):
    placed = place(paths_of(make_tar(tmp_path / "s.tar", {"a.jpg": b"a"})), picks, link=True)
    assert [error for _, _, error in placed] == ["no link can lead to a picture inside a shard; --copy-to copies it"]
    assert not os.listdir(picks)


def test_of_several_of_one_name_in_an_archive_none_is_copied(tmp_path, picks):
    shard = make_tar(tmp_path / "s.tar", {"dog.jpg": b"dog"})
    with tarfile.open(shard, "a") as archive:
        for content in (b"first", b"second", b"third"):
            entry = tarfile.TarInfo("cat.jpg")
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    paths = paths_of(shard)
    placed = place([paths[1], paths[0], paths[2]], picks)
    reason = "the archive holds 3 pictures of this name"
    assert sorted((source, error) for source, _, error in placed) == [
        (paths[1], reason), (paths[1], reason), (paths[0], None)
    ]  # fmt: skip
    assert os.listdir(picks) == ["dog.jpg"]


@pytest.mark.parametrize("is_member", [False, True])
def test_no_half_picture_stays_where_the_disk_is_full(tmp_path, picks, is_member):
    content = bytes(6000)  # less than what Python keeps in its buffer until the file is closed
    (tmp_path / "a.jpg").write_bytes(content)
    (path,) = paths_of(make_tar(tmp_path / "s.tar", {"a.jpg": content})) if is_member else [str(tmp_path / "a.jpg")]
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4000, before[1]))
    try:
        ((_, target, error),) = place([path], picks)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert target is None
    assert "File too large" in error
    assert os.listdir(picks) == []


def test_nothing_is_fetched_from_stores_or_the_web(picks):
    for path in ("s3://bucket/a.tar/x.jpg", "https://example.org/a.jpg"):
        ((_, target, error),) = place([path], picks)
        assert target is None
        assert "in a store or on the web" in error
