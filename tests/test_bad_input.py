"""
What users really have, through the real scorer: one record for each input, with a right score or a clear error.

A right score is that of the upright RGB picture, made here without the package's own reading.
"""

import contextlib
import copy
import hashlib
import os
import re
import socket
import tempfile
import weakref
from collections import UserList
from pathlib import Path

import numpy as np
import pandas as pd
import pictures
import pytest
import torch
from pictures import encoded, half
from PIL import Image
from tiny import photo, shared_parts

from roc4mllm import load_scorer
from roc4mllm.processing_roc4mllm import image_reading_aesthetics as reading
from roc4mllm.processing_roc4mllm.image_reading_aesthetics import PictureError
from roc4mllm.processing_roc4mllm.picture_batches_aesthetics import PicturePreparation

PHOTO = photo(0)
GREY = PHOTO.convert("L")
DEEP = np.asarray(GREY).astype(np.uint16) * 257  # the same greys in 16 bits
PALETTE = PHOTO.quantize(16)
FRAMES = [photo(seed).quantize(32) for seed in range(3)]
WIDE = photo(3, 20_000, 10)
BLACK_INK = Image.merge("CMYK", [*PHOTO.convert("CMYK").split()[:3], GREY])
HALF = Image.fromarray(np.tile(np.repeat([0, 255], 32).astype(np.uint8), (48, 1)))  # clear on the left
HALF_CLEAR = Image.merge("RGBA", [*PHOTO.split(), HALF])
ON_WHITE = Image.composite(PHOTO, Image.new("RGB", PHOTO.size, "white"), HALF)
INDEX_0 = Image.fromarray(np.where(np.asarray(PALETTE) == 0, 255, 0).astype(np.uint8))
PALETTE_ON_WHITE = Image.composite(Image.new("RGB", PHOTO.size, "white"), PALETTE.convert("RGB"), INDEX_0)

# name → content and the picture that it shows
RIGHT = {
    "plain.png": (encoded(PHOTO, "PNG"), PHOTO),
    "1x1.png": (encoded(photo(1, 1, 1), "PNG"), photo(1, 1, 1)),
    "3 pixels high.png": (encoded(photo(1, 50, 3), "PNG"), photo(1, 50, 3)),
    "16-bit.png": (encoded(Image.fromarray(DEEP), "PNG"), GREY),
    "16-bit.tif": (encoded(Image.fromarray(DEEP), "TIFF"), GREY),
    "16-bit colours.png": (pictures.png(np.asarray(PHOTO).astype(np.uint16) * 257, pictures.RGB), PHOTO),
    "CMYK.jpg": (encoded(BLACK_INK, "JPEG", quality=100), BLACK_INK.convert("RGB")),
    "CMYK.tif": (encoded(BLACK_INK, "TIFF"), BLACK_INK.convert("RGB")),
    "palette with a hole.png": (encoded(PALETTE, "PNG", transparency=0), PALETTE_ON_WHITE),
    "RGBA.png": (encoded(HALF_CLEAR, "PNG"), ON_WHITE),
    "LA.png": (encoded(HALF_CLEAR.convert("LA"), "PNG"), ON_WHITE.convert("L")),
    "1-bit.png": (encoded(PHOTO.convert("1"), "PNG"), PHOTO.convert("1")),
    "animated.gif": (pictures.animation(FRAMES, "GIF"), FRAMES[0]),
    "animated.webp": (pictures.animation([f.convert("RGB") for f in FRAMES], "WEBP", lossless=True), FRAMES[0]),
    "animated.png": (pictures.animation([f.convert("RGB") for f in FRAMES], "PNG"), FRAMES[0]),
    **{f"turned {n}.png": (pictures.rotated(PHOTO, n), PHOTO) for n in range(1, 9)},
    **{f"turned {n}.tif": (pictures.rotated(PHOTO, n, "TIFF"), PHOTO) for n in range(2, 9)},
}
DDS = encoded(PHOTO, "DDS")

# name → content and what is said about it
WRONG = {
    "truncated.jpg": (half(encoded(photo(0, 256, 192), "JPEG")), "cannot be read: image file is truncated"),
    "truncated.png": (half(encoded(PHOTO, "PNG")), "cannot be read: image file is truncated"),
    "zero bytes.jpg": (b"", "the file is empty"),
    "text.jpg": (b"Dear diary", "not a picture in a format that Pillow reads; it begins with b'Dear diary'"),
    "bomb.png": (pictures.bomb(20_000, 20_000), "too many pixels"),
    "damaged.dds": (DDS[:80] + bytes(4) + DDS[84:], "cannot be read: NotImplementedError"),
}
TOLERANCE = {"CMYK.jpg": 0.02, "16-bit.png": 0.02, "16-bit.tif": 0.02}  # of the range; lossy, or rounded in 16 bits


