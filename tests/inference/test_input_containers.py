"""Tar shards, Parquet files and data sets give their pictures, and say where they break off."""

import gzip
import json
import tarfile
import zipfile
from pathlib import Path

import datasets
import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pictures import encoded
from shards import make_tar
from tiny import photo, shared_parts

from roc4mllm import load_scorer
from roc4mllm.inference.bulk_scoring import score_inputs
from roc4mllm.inference.inputs.containers import NO_ROW, row_input
from roc4mllm.inference.inputs.dataset_inputs import DatasetInputs, file_input
from roc4mllm.inference.inputs.expansion import count_inputs, expand_inputs
from roc4mllm.inference.inputs.picture_input import PictureInput
from roc4mllm.inference.inputs.stores import StoredFile
from roc4mllm.processing_roc4mllm import image_reading_aesthetics

CONTENTS = {f"{number}.png": encoded(photo(number), "PNG") for number in range(5)}


@pytest.fixture(scope="module")
def scorer():
    model, processor = shared_parts("llava")
    return load_scorer(model, processor=processor)


@pytest.fixture(scope="module")
def expected(scorer) -> list[float]:
    scores = [record["score"] for record in scorer(list(CONTENTS.values()))]
    assert max(scores) - min(scores) > 1e-3
    return scores


def scored(scorer, *paths: str, **options) -> list[tuple[str, float | None, str | None]]:
    found = score_inputs(scorer, expand_inputs(paths), **options)
    return [(item.path, record["score"], record["error"]) for item, record in found]


@pytest.mark.parametrize(("ending", "mode"), [("tar", "w"), ("tar.gz", "w:gz"), ("tgz", "w:gz"), ("tar.xz", "w:xz")])
@pytest.mark.parametrize("num_workers", [0, 2])
def test_tar_shards(scorer, expected, tmp_path, ending, mode, num_workers):
    """As WebDataset writes them: text and labels beside the pictures of one key."""
    members = {}
    for name, content in CONTENTS.items():
        members |= {name: content, f"{name[:-4]}.json": b"{}", f"{name[:-4]}.txt": b"a picture"}
    shard = make_tar(tmp_path / f"shard.{ending}", members, mode)
    found = scored(scorer, shard, batch_size=2, num_workers=num_workers)
    assert [path for path, _, _ in found] == [f"{shard}/{name}" for name in CONTENTS]
    assert [score for _, score, _ in found] == pytest.approx(expected, abs=1e-5)
    assert count_inputs([shard]) == (5 if ending == "tar" else None)


