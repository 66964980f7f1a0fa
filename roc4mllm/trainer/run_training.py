"""
A training from its plan: checked, described, trained or tuned, and saved as a scorer.

Everything that can be wrong with settings, data and output folder is found before the first step.
"""

import csv
import json
import math
import os
import shutil
from pathlib import Path
from typing import Any

from transformers import set_seed

from ..datasets_scripts.split_guard import PictureSet
from ..modeling_roc4mllm.modeling_outputs_aesthetics import score_ranges
from ..whole_files import whole_file, write_whole
from .checkpoint_folders import UNFINISHED, find_checkpoint, publish, refuse_checkpoints
from .image_scorers import image_scorer_config
from .model_parts import describe_trainable
from .rated_pictures import RatedPictures
from .self_training import Say, round_folders, self_train, shown_metrics, train_and_judge
from .split_loss_config import SplitLossConfig
from .split_loss_trainer import SplitLossTrainer
from .training_plan import TrainingPlan
from .training_setup import Prepared, prepare, training_options
from .tuning import DEFAULT_LORA_SPACE, DEFAULT_SPACE, checked_space, search

FEW = 30
RANGE = ("score_min", "score_max")  # columns that [`read_ratings`] knows


def run_training(plan: TrainingPlan, say: Say = print, dry_run: bool = False) -> dict[str, Any]:
    """
    Train a scorer as planned and save it.

    Args:
        plan ([`TrainingPlan`]): What to do.
        say (callable, *optional*): Takes each line that is meant for a person.
        dry_run (`bool`, *optional*, defaults to `False`): Check and describe everything, train nothing.

    Returns:
        `dict`: Metrics on the data to judge on, by name; the best settings after tuning.

    Raises:
        ValueError, OSError, ImportError: For settings, data or folders that the user has to change.
    """
    if plan.tune:
        checked_space(search_space(plan))
    options = training_options(plan)
    if not plan.resume:
        for folder in [Path(plan.output_dir), *round_folders(options)]:
            refuse_checkpoints(folder)
    say = say if options.process_index == 0 else (lambda line: None)
    prepared = prepare(plan, options)
    if plan.resume and (before := PictureSet.load(find_checkpoint(plan.output_dir))):
        prepared.trained_on |= before  # the table may have become another one
    trainer = make_trainer(prepared)
    for line in describe(prepared, trainer):
        say(line)
    trainer.check_before_training()
    if dry_run:
        return {}
    if options.should_save:
        write_whole(Path(plan.output_dir) / "training.yaml", to_yaml(plan.to_dict()).encode())
    if plan.tune:
        return tune(prepared, trainer, say)
    metrics = train_and_judge(trainer, find_checkpoint(plan.output_dir) if plan.resume else None, say)
    if options.self_training:
        if metrics:
            say(f"before self-training: {shown_metrics(metrics)}")
        trainer, after = self_train(trainer, prepared.unlabelled, plan.resume, say)
        metrics = after or metrics
    save_scorer(trainer, Path(plan.output_dir))
    report_end(prepared, trainer, metrics, say)
    return metrics


# ---- training -------------------------------------------------------------------------------------------------------


def make_trainer(prepared: Prepared) -> SplitLossTrainer:
    """The Trainer; for tuning it builds its models itself."""
    set_seed(prepared.options.seed)  # fresh weights are drawn
    model = {"model_init": prepared.build} if prepared.plan.tune else {"model": prepared.build()}
    return new_trainer(prepared, prepared.options, prepared.train, **model)


def new_trainer(prepared: Prepared, options: SplitLossConfig, train: Any, **model: Any) -> SplitLossTrainer:
    """A Trainer of these pictures."""
    try:
        return SplitLossTrainer(
            args=options,
            processing_class=prepared.processor,
            train_dataset=train,
            eval_dataset=prepared.held_out,
            trained_on=prepared.trained_on,
            **model,
        )
    except RuntimeError as error:  # a place to report to that is not installed
        if "requires" not in str(error):
            raise
        raise ImportError(str(error)) from error


def describe(prepared: Prepared, trainer: SplitLossTrainer) -> list[str]:
    """What will be done, in lines for a person."""
    plan, options, model = prepared.plan, prepared.options, trainer.model
    lines = ["data to train on", prepared.train.summary()]
    if prepared.held_out is not None:
        lines += ["data to judge on", prepared.held_out.summary()]
        if len(prepared.held_out) < FEW:
            lines.append(f"note: correlations on fewer than {FEW} pictures say little; state eval_data or eval_share")
        if prepared.shared:
            lines.append(f"note: {prepared.shared} of these pictures are trained on too, so they judge too well")
    name = plan.model or "roc4mllm-tiny, the bundled scorer (for trying things out; state a model for real work)"
    lines += [f"model: {name}", describe_trainable(model)]
    lines += [f"note: {note}" for note in prepared.notes]
    if trainer.leaves_one:
        lines.append("note: each pass leaves out one picture, since batch normalisation can do nothing with one alone")
    batch = options.train_batch_size * options.gradient_accumulation_steps * options.world_size
    steps = options.max_steps
    if steps <= 0:
        steps = math.ceil(math.ceil(len(prepared.train) / batch) * options.num_train_epochs)
    weights = ", ".join(f"{name} {weight:g}" for name, weight in trainer.used_weights.items())
    rates = ", ".join(
        [f"{options.learning_rate:g}", *(f"{p} {r:g}" for p, r in (options.learning_rates or {}).items())]
    )
    lines.append(
        f"about {steps} steps of {batch} pictures ({options.world_size} process(es)); learning rate {rates}; weights "
        f"of the losses: {weights}"
    )
    if options.self_training:
        lines.append(f"then {options.self_training} round(s) of self-training on {len(prepared.unlabelled)} pictures")
    return lines


