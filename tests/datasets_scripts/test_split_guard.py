"""Whether a test holds pictures of the training: by name, by content, across data sets; what travels with a model."""

import io
import json

import datasets
import numpy as np
import pytest
from PIL import Image
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from roc4mllm import read_ratings
from roc4mllm.datasets_scripts.generic_csv import generic_csv
from roc4mllm.datasets_scripts.split_guard import (
    EDGE_BYTES,
    GUARD_FILE,
    LeakError,
    PictureSet,
    check_leak,
    content_hash,
    name_hash,
    picture_name,
)


def rows(*images, source="mine", protocol="mine-own", split="train"):
    """Rows as `read_ratings` gives them: `(id, bytes)` each."""
    columns = {"source": source, "split_protocol": protocol, "split": split}
    return [
        {"image": {"bytes": data, "path": None}, "columns": {**columns, "image_id": image_id}}
        for image_id, data in images
    ]


def pictures(*names, content="other", **options):
    return PictureSet.of(rows(*((name, f"{content} {name}".encode()) for name in names), **options))


TRAINING = PictureSet.of(rows(("a/1.jpg", b"one"), ("2.jpg", b"two"), ("3.jpg", b"three")))


@pytest.mark.parametrize("name", ["1.jpg", "1", "b/1.PNG", "deep/folder/1.jpeg", "b\\1.jpg", " 1.jpg "])
def test_names_without_folders_tell_pictures_of_a_known_data_set(name):
    training = pictures("a/1.jpg", "2.jpg", source="baid", content="training")
    assert training.overlap(pictures(name, source="baid")).shared == 1
    for source in ("spaq", "mine", "csv", None):
        assert training.overlap(pictures(name, source=source)).shared == 0


def test_in_a_table_of_ones_own_folders_belong_to_the_name():
    assert TRAINING.overlap(pictures("a/1.png")).shared == 1
    assert TRAINING.overlap(pictures("b/1.jpg")).shared == 0
    unnamed = pictures("1.jpg", source="csv", content="training")
    assert unnamed.overlap(pictures("1.jpg", source="csv")).shared == 0  # two tables of IMG_0001


@pytest.mark.parametrize("name", [954184, 954184.0])
def test_names_that_are_numbers(name):
    assert pictures("954184.jpg", source="ava").overlap(pictures(name, source="ava", content="test")).shared == 1
    zero = pictures(0, source="ava", content="test")
    assert pictures("0", source="ava").overlap(zero).first == ("0",)
    nameless = [pictures(float("nan"), source="ava", content=content) for content in ("a", "b")]
    assert not nameless[0].overlap(nameless[1])


def test_names_are_compared_in_one_form():
    assert picture_name("CAFE\u0301.jpg") == picture_name("Caf\u00e9.png") == "caf\u00e9"
    assert picture_name("1.5.jpg") == "1.5"
    assert name_hash("01.jpg", "mine") != name_hash("1.jpg", "mine")


def test_a_copy_under_another_name_is_found_by_its_content():
    assert TRAINING.overlap(PictureSet.of(rows(("renamed.jpg", b"two"), source=None))).shared == 1
    assert TRAINING.overlap(PictureSet.of(rows(("renamed.jpg", b"two!"), source=None))).shared == 0


def test_a_picture_that_was_encoded_anew_is_found_by_its_name():
    picture = Image.effect_noise((64, 64), 80)
    encoded = []
    for quality in (95, 60):
        picture.save(buffer := io.BytesIO(), "JPEG", quality=quality)
        encoded.append(buffer.getvalue())
    assert content_hash({"bytes": encoded[0], "path": None}) != content_hash({"bytes": encoded[1], "path": None})
    training, test = (PictureSet.of(rows(("7.jpg", data))) for data in encoded)
    assert training.overlap(test).shared == 1


def test_data_sets_that_drew_from_one_pool_share_names():
    ava = pictures("71", "72", source="ava", content="ava")
    assert ava.overlap(pictures("71.jpg", source="eva")).shared == 1
    assert ava.overlap(pictures("71.jpg", source="baid")).shared == 0  # also numbers, of other pictures
    icaa = pictures("complementary/red/user123.jpg", source="icaa17k", content="17k")
    assert icaa.overlap(pictures("monochromatic/red/user123.jpg", source="icaa20k")).shared == 1
    assert icaa.overlap(pictures("user123.jpg", source="tad66k")).shared == 1


def test_a_file_and_the_same_bytes_in_a_data_set_are_one_picture(tmp_path):
    for size in (0, 10, EDGE_BYTES - 1, EDGE_BYTES, 3 * EDGE_BYTES):
        data = np.random.default_rng(size).bytes(size)
        (tmp_path / "a.jpg").write_bytes(data)
        assert content_hash(str(tmp_path / "a.jpg")) == content_hash({"bytes": data, "path": None}) != 0
    assert content_hash({"bytes": None, "path": str(tmp_path / "a.jpg")}) == content_hash(str(tmp_path / "a.jpg"))
    assert content_hash(str(tmp_path / "gone.jpg")) == 0


