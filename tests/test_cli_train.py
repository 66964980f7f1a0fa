"""`roc4mllm train` as a user runs it, on the bundled scorer and on a backbone in a folder."""

import csv
import json
import shutil
from types import SimpleNamespace

import pytest
import safetensors.torch
import torch
import yaml
from tiny import backbone, scorer_parts
from train_command import quick, rated_photos, run, untrained_eat
from transformers import pipeline

import roc4mllm
import roc4mllm_cli
from roc4mllm.datasets_scripts.split_guard import GUARD_FILE, PictureSet
from roc4mllm.trainer.rating_data import read_ratings
from roc4mllm.trainer.run_training import write_ratings
from roc4mllm.trainer.split_loss_trainer import SplitLossTrainer
from roc4mllm.trainer.tuning import search


@pytest.fixture
def ratings(tmp_path):
    return rated_photos(tmp_path)


@pytest.fixture
def eat(tmp_path):
    return untrained_eat(tmp_path)


def test_a_csv_and_a_model_are_enough(ratings, tmp_path, capsys):
    out = tmp_path / "out"
    flags = ["--score-range", 1, 7, "--batch-size", 8, "--epochs", 3, "--learning-rate", 1e-3, "--eval-share", 0.25]
    assert run("--data", ratings, "-o", out, *flags) == 0
    said = capsys.readouterr().out
    assert "30 scores" in said
    assert "10 scores" in said
    assert "the bundled scorer" in said
    assert "about 12 steps of 8 pictures" in said
    assert "parameters are trained (100.00%)" in said
    assert "on 10 pictures, not trained on: SRCC" in said
    scorer = roc4mllm.load_scorer(str(out))
    records = scorer([str(tmp_path / "photos" / f"{index}.png") for index in (0, 39)])
    assert records[1]["score"] - records[0]["score"] > 0.5
    assert {path.name for path in out.iterdir() if path.is_dir()} == {"checkpoint-8", "checkpoint-12"}
    with (out / "held_out.csv").open(newline="") as file:
        held_out = list(csv.DictReader(file))
    assert len(held_out) == 10
    assert set(held_out[0]) >= {"path", "aesthetics", "theme"}
    assert yaml.safe_load((out / "training.yaml").read_text())["num_train_epochs"] == 3
    assert roc4mllm_cli.main(["evaluate", str(out), str(out / "held_out.csv"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["overlap"]["shared"] == 0
    for folder in (out, out / "checkpoint-8", out / "checkpoint-12"):
        assert len(PictureSet.load(folder).contents) == 30
    assert roc4mllm_cli.main(["evaluate", str(out), str(ratings)]) == 2
    assert "30 of 40 test pictures were trained on" in capsys.readouterr().err


def test_a_backbone_gets_a_head_and_an_adapter_of_its_own(ratings, tmp_path, capsys):
    model, processor = backbone("qwen2_vl")
    model.save_pretrained(tmp_path / "backbone")
    processor.save_pretrained(tmp_path / "backbone")
    run_file = tmp_path / "run.yaml"
    settings = {"data": str(ratings), "model": str(tmp_path / "backbone"), "output_dir": str(tmp_path / "out")}
    settings |= {"lora": True, "num_levels": 5, "max_steps": 4, "per_device_train_batch_size": 4}
    run_file.write_text(yaml.safe_dump(settings | {"learning_rates": {"score_head": 1e-2}}))
    assert run(run_file, "--set", "weight_decay=0.1", "--set", "question=How light is it?") == 0
    said = capsys.readouterr().out
    assert "guessed" in said
    assert "vision_tower frozen" in said
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"adapter", "score_head.safetensors", "config.json"} <= names
    assert "model.safetensors" not in names
    args = json.loads((tmp_path / "out" / "training_args.json").read_text())
    assert (args["weight_decay"], args["learning_rate"]) == (0.1, 2e-4)
    scorer = pipeline("image-aesthetics", model=str(tmp_path / "out"))
    record = scorer(str(tmp_path / "photos" / "3.png"))
    assert (record["score_range"], len(record["distribution"]), record["error"]) == ([1.0, 7.0], 5, None)
    assert scorer.processor.question == "How light is it?"


def test_resuming_goes_on_from_the_newest_checkpoint(ratings, tmp_path, capsys):
    flags = ["--data", ratings, "-o", tmp_path / "out", "--batch-size", 16, "--set", "save_strategy=steps"]
    flags += ["--set", "save_steps=1", "--max-steps"]
    assert run(*flags, 1) == 0
    assert run(*flags, 3, "--resume") == 0
    state = json.loads((tmp_path / "out" / "checkpoint-3" / "trainer_state.json").read_text())
    assert [line["step"] for line in state["log_history"] if "loss" in line] == [1, 2, 3]
    capsys.readouterr()
    assert run("--data", ratings, "-o", tmp_path / "new", "--resume") == 2
    assert "there is no checkpoint in" in capsys.readouterr().err


def test_what_was_just_measured_is_not_measured_again(ratings, eat, tmp_path, capsys, monkeypatch):
    measured, evaluate = [], SplitLossTrainer.evaluate
    monkeypatch.setattr(
        SplitLossTrainer,
        "evaluate",
        lambda *args, **options: measured.append(evaluate(*args, **options)) or measured[-1],
    )
    flags = ["--data", ratings, "-m", eat, "-o", tmp_path / "out", "--max-steps", 1, "--eval-share", 0.25]
    assert run(*flags) == 0
    assert len(measured) == 1
    assert f"on 10 pictures, not trained on: SRCC {measured[0]['eval_srcc']:.3f}" in capsys.readouterr().out
    assert run(*flags, "--resume", "--set", "seed=7") == 0  # other pictures to judge on
    assert len(measured) == 2
    assert f"not trained on: SRCC {measured[1]['eval_srcc']:.3f}" in capsys.readouterr().out
    best = ["--set", "load_best_model_at_end=true", "--set", "metric_for_best_model=srcc", "-o", tmp_path / "best"]
    assert run(*flags, *best) == 0
    assert len(measured) == 4  # the best may not be the last


def test_what_a_scorer_was_trained_on_is_added_to(ratings, tmp_path, capsys):
    """Also by an adapter on it, by a copy of a held-out picture, and by what is merged from the adapter."""
    header, *lines = ratings.read_text().splitlines()
    for name, part in (("first", lines[:10]), ("second", lines[10:20]), ("third", lines[20:])):
        (tmp_path / f"{name}.csv").write_text("\n".join([header, *part]))
    keep = ["--set", "save_strategy=no"]
    assert quick(tmp_path / "first.csv", tmp_path / "whole", *keep) == 0
    assert quick(tmp_path / "second.csv", tmp_path / "lora", "-m", tmp_path / "whole", "--lora", *keep) == 0
    assert len(PictureSet.load(tmp_path / "whole").contents) == 10
    trained = PictureSet.load(tmp_path / "lora")
    assert (len(trained.contents), trained.unknown) == (20, ("roc4mllm-tiny",))
    merged = roc4mllm.merge_adapter(roc4mllm.load_scorer(str(tmp_path / "lora")).model)
    merged.save_pretrained(tmp_path / "merged")
    assert PictureSet.load(tmp_path / "merged").digest() == trained.digest()
    shutil.copy(tmp_path / "photos" / "3.png", tmp_path / "photos" / "39.png")  # trained on as 3.png
    capsys.readouterr()
    assert roc4mllm_cli.main(["evaluate", str(tmp_path / "lora"), str(tmp_path / "third.csv")]) == 2
    assert "1 of 20 test pictures were trained on" in (error := capsys.readouterr().err)
    assert "the first: 39.png" in error


def test_copies_of_a_picture_are_not_divided_between_training_and_judging(ratings, tmp_path, capsys):
    for index in range(0, 40, 2):
        shutil.copy(tmp_path / "photos" / f"{index}.png", tmp_path / "photos" / f"{index + 1}.png")
    assert quick(ratings, tmp_path / "out", "--set", "save_strategy=no", "--eval-share", "0.3") == 0
    assert "duplicates: 40 rows show 20 pictures" in (said := capsys.readouterr().out)
    assert "on 12 pictures, not trained on" in said
    held_out = str(tmp_path / "out" / "held_out.csv")
    assert roc4mllm_cli.main(["evaluate", str(tmp_path / "out"), held_out, "--bootstraps", "0"]) == 0


def test_ranges_of_several_units_stay_with_the_held_out_pictures(ratings, tmp_path, capsys):
    _, *lines = ratings.read_text().splitlines()
    rows = [f'{line},{index % 3 - 1},"[-1, 1]"' for index, line in enumerate(lines)]
    ratings.write_text("\n".join(["path,score,theme,light,light_score_range", *rows]))
    model, processor = backbone("llava")
    for part in (model, processor):
        part.save_pretrained(tmp_path / "backbone")
    flags = ["--data", ratings, "-m", tmp_path / "backbone", "-o", tmp_path / "out", "--max-steps", 1]
    assert run(*flags, "--attributes", "aesthetics,light") == 0
    assert json.loads((tmp_path / "out" / "config.json").read_text())["score_range"] == [[1, 7], [-1, 1]]
    capsys.readouterr()
    held_out = str(tmp_path / "out" / "held_out.csv")
    assert roc4mllm_cli.main(["evaluate", str(tmp_path / "out"), held_out, "--json", "--bootstraps", "0"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["attributes"]["light"]["score_range"] == [-1, 1]
    assert not any("state no score range" in note for note in told["notes"])


def test_tuning_saves_the_best_settings_as_a_file_to_train_with(ratings, tmp_path, capsys):
    run_file = tmp_path / "run.yaml"
    space = {"learning_rate": {"low": 1e-5, "high": 1e-3, "log": True}, "per_device_train_batch_size": [8, 16]}
    settings = {"data": str(ratings), "output_dir": str(tmp_path / "out"), "max_steps": 2, "search_space": space}
    run_file.write_text(yaml.safe_dump(settings | {"eval_share": 0.4}))
    assert run(run_file, "--tune", 3) == 0
    best = yaml.safe_load((tmp_path / "out" / "best_settings.yaml").read_text())
    assert 1e-5 <= best["learning_rate"] <= 1e-3
    assert best["per_device_train_batch_size"] in (8, 16)
    assert "tune" not in best
    said = capsys.readouterr().out
    assert "best of 3: SRCC" in said
    assert run(tmp_path / "out" / "best_settings.yaml", "--dry-run") == 0
    header, *lines = ratings.read_text().splitlines()
    ratings.write_text("\n".join([header, *(f"{line.split(',')[0]},4,even" for line in lines)]) + "\n")
    capsys.readouterr()
    assert run(run_file, "--tune", 1) == 2
    assert "not all rated alike" in capsys.readouterr().err


def test_a_search_in_which_no_training_has_an_srcc():
    def failing(compute_objective, **options):
        compute_objective({"eval_srcc": float("nan")})
        raise ValueError("No trials are completed yet.")

    with pytest.raises(ValueError, match="none of 1 trainings came to an SRCC"):
        search(SimpleNamespace(hyperparameter_search=failing), {"seed": [1, 2]}, 1, 0)


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--set", "lerning_rate=1"], "did you mean 'learning_rate'"),
        (["--set", "learning_rate"], "NAME=VALUE"),
        (["--freeze", "tower"], "its parts are"),
        (["--attributes", "beauty"], "the scorer does not know beauty"),
        (["--score-range", "1", "10"], "the scorer's score_range of aesthetics is 1 to 7, not"),
        (["--set", "score_range=[1]"], "must be (min, max) with min < max; got [1]"),
        (["--set", "score_range=[null, 7]"], "must be (min, max) with min < max; got [None, 7]"),
        (["--loss-preset", "papre"], "paper-ava"),
        (["--tune", "2", "--set", "search_space={seed: {low: 0, high: 9, log: true}}"], "a low above 0"),
        (["--tune", "2", "--eval-share", "0"], "without pictures to judge on"),
        (["--set", "eval_strategy=sometimes"], "sometimes"),
        (["--lora-rank", "4"], "lora_rank without lora would do nothing"),
        (["--set", "eval_share=ten"], "eval_share must be float, got 'ten'"),
        (["--set", "freeze=vision_tower"], "freeze must be"),
        (["--set", "per_device_train_batch_size=4.5"], "per_device_train_batch_size must be int, got 4.5"),
        (["--set", "remove_unused_columns=true"], "leave it off"),
        (["--tune", "2", "--eval-share", "0.03"], "without pictures to judge on"),
        (["-m", "./nosuch"], "no folder './nosuch'"),
        (["--report-to", "swanlab"], "requires swanlab to be installed"),
        (["--attn-implementation", "flash_attention_2"], "FlashAttention2"),
    ],
)
def test_what_the_user_has_to_change_is_one_line(ratings, tmp_path, capsys, flags, message):
    assert run("--data", ratings, "-o", tmp_path / "out", *flags) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert len(said) == 1
    assert message in said[0]
    assert not list((tmp_path / "out").glob("checkpoint-*"))


def test_weights_in_their_authors_format_are_to_be_converted_first(ratings, tmp_path, capsys):
    (tmp_path / "original").mkdir()
    (tmp_path / "original" / "config.json").write_text('{"model_type": "mplug_owl2", "visual_config": {}}')
    assert run("--data", ratings, "--model", tmp_path / "original", "-o", tmp_path / "out") == 2
    assert "roc4mllm convert" in capsys.readouterr().err


def test_bad_rows_stop_the_training_before_it_starts_or_go_to_a_file(ratings, tmp_path, capsys):
    ratings.write_text(ratings.read_text() + "photos/none.png,3\nphotos/1.png,9\n")
    assert run("--data", ratings, "-o", tmp_path / "out") == 2
    said = capsys.readouterr().err
    assert "line 42" in said
    assert "line 43" in said
    skipped = tmp_path / "bad.csv"
    assert run("--data", ratings, "-o", tmp_path / "out", "--skip-bad-rows", skipped, "--dry-run") == 0
    assert len(skipped.read_text().splitlines()) == 3


def test_a_scorer_of_several_attributes_is_trained_on_those_that_are_rated(ratings, tmp_path, capsys):
    model, processor = scorer_parts(
        "llava", ("aesthetics", "light", "sharpness"), score_range=[(1, 7), (0, 1), (0, 9)]
    )
    for part in (model, processor):
        part.save_pretrained(tmp_path / "scorer")
    flags = ["--data", ratings, "-m", tmp_path / "scorer", "-o", tmp_path / "out", "--max-steps", 1]
    assert run(*flags) == 0
    assert "aesthetics: 36 scores" in capsys.readouterr().out
    rows = list(csv.DictReader(ratings.read_text().splitlines()))
    lines = [f"{tmp_path / row['path']},{(float(row['score']) - 1) * 1.5}" for row in rows]
    ratings.write_text("\n".join(["path,sharpness", *lines]) + "\n")
    flags[flags.index(tmp_path / "out")] = tmp_path / "other"
    assert run(*flags, "--attributes", "sharpness") == 0
    assert "sharpness: 36 scores from 0 to 8.7" in capsys.readouterr().out
    assert run(*flags, "--attributes", "light", "-o", tmp_path / "third") == 2
    assert "'light'" in capsys.readouterr().err


def weights_in(folder) -> set[str]:
    return {path.name for path in folder.iterdir() if path.name == "adapter" or path.suffix == ".safetensors"}


def test_weights_of_an_earlier_training_of_another_kind_do_not_stay_behind(ratings, tmp_path, capsys):
    out, keep = tmp_path / "out", ["--set", "save_strategy=no"]
    (out / "unfinished").mkdir(parents=True)
    (out / "unfinished" / "checkpoint-99").mkdir()
    assert quick(ratings, out, "--lora", *keep) == 0
    assert weights_in(out) == {"adapter", "score_head.safetensors", GUARD_FILE}
    assert quick(ratings, out, *keep) == 0
    assert weights_in(out) == {"model.safetensors", GUARD_FILE}
    assert not roc4mllm.load_scorer(str(out)).model._hf_peft_config_loaded
    assert quick(ratings, out, "--lora", *keep) == 0
    assert weights_in(out) == {"adapter", "score_head.safetensors", GUARD_FILE}
    assert not (out / "checkpoint-99").exists()


def test_an_adapter_is_not_saved_over_the_model_below_it(ratings, tmp_path, capsys):
    out = tmp_path / "out"
    assert quick(ratings, out, "--set", "save_strategy=no") == 0
    assert quick(ratings, out, "-m", out, "--lora") == 2
    assert "cannot be saved over the model" in capsys.readouterr().err
    assert weights_in(out) == {"model.safetensors", GUARD_FILE}


def test_resuming_what_is_finished_keeps_the_scorer_usable(ratings, tmp_path, capsys):
    out = tmp_path / "out"
    model, processor = scorer_parts("llava", score_range=(1, 7))
    model.config.score_head_trained = False
    for part in (model, processor):
        part.save_pretrained(tmp_path / "fresh")
    assert quick(ratings, out, "-m", tmp_path / "fresh") == 0
    weights = safetensors.torch.load_file(out / "model.safetensors")
    capsys.readouterr()
    assert quick(ratings, out, "-m", tmp_path / "fresh", "--resume") == 0
    said = capsys.readouterr().out
    assert "checkpoint-1 is the end of this training, step 1: nothing is left to train" in said
    assert f"the scorer is in {out}" in said
    again = safetensors.torch.load_file(out / "model.safetensors")
    assert all(torch.equal(again[name], value) for name, value in weights.items())
    assert roc4mllm.load_scorer(str(out))(str(tmp_path / "photos" / "1.png"))["error"] is None
    assert quick(ratings, out, "-m", tmp_path / "fresh") == 2
    assert "holds checkpoints of an earlier training" in capsys.readouterr().err
    assert quick(ratings, out, "-m", tmp_path / "fresh", "--lora", "--resume") == 2
    assert "holds a whole model on llava, the training is of an adapter on llava" in capsys.readouterr().err


def test_what_was_noticed_about_the_data_is_said(ratings, tmp_path, capsys):
    model, processor = backbone("llava")
    for part in (model, processor):
        part.save_pretrained(tmp_path / "backbone")
    flags = ["--data", ratings, "-m", tmp_path / "backbone", "-o", tmp_path / "out", "--dry-run"]
    assert run(*flags) == 0
    assert "note: " in (said := capsys.readouterr().out)
    assert "guessed" in said.split("note: ", 1)[1]
    assert run(*flags, "--eval-data", ratings) == 0
    assert "note: 40 of these pictures are trained on too" in capsys.readouterr().out


def test_secrets_and_what_is_of_one_run_are_not_saved(ratings, tmp_path, capsys):
    assert quick(ratings, tmp_path / "out", "--set", "hub_token=hf_abcdef") == 0
    assert "hf_abcdef" not in (tmp_path / "out" / "training.yaml").read_text()
    assert quick(ratings, tmp_path / "out", "--resume") == 0
    assert "resume:" not in (tmp_path / "out" / "training.yaml").read_text()


def test_comments_alone_teach_no_score(ratings, tmp_path, capsys):
    lines = ratings.read_text().splitlines()[1:]
    ratings.write_text("\n".join(["path,comment", *(f"{line.split(',')[0]},calm light" for line in lines)]) + "\n")
    model, processor = backbone("llava")
    for part in (model, processor):
        part.save_pretrained(tmp_path / "backbone")
    assert quick(ratings, tmp_path / "out", "-m", tmp_path / "backbone") == 0
    assert "it has learned no scores" in capsys.readouterr().out
    assert quick(ratings, tmp_path / "known", "--eval-share", 0.1) == 0  # of the bundled scorer
    said = capsys.readouterr().out
    assert "the scorer is in" in said
    assert "judge it in full" not in said  # there are no scores to compare with


def test_half_a_range_in_the_data_is_no_second_column_of_the_held_out_pictures(ratings, tmp_path):
    header, *lines = ratings.read_text().splitlines()
    ratings.write_text("\n".join([f"{header},score_min", *(f"{line},2" for line in lines)]) + "\n")
    write_ratings(read_ratings(ratings), tmp_path / "held_out.csv")
    assert read_ratings(tmp_path / "held_out.csv").score_range == (1.0, 7.0)


def test_votes_and_range_of_the_held_out_pictures_are_kept(ratings, tmp_path, capsys):
    lines = ratings.read_text().splitlines()[1:]
    rows = [f"{line.split(',')[0]},0,1,2,3,{index % 3},0,1" for index, line in enumerate(lines)]
    ratings.write_text("\n".join(["path,r1,r2,r3,r4,r5,r6,r7", *rows]) + "\n")
    assert run("--data", ratings, "-o", tmp_path / "out", "--max-steps", 1) == 0
    with (tmp_path / "out" / "held_out.csv").open(newline="") as file:
        row = next(csv.DictReader(file))
    assert json.loads(row["aesthetics_votes"])[:4] == [0, 1, 2, 3]
    assert (row["score_min"], row["score_max"]) == ("1.0", "7.0")