def search_space(plan: TrainingPlan) -> dict[str, Any]:
    """What to search: the plan's space, or one that suits most trainings."""
    is_small = plan.lora or image_scorer_config(plan.model) is not None  # and takes larger learning rates
    return plan.search_space or (DEFAULT_LORA_SPACE if is_small else DEFAULT_SPACE)


def tune(prepared: Prepared, trainer: SplitLossTrainer, say: Say) -> dict[str, Any]:
    """Search settings, and save the best ones as a file that can be trained with."""
    plan = prepared.plan
    best, srcc = search(trainer, search_space(plan), plan.tune, prepared.options.seed)
    if not prepared.options.should_save:  # the main process alone knows the best
        return best
    settings = {name: value for name, value in plan.to_dict().items() if name not in ("tune", "search_space")} | best
    path = Path(plan.output_dir) / "best_settings.yaml"
    head = f"# best of {plan.tune} settings, SRCC {srcc:.4f} on the pictures that chose them: judge on others\n"
    write_whole(path, (head + to_yaml(settings)).encode())
    say(f"best of {plan.tune}: SRCC {srcc:.4f} with {best}")
    say(f"train with them: roc4mllm train {path}")
    return best


def save_scorer(trainer: SplitLossTrainer, folder: Path) -> None:
    """Save model (or adapter) and processor; files appear under their names when all are written."""
    unfinished = folder / UNFINISHED
    if trainer.args.should_save:
        shutil.rmtree(unfinished, ignore_errors=True)  # of a run that was killed
    trainer.accelerator.wait_for_everyone()
    trainer.save_model(str(unfinished))
    if not trainer.args.should_save:
        return
    drop_weights(folder)
    for path in sorted(unfinished.iterdir()):
        publish(path, folder / path.name)
    unfinished.rmdir()


def drop_weights(folder: Path) -> None:
    """Remove weights of an earlier training: those of another kind would stay beside the new ones, and be loaded."""
    shutil.rmtree(folder / "adapter", ignore_errors=True)
    for path in [*folder.glob("*.safetensors"), *folder.glob("*.safetensors.index.json")]:
        path.unlink()


def report_end(prepared: Prepared, trainer: SplitLossTrainer, metrics: dict[str, Any], say: Say) -> None:
    """The numbers, where the scorer is, and how to go on."""
    folder = prepared.plan.output_dir
    if prepared.held_out is not None:
        kind = f"{prepared.shared} of them trained on" if prepared.shared else "not trained on"
        protocols = f" ({', '.join(prepared.held_out.protocols)})" if prepared.held_out.protocols else ""
        say(f"on {len(prepared.held_out)} pictures{protocols}, {kind}: {shown_metrics(metrics)}")
    if not trainer.model.config.score_head_trained:
        is_frozen = "score_head" in (prepared.options.freeze or ())
        why = "the score head was frozen" if is_frozen else "there were none to learn from"
        say(f"the model is in {folder}; it has learned no scores, since {why}")
        return
    say(f"the scorer is in {folder}: roc4mllm score PICTURES -m {folder}")
    if prepared.held_out is not None and is_scored(prepared.held_out) and prepared.options.should_save:
        path = Path(folder) / "held_out.csv"
        if write_ratings(prepared.held_out, path):
            say(f"judge it in full: roc4mllm evaluate {folder} {path} -o report")
        else:
            say(
                "the pictures to judge on lie in the data set itself; judge in full on a split that was not trained on"
            )


def is_scored(rated: RatedPictures) -> bool:
    """Whether there are scores to compare with, and not comments alone."""
    return any(rated.rating(index)["scores"] for index in range(len(rated)))


def write_ratings(rated: RatedPictures, path: Path) -> bool:
    """
    Write a CSV that `roc4mllm evaluate` reads, with whole paths; nothing where a data set holds the pictures itself.
    """
    if not rated.has_paths:
        return False
    rows = [rated[index] for index in range(len(rated))]
    ranges = set(score_ranges(rated.score_range, len(rated.attributes))) if rated.score_range else set()
    declared: dict[str, Any] = dict(zip(RANGE, ranges.pop(), strict=True)) if len(ranges) == 1 else {}
    if ranges:  # of several units
        pairs = zip(rated.attributes, rated.score_range or (), strict=True)
        declared = {f"{name}_score_range": json.dumps(pair) for name, pair in pairs}
    voted = [f"{name}_votes" for name in rated.attributes if any(name in row["votes"] for row in rows)]
    texts = [name for name in ("comment", "question") if any(row[name] for row in rows)]
    columns = dict.fromkeys(["path", *rated.attributes, *voted, *texts, *declared, *rated.columns])
    with whole_file(path, encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns, extrasaction="ignore")
        writer.writeheader()
        for row in rows:
            votes = {f"{name}_votes": json.dumps(counts) for name, counts in row["votes"].items()}
            picture = {"path": os.path.abspath(row["image"])}
            text = {name: row[name] for name in texts}
            writer.writerow(row["columns"] | row["scores"] | votes | text | declared | picture)
    return True


# ---- files ----------------------------------------------------------------------------------------------------------


def to_yaml(settings: dict[str, Any]) -> str:
    """Settings as YAML, in their order."""
    import yaml  # type: ignore[import-untyped]

    return str(yaml.safe_dump(settings, sort_keys=False, allow_unicode=True))


__all__ = ["run_training"]
