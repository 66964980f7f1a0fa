"""`roc4mllm train` of TANet, EAT and ELTA."""

import json

import pytest
import yaml
from tiny import backbone
from train_command import quick, rated_photos, run, untrained_eat

import roc4mllm
from roc4mllm import ELTAConfig, ELTAForImageAesthetics
from roc4mllm.trainer.image_scorers import fresh_config, new_image_processor


@pytest.fixture
def ratings(tmp_path):
    return rated_photos(tmp_path)


@pytest.fixture
def eat(tmp_path):
    return untrained_eat(tmp_path)


def test_a_saved_scorer_of_a_picture_alone_is_trained_by_its_parts(ratings, eat, tmp_path, capsys):
    lines = ratings.read_text().splitlines()
    header, rows = f"{lines[0]},comment", [f"{line},calm light" for line in lines[1:]]
    ratings.write_text("\n".join([header, *rows, "photos/1.png,,odd,a comment alone"]) + "\n")
    out = tmp_path / "out"
    flags = ["--data", ratings, "-m", eat, "-o", out, "--batch-size", 8, "--epochs", 8, "--eval-share", 0.25]
    settings = ["learning_rates={score_head: 0.01, backbone: 0.003}", "mixup_pairs=1", "similarity_weight=0.1"]
    assert run(*flags, *(part for setting in settings for part in ("--set", setting))) == 0
    said = capsys.readouterr().out
    assert "rows have a comment or question, which this model does not read" in said
    assert "weights of the losses: emd 1, similarity 0.1" in said
    assert "backbone" in said
    scorer = roc4mllm.load_scorer(str(out))
    records = scorer([str(tmp_path / "photos" / f"{index}.png") for index in (0, 39)])
    assert records[1]["score"] - records[0]["score"] > 0.5
    assert json.loads((out / "training_args.json").read_text())["learning_rate"] == 1e-4
    assert run(*flags, "--freeze", "tower") == 2


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--lora"], "eat scores a picture without a language model, so there is nothing for lora: leave it out"),
        (["--set", "question=How good?"], "nothing for question"),
        (["-m", "eat-huge"], "Unknown size 'huge'; known are tiny"),
        (["-m", "tanet-tiny"], "tanet comes in one size: name it tanet"),
        (["--num-levels", "5"], "the scorer has num_levels 7, not 5"),
        (["--freeze", "vision_tower"], "its parts are backbone, score_head"),
        (["--self-training", "1"], "self_training needs a number of rounds and the pictures"),
        (["--unlabelled", "x"], "self_training needs a number of rounds and the pictures"),
        (["--self-training", "1", "--unlabelled", "nosuch.csv"], "No such file or folder: 'nosuch.csv'"),
        (["--self-training", "1", "--unlabelled", "PHOTOS"], "none of 40 pictures can be read and has no rating"),
        (["--self-training", "1", "--unlabelled", "x", "--tune", "2"], "find the settings first"),
        (["--self-training", "1", "--unlabelled", "x", "--pick-threshold", "1"], "pick_threshold lie between"),
        (["--set", "mixup_pairs=1", "--batch-size", "1"], "must be at least 2, got 1"),
        (["--set", "emd_weight=0", "--set", "text_weight=1"], "this model reads and writes no text"),
        (["-m", "tanet", "--batch-size", "1"], "take per_device_train_batch_size of 2 or more"),
        (["-m", "tanet", "--num-levels", "1", "--loss-preset", "emd"], "weight for emd, and a head of one value"),
        (["--set", "num_levels=0"], "num_levels must be at least 1, got 0"),
    ],
)
def test_settings_that_such_a_scorer_does_not_have(ratings, eat, tmp_path, capsys, flags, message):
    flags = [str(tmp_path / "photos") if flag == "PHOTOS" else flag for flag in flags]
    assert run("--data", ratings, "-m", eat, "-o", tmp_path / "out", "--dry-run", *flags) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert len(said) == 1
    assert message in said[0]


def test_a_frozen_head_learns_no_scores(ratings, eat, tmp_path, capsys):
    assert quick(ratings, tmp_path / "out", "-m", eat, "--freeze", "score_head") == 0
    assert "it has learned no scores, since the score head was frozen" in capsys.readouterr().out


def test_comments_alone_are_nothing_to_learn_from_there(ratings, eat, tmp_path, capsys):
    lines = ratings.read_text().splitlines()[1:]
    ratings.write_text("\n".join(["path,comment", *(f"{line.split(',')[0]},calm light" for line in lines)]) + "\n")
    assert quick(ratings, tmp_path / "out", "-m", eat) == 2
    assert "no picture has a score, and this model learns from scores alone" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["eat-tiny", "tanet"])
