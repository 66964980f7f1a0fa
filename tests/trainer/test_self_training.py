"""Picking pictures that a scorer is sure of, and rounds from Python; the command is in test_cli_self_training.py."""

import json
import os
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from tiny import photo
from tiny_training import ATTRIBUTES, eat_parts, rows, trainer
from transformers import TrainerCallback

from roc4mllm.datasets_scripts.split_guard import PictureSet
from roc4mllm.trainer.rating_data import read_ratings
from roc4mllm.trainer.self_training import (
    count_rows,
    pick_pictures,
    pick_sure,
    self_train,
    write_picked,
)
from roc4mllm.trainer.split_loss_config import SplitLossConfig
from roc4mllm.trainer.unlabelled_pictures import paths_in, read_unlabelled

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
    whole = Path(paths[0]).read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])  # its header is sound
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.png")).write_bytes(whole + b" ")  # fits in no table of text
    found = read_unlabelled(str(tmp_path), None, pictures_in(paths[1:2]), notes)
    assert found == [paths[0], *paths[2:]]
    assert notes[0] == "1 of the unlabelled pictures are rated, and left out there"
    assert notes[1].startswith("3 unlabelled pictures cannot be used, the first: ")
    with pytest.raises(ValueError, match="none of 7 pictures can be read and has no rating"):
        read_unlabelled(str(tmp_path), None, pictures_in(paths), [])


# ---- rounds ---------------------------------------------------------------------------------------------------------


class Ends(TrainerCallback):
    """Counts trainings that ended."""

    count = 0

    def on_train_end(self, *args, **kwargs):
        self.count += 1


def test_rounds_are_options_of_the_trainer(tmp_path, pictures_of):
    assert SplitLossConfig().self_training == 0  # off unless asked for
    model, images = eat_parts(attributes=ATTRIBUTES)
    ends = Ends()
    first = trainer(
        tmp_path / "out", model=model, processor=images, callbacks=[ends], max_steps=1, loss_preset="emd",
        self_training=2, sharpening=50.0, pick_threshold=0.4, train_dataset=rows(8), eval_dataset=rows(4),
    )  # fmt: skip
    first.trained_on = pictures_in([])
    first.train()
    before = [weight.clone() for weight in model.parameters()]
    paths, said = pictures_of(5), []
    last, metrics = self_train(first, paths, say=said.append)
    picked = count_rows(tmp_path / "out" / "round-2" / "picked.csv")
    assert picked > 0
    assert len(last.train_dataset) == 8 + picked
    assert (ends.count, last.args.output_dir) == (3, str(tmp_path / "out" / "round-2"))
    assert metrics["eval_loss"] > 0
    assert len(last.trained_on.contents) >= picked
    assert last.model is model
    assert any(not torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    assert said[-1].startswith("after round 2: ")
    assert len(first.train_dataset) == 8


def test_a_head_of_one_value_has_no_rounds(tmp_path, pictures_of):
    model, images = eat_parts(num_levels=1)
    one = trainer(tmp_path, model=model, processor=images, self_training=1, loss_preset="paper")
    with pytest.raises(ValueError, match="a head of one value has none"):
        self_train(one, pictures_of(1))
