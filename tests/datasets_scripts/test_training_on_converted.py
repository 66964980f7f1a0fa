"""A converted data set, trained on and evaluated as it is: attributes, ranges, protocols, the guard."""

import json
import re
from pathlib import Path

import datasets
import pytest
from datasets import Dataset
from tiny import backbone, photo
from tiny_training import eat_parts

import roc4mllm_cli
from roc4mllm import read_ratings
from roc4mllm.datasets_scripts.schema import attribute, features, picture_row
from roc4mllm.datasets_scripts.split_guard import GUARD_FILE, PictureSet
from roc4mllm.trainer.rating_checks import RatingError
from roc4mllm.trainer.rating_collator import RatingCollator

SIZES = {"train": 12, "validation": 4, "test": 6}
LISTS = {"train": "TrainRegression", "validation": "ValidationRegression", "test": "TestNewRegression"}


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


@pytest.fixture
def aadb(write, convert, tmp_path) -> Path:
    """Pictures rated from 0 to 1, their light from -1 to 1, their color for every other one."""
    files, number = {}, 0
    for split, size in SIZES.items():
        for ending in ("score", "Light", "VividColor"):
            files[f"imgListFiles_label/imgList{LISTS[split]}_{ending}.txt"] = ""
        for index in range(size):
            name, light = f"farm{number}_b.jpg", -1 + 2 * index / (size - 1)
            lists = {"score": (light + 1) / 2, "Light": light} | ({"VividColor": -light} if index % 2 else {})
            for ending, value in lists.items():
                files[f"imgListFiles_label/imgList{LISTS[split]}_{ending}.txt"] += f"{name} {value:.3f}\n"
            folder = tmp_path / "raw" / "datasetImages_originalSize"
            folder.mkdir(parents=True, exist_ok=True)
            photo(number).save(folder / name, quality=95)
            number += 1
    write(files)
    return convert("aadb", out="aadb").folder


def table(*rows, protocol="own-random"):
    """A data set as converters write it, of pictures that differ."""
    for number, row in enumerate(rows):
        photo(number).save(path := Path(datasets.config.HF_DATASETS_CACHE).parent / f"{number}.png")
        row.update(image=str(path), source="own", split_protocol=protocol)
    return Dataset.from_list(list(rows), features=features())


def command(*arguments) -> int:
    return roc4mllm_cli.main(list(map(str, arguments)))


