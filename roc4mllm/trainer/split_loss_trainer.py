"""
The Trainer of image-aesthetics models: text and scores have losses, weights and averages of their own.

Paper: "Regression Over Classification: Assessing Image Aesthetics via Multimodal Large Language Models", AAAI 2026
(loss decoupling). What differs from transformers' Trainer:
- text tokens and scores are counted over all batches of a step, accumulated ones and those of other processes, and
  each loss is divided by its own count: how a batch is cut up does not change the training
- rows of tail mixup, which are made within `forward`, are counted beforehand and weigh as much as other rows; the
  similarity loss and the mixing see the pictures of one forward pass only, so that these do depend on how it is cut
- every part of the loss is logged by name, in training and in evaluation, as its mean over tokens or scores
- parts of the model may be frozen or have a learning rate of their own
- a checkpoint appears under its name when it is complete; no file of it is pickled code
"""

import contextlib
import dataclasses
import json
import os
import shutil
from collections.abc import Sized
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader, SequentialSampler
from transformers import Trainer
from transformers.trainer_pt_utils import LengthGroupedSampler
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, rotate_checkpoints

from ..datasets_scripts.split_guard import PictureSet
from ..modeling_roc4mllm.adapter_roc4mllm import has_adapter, is_adapter_folder, load_adapter_weights
from ..modeling_roc4mllm.long_tail_aesthetics import mixed_count
from ..modeling_roc4mllm.modeling_outputs_aesthetics import AestheticsOutput
from .checkpoint_folders import UNFINISHED, check_space, check_writable, checkpoint_bytes, publish
from .metrics_aesthetics import aesthetics_metrics
from .model_parts import checked_parts, freeze_parts, named_parts
from .rating_collator import RatingCollator
from .split_loss_config import LOSSES, SCORE_LOSSES, SplitLossConfig

Counts = dict[str, torch.Tensor]