@pytest.fixture(scope="module", params=["llava", "qwen2_vl"])
def scorer(request):
    model, processor = shared_parts(request.param)
    return load_scorer(model, processor=processor)


@pytest.fixture(scope="module")
def llava():
    model, processor = shared_parts("llava")
    return load_scorer(model, processor=processor)


@pytest.fixture(scope="module")
def album(tmp_path_factory) -> Path:
    """All of them as files, good and bad alternating, and a wide one, a pipe and a folder."""
    folder = tmp_path_factory.mktemp("album")
    for name, (content, _) in (RIGHT | WRONG).items():
        (folder / name).write_bytes(content)
    WIDE.save(folder / "wide.png")
    os.mkfifo(folder / "pipe.jpg")
    (folder / "folder.jpg").mkdir()
    return folder


@pytest.fixture(scope="module")
def records(scorer, album) -> dict[str, dict]:
    """The record of each, all scored in one call."""
    right, wrong = list(RIGHT), [*WRONG, "missing.jpg", "pipe.jpg", "folder.jpg"]
    names = [name for pair in zip(right, wrong, strict=False) for name in pair] + right[len(wrong) :] + ["wide.png"]
    before = fingerprints(album)
    with pictures.time_limit(100):  # the pipe
        found = scorer([album / name for name in names], batch_size=4)
    assert fingerprints(album) == before
    assert len(found) == len(names) == len(RIGHT) + len(WRONG) + 4
    return dict(zip(names, found, strict=True))


def fingerprints(folder: Path) -> dict[str, tuple]:
    """Content and time of each file."""
    files = [path for path in sorted(folder.iterdir()) if path.is_file()]
    return {path.name: (hashlib.sha256(path.read_bytes()).digest(), path.stat().st_mtime_ns) for path in files}


def assert_failed(record: dict, message: str) -> None:
    """No number anywhere, and the message."""
    assert message in record["error"]
    assert "\n" not in record["error"]
    assert [record[name] for name in ("score", "normalized", "std", "distribution")] == [None] * 4
    assert set(record["attributes"].values()) == {None}
    assert record["score_range"] == [1.0, 5.0]


def assert_same(records: list[dict], others: list[dict]) -> None:
    """Errors equal, scores equal but for the rounding of another batch."""
    assert [record["error"] for record in records] == [other["error"] for other in others]
    for record, other in zip(records, others, strict=True):
        assert record["normalized"] == pytest.approx(other["normalized"], abs=1e-5)


class TestFiles:
    @pytest.mark.parametrize("name", RIGHT)
    def test_right_score(self, scorer, records, name):
        expected = scorer(RIGHT[name][1].convert("RGB"))
        assert records[name]["error"] is None
        assert records[name]["normalized"] == pytest.approx(expected["normalized"], abs=TOLERANCE.get(name, 1e-5))

    def test_pictures_are_told_apart(self, records):
        """The test above compares something: what is done wrongly would show."""
        scores = [records[name]["normalized"] for name in RIGHT if not name.startswith("turned")]
        assert len({round(score, 3) for score in scores}) > 8
        assert max(scores) - min(scores) > 0.1

    def test_a_picture_not_turned_would_show(self, scorer):
        for turn in Image.Transpose:
            assert abs(scorer(PHOTO.transpose(turn))["normalized"] - scorer(PHOTO)["normalized"]) > 1e-3

    @pytest.mark.parametrize("name", WRONG)
    def test_clear_error(self, records, name):
        assert_failed(records[name], WRONG[name][1])

    def test_what_is_no_file(self, records):
        assert_failed(records["missing.jpg"], "no such file")
        assert_failed(records["pipe.jpg"], "not a regular file")
        assert_failed(records["folder.jpg"], "a folder, not a file")

    def test_only_the_image_processor_refuses(self, scorer, records):
        """20000 x 10: scored where the processor takes it, else one row of its own among its batch mates."""
        if "Qwen2VL" in type(scorer.processor.image_processor).__name__:
            assert_failed(records["wide.png"], "absolute aspect ratio must be smaller than 200, got 2000")
        else:
            assert records["wide.png"]["score"] == pytest.approx(scorer(WIDE)["score"], abs=1e-4)

    def test_no_permission(self, llava):
        with tempfile.TemporaryDirectory() as name:  # pytest's own folders are closed to others
            os.chmod(name, 0o755)
            for path in (Path(name, "open.png"), Path(name, "closed.png")):
                PHOTO.save(path)
                path.chmod(0o644 if path.stem == "open" else 0o000)
            with as_nobody():
                good, bad = llava([Path(name, "open.png"), Path(name, "closed.png")])
        assert good["score"] == llava(PHOTO)["score"]
        assert_failed(bad, "no permission to read the file")

    def test_a_name_that_is_not_utf8(self, llava, tmp_path):
        path = os.fsdecode(os.fsencode(tmp_path) + b"/\xff.png")
        PHOTO.save(path)
        good, bad = llava([path, path + "x"])
        assert good["score"] == llava(PHOTO)["score"]
        assert_failed(bad, "no such file")


