"""
A training, and rounds of self-training after ELTA (ICML 2024): a scorer learns on from pictures without ratings that
it is sure of.

In each round it predicts a distribution for every picture, sharpens it, the more the further the score lies from the
mean, and picks the pictures of which one level then has a share above a threshold. They are trained on beside the
rated ones, with the distribution as it was predicted: sharpening only picks.

Each round has a folder, `round-1`, …, with `picked.csv`, which can be read as rated pictures, and its checkpoints.
"""

import copy
import csv
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import ConcatDataset
from transformers import TrainerState

from ..datasets_scripts.split_guard import PictureSet
from ..modeling_roc4mllm.long_tail_aesthetics import on_one_to_ten, pick, sharpen
from ..modeling_roc4mllm.modeling_outputs_aesthetics import score_ranges
from ..whole_files import whole_file
from .checkpoint_folders import find_checkpoint, has_checkpoint
from .rated_pictures import RatedPictures
from .rating_data import read_ratings
from .split_loss_config import SplitLossConfig
from .split_loss_trainer import SplitLossTrainer
from .unlabelled_pictures import UnlabelledPictures

PICKED = "picked.csv"
STATE = "trainer_state.json"  # of a checkpoint
Say = Callable[[str], None]


# ---- a training -----------------------------------------------------------------------------------------------------


def train_and_judge(trainer: SplitLossTrainer, checkpoint: str | None, say: Say) -> dict[str, Any]:
    """Train, on from a checkpoint where there is one; metrics on the pictures to judge on, none without such."""
    begun = TrainerState.load_from_json(os.path.join(checkpoint, STATE)).global_step if checkpoint else 0
    trainer.train(resume_from_checkpoint=checkpoint)
    ended = trainer.state.global_step
    if checkpoint and ended == begun:
        say(f"{checkpoint} is the end of this training, step {ended}: nothing is left to train")
    if trainer.eval_dataset is None:
        return {}
    last = trainer.state.log_history[-2:]  # what the Trainer measured as it ended, and how long all took
    measured = [line for line in last if "eval_srcc" in line and line["step"] == ended > begun]
    return measured[0] if measured and not trainer.args.load_best_model_at_end else trainer.evaluate()


def shown_metrics(metrics: dict[str, Any]) -> str:
    """The main metrics in a line."""
    shown = {name: metrics.get(f"eval_{name}") for name in ("srcc", "plcc", "mae")}
    numbers = ", ".join(f"{k.upper()} {v:.3f}" for k, v in shown.items() if isinstance(v, float) and v == v)
    return numbers or "too few scores for a correlation"


# ---- rounds ---------------------------------------------------------------------------------------------------------


def self_train(
    trainer: SplitLossTrainer, paths: list[str], resume: bool = False, say: Say = print
) -> tuple[SplitLossTrainer, dict[str, Any]]:
    """
    Rounds of training on after [`~SplitLossTrainer.train`], as many as `self_training` of the options says; each goes
    on with the weights of the one before, a fresh optimiser and a new choice of pictures.

    Args:
        trainer ([`SplitLossTrainer`]): One that has trained, on [`RatedPictures`] or rows like theirs.
        paths (`list[str]`): Pictures without ratings, see [`read_unlabelled`].
        resume (`bool`, *optional*, defaults to `False`): Go on where rounds in these folders were broken off.
        say (callable, *optional*): Takes each line that is meant for a person.

    Returns:
        `tuple[SplitLossTrainer, dict]`: The Trainer of the last round, and its metrics on the pictures to judge on;
        none where there are none, or nothing was picked.

    Raises:
        ValueError: If the score head has one value, and so no distributions.
    """
    refuse_one_value(trainer.model.config.num_levels)
    rated, metrics = trainer.train_dataset, {}
    for number, folder in enumerate(round_folders(trainer.args), start=1):
        if not (resume and (folder / PICKED).is_file()):
            surest = pick_round(trainer, paths, folder)
            say(f"round {number}: the surest prediction has a sharpened share of {surest:.2f} in one level")
        count = count_rows(folder / PICKED)
        say(f"round {number}: {count} of {len(paths)} pictures picked, see {folder / PICKED}")
        if not count:
            say(
                f"round {number}: nothing to learn from, so self-training ends here. A pick_threshold below "
                f"{trainer.args.pick_threshold:g} or a sharpening above {trainer.args.sharpening:g} picks more"
            )
            break
        trainer = trainer_of_round(trainer, rated, read_picked(trainer.model.config, folder / PICKED), folder)
        checkpoint = find_checkpoint(folder) if resume and has_checkpoint(folder) else None
        metrics = train_and_judge(trainer, checkpoint, say)
        if metrics:
            say(f"after round {number}: {shown_metrics(metrics)}")
    return trainer, metrics


def round_folders(options: SplitLossConfig) -> list[Path]:
    """A folder for each round, in that of the training."""
    return [Path(options.output_dir) / f"round-{number}" for number in range(1, options.self_training + 1)]