class SplitLossTrainer(Trainer):
    """
    [`~transformers.Trainer`] with the losses of text and scores kept apart.

    Args:
        model (`PreTrainedModel`): A model of this package, with adapters or without.
        args ([`SplitLossConfig`], *optional*): Options.
        data_collator (callable, *optional*): Makes batches of rows; by default a [`RatingCollator`].
        processing_class (`ProcessorMixin` or image processor): The model's own.
        trained_on ([`PictureSet`], *optional*): The pictures, those of the training before this one too; it is saved
            with the model and each checkpoint, so that no test holds them unnoticed.
        **kwargs: As in the parent: `train_dataset`, `eval_dataset`, `callbacks`, `model_init`, …; `compute_metrics`
            gives SRCC, PLCC, MAE and RMSE by default.

    Raises:
        TypeError: If `args` is no [`SplitLossConfig`].
        ValueError: If a part that is to be frozen, or to have its own learning rate, does not exist.
    """

    loss_is_scaled_for_ga = True

    def __init__(self, model=None, args=None, data_collator=None, processing_class=None, trained_on=None, **kwargs):
        self.trained_on: PictureSet | None = trained_on
        args = SplitLossConfig() if args is None else args
        if not isinstance(args, SplitLossConfig):
            raise TypeError(f"Got args of type {type(args).__name__}; SplitLossTrainer needs a SplitLossConfig.")
        if args.should_save:
            check_writable(args.output_dir)
        if model is not None:
            freeze_parts(model, args.freeze or ())
        super().__init__(
            model=model, args=args, data_collator=data_collator, processing_class=processing_class, **kwargs
        )
        if data_collator is None and processing_class is not None:
            self.data_collator = RatingCollator(processing_class, self.model.config)
        if self.compute_metrics is None and hasattr(self.model.config, "attributes"):
            self.compute_metrics = aesthetics_metrics(self.model.config.attributes)
        checked_parts(self.model, self.args.learning_rates or ())
        self._training_losses, self._evaluation_losses = LossMeans(), LossMeans()

    def call_model_init(self, trial=None) -> nn.Module:
        """A fresh model, frozen as the options say."""
        model = super().call_model_init(trial)
        freeze_parts(model, self.args.freeze or ())
        tell_before_training(model)
        return model

    def train(self, *args, **kwargs):
        """As in the parent, after [`~SplitLossTrainer.check_before_training`]."""
        if self.model is not None:  # with a `model_init` it is made later
            self.check_before_training()
            tell_before_training(self.model)
        return super().train(*args, **kwargs)

    # ---- checks -------------------------------------------------------------------------------------------------

    def check_before_training(self) -> None:
        """
        Refuse what would fail at the first step, or at the first checkpoint.

        Raises:
            ValueError: If a loss has a weight that the score head does not have, no loss is left that this model has,
                or a batch would hold one picture and the model normalises over several.
            OSError: If the output folder has no room for all checkpoints that lie there at once, and the model.
        """
        self._check_losses()
        self._check_batches()
        self._check_disk()

    @property
    def used_weights(self) -> dict[str, float]:
        """Weights of the losses that count; that of text does not where the model reads none."""
        unused = () if getattr(self.data_collator, "reads_text", True) else ("text",)
        return {name: weight for name, weight in self.args.loss_weights.items() if weight and name not in unused}

    def _check_losses(self) -> None:
        self.model.checked_weights(self.args.loss_weights)
        if not self.used_weights:
            raise ValueError(
                "The text loss alone has a weight, and this model reads and writes no text: give one to "
                f"{' or '.join(self.model.head_losses)}."
            )

    def _check_batches(self) -> None:
        count = len(self.train_dataset) if isinstance(self.train_dataset, Sized) else self._train_batch_size
        if has_batch_norm(self.model) and min(self._train_batch_size, count) == 1:
            raise ValueError(
                "This model normalises over the pictures of a batch, and of one picture there are no statistics: take "
                "per_device_train_batch_size of 2 or more, and as many pictures."
            )

    def _check_disk(self) -> None:
        args, kind = self.args, {"only_trained": has_adapter(self.model)}
        if args.should_save:
            needed = checkpoint_bytes(self.model, with_optimizer=False, **kind)
            if args.save_strategy != "no":
                kept = (args.save_total_limit or 1) + 1  # an old one goes when the new one is complete
                needed += kept * checkpoint_bytes(self.model, with_optimizer=not args.save_only_model, **kind)
            check_space(args.output_dir, needed)

    # ---- losses -------------------------------------------------------------------------------------------------

    def get_batch_samples(self, epoch_iterator, num_batches: int, device: torch.device) -> tuple[list, Counts]:
        """The batches of one step, and the text tokens and scores in those of all processes."""
        batches, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        local = [target_counts(batch, self.args.tail_mixup) for batch in batches]
        names = ("text", "scores")
        counts = torch.stack(
            [sum((c[name] for c in local), start=torch.zeros(())).to(device) for name in names]
        )  # (2,)
        if self.args.world_size > 1:
            counts = self.accelerator.reduce(counts, "sum")
        counts = counts / self.get_tp_size()  # tensor-parallel processes read the same batches
        self._mark_score_head(counts[1])
        return batches, dict(zip(names, counts, strict=True))

    def _mark_score_head(self, scores: torch.Tensor) -> None:
        """Say in the config that the score head is trained, as soon as there is a step with scores in it."""
        config = self.model.config
        is_rated = any(self.args.loss_weights[name] for name in SCORE_LOSSES)
        if getattr(config, "score_head_trained", True) or not is_rated or not scores > 0:
            return
        config.score_head_trained = any(p.requires_grad for _, p in named_parts(self.model)["score_head"])

    def compute_loss(
        self, model, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Counts | None = None
    ):
        """
        The weighted loss; in training its parts are divided by the counts of the whole step.

        Args:
            model (`nn.Module`): The model, wrapped or not.
            inputs (`dict`): A batch.
            return_outputs (`bool`, *optional*, defaults to `False`): Also return the model's output.
            num_items_in_batch (`dict`, *optional*): What [`~SplitLossTrainer.get_batch_samples`] counted; without it,
                in evaluation, the parts are means over this batch.
        """
        inputs = dict(inputs)
        if not self.args.loss_weights["text"]:
            inputs.pop("labels", None)  # no logits for text that does not count
        mixup = None if num_items_in_batch is None else self.args.tail_mixup  # evaluation mixes nothing
        local = target_counts(inputs, mixup)
        counts = local if num_items_in_batch is None else num_items_in_batch
        outputs = model(**inputs, loss_weights=self.args.loss_weights, loss_counts=counts, tail_mixup=mixup)
        loss = outputs["loss"]
        if num_items_in_batch is None:
            self._evaluation_losses.add(outputs, counts, local)
        else:
            self._training_losses.add(outputs, counts, local)
            # gradients are averaged over processes, but the counts are sums over them
            loss = loss * (self.accelerator.num_processes // self.get_tp_size())
        return (loss, outputs) if return_outputs else loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """As in the parent, with the parts of the loss by name."""
        if "loss" in logs:
            logs |= {f"{name}_loss": value for name, value in self._training_losses.flush(self.accelerator).items()}
        super().log(logs, start_time)

    def evaluation_loop(self, *args, metric_key_prefix: str = "eval", **kwargs):
        """
        As in the parent; the loss and its parts are means over all tokens and scores, not over batches. With several
        processes the rows that fill up the last batch count twice.
        """
        self._evaluation_losses.clear()
        output = super().evaluation_loop(*args, metric_key_prefix=metric_key_prefix, **kwargs)
        means = self._evaluation_losses.flush(self.accelerator)
        if means:
            loss = sum(self.args.loss_weights[name] * value for name, value in means.items())
            output.metrics[f"{metric_key_prefix}_loss"] = loss
        output.metrics.update({f"{metric_key_prefix}_{name}_loss": value for name, value in means.items()})
        return output

    def predict_distributions(self, pictures) -> tuple[torch.Tensor, torch.Tensor]:
        """
        What the model makes of pictures without ratings.

        Args:
            pictures (`Dataset`): Rows with an `image` and no rating.

        Returns:
            `tuple[torch.Tensor, torch.Tensor]`: scores `(P, A)` in units of the score range, and distributions
            `(P, A, N)`.
        """
        wanted = ("scores", "distribution")
        ignored = [name.name for name in dataclasses.fields(AestheticsOutput) if name.name not in wanted]
        scores, distributions = self.predict(pictures, ignore_keys=ignored).predictions
        return torch.from_numpy(scores), torch.from_numpy(distributions)

    # ---- what is trained, in which order ------------------------------------------------------------------------

    def create_optimizer(self, model=None) -> torch.optim.Optimizer:
        """As in the parent, with the learning rates of the parts."""
        is_new = self.optimizer is None
        optimizer = super().create_optimizer(model)
        if is_new and self.args.learning_rates:
            parts = named_parts(self.model if model is None else model)
            rates = {
                parameter: rate
                for part, rate in self.args.learning_rates.items()
                for _, parameter in parts.get(part, ())
            }
            optimizer.param_groups = [
                piece for group in optimizer.param_groups for piece in split_by_rate(group, rates)
            ]
        return optimizer

    @property
    def leaves_one(self) -> bool:
        """
        Whether a pass would end with a single picture, of which batch normalisation can take no statistics: it is left
        out. Several processes fill up their last batches.
        """
        count, size = len(self.train_dataset), self._train_batch_size
        return has_batch_norm(self.model) and self.args.world_size == 1 and count > size > 1 and count % size == 1

    def get_train_dataloader(self) -> DataLoader:
        """As in the parent, but for a single picture that [`~SplitLossTrainer.leaves_one`] out."""
        with self._dropping_last(self.args.dataloader_drop_last or self.leaves_one):
            return super().get_train_dataloader()

    def get_eval_dataloader(self, eval_dataset=None) -> DataLoader:
        """As in the parent, with all pictures: `dataloader_drop_last` is for training."""
        with self._dropping_last(False):
            return super().get_eval_dataloader(eval_dataset)

    def get_test_dataloader(self, test_dataset) -> DataLoader:
        """Likewise."""
        with self._dropping_last(False):
            return super().get_test_dataloader(test_dataset)

    @contextlib.contextmanager
    def _dropping_last(self, dropping: bool):
        kept, self.args.dataloader_drop_last = self.args.dataloader_drop_last, dropping
        try:
            yield
        finally:
            self.args.dataloader_drop_last = kept

    def _get_train_sampler(self, train_dataset=None):
        """As in the parent, which cannot tell how long a row becomes that is not yet tokenised."""
        dataset = self.train_dataset if train_dataset is None else train_dataset
        if self.args.train_sampling_strategy != "group_by_length" or not hasattr(self.data_collator, "length"):
            return super()._get_train_sampler(train_dataset)
        size = self.args.train_batch_size * self.args.gradient_accumulation_steps
        return LengthGroupedSampler(size, dataset, [self.data_collator.length(row) for row in dataset])

    def _get_eval_sampler(self, eval_dataset):
        if self.args.train_sampling_strategy == "group_by_length" and hasattr(self.data_collator, "length"):
            return SequentialSampler(eval_dataset) if self.args.world_size <= 1 else None
        return super()._get_eval_sampler(eval_dataset)

    # ---- checkpoints --------------------------------------------------------------------------------------------

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
            if self.trained_on is not None:
                self.trained_on.save(folder)

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


def tell_before_training(model: nn.Module) -> None:
    """Let a model that has something to do before its weights move do it."""
    if hook := getattr(model, "before_training", None):
        hook()


def has_batch_norm(model: nn.Module) -> bool:
    """
    Whether training normalises by statistics over pictures alone, of which a single one has none. Those over all
    places too, as BatchNorm2d takes them, it has.
    """
    return any(isinstance(module, nn.BatchNorm1d) for module in model.modules())


class LossMeans:
    """Sums of the parts of the loss and of what they are summed over, since the last `flush`."""

    def __init__(self):
        self.clear()

    def clear(self) -> None:
        """Begin anew."""
        self.sums = {name: torch.zeros(()) for name in LOSSES}
        self.counts = {name: torch.zeros(()) for name in LOSSES}

    def add(self, outputs, divided_by: Counts, local: Counts) -> None:
        """Take the parts of one forward pass, which were divided by one count and are sums over another."""
        for name in LOSSES:
            value = outputs.get(f"{name}_loss")
            if value is not None:
                kind = "text" if name == "text" else "scores"
                self.sums[name] = self.sums[name].to(value.device) + value * divided_by[kind].to(value.device).clamp(1)
                self.counts[name] = self.counts[name].to(value.device) + local[kind].to(value.device)

    def flush(self, accelerator) -> dict[str, float]:
        """Means over all processes, by name; a part that nothing was summed over is left out."""
        totals = torch.stack([torch.stack([self.sums[name], self.counts[name]]) for name in LOSSES]).float()  # (5, 2)
        if accelerator.num_processes > 1:
            totals = accelerator.reduce(totals.to(accelerator.device), "sum")
        self.clear()
        return {name: total / count for name, (total, count) in zip(LOSSES, totals.tolist(), strict=True) if count}


def target_counts(batch: dict[str, Any], tail_mixup: dict[str, float] | None = None) -> Counts:
    """
    How many text tokens (`text`) and scores (`scores`, those of tail mixup included) of a batch have a target, as
    tensors on its device.
    """
    counts = {"text": torch.zeros(()), "scores": torch.zeros(())}
    if (labels := batch.get("labels")) is not None:
        counts["text"] = (labels[:, 1:] != -100).sum()  # the first token is predicted by none
    known = [~scores.isnan() for scores in [batch.get("scores")] if scores is not None]  # (B, A)
    known += [~votes.isnan().any(-1) for votes in [batch.get("votes")] if votes is not None]  # (B, A)
    if known:
        rated = torch.stack(known).any(0)  # (B, A)
        rated = rated & has_slot(batch.get("slot_attributes"), rated)
        counts["scores"] = rated.sum() + mixed_count(rated, tail_mixup)
    return counts


def has_slot(slot_attributes: torch.Tensor | None, rated: torch.Tensor) -> torch.Tensor:
    """Which attributes `(B, A)` the sentence of each row holds; all where nothing says otherwise."""
    if slot_attributes is None:
        return torch.ones_like(rated)
    attributes = torch.arange(rated.shape[1], device=rated.device)
    return (slot_attributes.to(rated.device).unsqueeze(-1) == attributes).any(1)  # (B, S, A) → (B, A)


def split_by_rate(group: dict[str, Any], rates: dict[nn.Parameter, float]) -> list[dict[str, Any]]:
    """A parameter group as one group per learning rate."""
    by_rate: dict[float, list] = {}
    for parameter in group["params"]:
        by_rate.setdefault(rates.get(parameter, group["lr"]), []).append(parameter)
    return [group | {"params": parameters, "lr": rate} for rate, parameters in by_rate.items()]


__all__ = ["SplitLossTrainer"]
