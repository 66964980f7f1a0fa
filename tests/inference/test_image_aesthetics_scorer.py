"""The scorer inside data frameworks gives the rows of `roc4mllm score`."""

import pickle

import datasets
import pytest
from pictures import encoded
from tiny import photo, scorer_parts
from torch.utils.data import DataLoader

from roc4mllm import load_scorer
from roc4mllm.inference import ImageAestheticsScorer
from roc4mllm.inference.tables.score_table import make_row

ATTRIBUTES = ("aesthetics", "color")


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("models") / "tiny"
    for part in scorer_parts("llava", ATTRIBUTES, score_range=(1.0, 10.0)):
        part.save_pretrained(folder)
    return str(folder)


@pytest.fixture
def paths(tmp_path) -> list[str]:
    found = []
    for number in range(6):
        path = tmp_path / f"{number}.png"
        path.write_bytes(b"broken" if number == 3 else encoded(photo(number), "PNG"))
        found.append(str(path))
    return found


@pytest.fixture
def expected(model, paths) -> list[dict]:
    rows = [make_row(path, record, ATTRIBUTES) for path, record in zip(paths, load_scorer(model)(paths), strict=True)]
    scores = [row["score"] for row in rows if row["score"] is not None]
    assert max(scores) - min(scores) > 1e-3
    return rows


def assert_same(rows, expected) -> None:
    for row, other in zip(rows, expected, strict=True):
        assert row["path"] == other["path"]
        assert row["error"] == other["error"]
        for name in ("score", "normalized", "std", "color"):
            assert row[name] == (None if other[name] is None else pytest.approx(other[name], abs=1e-4))


def test_a_list_gives_rows(model, paths, expected):
    assert_same(ImageAestheticsScorer(model, batch_size=4)(paths), expected)


@pytest.mark.parametrize("processes", [None, 2])
def test_datasets_map(model, paths, expected, processes):
    table = datasets.Dataset.from_dict({"path": paths, "label": range(6)})
    scorer = ImageAestheticsScorer(model, column="path", alias="aesthetic_score")
    scorer(paths[:1])  # loaded here already: processes that are forked now must still come to an end
    scored = table.with_format("arrow").map(scorer, batched=True, batch_size=3, num_proc=processes).with_format(None)
    assert_same(list(scored), expected)
    assert list(scored["aesthetic_score"]) == list(scored["score"])
    assert list(scored["label"]) == list(range(6))
    assert scored.features["error"].dtype == "string"


def test_a_cascade(model, paths, tmp_path):
    for part in scorer_parts("llava", ("aesthetics",), score_range=(0.0, 1.0)):
        part.save_pretrained(tmp_path / "fast")
    fast = {path: record["score"] for path, record in zip(paths, load_scorer(tmp_path / "fast")(paths), strict=True)}
    scores = sorted(score for score in fast.values() if score is not None)
    band = ((scores[0] + scores[1]) / 2, (scores[2] + scores[3]) / 2)
    scorer = ImageAestheticsScorer(model, column="path", cascade=str(tmp_path / "fast"), band=band)
    scored = (
        datasets.Dataset.from_dict({"path": paths}).with_format("arrow").map(scorer, batched=True).with_format(None)
    )
    for row, record in zip(scored, load_scorer(model)(paths), strict=True):
        alone = fast[row["path"]]
        inside = alone is not None and band[0] <= alone <= band[1]
        assert (row["model"], row["fast_model"]) == ("tiny" if inside else "fast", "fast")
        assert row["fast_score"] == (None if alone is None else pytest.approx(alone, abs=1e-5))
        assert row["score"] == (pytest.approx(record["score"], abs=1e-4) if inside else row["fast_score"])
        assert (row["color"] is None) != inside
    assert list(scored["model"]).count("tiny") == 2
    for wrong in ({"band": band}, {"cascade": "fast"}, {"cascade": "fast", "band": band, "personal": "taste"}):
        with pytest.raises(ValueError, match="cascade= and band= together, and no personal="):
            ImageAestheticsScorer(model, **wrong)


def test_a_dict_of_lists(model, paths, expected):
    batch = ImageAestheticsScorer(model, column="path")({"path": paths, "label": range(6)})
    assert_same([dict(zip(batch, values, strict=True)) for values in zip(*batch.values(), strict=True)], expected)


def test_datasets_of_pictures(model, paths, expected):
    good = [path for path in paths if "3.png" not in path]
    table = datasets.Dataset.from_dict({"image": good}).cast_column("image", datasets.Image())
    scored = table.with_format("arrow").map(ImageAestheticsScorer(model), batched=True).with_format(None)
    assert isinstance(scored.features["image"], datasets.Image)
    assert list(scored["score"]) == pytest.approx([row["score"] for row in expected if row["score"]], abs=1e-4)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_torch_data_loader(model, paths, expected, num_workers):
    loader = DataLoader(paths, batch_size=4, collate_fn=ImageAestheticsScorer(model), num_workers=num_workers)
    assert_same([row for batch in loader for row in batch], expected)


def test_it_travels_without_its_weights(model, paths):
    scorer = ImageAestheticsScorer(model)
    scorer(paths[:1])
    assert len(pickle.dumps(scorer)) < 1000
    assert pickle.loads(pickle.dumps(scorer))(paths[:1])[0]["score"] == scorer(paths[:1])[0]["score"]


def test_a_column_that_is_not_there_or_taken(model, paths):
    scorer = ImageAestheticsScorer(model)
    with pytest.raises(ValueError, match="no column 'image'; it has path: say column="):
        scorer({"path": paths})
    with pytest.raises(ValueError, match="has columns score already"):
        scorer({"image": paths, "score": [1.0] * 6})


def test_what_is_no_batch(model, paths):
    scorer = ImageAestheticsScorer(model)
    with pytest.raises(TypeError, match=r"one str in 'image'; pass batches \(batched=True\)"):
        scorer({"image": paths[0]})
    with pytest.raises(TypeError, match="one Image in 'image'"):
        scorer({"image": photo(1)})
    with pytest.raises(TypeError, match="one str in place of a list"):
        scorer(paths[0])


def test_attributes_and_their_order(model, paths):
    scorer = ImageAestheticsScorer(model, attributes=["color"])
    batch = scorer({"image": paths[:2]})
    assert "aesthetics" not in batch
    alone = load_scorer(model)(paths[:2], attributes=["color"])
    assert list(batch["score"]) == pytest.approx([record["score"] for record in alone], abs=1e-4)
