"""
A training from its plan: data read and checked, model built or loaded, trained or tuned, saved as a scorer.

Everything that can be wrong with settings, data and output folder is found before the first step.
"""

import csv
import json
import math
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, set_seed

from ..modeling_roc4mllm.adapter_roc4mllm import has_adapter
from ..modeling_roc4mllm.configuration_roc4mllm import ROC4MLLMConfig
from ..modeling_roc4mllm.modeling_outputs_aesthetics import score_ranges
from ..modeling_roc4mllm.modeling_roc4mllm import ROC4MLLMForImageAesthetics
from ..processing_roc4mllm.processing_roc4mllm import QUESTION, ROC4MLLMProcessor
from .checkpoint_folders import find_checkpoint, publish
from .model_parts import describe_trainable
from .rating_data import RatedPictures, read_ratings
from .split_loss_config import SplitLossConfig
from .split_loss_trainer import SplitLossTrainer
from .training_plan import TrainingPlan
from .tuning import DEFAULT_LORA_SPACE, DEFAULT_SPACE, checked_space, search

BUNDLED = Path(__file__).parents[1] / "checkpoints" / "roc4mllm-tiny"
LORA_LEARNING_RATE = 2e-4  # for fresh low-rank weights; that of the paper is for all weights
FEW = 30
RANGE = ("score_min", "score_max")  # columns that [`read_ratings`] knows
Say = Callable[[str], None]


@dataclass
class Prepared:
    """A plan with everything it needs, checked."""

    plan: TrainingPlan
    options: SplitLossConfig
    train: RatedPictures
    held_out: RatedPictures | None
    processor: ROC4MLLMProcessor
    build: Callable[[], ROC4MLLMForImageAesthetics]


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
    options = training_options(plan)
    say = say if options.process_index == 0 else (lambda line: None)
    prepared = prepare(plan, options)
    trainer = make_trainer(prepared)
    for line in describe(prepared, trainer):
        say(line)
    if dry_run:
        return {}
    if options.should_save:
        write_text(Path(plan.output_dir) / "training.yaml", to_yaml(plan.to_dict()))
    if plan.tune:
        return tune(prepared, trainer, say)
    trainer.train(resume_from_checkpoint=find_checkpoint(plan.output_dir) if plan.resume else None)
    metrics = trainer.evaluate() if prepared.held_out is not None else {}
    save_scorer(trainer, Path(plan.output_dir))
    report_end(prepared, metrics, say)
    return metrics


# ---- settings, data and model ---------------------------------------------------------------------------------------


def training_options(plan: TrainingPlan) -> SplitLossConfig:
    """Options of the Trainer: those of the plan, and what suits a training from the command line."""
    judged = bool(plan.eval_data or plan.eval_share)
    defaults = {
        "eval_strategy": "epoch" if judged else "no",
        "save_strategy": "no" if plan.tune else "epoch",
        "save_total_limit": 2,
        "logging_steps": 0.02,  # a share of all steps
        "dataloader_pin_memory": torch.accelerator.is_available(),
        "disable_tqdm": not sys.stderr.isatty(),
    }
    if plan.lora:
        defaults["learning_rate"] = LORA_LEARNING_RATE
    try:
        return SplitLossConfig(output_dir=plan.output_dir, **defaults | plan.training)
    except TypeError as error:
        raise ValueError(f"an option has a value of the wrong kind: {error}") from error


def prepare(plan: TrainingPlan, options: SplitLossConfig) -> Prepared:
    """Read the data and find out what has to be built."""
    known = scorer_config(plan.model)
    reading: dict[str, Any] = {
        "attributes": plan.attributes,
        "score_range": plan.score_range,
        "num_levels": plan.num_levels,
    }
    if known is not None:
        refuse_other_scorer(plan, known)
        ranges = dict(zip(known.attributes, score_ranges(known.score_range, len(known.attributes)), strict=True))
        reading["score_range"] = [ranges[name] for name in plan.attributes or known.attributes]
        reading |= {"num_levels": known.num_levels, "known_attributes": known.attributes}
    reading["pictures"] = plan.pictures
    train = read_ratings(plan.data, split=plan.split, skip_bad_rows=plan.skip_bad_rows, **reading)
    held_out = None
    if plan.eval_data:
        reading["score_range"] = reading["score_range"] or train.score_range
        skip = plan.skip_bad_rows and Path(plan.skip_bad_rows).with_suffix(".eval.csv")
        held_out = read_ratings(plan.eval_data, split=plan.eval_split, skip_bad_rows=skip, **reading)
    elif plan.eval_share:
        train, held_out = train.split(plan.eval_share, seed=options.seed)
    if plan.tune and held_out is None:
        raise ValueError("settings cannot be compared without pictures to judge on: state eval_data or eval_share")
    if known is None:
        processor = new_processor(plan, train)
        return Prepared(plan, options, train, held_out, processor, lambda: new_scorer(plan, train, processor))
    processor = ROC4MLLMProcessor.from_pretrained(plan.model or str(BUNDLED))
    return Prepared(plan, options, train, held_out, processor, lambda: known_scorer(plan))