@contextlib.contextmanager
def as_nobody():
    """Root may read anything; inside, this process may read what anybody may."""
    if is_root := os.geteuid() == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        if is_root:
            os.seteuid(0)


class TestOtherInputs:
    @pytest.mark.parametrize(
        "source, message",
        [
            (None, "got NoneType; expected a path, URL, bytes, PIL image, numpy array or torch tensor"),
            (3, "got int; expected a path"),
            ({"image": PHOTO}, "got a dict with keys ['image']; expected bytes or a path under 'bytes' or 'path'"),
            (b"", "the file is empty"),
            ("", "no such file"),
            (np.full((8, 8), np.nan), "NaN or infinity"),
            (np.full((8, 8), 7), "got an array of int64; expected uint8"),
            (np.zeros((8, 8, 2), np.uint8), "got an array of shape (8, 8, 2)"),
            (torch.full((3, 8, 8), 255.0), "floating point values from 255 to 255; expected 0 to 1, or uint8"),
            ("http://127.0.0.1:1/a.jpg", "cannot be downloaded: "),
        ],
    )
    def test_alone_and_in_a_list(self, llava, source, message):
        assert_failed(llava(source), message)
        good, bad, other = llava([PHOTO, source, PHOTO], batch_size=3)
        assert_failed(bad, message)
        assert_same([good, other], [llava(PHOTO)] * 2)

    def test_an_open_file_is_no_list_of_lines(self, llava, tmp_path):
        PHOTO.save(tmp_path / "a.png")
        with open(tmp_path / "a.png", "rb") as file:
            assert_failed(llava(file), "got BufferedReader; expected a path, URL, bytes")

    def test_a_column_of_a_table(self, llava, tmp_path):
        for seed in range(3):
            photo(seed).save(tmp_path / f"{seed}.png")
        table = pd.DataFrame({"path": [str(tmp_path / f"{seed}.png") for seed in range(3)]}, index=[7, 7, 0])
        expected = [llava(photo(seed)) for seed in range(3)]
        assert_same(llava(table["path"]), expected)
        assert_same(llava(np.array(table["path"].tolist())), expected)
        assert_failed(llava(table), "got DataFrame")

    @pytest.mark.parametrize("batch_size", [0, -1, "two"])
    def test_wrong_batch_size(self, llava, batch_size):
        with pytest.raises(ValueError, match=f"positive integer value, but got batch_size={batch_size}"):
            llava([PHOTO], batch_size=batch_size)

    def test_a_set_has_no_order(self, llava):
        with pytest.raises(TypeError, match="got a set of pictures, which has no order; expected a list"):
            llava({"a.jpg", "b.jpg"})

    @pytest.mark.parametrize("empty", [[], (), iter([]), np.zeros((0, 3, 8, 8), np.uint8)])
    def test_nothing(self, llava, empty):
        assert list(llava(empty)) == []

    def test_records_of_datasets(self, llava):
        content = encoded(PHOTO, "PNG")
        assert llava({"bytes": content, "path": None})["score"] == llava(memoryview(content))["score"]

    def test_a_column_of_datasets_with_a_broken_picture(self, llava):
        datasets = pytest.importorskip("datasets")
        contents = [encoded(PHOTO, "PNG"), b"broken", half(encoded(PHOTO, "PNG")), encoded(photo(1), "PNG")]
        table = datasets.Dataset.from_dict({"image": [{"bytes": content, "path": None} for content in contents]})
        table = table.cast_column("image", datasets.Image())
        records = llava(table["image"], batch_size=4)
        assert [record["error"] is None for record in records] == [True, False, False, True]
        assert_failed(records[1], "UnidentifiedImageError")
        assert_failed(records[2], "truncated")
        assert_same([records[0], records[3]], [llava(PHOTO), llava(photo(1))])
        undecoded = table.cast_column("image", datasets.Image(decode=False))["image"]
        assert [record["error"] is None for record in llava(undecoded)] == [True, False, False, True]

    @pytest.mark.parametrize("num_workers", [0, 1])
    @pytest.mark.parametrize("batch_size", [1, 2, 8])
    def test_a_generator_that_breaks_off(self, llava, batch_size, num_workers):
        """Its pictures so far are scored, then its own error is told: Python cannot resume a generator."""

        def pictures_from_somewhere():
            yield from (PHOTO, photo(1), photo(2))
            raise OSError("the disk is gone")

        stream, records = llava(pictures_from_somewhere(), batch_size=batch_size, num_workers=num_workers), []
        with pytest.raises(
            RuntimeError, match="broke off at an error of its own.*the disk is gone.*what follows is lost"
        ):
            records.extend(stream)  # keeps what came before the error
        assert_failed(records.pop(), "OSError: the disk is gone")
        assert_same(records, llava([PHOTO, photo(1), photo(2)]))

    def test_a_container_that_breaks(self, llava):
        class Broken(UserList):
            def __getitem__(self, index):
                return {0: PHOTO, 1: None}[index]

        records = llava(Broken([0] * 3))
        assert records[0]["score"] == llava(PHOTO)["score"]
        assert_failed(records[1], "got NoneType")
        assert_failed(records[2], "KeyError: 2")