def test_pictures_that_cannot_be_read_are_not_the_same_picture(tmp_path):
    missing = [{"image": str(tmp_path / name), "columns": {}} for name in ("a.jpg", "b.jpg")]
    assert PictureSet.of(missing[:1]).overlap(PictureSet.of(missing[1:])).shared == 0


def test_a_leak_is_an_error_that_counts():
    test = pictures("a/1.jpg", "2.jpg", "9.jpg", split="test", protocol="mine-other")
    with pytest.raises(LeakError, match="2 of 3 test pictures were trained on") as error:
        check_leak(TRAINING, test)
    assert "trained: mine-own/train; test: mine-other/test" in str(error.value)
    assert "the first: 1.jpg, 2.jpg" in str(error.value)
    assert error.value.overlap.shared == 2
    allowed = check_leak(TRAINING, test, allow_leak=True)
    assert (bool(allowed), allowed.shared, allowed.pictures) == (True, 2, 3)
    assert not check_leak(TRAINING, pictures("8.jpg", split="test"))


def test_what_travels_with_a_model(tmp_path):
    TRAINING.save(tmp_path)
    loaded = PictureSet.load(tmp_path)
    assert loaded.digest() == TRAINING.digest()
    assert loaded.protocols == ("mine-own/train",)
    assert loaded.overlap(pictures("2.jpg", "5.jpg")).shared == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == [GUARD_FILE]
    assert b"1.jpg" not in (tmp_path / GUARD_FILE).read_bytes()  # hashes, no names


def test_what_a_card_needs_stands_in_the_header(tmp_path):
    trained = pictures("1.jpg", source="eva") | TRAINING | PictureSet.empty(unknown=["user/model"])
    trained.save(tmp_path)
    with safe_open(tmp_path / GUARD_FILE, framework="numpy") as file:
        eva, mine = json.loads(file.metadata()["data"])
    assert (eva["name"], eva["title"], mine) == ("eva", "EVA", {"name": "mine"})
    assert "CC0" in eva["terms"]
    assert "ATQAM" in eva["citation"]
    loaded = PictureSet.load(tmp_path)
    assert (loaded.sources, loaded.unknown) == (("eva", "mine"), ("user/model",))
    assert (loaded | loaded).digest() == trained.digest()


def test_a_row_without_a_name_has_no_hash_of_one():
    nameless = [rows((None, data))[0] for data in (b"one", b"other")]
    assert PictureSet.of(nameless[:1]).overlap(PictureSet.of(nameless[1:])).shared == 0


def test_eight_bytes_for_each_hash_whatever_the_order(tmp_path):
    names = [f"{i}.jpg" for i in range(1000)]
    pictures(*names).save(tmp_path)
    size = (tmp_path / GUARD_FILE).stat().st_size
    assert 16_000 < size < 16_000 + 500
    assert pictures(*names).digest() == pictures(*reversed(names), *names).digest() != pictures(*names[1:]).digest()


def test_a_model_without_the_file_and_one_with_a_damaged_one(tmp_path):
    assert PictureSet.load(tmp_path) is None
    TRAINING.save(tmp_path)
    tensors = load_file(tmp_path / GUARD_FILE)
    save_file(
        {**tensors, "names": tensors["names"][1:]}, tmp_path / GUARD_FILE, metadata={"protocols": "[]", "digest": "x"}
    )
    with pytest.raises(ValueError, match="is damaged"):
        PictureSet.load(tmp_path)
    (tmp_path / GUARD_FILE).write_bytes(b"no tensors")
    with pytest.raises(ValueError, match="cannot be read, so nothing tells what was trained on"):
        PictureSet.load(tmp_path)


def test_a_model_that_was_trained_on_knows_both():
    both = TRAINING | pictures("4.jpg", protocol="mine-later")
    assert both.overlap(pictures("2.jpg", "4.jpg", "5.jpg")).shared == 2
    assert both.protocols == ("mine-later/train", "mine-own/train")


def test_no_chance_overlap_between_many_names():
    training = PictureSet(*(np.unique([name_hash(f"{side}{i}", "mine") for i in range(20_000)]) for side in "ab"))
    test = pictures(*(f"c{i}" for i in range(5000)))
    assert training.overlap(test).shared == 0


def test_converted_splits_are_apart_and_a_raw_copy_is_found(write, add_pictures, convert, tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    add_pictures([f"{i}.jpg" for i in range(6)])
    lines = [f"{i}.jpg,{i + 1},{'test' if i > 3 else 'train'}" for i in range(6)]
    write({"a.csv": "\n".join(["path,score,split", *lines])})
    folder = convert(generic_csv((1, 10), name="mine")).folder
    training, test = (PictureSet.of(read_ratings(folder, split=split)) for split in ("train", "test"))
    assert (len(training), training.protocols) == (4, ("mine-own/train",))
    assert not check_leak(training, test)
    (tmp_path / "raw" / "images" / "2.jpg").rename(tmp_path / "renamed.jpg")
    (tmp_path / "own.csv").write_text("path,score\nrenamed.jpg,5\n")
    own = read_ratings(tmp_path / "own.csv", score_range=(1, 10))
    with pytest.raises(LeakError, match=r"1 of 1 .* test: data without a protocol\); the first: renamed.jpg"):
        check_leak(training, PictureSet.of(own))
