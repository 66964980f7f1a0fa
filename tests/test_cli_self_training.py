"""`roc4mllm train --self-training` as a user runs it."""

import csv
import json
import shutil

import pytest
import safetensors.torch
import torch
from tiny import photo
from tiny_training import eat_parts
from train_command import quick, rated_photos, run, untrained_eat

from roc4mllm.datasets_scripts.split_guard import PictureSet


@pytest.fixture
def ratings(tmp_path):
    return rated_photos(tmp_path)


@pytest.fixture
def eat(tmp_path):
    return untrained_eat(tmp_path)


@pytest.fixture
def unlabelled(tmp_path, ratings):
    """Twelve pictures without ratings, a rated one, one that is broken, and what is no picture."""
    folder = tmp_path / "unlabelled"
    (folder / "more").mkdir(parents=True)
    for index in range(12):
        photo(100 + index).save(folder / ("more" if index % 2 else ".") / f"{index}.png")
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    (folder / "notes.txt").write_text("none")
    (folder / "rated.png").symlink_to(tmp_path / "photos" / "0.png")
    return folder


def test_self_training_learns_on_from_what_it_is_sure_of(ratings, eat, unlabelled, tmp_path, capsys):
    out = tmp_path / "out"
    flags = ["--data", ratings, "-m", eat, "-o", out, "--batch-size", 8, "--epochs", 2, "--learning-rate", 1e-3]
    flags += ["--self-training", 2, "--unlabelled", unlabelled, "--pick-threshold", 0.38, "--sharpening", 0.5]
    assert run(*flags) == 0
    said = capsys.readouterr().out
    assert "1 of the unlabelled pictures are rated, and left out there" in said
    assert "1 unlabelled pictures cannot be used" in said
    assert "then 2 round(s) of self-training on 12 pictures" in said
    assert said.index("before self-training: SRCC") < said.index("round 1: ") < said.index("after round 2: SRCC")
    picked = picked_in(out / "round-1")
    assert 0 < len(picked) < 12
    assert f"round 1: {len(picked)} of 12 pictures picked" in said
    votes = json.loads(picked[0]["aesthetics_votes"])
    assert sum(votes) == pytest.approx(1, abs=1e-5)
    assert float(picked[0]["aesthetics_sharpened"]) > 0.38
    rounds = [PictureSet.load(folder) for folder in (sorted(out.glob("checkpoint-*"))[0], out)]
    assert len(rounds[0].contents) == 36
    learned = {row["path"] for folder in ("round-1", "round-2") for row in picked_in(out / folder)}
    assert len(rounds[1].contents) == 36 + len(learned)
    assert max(votes) < float(picked[0]["aesthetics_sharpened"])  # as predicted, not as sharpened
    state = json.loads(next((out / "round-1").glob("checkpoint-*/trainer_state.json")).read_text())
    assert state["max_steps"] == 2 * -(-(36 + len(picked)) // 8)  # the rated ones are learned beside them
    weights = safetensors.torch.load_file(out / "model.safetensors")
    main, last = (newest_weights(folder) for folder in (out, out / "round-2"))
    assert all(torch.equal(weights[name], last[name]) for name in last)
    assert any(not torch.equal(main[name], last[name]) for name in last)
    # a round that was not finished is begun again with what it had picked, and its end is the same
    shutil.rmtree(out / "round-2" / "unfinished", ignore_errors=True)
    for folder in (out / "round-2").glob("checkpoint-*"):
        shutil.rmtree(folder)
    times = {name: (out / name / "picked.csv").stat().st_mtime_ns for name in ("round-1", "round-2")}
    assert run(*flags, "--resume") == 0
    assert times == {name: (out / name / "picked.csv").stat().st_mtime_ns for name in times}
    again = safetensors.torch.load_file(out / "model.safetensors")
    for name, value in weights.items():
        torch.testing.assert_close(again[name], value, atol=1e-6, rtol=0)
    assert run(*flags) == 2
    assert "holds checkpoints of an earlier training" in capsys.readouterr().err


def picked_in(folder) -> list[dict]:
    with (folder / "picked.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def newest_weights(folder) -> dict:
    newest = max(folder.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    return safetensors.torch.load_file(newest / "model.safetensors")


def test_nothing_to_be_sure_of_ends_the_rounds_and_not_the_training(ratings, eat, unlabelled, tmp_path, capsys):
    table = tmp_path / "more.csv"
    table.write_text("path,theme\n" + "".join(f"unlabelled/{index}.png,odd\n" for index in range(0, 12, 2)))
    out = tmp_path / "out"
    flags = ["--self-training", 3, "--unlabelled", table, "--pick-threshold", 0.999]
    assert quick(ratings, out, "-m", eat, *flags) == 0
    said = capsys.readouterr().out
    assert "before self-training" not in said  # no pictures to judge on
    assert "round 1: 0 of 6 pictures picked" in said
    assert "self-training ends here. A pick_threshold below 0.999" in said
    assert f"the scorer is in {out}" in said
    assert picked_in(out / "round-1") == []
    assert not (out / "round-2").exists()


def test_a_scorer_with_a_language_model_trains_itself_on(ratings, unlabelled, tmp_path, capsys):
    flags = ["--self-training", 1, "--unlabelled", unlabelled, "--pick-threshold", 0.3, "--set", "save_strategy=no"]
    assert quick(ratings, tmp_path / "out", *flags) == 0
    assert "after round 1" not in (said := capsys.readouterr().out)
    assert f"round 1: {len(picked_in(tmp_path / 'out' / 'round-1'))} of 12 pictures picked" in said
    assert picked_in(tmp_path / "out" / "round-1")


def test_a_head_of_one_value_has_nothing_to_sharpen(ratings, unlabelled, tmp_path, capsys):
    model, images = eat_parts(num_levels=1, score_range=(1.0, 7.0))
    for part in (model, images):
        part.save_pretrained(tmp_path / "value")
    assert quick(ratings, tmp_path / "out", "-m", tmp_path / "value") == 0
    assert (
        quick(ratings, tmp_path / "other", "-m", tmp_path / "value", "--self-training", 1, "--unlabelled", unlabelled)
        == 2
    )
    assert "a head of one value has none" in capsys.readouterr().err