def test_train_and_evaluate_read_it_as_it_is(aadb, tmp_path, capsys):
    model, processor = backbone("llava")
    for part in (model, processor):
        part.save_pretrained(tmp_path / "backbone")
    out = tmp_path / "scorer"
    flags = ["--data", aadb, "--split", "train", "--eval-data", aadb, "--eval-split", "validation", "-o", out]
    flags += ["-m", tmp_path / "backbone", "--num-levels", 5, "--batch-size", 4, "--max-steps", 2]
    assert command("train", *flags, "--attributes", "aesthetics,light,vivid_color") == 0
    said = capsys.readouterr().out
    assert "  split: aadb-official/train" in said
    assert re.search(r"light: 12 scores from -1 to 1, mean \S+, range -1 to 1 \(as the file declares\)", said)
    assert "vivid_color: 6 scores" in said
    assert "aesthetics: 12 scores from 0 to 1, mean 0.5, range 0 to 1 (as the file declares)" in said
    assert "on 4 pictures (aadb-official/validation), not trained on: SRCC" in said
    config = json.loads((out / "config.json").read_text())
    assert config["score_range"] == [[0.0, 1.0], [-1.0, 1.0], [-1.0, 1.0]]
    assert command("evaluate", out, aadb, "--split", "test", "--bootstraps", 0, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["protocols"] == ["aadb-official/test"]
    assert (told["overlap"]["shared"], told["overlap"]["pictures"]) == (0, 6)
    assert "the model was trained on none of these pictures (aadb-official/train)" in told["notes"]
    found = {name: (result["n"], result["score_range"]) for name, result in told["attributes"].items()}
    assert found == {"aesthetics": (6, [0, 1]), "light": (6, [-1, 1]), "vivid_color": (3, [-1, 1])}
    assert command("evaluate", out, aadb, "--split", "test", "--bootstraps", 0) == 0
    assert "data aadb, split test (aadb-official/test): 6 pictures" in capsys.readouterr().out.replace(
        str(aadb), "aadb"
    )
    assert command("evaluate", out, aadb, "--split", "train") == 2
    error = capsys.readouterr().err
    assert "12 of 12 test pictures were trained on (trained: aadb-official/train; test: aadb-official/train)" in error
    assert "--allow-leak" in error


def test_a_picture_scorer_learns_its_attributes_each_in_its_range(aadb, tmp_path, capsys):
    out = tmp_path / "scorer"
    model, images = eat_parts(num_levels=5, attributes=["aesthetics", "light"], score_range=[(0, 1), (-1, 1)])
    for part in (model, images):
        part.save_pretrained(tmp_path / "eat")
    flags = ["--data", aadb, "--split", "train", "--eval-share", 0, "-m", tmp_path / "eat", "-o", out]
    assert command("train", *flags, "--max-steps", 1) == 0
    assert PictureSet.load(out).unknown == ("eat",)  # nothing tells what it had been trained on before
    assert PictureSet.load(out).sources == ("aadb",)
    model.config.score_range = [(0, 1), (0, 1)]
    model.save_pretrained(tmp_path / "eat")
    capsys.readouterr()
    assert command("train", *flags[:-1], tmp_path / "other", "--max-steps", 1) == 2
    assert (
        "declare scores of light from -1 to 1; the score_range given, or that of the scorer, is 0 to 1"
        in capsys.readouterr().err
    )
    assert not (tmp_path / "other" / GUARD_FILE).exists()


def test_attributes_that_are_not_asked_for_are_named_and_cost_nothing(aadb):
    rated = read_ratings(aadb, split="train")
    assert (rated.attributes, rated.score_range, rated.range_guessed) == (["aesthetics"], (0, 1), False)
    assert rated.also_rated == ["light", "vivid_color"]
    assert "also rated, for attributes: light,vivid_color" in rated.summary()
    assert not [name for name in rated.columns if name.startswith(("light", "vivid", "attributes"))]
    assert rated[0]["columns"]["split_protocol"] == "aadb-official"
    with pytest.raises(ValueError, match="No column for the attribute 'depth'"):
        read_ratings(aadb, split="train", attributes=["aesthetics", "depth"])


def test_votes_of_other_numbers_of_levels_keep_their_mean_beside_the_main_ones():
    nine, five, three = [0, 0, 4, 0, 2, 0, 0, 0, 2], [1, 0, 2, 0, 1], [3, 0, 1]
    rows = [
        picture_row("a", split="train", score_range=(1, 5), votes=nine, attributes=[
            attribute("light", None, (1, 5), votes=five), attribute("difficulty", None, (-1, 1), votes=three),
            attribute("quality", 3.5, (1, 5), std=0.5), attribute("ease", None, (1, 5), votes=[0, 2, 2, *[0] * 5, 2]),
        ]),
        picture_row("b", split="train", score_range=(1, 5), votes=nine[::-1]),
    ]  # fmt: skip
    names = ["aesthetics", "light", "difficulty", "quality"]
    rated = read_ratings(table(*rows), attributes=names)
    assert rated.score_range == [(1, 5), (1, 5), (-1, 1), (1, 5)]
    first, second = rated
    assert first["votes"]["aesthetics"] == nine
    assert first["votes"]["light"] == [1, 0, 0, 0, 2, 0, 0, 0, 1]
    assert first["votes"]["difficulty"] == [3, 0, 0, 0, 0, 0, 0, 0, 1]
    assert first["scores"] == pytest.approx({"aesthetics": 3, "light": 3, "difficulty": -0.5, "quality": 3.5})
    assert (first["stds"]["quality"], set(second["scores"])) == (0.5, {"aesthetics"})
    uneven = read_ratings(table(rows[0]), attributes=["light", "ease"])[0]["votes"]  # nine levels on five
    assert (uneven["light"], uneven["ease"]) == (five, [1, 3, 0, 0, 2])
    four = read_ratings(table(rows[0]), attributes=["difficulty", "light"])[0]
    assert (len(four["votes"]["light"]), four["scores"]["light"]) == (3, 3.0)


def test_the_distribution_stands_in_where_votes_are_unknown_and_agrees():
    shares = [0.1, 0.2, 0.4, 0.2, 0.1]
    rows = [
        picture_row("a", split="train", score_range=(1, 5), score=3.0, distribution=shares),
        picture_row("b", split="train", score_range=(1, 5), distribution=shares[::-1]),
        picture_row("c", split="train", score_range=(1, 5), votes=[1, 0, 0, 0, 1]),
        picture_row("d", split="train", score_range=(1, 5), score=4.5, distribution=shares),  # of another scale
    ]
    rated = read_ratings(table(*rows))
    assert [row["votes"].get("aesthetics") for row in rated] == [shares, shares, [1, 0, 0, 0, 1], None]
    assert [row["scores"]["aesthetics"] for row in rated] == pytest.approx([3, 3, 3, 4.5])


def test_rows_without_a_main_score_comments_and_ratings_of_several_people():
    light = [attribute("light", 0.25, (-1, 1))]
    rows = [
        picture_row("a", split="train", score_range=(0, 10), attributes=light, comments=["calm", "too dark"]),
        *(picture_row("b", split="train", score_range=(0, 10), score=score, num_ratings=1, rater_id=rater)
          for rater, score in (("A1", 2.0), ("A2", 7.0))),
    ]  # fmt: skip
    data = table(*rows)
    data = data.select([0, 1, 2, 2])
    rated = read_ratings(data, attributes=["aesthetics", "light"])
    assert [row["scores"] for row in rated] == [
        {"light": 0.25},
        {"aesthetics": 2},
        {"aesthetics": 7},
        {"aesthetics": 7},
    ]
    assert [row["columns"]["rater_id"] for row in rated] == [None, "A1", "A2", "A2"]
    assert rated[0]["comment"] == "calm"
    assert rated.warnings == ["duplicates: 2 rows show 1 pictures between them"]
    assert PictureSet.of(rated.outlines()).digest() == PictureSet.of(rated).digest()
    with pytest.raises(RatingError, match=r"row 1: no score \(score is None\)"):
        read_ratings(data.remove_columns("comments"))


def test_a_batch_has_each_attribute_in_its_own_units(aadb):
    rated = read_ratings(aadb, split="train", attributes=["aesthetics", "light"])
    model, images = eat_parts(num_levels=5, attributes=rated.attributes, score_range=rated.score_range)
    batch = RatingCollator(images, model.config)([rated[0], rated[11] | {"stds": {"light": 0.5}}])
    assert batch["scores"].tolist() == [[0, -1], [1, 1]]
    output = model(**batch)
    assert output.scores[:, 0].min() >= 0
    assert batch["votes"][1, 1].argmax() == 4  # the Gaussian of the light, 1 of -1 to 1