def scorer_config(model: str | None) -> ROC4MLLMConfig | None:
    """The config of a scorer that is trained on; `None` for a multimodal LLM that has no score head yet."""
    config = AutoConfig.from_pretrained(model or str(BUNDLED))
    return config if isinstance(config, ROC4MLLMConfig) else None


def refuse_other_scorer(plan: TrainingPlan, known: ROC4MLLMConfig) -> None:
    """A trained scorer keeps its range, levels, attributes and question."""
    if unknown := sorted(set(plan.attributes or ()) - set(known.attributes)):
        raise ValueError(f"the scorer does not know {', '.join(unknown)}; it scores {', '.join(known.attributes)}")
    for name, given in (("score_range", plan.score_range), ("num_levels", plan.num_levels)):
        own = getattr(known, name)
        if given is not None and given != own:
            raise ValueError(f"the scorer has {name} {own}, not {given}; start from its backbone for another one")
    if plan.question is not None:
        raise ValueError("the scorer has a question of its own; start from its backbone for another one")


def new_processor(plan: TrainingPlan, train: RatedPictures) -> ROC4MLLMProcessor:
    """The backbone's processor with `[SCORE]` and the attributes of the data."""
    return ROC4MLLMProcessor.from_backbone(plan.model, attributes=train.attributes, question=plan.question or QUESTION)


def new_scorer(plan: TrainingPlan, train: RatedPictures, processor: ROC4MLLMProcessor) -> ROC4MLLMForImageAesthetics:
    """A score head on a multimodal LLM."""
    model = ROC4MLLMForImageAesthetics.from_backbone(
        plan.model,
        processor=processor,
        num_levels=plan.num_levels or train.num_levels or 10,
        score_range=train.score_range or (1.0, 10.0),  # none where only comments are known
        **loading_options(plan),
    )
    return with_adapter(plan, model)


def known_scorer(plan: TrainingPlan) -> ROC4MLLMForImageAesthetics:
    """A scorer as it was saved."""
    model = ROC4MLLMForImageAesthetics.from_pretrained(plan.model or str(BUNDLED), **loading_options(plan))
    return with_adapter(plan, model)


def with_adapter(plan: TrainingPlan, model: ROC4MLLMForImageAesthetics) -> ROC4MLLMForImageAesthetics:
    """The model with fresh low-rank weights, if the plan wants them."""
    if not plan.lora or has_adapter(model):  # one that is trained on keeps its own
        return model
    from .lora_recipe import add_lora

    return add_lora(model, r=plan.lora_rank, alpha=plan.lora_alpha, dropout=plan.lora_dropout, parts=plan.lora_parts)


def loading_options(plan: TrainingPlan) -> dict[str, Any]:
    """How the weights are loaded: in float32 where all of them are trained, since small steps vanish in bfloat16."""
    options: dict[str, Any] = {"dtype": plan.dtype or ("auto" if plan.lora else "float32")}
    if plan.attn_implementation is not None:
        options["attn_implementation"] = plan.attn_implementation
    if plan.load_in_4bit:
        options["quantization_config"] = four_bits()
    return options


def four_bits() -> Any:
    """NF4 with double quantisation, as QLoRA (Dettmers et al., NeurIPS 2023) holds frozen weights."""
    try:
        import bitsandbytes  # noqa: F401
    except ImportError as error:
        raise ImportError('weights of 4 bits need bitsandbytes: pip install "roc4mllm[quant]"') from error
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )


# ---- training -------------------------------------------------------------------------------------------------------


