"""
transformers' Trainer with other checkpoints: one appears under its name when it is complete, no file of it is pickled
code, and only the kind of training that wrote it goes on with it; an adapter's holds what is trained.
"""

import json
import os
import shutil
from pathlib import Path
from typing import Any

from torch import nn
from transformers import Trainer
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, rotate_checkpoints

from ..modeling_roc4mllm.adapter_roc4mllm import has_adapter, is_adapter_folder, load_adapter_weights
from .checkpoint_folders import UNFINISHED, publish


class CheckpointTrainer(Trainer):
    """[`~transformers.Trainer`] whose checkpoints are whole or absent, without pickled code."""

    def _get_output_dir(self, trial) -> str:
        folder = super()._get_output_dir(trial)
        return os.path.join(folder, UNFINISHED) if getattr(self, "_is_staging", False) else folder

    def _save_checkpoint(self, model, trial) -> None:
        if self.args.push_to_hub:  # which uploads from the folder in the background while training goes on
            super()._save_checkpoint(model, trial)
            return
        folder = Path(self._get_output_dir(trial))
        name = f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}"
        if self.args.should_save:
            shutil.rmtree(folder / UNFINISHED, ignore_errors=True)
        self.accelerator.wait_for_everyone()
        self._is_staging = True
        try:
            super()._save_checkpoint(model, trial)
        finally:
            self._is_staging = False
        self.accelerator.wait_for_everyone()
        if self.state.best_model_checkpoint == str(folder / UNFINISHED / name):
            self.state.best_model_checkpoint = str(folder / name)
        if self.args.should_save:
            self.state.save_to_json(str(folder / UNFINISHED / name / "trainer_state.json"))
            publish(folder / UNFINISHED / name, folder / name)
            (folder / UNFINISHED).rmdir()
            rotate_checkpoints(
                output_dir=str(folder),
                save_total_limit=self.args.save_total_limit,
                best_model_checkpoint=self.state.best_model_checkpoint,
                use_mtime=True,
            )
        self.accelerator.wait_for_everyone()

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None) -> None:
        super()._save(output_dir, state_dict)
        if self.args.should_save:
            folder = Path(output_dir or self.args.output_dir)
            (folder / "training_args.bin").unlink(missing_ok=True)  # a pickle
            (folder / "training_args.json").write_text(self.args.to_json_string() + "\n", encoding="utf-8")

    def _init_training_state(self, max_steps, steps_per_epoch, num_train_epochs, *args) -> tuple[int, int]:
        """As in the parent, which takes one step more of a training that ended in the middle of a pass."""
        begin = super()._init_training_state(max_steps, steps_per_epoch, num_train_epochs, *args)
        return (num_train_epochs, 0) if self.state.global_step >= max_steps else begin

    def _issue_warnings_after_load(self, load_result) -> None:
        # a tied weight stands in the file once, which the parent takes for a missing one
        tied = getattr(self.model, "all_tied_weights_keys", {})
        missing = [name for name in load_result.missing_keys if name not in tied]
        super()._issue_warnings_after_load(load_result._replace(missing_keys=missing))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model=None) -> None:
        model = self.model if model is None else model
        saved = check_kind(resume_from_checkpoint, self.model)
        if is_adapter_folder(resume_from_checkpoint):
            load_adapter_weights(model, resume_from_checkpoint)
        else:
            super()._load_from_checkpoint(resume_from_checkpoint, model)
        if "score_head_trained" in saved:  # no step may be left that would say so
            self.model.config.score_head_trained = saved["score_head_trained"]

    def _load_best_model(self) -> None:
        if is_adapter_folder(self.state.best_model_checkpoint):
            load_adapter_weights(self.model, self.state.best_model_checkpoint)
        else:
            super()._load_best_model()


def check_kind(checkpoint: str, model: nn.Module) -> dict[str, Any]:
    """
    The config of a checkpoint, if a training of `model` wrote it.

    Raises:
        ValueError: If it is an adapter and the model is whole, or the other way round, or it has another backbone.
    """
    path = Path(checkpoint) / "config.json"
    saved = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    own = model.config.to_dict()
    kinds = ["an adapter" if kind else "a whole model" for kind in (is_adapter_folder(checkpoint), has_adapter(model))]
    types = [(config.get("mllm_config") or config).get("model_type") for config in (saved, own)]
    if kinds[0] != kinds[1] or (saved and types[0] != types[1]):
        raise ValueError(
            f"{checkpoint} holds {kinds[0]} on {types[0]}, the training is of {kinds[1]} on {types[1]}: resume with "
            "the settings it was begun with, or begin in another folder"
        )
    return saved


__all__ = ["CheckpointTrainer"]
