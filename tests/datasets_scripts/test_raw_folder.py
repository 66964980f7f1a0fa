"""Where tables and pictures are found, and what leaves an archive."""

import io
import os
import stat
import tarfile
import zipfile

import pytest

from roc4mllm.datasets_scripts import raw_archives
from roc4mllm.datasets_scripts.raw_archives import archive_stem, unpack
from roc4mllm.datasets_scripts.raw_folder import RawFolder


def test_tables_by_the_end_of_their_path(write):
    raw = RawFolder(write({"a/LABELS/Merge/test.csv": "", "a/LABELS/unmerge/test/art.csv": "", "test.csv.txt": ""}))
    assert raw.need("merge/test.csv").parent.name == "Merge"
    assert [path.name for path in raw.find_all("unmerge/*/*.csv")] == ["art.csv"]
    assert raw.find("nothing.csv", "merge/test.csv") == raw.need("merge/test.csv")
    assert raw.find("nothing.csv") is None
    with pytest.raises(ValueError, match="holds no nothing.csv or never.csv"):
        raw.need("nothing.csv", "never.csv")


def test_the_highest_table_wins_and_equals_are_asked_about(write):
    folder = write({"a/train.csv": "", "a/b/train.csv": ""})
    assert RawFolder(folder).need("train.csv").parent.name == "a"
    write({"c/train.csv": ""})
    with pytest.raises(ValueError, match=r"Which train.csv is meant\? Found a/train.csv and c/train.csv"):
        RawFolder(folder).need("train.csv")


def test_splits_that_are_not_there_are_noted(write):
    raw = RawFolder(write({"test.csv": ""}))
    assert [split for split, _ in raw.need_some({"train": "train.csv", "test": "test.csv"})] == ["test"]
    assert raw.notes == ["train.csv is not there, so there are no rows of train"]
    with pytest.raises(ValueError, match="holds none of a.csv, b.csv"):
        list(raw.need_some({"train": "a.csv", "test": "b.csv"}))


def test_what_cannot_be_unpacked_is_named(write):
    raw = RawFolder(write({"images.7z.001": b"7z"}))
    with pytest.raises(ValueError, match=r"holds no AVA.txt; images.7z.001 has to be unpacked by hand first"):
        raw.need("AVA.txt")


@pytest.mark.parametrize(
    "name, found",
    [
        ("12.jpg", "images/12.jpg"),
        ("12", "images/12.jpg"),
        ("13.jpg", "images/deep/13.JPG"),
        ("14.jpg", "images/14.png"),
        ("-4u-58@N0.jpg", "images/-4u-58@N0.jpg"),
        ("session2/same.jpg", "images/session2/same.jpg"),
        ("wrong/12.jpg", "images/12.jpg"),
        ("15.jpg", None),
        ("../outside.jpg", None),
        ("images/../../outside.jpg", None),
        ("/etc/hostname", None),
    ],
)
def test_pictures(write, name, found):
    names = ["12.jpg", "deep/13.JPG", "14.png", "-4u-58@N0.jpg", "session1/same.jpg", "session2/same.jpg", "._12.jpg"]
    folder = write({f"images/{each}": b"x" for each in names} | {"__MACOSX/12.jpg": b"", ".hidden/12.jpg": b""})
    (folder.parent / "outside.jpg").write_bytes(b"x")
    path = RawFolder(folder).locate(name)
    assert (path and os.path.relpath(path, folder)) == found


def test_a_preferred_folder_wins(write):
    folder = write({"a_warp256/x.jpg": b"", "b_originalSize/x.jpg": b"", "c_other/x.jpg": b""})
    assert "originalSize" in RawFolder(folder, prefer=("originalsize", "warp256")).locate("x.jpg")
    assert "warp256" in RawFolder(folder, prefer=("warp256",)).locate("x.jpg")


def test_links_are_followed_once(write):
    folder = write({"real/x.jpg": b""})
    (folder / "linked").symlink_to(folder / "real")
    (folder / "real" / "round").symlink_to(folder)
    raw = RawFolder(folder)
    assert list(raw.pictures) == ["x.jpg"]
    assert isinstance(raw.pictures["x.jpg"], int)


def test_no_such_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match="No such folder"):
        RawFolder(tmp_path / "none")


# Archives ------------------------------------------------------------------------------------------------------------


def zipped(entries: dict[str, bytes], **modes: int) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in entries.items():
            info = zipfile.ZipInfo(name)
            info.external_attr = modes.get(name, stat.S_IFREG | 0o644) << 16
            info.compress_type = zipfile.ZIP_DEFLATED
            file.writestr(info, content)
    return buffer.getvalue()


def tarred(entries: dict[str, bytes], mode: str = "w:gz") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as file:
        for name, content in entries.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            file.addfile(info, io.BytesIO(content))
        link = tarfile.TarInfo("link.jpg")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        file.addfile(link)
    return buffer.getvalue()


FILES = {"images/1.jpg": b"one", "data/ratings.csv": b"image,score\n"}