def trainer_of_round(before: SplitLossTrainer, rated: Any, picked: RatedPictures, folder: Path) -> SplitLossTrainer:
    """A Trainer of rated and picked pictures, with what the one before had."""
    options = copy.copy(before.args)
    options.output_dir = str(folder)
    trained_on = before.trained_on  # stays unknown where it was: a part of it would say too little
    trainer = type(before)(
        model=before.model,
        args=options,
        data_collator=before.data_collator,
        processing_class=before.processing_class,
        train_dataset=ConcatDataset([rated, picked]),
        eval_dataset=before.eval_dataset,
        compute_metrics=before.compute_metrics,
        trained_on=None if trained_on is None else trained_on | PictureSet.of(picked.outlines()),
    )
    own = {type(callback) for callback in trainer.callback_handler.callbacks}
    for callback in before.callback_handler.callbacks:
        if type(callback) not in own:
            trainer.add_callback(callback)
    return trainer


def pick_round(trainer: SplitLossTrainer, paths: list[str], folder: Path) -> float:
    """Write what the scorer is sure of; the largest share of a level."""
    rows, surest = pick_pictures(trainer, paths, trainer.args.sharpening, trainer.args.pick_threshold)
    if trainer.args.should_save:
        write_picked(rows, trainer.model.config.attributes, folder / PICKED)
    trainer.accelerator.wait_for_everyone()
    return surest


def read_picked(config: Any, path: Path) -> RatedPictures:
    """Picked pictures as rated ones, in the units of the scorer."""
    return read_ratings(
        path, known_attributes=config.attributes, score_range=config.score_range, num_levels=config.num_levels
    )


def refuse_one_value(num_levels: int | None) -> None:
    """Self-training needs predicted distributions."""
    if num_levels == 1:
        raise ValueError("self_training sharpens distributions over levels, and a head of one value has none")


# ---- picking --------------------------------------------------------------------------------------------------------


def pick_pictures(
    trainer: SplitLossTrainer, paths: list[str], sharpening: float, threshold: float
) -> tuple[list[dict[str, Any]], float]:
    """
    Rows of the pictures that the scorer is sure of, for at least one attribute.

    Returns:
        `tuple[list[dict], float]`: `path` and, for each attribute that was picked, `<name>_votes` (the predicted
        distribution, unsharpened) and `<name>_sharpened` (the largest share of a level, sharpened); and the largest of
        these shares among all pictures.
    """
    scores, distribution = trainer.predict_distributions(UnlabelledPictures(paths))  # (P, A), (P, A, N)
    config = trainer.model.config
    picked, largest = pick_sure(scores, distribution, config.score_range, sharpening, threshold)
    rows: list[dict[str, Any]] = [{"path": path} for path in paths]
    for place, column in picked.nonzero().tolist():
        name = config.attributes[column]
        rows[place][f"{name}_votes"] = json.dumps(distribution[place, column].tolist())
        rows[place][f"{name}_sharpened"] = f"{largest[place, column].item():.6g}"
    return [row for row in rows if len(row) > 1], largest.max().item()


def pick_sure(
    scores: torch.Tensor, distribution: torch.Tensor, score_range: Any, sharpening: float, threshold: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Which predictions are sure enough, of pictures P and attributes A.

    Args:
        scores (`torch.Tensor` of shape `(P, A)`): In units of the score range.
        distribution (`torch.Tensor` of shape `(P, A, N)`): As predicted.
        score_range (pair of `float`, or one pair per attribute): That of the scorer.
        sharpening, threshold (`float`): See [`sharpen`] and [`pick`].

    Returns:
        `tuple[torch.Tensor, torch.Tensor]`: `(P, A)` each: whether it is, and the largest share of a level, sharpened.
    """
    logits = distribution.clamp(min=torch.finfo(distribution.dtype).tiny).log()  # but for a constant in each row
    ranges = score_ranges(score_range, scores.shape[1])
    sharpened = [
        sharpen(logits[:, column], on_one_to_ten(scores[:, column], *ends), sharpening)
        for column, ends in enumerate(ranges)
    ]
    together = torch.stack(sharpened, 1)  # (P, A, N)
    return pick(together, threshold), together.amax(-1)


def write_picked(rows: list[dict[str, Any]], attributes: list[str], path: Path) -> None:
    """Write what was picked as a table that can be read as ratings; whole as soon as it has its name."""
    columns = ["path", *(f"{name}_{kind}" for name in attributes for kind in ("votes", "sharpened"))]
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path, encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)


def count_rows(path: Path) -> int:
    """How many pictures a table of picked ones holds."""
    with path.open(encoding="utf-8", newline="") as file:
        return sum(1 for _ in csv.DictReader(file))


__all__ = ["PICKED", "pick_pictures", "pick_sure", "self_train", "train_and_judge", "write_picked"]
