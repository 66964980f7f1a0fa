"""Small trainings for the tests of the Trainer; also a script, which tests start as several processes or kill."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import torch
import transformers
from tiny import photo, scorer_parts
from tiny_image_scorers import eat_scorer

from roc4mllm.trainer.split_loss_config import SplitLossConfig
from roc4mllm.trainer.split_loss_trainer import SplitLossTrainer

ATTRIBUTES = ("aesthetics", "sharpness")


def rows(count: int = 24) -> list[dict]:
    """Rows of every kind: both attributes, one, none; with votes, a std or neither; with comments of all lengths."""
    made = []
    for index in range(count):
        row = {"image": photo(index), "scores": {"aesthetics": 1 + index % 5 * 0.9}, "where": f"row {index}"}
        if index % 3:
            row["scores"]["sharpness"] = 4.5 - index % 4
        if index % 4 == 1:
            row["votes"] = {"aesthetics": [1, 2, 3, index % 7, 0]}
        if index % 4 == 2:
            row["stds"] = {"aesthetics": 0.8}
        if index % 2:
            row["comment"] = " ".join(["calm light"] * (index % 5 + 1))
        if index == 7:
            del row["scores"]
        made.append(row)
    return made


def eat_parts(**options):
    """`(model, image processor)` of a tiny EAT; five levels from 1 to 5 unless told otherwise."""
    scorer = eat_scorer(**options)
    return scorer.model, scorer.image_processor


def trainer(folder, kind: str = "llava", model=None, processor=None, **options) -> SplitLossTrainer:
    """A Trainer of a tiny scorer; six steps of eight rows unless told otherwise."""
    if model is None:
        model, processor = scorer_parts(kind, ATTRIBUTES)
    defaults = {
        "per_device_train_batch_size": 8,
        "max_steps": 6,
        "learning_rate": 1e-3,
        "logging_steps": 1,
        "save_strategy": "no",
        "loss_preset": "paper-ava",
        "use_cpu": True,
        "disable_tqdm": True,
        "seed": 3,
    }
    callbacks = options.pop("callbacks", None)
    datasets = {name: options.pop(name) for name in ("train_dataset", "eval_dataset") if name in options}
    return SplitLossTrainer(
        model=model,
        args=SplitLossConfig(output_dir=str(folder), **defaults | options),
        processing_class=processor,
        callbacks=callbacks,
        **{"train_dataset": rows(), "eval_dataset": rows(7)} | datasets,
    )


def curve(trained: SplitLossTrainer) -> list[dict[str, float]]:
    """Loss and its parts at each step."""
    names = ("loss", "text_loss", "smooth_l1_loss", "ce_loss", "similarity_loss")
    lines = [line for line in trained.state.log_history if "text_loss" in line]
    return [{name: line[name] for name in names if name in line} for line in lines]


class KillAt(transformers.TrainerCallback):
    """Ends the process as a power cut would, once that step is done and saved."""

    def __init__(self, step: int):
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            os.kill(os.getpid(), signal.SIGKILL)


def main() -> None:
    """`curve FOLDER`: a training in as many processes as were started. `kill FOLDER KIND`: one that is killed."""
    action, folder = sys.argv[1:3]
    if action == "kill":
        trainer(folder, sys.argv[3], save_strategy="steps", save_steps=2, callbacks=[KillAt(3)]).train()
    trained = trainer(folder, per_device_train_batch_size=4, save_strategy="steps", save_steps=6)
    trained.train()
    found = trained.evaluate()
    checkpointed = trainer(folder, per_device_train_batch_size=4, activation_checkpointing=True, max_steps=2)
    checkpointed.train()
    mixed = trainer(folder, per_device_train_batch_size=4, mixup_pairs=2, similarity_weight=0.5, max_steps=2)
    mixed.train()
    if trained.is_world_process_zero():
        result = {"curve": curve(trained), "evaluation": found, "processes": trained.args.world_size}
        result |= {"checkpointed": curve(checkpointed), "mixed": curve(mixed)}
        (Path(folder) / "result.json").write_text(json.dumps(result))


def start(*arguments, processes: int = 0) -> subprocess.Popen:
    """`tiny_training.py` in processes of its own."""
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
    command = [sys.executable, *(torchrun if processes else []), __file__, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def finish(process: subprocess.Popen) -> str:
    """What it printed, once it has ended."""
    return process.communicate(timeout=240)[0]


def weights(model) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in model.named_parameters()}


def moved(before: dict, model) -> set[str]:
    """Names of the parameters that a training has changed."""
    return {name for name, value in model.named_parameters() if not torch.equal(before[name], value)}


if __name__ == "__main__":
    main()