class TestBatches:
    SOURCES = [PHOTO, "missing.jpg", photo(1, 32, 96), b"broken", photo(2, 90, 30), WIDE, photo(3), photo(4, 40, 41)]

    @pytest.fixture
    def alone(self, scorer):
        records = [scorer(source) for source in self.SOURCES]
        scores = [record["normalized"] for record in records if record["error"] is None]
        assert max(scores) - min(scores) > 1e-3
        return records

    @pytest.fixture
    def alone_on_llava(self, llava):
        return [llava(source) for source in self.SOURCES]

    @pytest.mark.parametrize("batch_size", [2, 3, 8])
    def test_broken_pictures_change_no_score(self, scorer, alone, batch_size):
        assert_same(scorer(self.SOURCES, batch_size=batch_size), alone)

    def test_one_worker(self, scorer, alone):
        assert_same(scorer(self.SOURCES, batch_size=3, num_workers=1), alone)
        assert_same(list(scorer(iter(self.SOURCES), batch_size=3, num_workers=1)), alone)

    @pytest.mark.parametrize("num_workers", [0, 1])
    def test_where_pictures_are_read(self, llava, num_workers):
        class Telltale(UserList):
            def __getitem__(self, index):
                raise ValueError(f"read by {os.getpid()}")

        (record,) = llava(Telltale([0]), num_workers=num_workers)
        assert (record["error"] == f"read by {os.getpid()}") == (num_workers == 0)
        assert_failed(record, "read by ")

    def test_a_generator_is_read_lazily(self, llava):
        pulled = []
        stream = llava((pulled.append(seed) or photo(seed) for seed in range(100)), batch_size=4)
        assert pulled == []
        first = next(stream)
        assert pulled == [0, 1, 2, 3]
        assert first["score"] == pytest.approx(llava(PHOTO)["score"], abs=1e-5)
        for _ in range(4):
            next(stream)
        assert len(pulled) == 8

    @pytest.mark.parametrize(
        "source, name",
        [
            ("missing.jpg", "missing.jpg"),
            ({"bytes": b"broken", "path": "a.jpg"}, "a.jpg"),
            ("\udcff.jpg", r"\udcff.jpg"),
            (b"broken", "inputs[{}] (bytes)"),
            (None, "inputs[{}] (NoneType)"),
        ],
    )
    def test_strict(self, llava, source, name):
        for position, inputs in ((0, source), (1, [PHOTO, source])):
            with pytest.raises(PictureError, match=f"^{re.escape(name.format(position))}: "):
                llava(inputs, strict=True)
        stream = llava(iter([PHOTO, source, PHOTO]), strict=True, batch_size=3)
        assert next(stream)["error"] is None
        with pytest.raises(PictureError, match=f"^{re.escape(name.format(1))}: "):
            next(stream)

    def test_pictures_that_do_not_fit_together(self):
        """A processor that fails on a batch but on no picture of it leaves the reason and no inputs."""

        def prepare(images):
            if len(images) > 1:
                raise MemoryError
            return len(images)

        batch = PicturePreparation(prepare)([PHOTO, "missing.jpg", PHOTO])
        assert (batch.inputs, batch.failure, batch.good) == (None, "MemoryError", [0, 2])
        batch = PicturePreparation(prepare)([PHOTO, "missing.jpg"])
        assert (batch.inputs, batch.failure, batch.good) == (1, None, [0])

    def test_they_are_scored_apart(self, llava, alone_on_llava, monkeypatch):
        whole = llava.processor.__call__

        def prepare(images, **options):
            if len(images) > 2:
                raise MemoryError
            return whole(images=images, **options)

        preparation = PicturePreparation(prepare, {"text": None, "attributes": None})
        monkeypatch.setattr(llava, "preparation", lambda **params: preparation)
        assert_same(llava(self.SOURCES, batch_size=8), alone_on_llava)

    def test_programming_mistakes_are_no_bad_pictures(self):
        with pytest.raises(TypeError, match="nonsense"):
            PicturePreparation(lambda images: images, {"nonsense": 1})([PHOTO])


