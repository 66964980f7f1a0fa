"""Picking pictures that a scorer is sure of. Whole rounds are in test_cli_train.py."""

import json
from types import SimpleNamespace

import pytest
import torch
from tiny import photo

from roc4mllm.datasets_scripts.split_guard import PictureSet
from roc4mllm.trainer.rating_data import read_ratings
from roc4mllm.trainer.self_training import (
    count_rows,
    paths_in,
    pick_pictures,
    pick_sure,
    read_unlabelled,
    write_picked,
)

SCORES = torch.tensor([[1.5, 50.0], [3.0, 90.0], [3.0, 50.0], [4.5, 10.0]])
SHARES = torch.tensor([0.2, 0.5, 0.3]).expand(4, 2, 3)
RANGES = [(1.0, 5.0), (0.0, 100.0)]


def test_the_further_from_the_mean_the_surer_for_each_attribute_in_its_own_range():
    picked, largest = pick_sure(SCORES, SHARES, RANGES, sharpening=0.3, threshold=0.6)
    assert picked.T.tolist() == [[True, False, False, True], [False, True, False, True]]
    torch.testing.assert_close(largest[1:3, 0], torch.tensor([0.5, 0.5]))
    logits = SHARES[0, 0].log()
    expected = (logits * torch.tensor(0.3 * 9 * 1.5 / 4).exp()).softmax(-1).max()  # 1.5 of a range of 4, on one of 9
    torch.testing.assert_close(largest[0, 0], expected)
    assert not pick_sure(SCORES, SHARES, RANGES, sharpening=0.0, threshold=0.6)[0].any()


def test_what_was_picked_is_written_unsharpened_and_read_as_ratings(tmp_path, pictures_of):
    paths = pictures_of(4)
    config = SimpleNamespace(attributes=["aesthetics", "light"], score_range=RANGES)
    trainer = SimpleNamespace(
        model=SimpleNamespace(config=config), predict_distributions=lambda pictures: (SCORES[: len(pictures)], SHARES)
    )
    rows, surest = pick_pictures(trainer, paths, sharpening=0.3, threshold=0.6)
    assert [row["path"] for row in rows] == [paths[0], paths[1], paths[3]]
    assert surest == pytest.approx(max(float(row.get("light_sharpened", 0)) for row in rows), abs=1e-5)
    file = tmp_path / "round-1" / "picked.csv"
    write_picked(rows, config.attributes, file)
    assert count_rows(file) == 3
    rated = read_ratings(file, known_attributes=config.attributes, score_range=RANGES, num_levels=3)
    assert [sorted(row["votes"]) for row in rated] == [["aesthetics"], ["light"], ["aesthetics", "light"]]
    assert rated[0]["votes"]["aesthetics"] == pytest.approx([0.2, 0.5, 0.3])
    assert json.loads(rows[0]["aesthetics_votes"]) == SHARES[0, 0].tolist()
    assert rated[0]["scores"]["aesthetics"] == pytest.approx(0.2 * 1 + 0.5 * 3 + 0.3 * 5)
    write_picked([], config.attributes, file)
    assert count_rows(file) == 0


@pytest.fixture
def pictures_of(tmp_path):
    """Makes a number of pictures, and tells their paths."""

    def make(count: int) -> list[str]:
        paths = [tmp_path / f"{index}.png" for index in range(count)]
        for index, path in enumerate(paths):
            photo(index, 16, 16).save(path)
        return list(map(str, paths))

    return make


def test_pictures_come_from_folders_and_tables(tmp_path, pictures_of, monkeypatch):
    paths = pictures_of(3)
    assert list(paths_in(str(tmp_path), None)) == paths
    table = tmp_path / "tables" / "list.csv"
    table.parent.mkdir()
    table.write_text("theme,image\nodd,0.png\neven,2.png\nodd,\n")
    assert list(paths_in(str(table), str(tmp_path))) == [paths[0], paths[2]]
    monkeypatch.chdir(tmp_path)
    assert list(paths_in(str(table), None)) == [paths[0], paths[2]]
    table.write_text("theme\nodd\n")
    with pytest.raises(ValueError, match="list.csv: expected a column of paths, one of path, image"):
        list(paths_in(str(table), None))


def pictures_in(paths: list[str]) -> PictureSet:
    return PictureSet.of({"image": path, "columns": {}} for path in paths)


def test_rated_broken_and_repeated_pictures_are_left_out(tmp_path, pictures_of):
    paths, notes = pictures_of(4), []
    (tmp_path / "broken.png").write_bytes(b"no picture")
    found = read_unlabelled(str(tmp_path), None, pictures_in(paths[1:2]), notes)
    assert found == [paths[0], *paths[2:]]
    assert notes[0] == "1 of the unlabelled pictures are rated, and left out there"
    assert notes[1].startswith("1 unlabelled pictures cannot be read, the first: ")
    with pytest.raises(ValueError, match="none of 5 pictures can be read and has no rating"):
        read_unlabelled(str(tmp_path), None, pictures_in(paths), [])
