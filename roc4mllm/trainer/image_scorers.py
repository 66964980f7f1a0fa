"""
Scorers of a picture alone (TANet, EAT, …) in a planned training: fresh ones by name, or saved ones.

A fresh one is named by its family, and by a size where the family has some: `tanet`, `eat-tiny`, `eat-base-384`. For
any other, save a model of your own configuration and its image processor in one folder, and train on that.
"""

import os
from typing import Any

from transformers import CONFIG_MAPPING, AutoConfig, AutoImageProcessor, PreTrainedConfig, ViTImageProcessorPil
from transformers.image_utils import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

from ..modeling_roc4mllm.configuration_image_scorer import ImageScorerConfig
from ..modeling_roc4mllm.modeling_auto_aesthetics import AutoModelForImageAesthetics
from .rated_pictures import RatedPictures
from .training_plan import TrainingPlan

LEARNING_RATE = 1e-4  # for networks of tens of millions of weights; that of ROC4MLLM's paper is for billions
# Of parts, as shares of that. The map of TANet's colours has 20,736 inputs, none of them negative: at the rate of the
# rest, its softmax is one-hot after a few steps.
PART_RATES = {"tanet": {"colour": 0.01}}
PICTURE_SIDE = 224  # pixels, where a configuration states none


def fresh_config(name: str | None, **fields: Any) -> ImageScorerConfig | None:
    """
    The configuration of a fresh scorer, or `None` if the name is no family's.

    Args:
        name (`str`, *optional*): As in `eat-tiny`. A folder of that name is not meant.
        **fields: `num_levels`, `score_range`, `attributes`, …

    Raises:
        ValueError: If the family has no such size.
    """
    family, _, size = (name or "").partition("-")
    config_class = family_config(family)
    if config_class is None or os.path.isdir(name or ""):
        return None
    if not size:
        return config_class(**fields)
    if not hasattr(config_class, "of_size"):
        raise ValueError(f"{family} comes in one size: name it {family}, not {name}")
    return config_class.of_size(size, **fields)


def image_scorer_config(model: str | None) -> ImageScorerConfig | None:
    """The configuration of a scorer of a picture alone, fresh or saved; `None` for any other model."""
    config = fresh_config(model)
    if config is None and model is not None:
        is_one = family_config(PreTrainedConfig.get_config_dict(model)[0].get("model_type"))
        return AutoConfig.from_pretrained(model) if is_one else None
    return config


def family_config(model_type: str | None) -> Any:
    """The configuration class of a family without a language model; `None` for any other `model_type`."""
    if model_type not in CONFIG_MAPPING:
        return None
    config_class: Any = CONFIG_MAPPING[model_type]
    return config_class if issubclass(config_class, ImageScorerConfig) else None


def image_scorer_options(plan: TrainingPlan, config: ImageScorerConfig) -> dict[str, Any]:
    """What suits a training of such a scorer, where the plan says nothing else."""
    rate = plan.training.get("learning_rate", LEARNING_RATE)
    options: dict[str, Any] = {"learning_rate": rate}
    if shares := PART_RATES.get(config.model_type):
        options["learning_rates"] = {part: share * rate for part, share in shares.items()}
    if (plan.num_levels or config.num_levels) > 1:
        options["loss_preset"] = "emd"
    return options


def refuse_language_settings(plan: TrainingPlan, config: ImageScorerConfig) -> None:
    """Refuse settings of a language model, which these have not."""
    given = [name for name in ("lora", "load_in_4bit", "question") if getattr(plan, name)]
    if given:
        raise ValueError(
            f"{config.model_type} scores a picture without a language model, so there is nothing for "
            f"{', '.join(given)}: leave it out, and all weights are trained (freeze and learning_rates choose parts)"
        )


def new_image_scorer(plan: TrainingPlan, train: RatedPictures, **options: Any) -> Any:
    """A fresh scorer of the family that the plan names."""
    config = fresh_config(
        plan.model,
        num_levels=plan.num_levels or train.num_levels or 10,
        score_range=train.score_range or (1.0, 10.0),
        attributes=train.attributes,
    )
    return AutoModelForImageAesthetics.from_config(config, **options)


def new_image_processor(config: ImageScorerConfig) -> ViTImageProcessorPil:
    """Stretches the whole picture to the square that the network is made for, with the statistics of ImageNet."""
    parts = [config, *(getattr(config, name) for name in config.sub_configs)]
    sides = [part.image_size for part in parts if isinstance(getattr(part, "image_size", None), int)]
    side = (sides or [PICTURE_SIDE])[0]
    return ViTImageProcessorPil(
        size={"height": side, "width": side}, image_mean=IMAGENET_DEFAULT_MEAN, image_std=IMAGENET_DEFAULT_STD
    )


def image_processor_of(plan: TrainingPlan, config: ImageScorerConfig) -> Any:
    """That of a saved scorer, or one for a fresh one."""
    return new_image_processor(config) if fresh_config(plan.model) else AutoImageProcessor.from_pretrained(plan.model)


def scored_rows(rated: RatedPictures, notes: list[str]) -> RatedPictures:
    """
    The rows with a score, since these models learn nothing from others; what that means for the data goes to `notes`.

    Raises:
        ValueError: If there are none.
    """
    rows = [rated.rating(index) for index in range(len(rated))]
    scored = [index for index, row in enumerate(rows) if row["scores"] or row["votes"]]
    if not scored:
        raise ValueError(
            "no picture has a score, and this model learns from scores alone: it reads and writes no text"
        )
    if texts := sum(bool(row["comment"] or row["question"]) for row in rows):
        notes.append(f"{texts} rows have a comment or question, which this model does not read: they are left out")
    return rated if len(scored) == len(rows) else rated.take(scored)


__all__ = ["image_scorer_config", "new_image_scorer"]