class SmallMemory:
    """Lets a model run on at most `room` pictures at a time, as an accelerator does whose memory is full."""

    def __init__(self, model, room: int):
        self.model, self.room, self.sizes, self.held = model, room, [], None

    def __call__(self, module, args, kwargs):
        assert self.held is None or self.held() is None, "the failed batch still holds its memory"
        self.sizes.append(len(kwargs["input_ids"]))
        if self.sizes[-1] > self.room:
            activations = torch.ones(3)
            self.held = weakref.ref(activations)
            raise torch.OutOfMemoryError("CUDA out of memory. Tried 3 GiB\nmore")

    def __enter__(self):
        self.hook = self.model.register_forward_pre_hook(self, with_kwargs=True)
        return self

    def __exit__(self, *error):
        self.hook.remove()


class TestModelFailures:
    SOURCES = [photo(0), photo(1), "missing.jpg", photo(2), photo(3), photo(4), photo(5), photo(6)]

    def test_out_of_memory_is_halved(self, scorer):
        expected = [scorer(source) for source in self.SOURCES]
        for room, sizes in ((7, [7]), (3, [7, 3, 4, 2, 2]), (1, [7, 3, 1, 2, 1, 1, 4, 2, 1, 1, 2, 1, 1])):
            with SmallMemory(scorer.model, room) as memory:
                assert_same(scorer(self.SOURCES, batch_size=8), expected)
            assert memory.sizes == sizes

    def test_no_memory_for_one_picture(self, llava):
        with SmallMemory(llava.model, 0) as memory:
            records = llava(self.SOURCES[:4], batch_size=4)
        assert memory.sizes == [3, 1, 2, 1, 1]
        for record in (*records[:2], records[3]):
            assert_failed(record, "OutOfMemoryError: CUDA out of memory. Tried 3 GiB more")
        assert_failed(records[2], "no such file")
        with SmallMemory(llava.model, 0), pytest.raises(PictureError, match="OutOfMemoryError"):
            llava(PHOTO, strict=True)

    @pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
    def test_nan_is_an_error(self, value):
        model, processor = shared_parts("llava")
        model = copy.deepcopy(model)
        with torch.no_grad():
            model.score_head.weight[0, 0] = value
        broken = load_scorer(model, processor=processor)
        for record in broken([PHOTO, photo(1)], batch_size=2):
            assert_failed(record, "the model's output is not finite (NaN or Inf)")
        with pytest.raises(PictureError, match="not finite"):
            broken.score([PHOTO])

    def test_a_nan_of_one_picture_costs_one_row(self, llava):
        def spoil(module, args, output):
            output.scores[1] = float("nan")

        hook = llava.model.register_forward_hook(spoil)
        records = llava([PHOTO, photo(1), photo(2)], batch_size=3)
        hook.remove()
        assert_failed(records[1], "not finite")
        assert_same([records[0], records[2]], [llava(PHOTO), llava(photo(2))])


def test_a_slow_server_costs_one_row(llava, monkeypatch):
    """A port that accepts connections and never answers."""
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(reading, "URL_TIMEOUT", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}/a.jpg"
        bad, good = llava([url, PHOTO], batch_size=2)
    assert_failed(bad, "cannot be downloaded within 0.2 seconds")
    assert good["score"] == pytest.approx(llava(PHOTO)["score"], abs=1e-5)
