"""
What a planned training needs: options, data that were read and checked, and how its model is built or loaded.
"""

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, PreTrainedConfig

from ..datasets_scripts.split_guard import PictureSet
from ..modeling_roc4mllm.adapter_roc4mllm import has_adapter, is_adapter_folder
from ..modeling_roc4mllm.configuration_aesthetics import AestheticsConfig
from ..modeling_roc4mllm.configuration_image_scorer import ImageScorerConfig
from ..modeling_roc4mllm.configuration_roc4mllm import ROC4MLLMConfig
from ..modeling_roc4mllm.modeling_auto_aesthetics import AutoModelForImageAesthetics
from ..modeling_roc4mllm.modeling_outputs_aesthetics import score_ranges
from ..modeling_roc4mllm.modeling_roc4mllm import ROC4MLLMForImageAesthetics
from ..processing_roc4mllm.processing_roc4mllm import QUESTION, ROC4MLLMProcessor
from .image_scorers import (
    fresh_config,
    image_processor_of,
    image_scorer_config,
    image_scorer_options,
    new_image_scorer,
    refuse_language_settings,
    scored_rows,
)
from .rated_pictures import RatedPictures
from .rating_checks import given_ranges
from .rating_data import read_ratings
from .self_training import refuse_one_value
from .split_loss_config import SplitLossConfig
from .trained_on import trained_below
from .training_plan import TrainingPlan
from .unlabelled_pictures import read_unlabelled

BUNDLED = Path(__file__).parents[1] / "checkpoints" / "roc4mllm-tiny"
LORA_LEARNING_RATE = 2e-4  # for low-rank weights; that of the paper is for all weights
FEWEST_TO_COMPARE = 3  # pictures: fewer have no rank correlation


@dataclass
class Prepared:
    """A plan with everything it needs, checked; `notes` are for a person to read."""

    plan: TrainingPlan
    options: SplitLossConfig
    train: RatedPictures
    held_out: RatedPictures | None
    processor: Any  # ROC4MLLMProcessor, or an image processor
    build: Callable[[], Any]
    trained_on: PictureSet  # what the scorer will have seen, that of the training before this one too
    unlabelled: list[str] = field(default_factory=list)  # paths, for self-training
    shared: int = 0  # pictures to judge on that are trained on too
    notes: list[str] = field(default_factory=list)


def training_options(plan: TrainingPlan) -> SplitLossConfig:
    """Options of the Trainer: those of the plan, and what suits a training from the command line."""
    judged = bool(plan.eval_data or plan.eval_split or plan.eval_share)
    defaults: dict[str, Any] = {
        "eval_strategy": "epoch" if judged else "no",
        "save_strategy": "no" if plan.tune else "epoch",
        "save_total_limit": 2,
        "logging_steps": 0.02,  # a share of all steps
        "dataloader_pin_memory": torch.accelerator.is_available(),
        "disable_tqdm": not sys.stderr.isatty(),
    }
    if trains_adapter(plan):
        defaults["learning_rate"] = LORA_LEARNING_RATE
    elif config := image_scorer_config(plan.model):
        defaults |= image_scorer_options(plan, config)
    options = defaults | plan.training
    if isinstance(own := plan.training.get("learning_rates"), dict):
        options["learning_rates"] = (
            defaults.get("learning_rates", {}) | own
        )  # what is stated for one part leaves others
    try:
        return SplitLossConfig(output_dir=plan.output_dir, **options)
    except TypeError as error:
        raise ValueError(f"an option has a value of the wrong kind: {error}") from error


def trains_adapter(plan: TrainingPlan) -> bool:
    """Whether low-rank weights are trained: new ones, or those of an adapter that is trained on."""
    return plan.lora or (plan.model is not None and is_adapter_folder(plan.model))


def prepare(plan: TrainingPlan, options: SplitLossConfig) -> Prepared:
    """Read the data and find out what has to be built."""
    refuse_same_folder(plan)
    image_scorer = image_scorer_config(plan.model)
    if image_scorer is not None:
        refuse_language_settings(plan, image_scorer)
    known = None if fresh_config(plan.model) else scorer_config(plan.model)
    if known is None and image_scorer is None:
        refuse_few_levels(plan)
    train, held_out, notes = read_data(plan, options, known)
    if image_scorer is not None:
        train = scored_rows(train, notes)
    if plan.tune and not can_compare(held_out):
        raise ValueError(
            f"settings cannot be compared without pictures to judge on, {FEWEST_TO_COMPARE} at least and not all "
            "rated alike: state eval_data or eval_share"
        )
    processor, build = parts_of(plan, train, known, image_scorer)
    trained = PictureSet.of(train.outlines())
    judged = PictureSet.empty() if held_out is None else PictureSet.of(held_out.outlines())
    before = PictureSet.empty() if known is None else trained_below(plan.model or BUNDLED)
    prepared = Prepared(plan, options, train, held_out, processor, build, before | trained)
    if options.self_training:
        refuse_one_value(plan.num_levels if known is None else known.num_levels)
        prepared.unlabelled = read_unlabelled(plan.unlabelled or "", plan.pictures, trained | judged, notes)
    prepared.notes, prepared.shared = notes, prepared.trained_on.overlap(judged).shared
    return prepared


def can_compare(held_out: RatedPictures | None) -> bool:
    """Whether a rank correlation of the main attribute exists on the pictures to judge on."""
    if held_out is None:
        return False
    rows = [held_out.rating(index)["scores"] for index in range(len(held_out))]
    scores = [row[held_out.attributes[0]] for row in rows if held_out.attributes[0] in row]
    return len(scores) >= FEWEST_TO_COMPARE and len(set(scores)) > 1


