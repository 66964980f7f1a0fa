"""Limits of bytes and pixels, and the places that pictures are read from."""

import gc
import io
import mmap
import os
import tempfile
import warnings
from pathlib import Path

import numpy as np
import pictures
import pytest
from pictures import difference, encoded
from PIL import Image
from tiny import photo

from roc4mllm.processing_roc4mllm import image_reading_aesthetics as reading
from roc4mllm.processing_roc4mllm.image_reading_aesthetics import PictureError, read_image

PHOTO = photo(0)
PIXELS = np.asarray(PHOTO)
NOBODY = 65534


def peak_memory() -> int:
    """Peak of resident memory in bytes since the last call."""
    status = Path("/proc/self/status").read_text()
    peak = int(status.split("VmHWM:")[1].split()[0]) * 1024
    Path("/proc/self/clear_refs").write_text("5")
    return peak


class TestLimits:
    def test_bomb(self):
        data = pictures.bomb(20_000, 20_000)  # 1.6 GB in memory
        assert len(data) < 1000
        with pytest.raises(PictureError, match="too many pixels"):
            read_image(data)

    def test_bomb_where_pillow_was_told_not_to_look(self, monkeypatch):
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
        with pytest.raises(PictureError, match="too many pixels: 20000 x 20000, at most 178956970"):
            read_image(pictures.bomb(20_000, 20_000))
        with pytest.raises(PictureError, match="too many pixels: 20000 x 20000"):
            read_image(Image.open(io.BytesIO(pictures.bomb(20_000, 20_000))))

    @pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="needs Linux' peak of memory")
    def test_a_bomb_takes_no_memory(self, monkeypatch):
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
        gc.collect()  # else what other tests have left may go meanwhile
        peak_memory()
        before = peak_memory()
        with pytest.raises(PictureError):
            read_image(pictures.bomb(20_000, 20_000))
        assert peak_memory() - before < 20e6
        with mmap.mmap(-1, 200_000_000) as block:  # not of what malloc may have kept
            block.write(bytes(200_000_000))
        assert peak_memory() - before > 40e6  # the measure itself works

    def test_aspect_ratio(self):
        assert read_image(Image.new("RGB", (20_000, 10))).size == (20_000, 10)
        for size in ((20_001, 10), (1, 65_000)):
            with pytest.raises(PictureError, match=f"too long: {size[0]} x {size[1]} pixels.*at most 2000"):
                read_image(Image.new("RGB", size))

    def test_bytes(self, monkeypatch, tmp_path):
        data = encoded(PHOTO, "PNG")
        (tmp_path / "a.png").write_bytes(data)
        monkeypatch.setattr(reading, "MAX_BYTES", len(data))
        assert difference(data, PIXELS) == difference(tmp_path / "a.png", PIXELS) == 0
        monkeypatch.setattr(reading, "MAX_BYTES", len(data) - 1)
        for source in (data, tmp_path / "a.png"):
            with pytest.raises(PictureError, match=f"too large: {len(data)} bytes or more, at most {len(data) - 1}"):
                read_image(source)

    def test_a_file_that_grows_while_it_is_read(self, monkeypatch, tmp_path):
        data = encoded(PHOTO, "PNG")
        (tmp_path / "a.png").write_bytes(data)
        at_first = os.stat_result((0o100644, 0, 0, 1, 0, 0, len(data) // 2, 0, 0, 0))
        with monkeypatch.context() as patched:
            patched.setattr(reading.os, "stat", lambda path: at_first)
            assert reading.read_file(str(tmp_path / "a.png")) == data
            patched.setattr(reading, "MAX_BYTES", len(data) - 1)
            with pytest.raises(PictureError, match="too large"):
                read_image(tmp_path / "a.png")


class TestPaths:
    def test_what_is_no_regular_file(self, tmp_path):
        os.mkfifo(tmp_path / "pipe.jpg")
        for source, message in {
            tmp_path / "missing.jpg": "no such file$",
            str(tmp_path / "missing.jpg"): "no such file$",
            "": "no such file$",
            "ftp://host/a.jpg": "no such file; of URLs only http and https are read",
            "data:image/png;base64," + "A" * 5000: "^cannot be read: File name too long$",
            "a\0.jpg": "null",
            tmp_path: "a folder, not a file",
            tmp_path / "pipe.jpg": "not a regular file",
            "/dev/null": "not a regular file",
        }.items():
            with pictures.time_limit(9), pytest.raises(PictureError, match=message):
                read_image(source)

    def test_names_that_are_not_utf8(self, tmp_path):
        path = os.fsdecode(os.fsencode(tmp_path) + b"/\xff\xfe \xe4.png")
        PHOTO.save(path)
        (entry,) = os.scandir(os.fsencode(tmp_path))
        for source in (path, Path(path), entry):
            assert difference(source, PIXELS) == 0
        with pytest.raises(PictureError, match="no such file"):
            read_image(path + "x")

    def test_records_of_datasets(self, tmp_path):
        PHOTO.save(tmp_path / "a.png")
        data = (tmp_path / "a.png").read_bytes()
        assert difference({"bytes": data, "path": None}, PIXELS) == 0
        assert difference({"bytes": data, "path": "elsewhere.png"}, PIXELS) == 0
        assert difference({"bytes": None, "path": str(tmp_path / "a.png")}, PIXELS) == 0
        with pytest.raises(PictureError, match="the file is empty"):
            read_image({"bytes": b"", "path": str(tmp_path / "a.png")})
        for record in ({"image": PHOTO}, {}, {"bytes": None, "path": None}, {"path": {"path": "a"}}):
            with pytest.raises(PictureError, match=r"got a dict with keys \[.*expected bytes or a path"):
                read_image(record)

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="needs users")
    def test_no_permission(self):
        """Root may read anything, so a child process becomes nobody and reads."""
        with tempfile.TemporaryDirectory() as name:  # pytest's own folders are closed to others
            folder = Path(name)
            folder.chmod(0o755)
            for path in (folder / "open.png", folder / "closed.png", folder / "inside" / "a.png"):
                path.parent.mkdir(exist_ok=True)
                PHOTO.save(path)
            (folder / "open.png").chmod(0o644)
            (folder / "closed.png").chmod(0o000)
            (folder / "inside").chmod(0o000)
            answers = read_as_nobody([folder / "open.png", folder / "closed.png", folder / "inside" / "a.png"])
            (folder / "inside").chmod(0o755)
        assert answers == ["(64, 48)", "no permission to read the file", "no permission to read the file"]


def read_as_nobody(paths: list[Path]) -> list[str]:
    """Size or error of each picture, in a process without root's rights."""
    read_end, write_end = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Python 3.12 warns of forking beside threads; the child runs none of them
        child = os.fork()
    if not child:
        try:
            if os.getuid() == 0:
                os.setgroups([])
                os.setuid(NOBODY)
            for path in paths:
                os.write(write_end, f"{size_or_error(path)}\n".encode())
        finally:
            os._exit(0)
    os.close(write_end)
    with open(read_end) as answers:
        lines = answers.read().splitlines()
    os.waitpid(child, 0)
    return lines


def size_or_error(path: Path) -> str:
    try:
        return str(read_image(path).size)
    except PictureError as error:
        return str(error)