@pytest.mark.parametrize(
    "name, content",
    [
        ("all.zip", zipped(FILES)),
        ("all.tar", tarred(FILES, "w:")),
        ("all.tar.gz", tarred(FILES)),
        ("all.tgz", tarred(FILES)),
    ],
)
def test_archives_are_unpacked(write, tmp_path, name, content):
    raw = RawFolder(write({name: content}), tmp_path / "unpacked")
    assert raw.need("ratings.csv").read_bytes() == b"image,score\n"
    assert raw.locate("1.jpg").endswith("images/1.jpg")
    assert raw.locate("link.jpg") is None
    assert raw.notes == [f"{name} was unpacked"]
    assert sorted(path.name for path in (tmp_path / "raw").iterdir()) == [name]  # the download stays as it is


def test_an_archive_in_parts_is_one(write, tmp_path):
    content = zipped(FILES | {"images/2.jpg": os.urandom(1000)})
    parts = {f"EVA_together.zip.{number + 1:03}": content[300 * number : 300 * (number + 1)] for number in range(6)}
    raw = RawFolder(write({name: part for name, part in parts.items() if part}), tmp_path / "unpacked")
    assert len(raw.pictures) == 2


def test_what_lies_unpacked_beside_it_is_not_unpacked_again(write, tmp_path):
    raw = RawFolder(write({"all.zip": zipped(FILES), "all/images/1.jpg": b"one"}), tmp_path / "unpacked")
    assert (list(raw.pictures), raw.notes) == (["1.jpg"], [])


@pytest.mark.parametrize("name", ["../evil.jpg", "/evil.jpg", "a/../../evil.jpg", "..\\evil.jpg", "C:\\evil.jpg"])
@pytest.mark.parametrize("make, ending", [(zipped, "zip"), (tarred, "tar.gz")])
def test_names_that_lead_out_are_refused(write, tmp_path, name, make, ending):
    folder = write({f"x.{ending}": make({name: b"evil"})})
    with pytest.raises(ValueError, match="leads out of its folder"):
        unpack(folder / f"x.{ending}", tmp_path / "there")
    assert not list(tmp_path.rglob("evil*"))
    assert not (tmp_path / "there").exists()


def test_a_link_in_a_zip_is_left_out(write, tmp_path):
    folder = write({"x.zip": zipped({"a.jpg": b"/etc/passwd", "b.jpg": b"b"}, **{"a.jpg": stat.S_IFLNK | 0o777})})
    unpack(folder / "x.zip", tmp_path / "there")
    assert [path.name for path in (tmp_path / "there").iterdir()] == ["b.jpg"]


@pytest.mark.parametrize("make, ending", [(zipped, "zip"), (tarred, "tar.gz")])
def test_a_bomb_is_refused(write, tmp_path, monkeypatch, make, ending):
    monkeypatch.setattr(raw_archives, "FREE_BYTES", 1024)
    folder = write({f"x.{ending}": make({"a.jpg": bytes(3_000_000)})})
    with pytest.raises(ValueError, match="is it a bomb"):
        unpack(folder / f"x.{ending}", tmp_path / "there")


def test_damaged_twice_named_and_locked_archives_are_refused(write, tmp_path):
    content = zipped(FILES)
    locked = bytearray(content)
    for marker, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = locked.find(marker)
        locked[at + offset] |= 1  # the bit that says encrypted
    with zipfile.ZipFile(buffer := io.BytesIO(), "w") as file:
        file.writestr("a.jpg", b"1")
        with pytest.warns(UserWarning, match="Duplicate name"):
            file.writestr("a.jpg", b"2")
    folder = write({"cut.zip": content[:-30], "locked.zip": bytes(locked), "twice.zip": buffer.getvalue()})
    for name, message in (
        ("cut", "fetch it again"),
        ("locked", "password of its owners"),
        ("twice", "holds 'a.jpg' twice"),
    ):
        with pytest.raises(ValueError, match=message):
            unpack(folder / f"{name}.zip", tmp_path / "there")


def test_damage_inside_an_archive_and_one_of_which_only_the_end_is_there(write, tmp_path):
    numbers = b"".join(b"%d," % (number * number) for number in range(9000))
    damaged = bytearray(zipped({"numbers.txt": numbers}))
    damaged[2000:2050] = bytes(50)
    folder = write({"bad.zip": bytes(damaged), "end.zip": zipped(FILES)[60:], "p.z01": b"PK", "p.zip": b"PK"})
    for name, message in (("bad", "fetch it again"), ("end", "fetch it again"), ("p", "join them: zip -s 0 p.zip")):
        with pytest.raises(ValueError, match=message):
            unpack(folder / f"{name}.zip", tmp_path / "there")


def test_an_archive_in_an_archive_is_named(write, tmp_path):
    raw = RawFolder(write({"all.zip": zipped({"inner.zip": zipped(FILES)})}), tmp_path / "unpacked")
    with pytest.raises(ValueError, match=r"holds no ratings.csv; inner.zip has to be unpacked by hand first"):
        raw.need("ratings.csv")


def test_an_archive_that_was_fetched_again_is_unpacked_again(write, tmp_path):
    assert len(RawFolder(write({"all.zip": zipped(FILES)}), tmp_path / "unpacked").pictures) == 1
    again = write({"all.zip": zipped(FILES | {"images/2.jpg": b"two"})})
    assert len(RawFolder(again, tmp_path / "unpacked").pictures) == 2


@pytest.mark.parametrize("name, stem", [("a.zip", "a"), ("a.ZIP.001", "a"), ("a.zip.002", None), ("a.jpg", None)])
def test_names_of_archives(tmp_path, name, stem):
    assert archive_stem(tmp_path / name) == stem
