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
- checkpoints are those of [`CheckpointTrainer`]
"""

import contextlib
import dataclasses
from collections.abc import Sized
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader, SequentialSampler
from transformers.trainer_pt_utils import LengthGroupedSampler

from ..datasets_scripts.split_guard import PictureSet
from ..modeling_roc4mllm.adapter_roc4mllm import has_adapter
from ..modeling_roc4mllm.modeling_outputs_aesthetics import AestheticsOutput
from .checkpoint_folders import check_space, check_writable, checkpoint_bytes
from .checkpoint_trainer import CheckpointTrainer
from .loss_means import Counts, LossMeans, target_counts
from .metrics_aesthetics import aesthetics_metrics
from .model_parts import checked_parts, freeze_parts, named_parts
from .rating_collator import RatingCollator
from .split_loss_config import SCORE_LOSSES, SplitLossConfig


class SplitLossTrainer(CheckpointTrainer):
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
                every part is frozen, there would be no step, or a batch would hold one picture and the model
                normalises over several.
            OSError: If the output folder has no room for all checkpoints that lie there at once, and the model.
        """
        self._check_losses()
        self._check_steps()
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

    def _check_steps(self) -> None:
        args = self.args
        if not any(parameter.requires_grad for parameter in self.model.parameters()):
            raise ValueError("Every part of the model is frozen, so there is nothing to train: freeze fewer.")
        if args.max_steps <= 0 and args.num_train_epochs <= 0:
            raise ValueError(f"num_train_epochs must be above 0 to train at all, got {args.num_train_epochs:g}.")
        if args.dataloader_drop_last and isinstance(self.train_dataset, Sized):
            count, size = len(self.train_dataset), self._train_batch_size * args.world_size
            if count < size:
                raise ValueError(
                    f"dataloader_drop_last leaves out all {count} pictures, which do not fill a batch of {size}: turn "
                    "it off, or take a smaller per_device_train_batch_size."
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

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None) -> None:
        super()._save(output_dir, state_dict)
        if self.args.should_save and self.trained_on is not None:
            self.trained_on.save(Path(output_dir or self.args.output_dir))

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


def split_by_rate(group: dict[str, Any], rates: dict[nn.Parameter, float]) -> list[dict[str, Any]]:
    """A parameter group as one group per learning rate."""
    by_rate: dict[float, list] = {}
    for parameter in group["params"]:
        by_rate.setdefault(rates.get(parameter, group["lr"]), []).append(parameter)
    return [group | {"params": parameters, "lr": rate} for rate, parameters in by_rate.items()]


__all__ = ["SplitLossTrainer"]