def test_a_fresh_scorer_is_named_by_its_family(ratings, tmp_path, capsys, name):
    """Of the data's attributes, range and levels; 41 rows in batches of 4 leave one, of which no statistics come."""
    assert run("--data", ratings, "-m", name, "-o", tmp_path / "out", "--dry-run", "--num-levels", 5) == 0
    said = capsys.readouterr().out
    assert f"model: {name}" in said
    parts = ", colour 1e-06" if name == "tanet" else ""
    assert f"learning rate 0.0001{parts}; weights of the losses: emd 1" in said
    rows = ratings.read_text() + "photos/1.png,3.5,odd\n"
    ratings.write_text(rows)
    assert (
        run("--data", ratings, "-m", name, "-o", tmp_path / "out", "--dry-run", "--eval-share", 0, "--batch-size", 4)
        == 0
    )
    assert ("each pass leaves out one picture" in capsys.readouterr().out) == (name == "tanet")


@pytest.mark.parametrize("name", ["tanet", "eat-tiny", "elta"])
def test_a_fresh_head_of_one_value(name):
    """Each family may have one, and prepares pictures of the size that it is made for."""
    config = fresh_config(name, num_levels=1, score_range=(1.0, 7.0))
    assert (config.num_levels, config.fewest_levels) == (1, 1)
    assert new_image_processor(config).size["height"] == {"elta": 256}.get(name, 224)


def test_a_head_on_a_language_model_has_levels(ratings, tmp_path, capsys):
    model, processor = backbone("llava")
    for part in (model, processor):
        part.save_pretrained(tmp_path / "backbone")
    assert quick(ratings, tmp_path / "out", "-m", tmp_path / "backbone", "--num-levels", 1) == 2
    said = capsys.readouterr().err
    assert "needs num_levels of 2 or more, got 1: leave it out" in said
    assert "tanet, elta and eat" in said


def test_one_value_learns_from_votes_their_mean(ratings, tmp_path, capsys):
    lines = ratings.read_text().splitlines()[1:]
    rows = [f"{line.split(',')[0]},0,1,2,3,{index % 3},0,1" for index, line in enumerate(lines)]
    ratings.write_text("\n".join(["path,r1,r2,r3,r4,r5,r6,r7", *rows]) + "\n")
    out = tmp_path / "out"
    assert quick(ratings, out, "-m", "tanet", "--num-levels", 1, "--set", "save_strategy=no") == 0
    assert "weights of the losses: smooth_l1 1\n" in capsys.readouterr().out
    record = roc4mllm.load_scorer(str(out))(str(tmp_path / "photos" / "1.png"))
    assert (record["error"], record["score_range"], record["distribution"]) == (None, [1.0, 7.0], None)


def test_a_small_elta_is_trained_and_scores(ratings, tmp_path, capsys):
    """The one that `--model elta` begins has 87 million weights."""
    swin = {"image_size": 32, "embed_dim": 8, "depths": [1, 1], "num_heads": [1, 2], "window_size": 4}
    model = ELTAForImageAesthetics(ELTAConfig(swin_config=swin, num_levels=7, score_range=(1.0, 7.0)))
    for part in (model, new_image_processor(model.config)):
        part.save_pretrained(tmp_path / "elta")
    out = tmp_path / "out"
    flags = ["--data", ratings, "-m", tmp_path / "elta", "-o", out, "--batch-size", 8, "--epochs", 8]
    settings = ["learning_rate=0.003", "mixup_pairs=1", "similarity_weight=0.1", "save_strategy=no"]
    assert run(*flags, *(part for setting in settings for part in ("--set", setting))) == 0
    assert "backbone" in capsys.readouterr().out
    records = roc4mllm.load_scorer(str(out))([str(tmp_path / "photos" / f"{index}.png") for index in (0, 39)])
    assert records[1]["score"] - records[0]["score"] > 0.5


def test_a_fresh_tanet_is_trained_and_scores(ratings, tmp_path, capsys):
    out = tmp_path / "out"
    settings = ["--set", "learning_rates={colour: 1e-5, perception: 1e-3}", "--set", "save_strategy=no"]
    assert quick(ratings, out, "-m", "tanet", *settings) == 0
    assert "scene_network frozen" in capsys.readouterr().out
    record = roc4mllm.load_scorer(str(out))(str(tmp_path / "photos" / "1.png"))
    assert (record["error"], record["score_range"], len(record["distribution"])) == (None, [1.0, 7.0], 10)


def test_settings_of_such_a_scorer_are_searched_at_its_own_rates(ratings, eat, tmp_path, capsys):
    flags = ["--data", ratings, "-m", eat, "-o", tmp_path / "out", "--max-steps", 1, "--tune", 1]
    assert run(*flags, "--set", "save_strategy=no") == 0
    assert 5e-5 <= yaml.safe_load((tmp_path / "out" / "best_settings.yaml").read_text())["learning_rate"] <= 1e-3