def make_trainer(prepared: Prepared) -> SplitLossTrainer:
    """The Trainer; for tuning it builds its models itself."""
    set_seed(prepared.options.seed)  # a fresh score head is drawn
    model = {"model_init": prepared.build} if prepared.plan.tune else {"model": prepared.build()}
    try:
        return SplitLossTrainer(
            args=prepared.options,
            processing_class=prepared.processor,
            train_dataset=prepared.train,
            eval_dataset=prepared.held_out,
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
    name = plan.model or "roc4mllm-tiny, the bundled scorer (for trying things out; state a model for real work)"
    lines += [f"model: {name}", describe_trainable(model)]
    lines += [f"note: {warning}" for warning in prepared.train.warnings]
    batch = options.train_batch_size * options.gradient_accumulation_steps * options.world_size
    steps = options.max_steps
    if steps <= 0:
        steps = math.ceil(math.ceil(len(prepared.train) / batch) * options.num_train_epochs)
    weights = ", ".join(f"{name} {weight:g}" for name, weight in options.loss_weights.items() if weight)
    lines.append(
        f"about {steps} steps of {batch} pictures ({options.world_size} process(es)); learning rate "
        f"{options.learning_rate:g}; weights of the losses: {weights}"
    )
    return lines


def tune(prepared: Prepared, trainer: SplitLossTrainer, say: Say) -> dict[str, Any]:
    """Search settings, and save the best ones as a file that can be trained with."""
    plan = prepared.plan
    space = checked_space(plan.search_space or (DEFAULT_LORA_SPACE if plan.lora else DEFAULT_SPACE))
    best, srcc = search(trainer, space, plan.tune, prepared.options.seed)
    settings = {name: value for name, value in plan.to_dict().items() if name not in ("tune", "search_space")} | best
    path = Path(plan.output_dir) / "best_settings.yaml"
    head = f"# best of {plan.tune} settings, SRCC {srcc:.4f} on the data to judge on\n"
    write_text(path, head + to_yaml(settings))
    say(f"best of {plan.tune}: SRCC {srcc:.4f} with {best}")
    say(f"train with them: roc4mllm train {path}")
    return best


def save_scorer(trainer: SplitLossTrainer, folder: Path) -> None:
    """Save model (or adapter) and processor; files appear under their names when all are written."""
    unfinished = folder / "unfinished"
    trainer.save_model(str(unfinished))
    if not trainer.args.should_save:
        return
    for path in sorted(unfinished.iterdir()):
        publish(path, folder / path.name)
    unfinished.rmdir()


def report_end(prepared: Prepared, metrics: dict[str, Any], say: Say) -> None:
    """The numbers, where the scorer is, and how to go on."""
    folder = prepared.plan.output_dir
    if prepared.held_out is not None:
        shown = {name: metrics.get(f"eval_{name}") for name in ("srcc", "plcc", "mae")}
        numbers = ", ".join(f"{k.upper()} {v:.3f}" for k, v in shown.items() if isinstance(v, float) and v == v)
        say(f"on {len(prepared.held_out)} pictures that were not trained on: {numbers or 'too few for a correlation'}")
    say(f"the scorer is in {folder}: roc4mllm score PICTURES -m {folder}")
    if prepared.held_out is not None and prepared.options.should_save:
        path = Path(folder) / "held_out.csv"
        if write_ratings(prepared.held_out, path):
            say(f"judge it in full: roc4mllm evaluate {folder} {path} -o report")


def write_ratings(rated: RatedPictures, path: Path) -> bool:
    """
    Write a CSV that `roc4mllm evaluate` reads, with whole paths; nothing where a data set holds the pictures itself.
    """
    rows = [rated[index] for index in range(len(rated))]
    if not all(isinstance(row["image"], str) for row in rows):
        return False
    ranges = set(score_ranges(rated.score_range, len(rated.attributes))) if rated.score_range else set()
    declared = dict(zip(RANGE, ranges.pop(), strict=True)) if len(ranges) == 1 else {}
    columns = ["path", *rated.attributes, *(f"{name}_votes" for name in rated.attributes), *declared, *rated.columns]
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns, extrasaction="ignore")
        writer.writeheader()
        for row in rows:
            votes = {f"{name}_votes": json.dumps(counts) for name, counts in row["votes"].items()}
            picture = {"path": os.path.abspath(row["image"])}
            writer.writerow(row["columns"] | row["scores"] | votes | declared | picture)
    os.replace(partial, path)
    return True


# ---- files ----------------------------------------------------------------------------------------------------------


def to_yaml(settings: dict[str, Any]) -> str:
    """Settings as YAML, in their order."""
    import yaml  # type: ignore[import-untyped]

    return str(yaml.safe_dump(settings, sort_keys=False, allow_unicode=True))


def write_text(path: Path, text: str) -> None:
    """Write a file that is whole as soon as it has its name."""
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)


__all__ = ["Prepared", "run_training"]
