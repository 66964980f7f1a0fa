"""Stores that fsspec opens are searched as folders are; here one in memory."""

import io
import os
import tarfile
import uuid

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pictures import encoded
from tiny import photo

from roc4mllm.inference.inputs.expansion import count_inputs, expand_inputs
from roc4mllm.inference.inputs.parquet_places import ParquetReader, name_parquet_rows
from roc4mllm.inference.inputs.stores import StoredFile, check_store, url_of
from roc4mllm.processing_roc4mllm.image_reading_aesthetics import PictureError, read_image

NAMES = ["b.jpg", "a.PNG", "notes.txt", ".hidden.jpg", "sub/c.jpg", "sub/deep/d.jpg", ".cache/e.jpg"]


@pytest.fixture
def store():
    """The URL of a folder of its own."""
    url = f"memory://{uuid.uuid4().hex}"
    files = fsspec.filesystem("memory")
    for name in NAMES:
        files.pipe(f"{url}/{name}", encoded(photo(1), "PNG"))
    yield url
    files.rm(url, recursive=True)


def found(store: str, *names: str, **options) -> list[tuple[str, str | None]]:
    inputs = list(expand_inputs([f"{store}{name}" for name in names], **options))
    root = store.replace("memory://", "memory:///")
    return [(item.path.replace(f"{root}/", "").replace(f"{store}/", ""), item.error) for item in inputs]


def test_a_folder_gives_its_visible_pictures_by_name(store):
    assert found(store, "") == found(store, "/") == [("a.PNG", None), ("b.jpg", None)]
    everything = [("a.PNG", None), ("b.jpg", None), ("sub/c.jpg", None), ("sub/deep/d.jpg", None)]
    assert found(store, "", recursive=True) == everything


def test_globs_are_those_of_a_shell(store):
    assert found(store, "/*.jpg") == [("b.jpg", None)]
    assert [name for name, _ in found(store, "/*")] == ["a.PNG", "b.jpg", "notes.txt", "sub/c.jpg"]
    assert [name for name, _ in found(store, "/**/*.jpg")] == ["b.jpg", "sub/c.jpg", "sub/deep/d.jpg"]
    assert count_inputs([f"{store}/*.jpg"]) is None


@pytest.mark.parametrize(
    "name, reason",
    [("/none.jpg", "no such file"), ("/*.gif", "no file matches"), ("/empty", "no such file")],
)
def test_what_gives_no_picture_is_one_row_with_the_reason(store, name, reason):
    ((_, error),) = found(store, name)
    assert reason in error


def test_a_named_pipe_is_not_waited_for(tmp_path):
    for name in ("a.jpg", "a.tar"):
        os.mkfifo(tmp_path / name)
    picture, archive = expand_inputs([f"file://{tmp_path}/a.jpg", f"file://{tmp_path}/a.tar"])
    assert "not a regular file" in archive.error
    with pytest.raises(PictureError, match="not a regular file"):
        read_image(picture.content)


def test_a_picture_is_read_where_it_is_scored(store):
    (item,) = expand_inputs([f"{store}/b.jpg"])
    assert read_image(item.source).size == photo(1).size
    with pytest.raises(PictureError, match="cannot be read"):
        read_image(StoredFile(f"{store}/gone.jpg"))


def test_shards_in_a_store(store):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(member := tarfile.TarInfo("x.png"), io.BytesIO())
        member.size = len(content := encoded(photo(2), "PNG"))
        member.name = "y.png"
        archive.addfile(member, io.BytesIO(content))
    files = fsspec.filesystem("memory")
    files.pipe(f"{store}/shard.tar", buffer.getvalue())
    items = list(expand_inputs([f"{store}/shard.tar"]))
    assert [item.path.rsplit("/", 1)[1] for item in items] == ["x.png", "y.png"]
    assert items[1].source.read_bytes() == content
    pq.write_table(pa.table({"jpg": [content, b"2"]}), sink := io.BytesIO())
    files.pipe(f"{store}/rows.parquet", sink.getvalue())
    assert [item.content for item in expand_inputs([f"{store}/rows.parquet"])] == [content, b"2"]


@pytest.mark.parametrize("named", [True, False])
def test_rows_by_their_place_are_those_that_are_read(tmp_path, named):
    path = str(tmp_path / "rows.parquet")
    rows = [None if number == 5 else {"bytes": bytes([number]), "path": f"in/{number}.jpg"} for number in range(50)]
    table = pa.table({"image": rows} if named else {"jpg": [bytes([number]) for number in range(50)]})
    pq.write_table(table, path, row_group_size=9)
    read, places = list(expand_inputs([path])), list(name_parquet_rows(path))
    assert [place.content.row for place in places] == list(range(50))
    for chosen in (range(50), range(0, 50, 7), [49], [17, 18, 40]):
        reader = ParquetReader(path)
        assert [reader.read(row) for row in chosen] == [read[row] for row in chosen]
    assert [place.path for place in places if place.content.row != 5] == [
        item.path for row, item in enumerate(read) if row != 5
    ]


def test_a_store_that_fsspec_does_not_know_is_told_at_once():
    with pytest.raises(ValueError, match="nowhere"):
        check_store("nowhere://bucket/a.jpg")


@pytest.mark.parametrize(
    "url, asked, path, expected",
    [
        ("s3://bucket/album/", "bucket/album", "bucket/album/a.jpg", "s3://bucket/album/a.jpg"),
        ("memory://album", "/album", "/album/a.jpg", "memory://album/a.jpg"),
        ("file:///", "/", "/a.jpg", "file:///a.jpg"),
        ("ftp://me@host", "/", "/a.jpg", "ftp://me@host/a.jpg"),
        ("sftp://host/album/*", "/album/*", "/album/deep/a.jpg", "sftp://host/album/deep/a.jpg"),
        ("abfs://box@me.net/album", "box/album", "box/album/a.jpg", "abfs://box@me.net/album/a.jpg"),
        ("zip://*.jpg::s3://bucket/a.zip", "*.jpg", "a.jpg", "zip://a.jpg::s3://bucket/a.zip"),
    ],
)
def test_what_a_store_leaves_out_of_its_paths_is_in_the_url(url, asked, path, expected):
    assert url_of(url, asked, path) == expected
