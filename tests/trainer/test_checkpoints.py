"""Checkpoints: resuming after a kill, whole or absent, folders and disks that have no room for them."""

import json
import signal

import pytest
import torch
from tiny_training import finish, moved, start, trainer, weights

from roc4mllm import ROC4MLLMForImageAesthetics


def test_a_killed_training_resumes_to_the_weights_of_an_uninterrupted_one(tmp_path):
    """Of Qwen2-VL, LLaVA and Gemma 3, whose weights transformers 5.23 by itself does not restore."""
    kinds = ("qwen2_vl", "llava", "gemma3")
    killed = [start("kill", tmp_path / kind, kind) for kind in kinds]
    for kind, process in zip(kinds, killed, strict=True):
        whole = trainer(tmp_path / f"{kind}-whole", kind)
        fresh = weights(whole.model)
        whole.train()
        printed = finish(process)
        assert process.returncode == -signal.SIGKILL, printed
        assert [path.name for path in (tmp_path / kind).iterdir()] == ["checkpoint-2"]
        resumed = trainer(tmp_path / kind, kind, save_strategy="steps", save_steps=2)
        resumed.train(resume_from_checkpoint=True)
        assert resumed.state.global_step == 6
        assert len(moved(fresh, whole.model)) > 20
        for name, value in whole.model.named_parameters():
            torch.testing.assert_close(dict(resumed.model.named_parameters())[name], value, atol=1e-6, rtol=0)


def test_a_checkpoint_has_its_name_only_when_it_is_complete(tmp_path, monkeypatch):
    seen = []
    trained = trainer(tmp_path, save_strategy="steps", save_steps=2, save_total_limit=2, max_steps=6)
    save_rng = trained._save_rng_state

    def look(folder):
        seen.append(sorted(path.name for path in tmp_path.iterdir()))
        save_rng(folder)

    monkeypatch.setattr(trained, "_save_rng_state", look)
    trained.train()
    assert seen == [["unfinished"], ["checkpoint-2", "unfinished"], ["checkpoint-2", "checkpoint-4", "unfinished"]]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-4", "checkpoint-6"]
    names = {path.name for path in (tmp_path / "checkpoint-6").iterdir()}
    assert {"model.safetensors", "optimizer.pt", "trainer_state.json", "training_args.json"} <= names
    assert "training_args.bin" not in names


def test_the_best_checkpoint_is_kept_and_loaded(tmp_path):
    options = {"save_strategy": "steps", "save_steps": 1, "eval_strategy": "steps", "eval_steps": 1}
    trained = trainer(
        tmp_path, save_total_limit=1, load_best_model_at_end=True, metric_for_best_model="loss", max_steps=4,
        greater_is_better=True, **options,
    )  # fmt: skip
    trained.train()
    losses = {line["step"]: line["eval_loss"] for line in trained.state.log_history if "eval_loss" in line}
    best = max(losses, key=losses.get)  # the worst, so that it is not the last
    assert best != 4
    assert trained.state.best_model_checkpoint == str(tmp_path / f"checkpoint-{best}")
    assert trained.evaluate()["eval_loss"] == pytest.approx(losses[best], rel=1e-5)
    state = json.loads((tmp_path / f"checkpoint-{best}" / "trainer_state.json").read_text())
    assert state["best_model_checkpoint"] == str(tmp_path / f"checkpoint-{best}")
    loaded = ROC4MLLMForImageAesthetics.from_pretrained(tmp_path / f"checkpoint-{best}")
    assert loaded.config.score_head_trained


def test_a_folder_that_cannot_be_written_is_refused_before_the_first_step(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="nothing can be written to .*file/out"):
        trainer(tmp_path / "file" / "out")


def test_a_full_disk_is_refused_before_the_first_step(tmp_path, monkeypatch):
    trained = trainer(tmp_path, save_strategy="steps", save_total_limit=1)
    size = sum(p.numel() * p.element_size() for p in trained.model.parameters())
    usage = __import__("shutil").disk_usage(tmp_path)
    needed = (
        size + 2 * 3 * size
    )  # the model; and twice weights and two moments, while a checkpoint takes another's place
    monkeypatch.setattr("shutil.disk_usage", lambda folder: usage._replace(free=needed - 1))
    with pytest.raises(OSError, match="takes about"):
        trained.train()
    trained.args.save_strategy = "no"
    trained.train()
