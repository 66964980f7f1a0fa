"""Windows of a stream become batches of pictures of one size, which take no more memory than they may."""

import multiprocessing
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from pictures import encoded
from tiny import photo
from transformers import BatchFeature

from roc4mllm.processing_roc4mllm import picture_stream_aesthetics
from roc4mllm.processing_roc4mllm.picture_batches_aesthetics import PicturePreparation
from roc4mllm.processing_roc4mllm.picture_stream_aesthetics import batches, by_size, size_of, windows

SIZES = [(64, 48), (200, 100), (64, 48), (200, 100), (30, 90), (64, 48), (200, 100), (30, 90)]


@dataclass
class Widths:
    """Stands for an image processor: one number per picture, which tells the pictures apart."""

    def __call__(self, images):
        return BatchFeature({"pixel_values": torch.tensor([[float(image.width)] for image in images]), "note": "kept"})


@pytest.fixture
def paths(tmp_path) -> list[str]:
    found = []
    for number, (width, height) in enumerate(SIZES):
        path = tmp_path / f"{number}.png"
        path.write_bytes(encoded(photo(number, width, height), "PNG"))
        found.append(str(path))
    return found


def widths(found) -> dict[int, float]:
    """By place in the stream."""
    return {
        place: value
        for batch in found
        for place, value in zip(batch.places, batch.inputs["pixel_values"][:, 0].tolist(), strict=True)
    }


@pytest.mark.parametrize("num_workers", [0, 1, 2])
@pytest.mark.parametrize("as_stream", [True, False])
def test_every_picture_has_its_place(paths, num_workers, as_stream):
    found = list(batches(iter(paths) if as_stream else paths, PicturePreparation(Widths()), 2, num_workers))
    assert widths(found) == {place: float(width) for place, (width, _) in enumerate(SIZES)}
    assert all(isinstance(batch.inputs["pixel_values"], torch.Tensor) for batch in found)
    assert all(batch.inputs["note"] == "kept" for batch in found)
    for batch in found:  # fetched again, not sent back
        assert [batch.sources[index] for index in range(len(batch.sources))] == [paths[p] for p in batch.places]


def test_a_worker_puts_pictures_of_one_size_together(paths):
    found = list(batches(iter(paths), PicturePreparation(Widths()), 2, 1))
    assert [[SIZES[place] for place in batch.places] for batch in found] == [
        [(30, 90), (30, 90)],
        [(64, 48), (64, 48)],
        [(64, 48), (200, 100)],
        [(200, 100), (200, 100)],
    ]


def test_without_workers_nothing_is_read_before_its_turn(paths):
    pulled = []
    stream = batches((pulled.append(path) or path for path in paths), PicturePreparation(Widths()), 2, 0)
    assert next(stream).places == [0, 1]
    assert pulled == paths[:2]


def test_a_batch_ends_where_its_pixels_would_be_too_many(paths, monkeypatch):
    monkeypatch.setattr(picture_stream_aesthetics, "MAX_BATCH_PIXELS", 45_000)
    parts = list(by_size(list(enumerate(paths)), 4))
    assert all(len(part) <= 4 for part in parts)
    pixels = [sum(width * height for width, height in (SIZES[place] for place, _ in part)) for part in parts]
    assert max(pixels) <= 45_000
    assert max(len(part) for part in parts) == 4
    assert sorted(place for part in parts for place, _ in part) == list(range(8))
    monkeypatch.setattr(picture_stream_aesthetics, "MAX_BATCH_PIXELS", 10)  # one alone may have more
    assert [len(part) for part in by_size(list(enumerate(paths)), 4)] == [1] * 8


def test_sizes_come_from_the_head_of_a_file(paths, tmp_path):
    content = encoded(photo(0, 300, 20), "JPEG")
    (tmp_path / "cut.jpg").write_bytes(content[: len(content) // 2])
    assert size_of(paths[1]) == (200, 100)
    assert size_of(content) == size_of({"bytes": content, "path": None}) == (300, 20)
    assert size_of({"bytes": None, "path": paths[0]}) == (64, 48)
    assert size_of(str(tmp_path / "cut.jpg")) == (300, 20)
    assert size_of(photo(0, 7, 9)) == (7, 9)
    assert size_of("https://example.org/a.jpg") == picture_stream_aesthetics.UNKNOWN_SIZE
    assert {size_of(source) for source in ("missing.jpg", b"broken", np.zeros((2, 2)), None, str(tmp_path))} == {
        (0, 0)
    }


def test_no_worker_is_left_behind(paths):
    stream = batches(iter(paths * 20), PicturePreparation(Widths()), 2, 2)
    next(stream)
    stream.close()
    assert not multiprocessing.active_children()


@pytest.mark.parametrize(("seconds", "sizes"), [(0.0, [4, 4, 2]), (0.3, [4, 4, 2]), (0.6, [3, 3, 3, 1]), (2, [2] * 5)])
def test_sources_that_come_slowly_do_not_wait_for_a_full_window(monkeypatch, seconds, sizes):
    clock = [0.0]
    monkeypatch.setattr(picture_stream_aesthetics.time, "monotonic", lambda: clock[0])

    def slowly():
        for name in "abcdefghij":
            clock[0] += seconds
            yield name

    under_way: dict = {}
    found = list(windows(slowly(), 4, under_way))
    assert [len(window) for window in found] == sizes
    assert [name for window in found for _, name in window] == list("abcdefghij") == list(under_way.values())