def read_data(
    plan: TrainingPlan, options: SplitLossConfig, known: AestheticsConfig | None
) -> tuple[RatedPictures, RatedPictures | None, list[str]]:
    """Rated pictures to train on and to judge on, and what was noticed about them."""
    num_levels = plan.num_levels if known is None else known.num_levels
    reading: dict[str, Any] = {
        "attributes": plan.attributes,
        "score_range": plan.score_range,
        "num_levels": None if num_levels == 1 else num_levels,  # votes tell one value their mean at least
    }
    if known is not None:
        refuse_other_scorer(plan, known)
        ranges = ranges_of(known)
        reading["score_range"] = [ranges[name] for name in plan.attributes or known.attributes]
        reading["known_attributes"] = known.attributes
    reading["pictures"] = plan.pictures
    train = read_ratings(plan.data, split=plan.split, skip_bad_rows=plan.skip_bad_rows, **reading)
    notes, held_out = list(train.warnings), None
    if plan.eval_data or plan.eval_split:
        reading["score_range"] = reading["score_range"] or train.score_range
        skip = plan.skip_bad_rows and Path(plan.skip_bad_rows).with_suffix(".eval.csv")
        source = plan.eval_data or plan.data
        held_out = read_ratings(source, split=plan.eval_split, skip_bad_rows=skip, **reading)
        notes += held_out.warnings
    elif plan.eval_share:
        train, held_out = train.split(plan.eval_share, seed=options.seed)
    return train, held_out, notes


def parts_of(
    plan: TrainingPlan, train: RatedPictures, known: AestheticsConfig | None, image_scorer: ImageScorerConfig | None
) -> tuple[Any, Callable[[], Any]]:
    """The processor, and what builds or loads the model."""
    if image_scorer is not None:
        processor = image_processor_of(plan, image_scorer)
        loading = loading_options(plan)
        if known is None:
            return processor, lambda: new_image_scorer(plan, train, **loading)
        return processor, lambda: AutoModelForImageAesthetics.from_pretrained(plan.model, **loading)
    if known is None:
        processor = new_processor(plan, train)
        return processor, lambda: new_scorer(plan, train, processor)
    return ROC4MLLMProcessor.from_pretrained(plan.model or str(BUNDLED)), lambda: known_scorer(plan)


def refuse_few_levels(plan: TrainingPlan) -> None:
    """A head on a multimodal LLM says a distribution over levels."""
    fewest = ROC4MLLMConfig.fewest_levels
    if plan.num_levels is not None and plan.num_levels < fewest:
        raise ValueError(
            f"a head on a multimodal LLM needs num_levels of {fewest} or more, got {plan.num_levels}: leave it out to "
            "have those of the votes, or 10; a head of one value is for tanet, elta and eat, as in --model eat-tiny"
        )


def refuse_same_folder(plan: TrainingPlan) -> None:
    """An adapter in the folder of the model below it would take that model's place."""
    if plan.lora and plan.model and os.path.realpath(plan.model) == os.path.realpath(plan.output_dir):
        raise ValueError(f"an adapter cannot be saved over the model that it is trained on: {plan.model}")


def scorer_config(model: str | None) -> AestheticsConfig | None:
    """The config of a scorer that is trained on; `None` for a multimodal LLM that has no score head yet."""
    if model and "visual_config" in PreTrainedConfig.get_config_dict(model)[0]:
        raise ValueError(
            f"{model} is in the format of its authors; convert it (`roc4mllm convert --help`) and train on the result"
        )
    config = AutoConfig.from_pretrained(model or str(BUNDLED))
    return config if isinstance(config, AestheticsConfig) else None


def ranges_of(config: AestheticsConfig) -> dict[str, tuple[float, float]]:
    """Score range by attribute."""
    return dict(zip(config.attributes, score_ranges(config.score_range, len(config.attributes)), strict=True))


def refuse_other_scorer(plan: TrainingPlan, known: AestheticsConfig) -> None:
    """A trained scorer keeps its range, levels, attributes and question."""
    if unknown := sorted(set(plan.attributes or ()) - set(known.attributes)):
        raise ValueError(f"the scorer does not know {', '.join(unknown)}; it scores {', '.join(known.attributes)}")
    if plan.num_levels not in (None, known.num_levels):
        raise ValueError(
            f"the scorer has num_levels {known.num_levels}, not {plan.num_levels}; start from its backbone for others"
        )
    if plan.score_range is not None:
        ranges = ranges_of(known)
        names = plan.attributes or known.attributes[:1]  # a range alone is that of the main score
        for name, (low, high, _) in zip(names, given_ranges(plan.score_range, names, "as given"), strict=True):
            if (low, high) != ranges[name]:
                own, other = ("{:g} to {:g}".format(*pair) for pair in (ranges[name], (low, high)))
                way = (
                    "start from its backbone"
                    if hasattr(known, "mllm_config")
                    else "train a fresh one, as -m eat-base,"
                )
                raise ValueError(f"the scorer's score_range of {name} is {own}, not {other}; {way} for another")
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
    if has_adapter(model):  # one that is trained on keeps its own
        if plan.lora_settings():
            raise ValueError(
                f"{plan.model} is an adapter, which keeps its rank and parts: leave out the lora_ settings"
            )
        return model
    if not plan.lora:
        return model
    from .lora_recipe import add_lora

    return add_lora(model, r=plan.lora_rank, alpha=plan.lora_alpha, dropout=plan.lora_dropout, parts=plan.lora_parts)


def loading_options(plan: TrainingPlan) -> dict[str, Any]:
    """How the weights are loaded: in float32 where all of them are trained, since small steps vanish in bfloat16."""
    options: dict[str, Any] = {"dtype": plan.dtype or ("auto" if trains_adapter(plan) else "float32")}
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


__all__ = ["Prepared", "prepare", "training_options"]