def test_members_that_lead_elsewhere_are_only_names(scorer, expected, tmp_path):
    shard = make_tar(tmp_path / "s.tar", {"../../a.png": CONTENTS["0.png"], "/etc/b.png": CONTENTS["1.png"]})
    with tarfile.open(shard, "a") as archive:
        link = tarfile.TarInfo("c.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    *found, linked = scored(scorer, shard)
    assert [path for path, _, _ in found] == [f"{shard}/../../a.png", f"{shard}//etc/b.png"]
    assert [score for _, score, _ in found] == pytest.approx(expected[:2], abs=1e-5)
    assert linked == (f"{shard}/c.png", None, "a link to '/etc/passwd', not followed")


def test_a_broken_picture_in_a_shard_is_one_row(scorer, tmp_path):
    shard = make_tar(tmp_path / "s.tar", {"a.png": CONTENTS["0.png"], "b.png": b"broken", "c.png": b""})
    (_, first, _), (_, none, why), (_, _, empty) = scored(scorer, shard, batch_size=3)
    assert first is not None
    assert none is None
    assert "not a picture" in why
    assert empty == "the file is empty"


@pytest.mark.parametrize("ending", ["tar", "tar.gz"])
def test_a_shard_that_breaks_off_says_so(scorer, tmp_path, ending):
    shard = make_tar(tmp_path / f"s.{ending}", CONTENTS, "w" if ending == "tar" else "w:gz")
    whole = Path(shard).read_bytes()
    Path(shard).write_bytes(whole[: len(whole) // 2])
    *found, last = scored(scorer, shard)
    assert 1 <= len([score for _, score, _ in found if score is not None]) < 5
    assert last[0] == shard
    assert "the archive breaks off after" in last[2]


@pytest.mark.parametrize("damage", ["bit", "cut at a header", "cut in a header", "no end"])
@pytest.mark.parametrize("ending", ["tar", "tar.gz"])
def test_a_damaged_header_loses_no_picture_in_silence(tmp_path, ending, damage):
    """`tarfile` takes a damaged header for the end."""
    plain = bytearray(Path(make_tar(tmp_path / "plain.tar", CONTENTS)).read_bytes())
    with tarfile.open(tmp_path / "plain.tar") as archive:
        third, last = archive.getmembers()[2], archive.getmembers()[4]
    if damage == "bit":
        plain[third.offset + 3] ^= 1
    else:
        end = last.offset_data + (last.size + 511) // 512 * 512
        del plain[{"cut at a header": third.offset, "cut in a header": third.offset + 200}.get(damage, end) :]
    shard = tmp_path / f"s.{ending}"
    shard.write_bytes(gzip.compress(plain) if ending == "tar.gz" else plain)
    *found, broken = expand_inputs([str(shard)])
    assert len(found) == (5 if damage == "no end" else 2)
    assert broken.path == str(shard)
    assert f"the archive breaks off after {len(found)} pictures" in broken.error


def test_a_shard_without_pictures_and_one_that_is_none(tmp_path):
    (empty,) = expand_inputs([make_tar(tmp_path / "e.tar", {"a.txt": b"text"})])
    assert "the archive holds no picture" in empty.error
    (tmp_path / "n.tar").write_bytes(b"no archive")
    (none,) = expand_inputs([str(tmp_path / "n.tar")])
    assert "breaks off after 0 pictures" in none.error


@pytest.mark.parametrize("ending", ["tar", "tar.gz"])
def test_a_member_beyond_the_limit_is_refused_unread(scorer, tmp_path, monkeypatch, ending):
    monkeypatch.setattr(image_reading_aesthetics, "MAX_BYTES", 1000)
    shard = make_tar(tmp_path / f"s.{ending}", {"a.png": bytes(5000)}, "w" if ending == "tar" else "w:gz")
    ((_, score, error),) = scored(scorer, shard)
    assert score is None
    assert error.startswith("too large: 5000 bytes")


# Parquet -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("as_struct", [True, False])
@pytest.mark.parametrize("num_workers", [0, 2])
def test_parquet_with_bytes(scorer, expected, tmp_path, as_struct, num_workers):
    cells = [{"bytes": content, "path": name} if as_struct else content for name, content in CONTENTS.items()]
    path = str(tmp_path / "p.parquet")
    pq.write_table(pa.table({"label": range(6), "image": [*cells, None], "id": [*"abcde", None]}), path)
    found = scored(scorer, path, batch_size=2, num_workers=num_workers)
    names = list(CONTENTS) if as_struct else list("abcde")
    assert [name for name, _, _ in found] == [*(f"{path}#{row}/{name}" for row, name in enumerate(names)), f"{path}#5"]
    assert [score for _, score, _ in found[:5]] == pytest.approx(expected, abs=1e-5)
    assert found[5][1:] == (None, "this row holds no picture")
    assert count_inputs([path]) == 6


def test_parquet_without_pictures_says_what_it_holds(tmp_path):
    pq.write_table(pa.table({"path": ["a.jpg"], "score": [1.0]}), tmp_path / "p.parquet")
    (found,) = expand_inputs([str(tmp_path / "p.parquet")])
    assert "expected a column of picture bytes" in found.error
    assert "path, score" in found.error
    (tmp_path / "q.parquet").write_bytes(b"PAR1")
    (found,) = expand_inputs([str(tmp_path / "q.parquet")])
    assert found.error
    assert count_inputs([str(tmp_path / "*.parquet")]) == 2


def test_parquet_without_rows_is_one_row(tmp_path):
    path = str(tmp_path / "p.parquet")
    pq.write_table(pa.table({"image": pa.array([], pa.binary())}), path)
    assert [*expand_inputs([path])] == [*expand_inputs([path], by_place=True)] == [PictureInput(path, NO_ROW)]
    assert count_inputs([path]) == 1


def test_parquet_cannot_point_to_a_file(tmp_path):
    """Text under `bytes` would be read as a path."""
    kind = pa.struct([("bytes", pa.string()), ("path", pa.string())])
    cells = pa.array([{"bytes": "/etc/passwd", "path": "a.jpg"}], kind)
    pq.write_table(pa.table({"image": cells}), tmp_path / "p.parquet")
    (found,) = expand_inputs([str(tmp_path / "p.parquet")])
    assert "expected a column of picture bytes" in found.error


@pytest.mark.parametrize(
    ("image", "names", "name"),
    [
        (pa.array([b"x"], pa.binary_view()), {"name": pa.array([b"a.jpg"])}, "/a.jpg"),
        (pa.array([b"x"], pa.binary(1)), {"id": [7]}, "/7"),
        (pa.array([b"x"]), {"key": pa.array([2**62], pa.timestamp("us"))}, ""),
        (pa.array([{"bytes": b"x", "path": 5}]), {}, "/5"),
    ],
    ids=["bytes", "number", "time", "number inside"],
)
def test_names_and_bytes_of_any_type(tmp_path, image, names, name):
    path = str(tmp_path / "p.parquet")
    pq.write_table(pa.table({"image": image, **names}), path)
    assert [*expand_inputs([path])] == [PictureInput(f"{path}#0{name}", content=b"x")]


def test_a_folder_of_shards_says_how_to_name_them(tmp_path):
    make_tar(tmp_path / "a.tar", CONTENTS)
    (found,) = expand_inputs([str(tmp_path)])
    assert "name its 1 tar or Parquet files" in found.error
    assert len(list(expand_inputs([str(tmp_path / "*.tar")]))) == 5


# Data sets -----------------------------------------------------------------------------------------------------------


def test_a_data_set(scorer, expected, tmp_path):
    """A folder as `datasets` reads it; a name on the Hub goes the same way."""
    for split in ("train", "test"):
        (tmp_path / "set" / split).mkdir(parents=True)
        for name, content in CONTENTS.items():
            (tmp_path / "set" / split / name).write_bytes(content)
    name = str(tmp_path / "set")
    found = list(score_inputs(scorer, DatasetInputs(name, "test"), batch_size=2))
    assert [item.path.split("#")[0] for item, _ in found] == [f"{name}/test"] * 5
    assert [Path(item.path).name for item, _ in found] == list(CONTENTS)
    assert [record["score"] for _, record in found] == pytest.approx(expected, abs=1e-5)
    with pytest.raises(ValueError, match="has the splits .*train.*; name one with --split"):
        DatasetInputs(name)


CARD = """---
dataset_info:
- config_name: small
  features: [{name: image, dtype: image}]
  splits: [{name: test, num_bytes: 100, num_examples: 2}]
configs:
- {config_name: small, data_files: [{split: test, path: small/*.parquet}]}
- {config_name: large, data_files: [{split: test, path: large/*.parquet}]}
---
"""


def test_a_data_set_with_configs(tmp_path):
    (tmp_path / "README.md").write_text(CARD)
    for config, count in (("small", 2), ("large", 4)):
        (tmp_path / config).mkdir()
        cells = [{"bytes": content, "path": name} for name, content in list(CONTENTS.items())[:count]]
        features = json.dumps({"info": {"features": {"image": {"_type": "Image"}}}})
        table = pa.table({"image": cells}).replace_schema_metadata({"huggingface": features})
        pq.write_table(table, tmp_path / config / "test.parquet")
    small, large = (DatasetInputs(str(tmp_path), config=config) for config in ("small", "large"))
    assert (small.count, large.count) == (2, None)  # only one of them says how many
    for config, found in (("small", [*small]), ("large", [*large])):
        names = list(CONTENTS)[: len(found)]
        assert [item.path for item in found] == [f"{tmp_path}/{config}/test#{row}/{n}" for row, n in enumerate(names)]
        assert [item.content for item in found] == [CONTENTS[name] for name in names]
    assert (len([*small]), len([*large])) == (2, 4)
    with pytest.raises(ValueError, match=r"'huge' not found. Available: \['small', 'large'\]; name one with --config"):
        DatasetInputs(str(tmp_path), config="huge")


def test_a_data_set_is_asked_for_as_load_dataset_has_it(monkeypatch):
    asked = []

    def load_dataset(*args, **options):
        asked.append((args, options))
        features = datasets.Features({"image": datasets.Image()})
        rows = datasets.IterableDataset.from_generator(lambda: iter([{"image": None}]), features=features)
        rows.info.splits = datasets.SplitDict()
        rows.info.splits.add(datasets.SplitInfo("test", num_examples=7))
        return {"test": rows}

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    found = DatasetInputs("user/set", "test", "large", "v2")
    assert asked == [(("user/set", "large"), {"revision": "v2", "streaming": True})]
    assert found.count == 7
    assert [item.path for item in found] == ["user/set@v2/large/test#0"]


def test_a_file_on_another_file_system(scorer, expected):
    """As a streamed data set of the Hub points to its pictures."""
    with fsspec.open("memory://pictures/a.png", "wb") as file:
        file.write(CONTENTS["1.png"])
    inputs = [PictureInput("set#0", content=StoredFile(f"memory://pictures/{name}.png")) for name in ("a", "missing")]
    inputs.append(PictureInput("set#2", content=StoredFile("nosuchprotocol://a.png")))
    found = [record for _, record in score_inputs(scorer, inputs)]
    assert found[0]["score"] == pytest.approx(expected[1], abs=1e-5)
    assert "missing.png" in found[1]["error"]
    assert "nosuchprotocol" in found[2]["error"]


def test_a_zipped_data_set(scorer, expected, tmp_path):
    """As most repositories of pictures on the Hub are."""
    (tmp_path / "set").mkdir()
    with zipfile.ZipFile(tmp_path / "set" / "train.zip", "w") as archive:
        for name, content in CONTENTS.items():
            archive.writestr(name, content)
    name = str(tmp_path / "set")
    found = list(score_inputs(scorer, DatasetInputs(name), batch_size=2))
    assert [Path(item.path).name for item, _ in found] == list(CONTENTS)
    assert [record["score"] for _, record in found] == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(
    "path",
    ["zip://a.png::/etc/a.zip", "/etc/hostname", "https://127.0.0.1/a.png", "file:///etc/hostname", "set/../a.png"],
)
def test_a_data_set_cannot_point_elsewhere(tmp_path, path):
    assert "outside of itself" in file_input("set#0/a.png", path, str(tmp_path)).error
    assert row_input("p.parquet#0", {"bytes": None, "path": path}, None).error == "this row holds no picture"
    inside = str(tmp_path / "train" / "a.png")
    assert file_input("set#0/a.png", inside, str(tmp_path)).content == inside
    assert file_input("set#0/a.png", "hf://datasets/a/b/a.png", "a/b").content == StoredFile("hf://datasets/a/b/a.png")
