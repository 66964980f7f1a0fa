"""
What a training is asked to do: one flat list of settings, from a YAML file, from flags, or both.

Settings of data and model are fields of [`TrainingPlan`]; every other key is an option of [`SplitLossConfig`] and goes
to `training`. A key that is neither is refused with the nearest known name.
"""

import dataclasses
import difflib
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args, get_type_hints

from huggingface_hub.dataclasses import type_validator

from .split_loss_config import SplitLossConfig


@dataclass
class TrainingPlan:
    """
    Settings of one training.

    Args:
        data (`str`): Rated pictures: CSV, JSON, JSON lines, Parquet, a folder or the name of a data set on the Hub.
        model (`str`, *optional*): Multimodal LLM to put a score head on, or a scorer to train on: a Hub name or a
            folder. Or a family without a language model, to begin with fresh weights: `tanet`, `eat-tiny`, …; see
            [`image_scorers`]. By default the bundled scorer, which is for trying things out.
        output_dir (`str`, *optional*, defaults to `"scorer"`): Folder of the trained scorer and its checkpoints.
        split (`str`, *optional*): Part of a data set to train on.
        pictures (`str`, *optional*): Folder that relative paths start from.
        eval_data, eval_split (`str`, *optional*): Rated pictures to judge on, as `data` and `split`.
        eval_share (`float`, *optional*, defaults to 0.1): Share of `data` to judge on instead, 0 for none.
        attributes (`list[str]`, *optional*): What the columns rate, the main attribute first.
        score_range (pair of `float`, *optional*): Units of the scores; guessed from the data when missing.
        num_levels (`int`, *optional*): Levels of a new score head; the number of votes, or else 10, when missing. 1
            is a head of one value, which TANet, EAT and ELTA may have.
        question (`str`, *optional*): What a new scorer asks about a picture.
        skip_bad_rows (`str`, *optional*): CSV file to write bad rows to; without it they stop the training.
        lora (`bool`, *optional*, defaults to `False`): Train low-rank adapters instead of all weights.
        lora_rank, lora_alpha, lora_dropout (`int`, `float`, `float`, *optional*): Rank r, scale (as alpha / r) and
            dropout.
        lora_parts (`list[str]`, *optional*): Parts of the model that get them, by default the language model.
        load_in_4bit (`bool`, *optional*, defaults to `False`): Hold the frozen weights in 4 bits (QLoRA).
        dtype (`str`, *optional*): Dtype of the weights; by default float32, or the checkpoint's with `lora`.
        attn_implementation (`str`, *optional*): `sdpa`, `flash_attention_2`, …
        resume (`bool`, *optional*, defaults to `False`): Go on from the newest checkpoint in `output_dir`.
        unlabelled (`str`, *optional*): Pictures without ratings for rounds of self-training, see [`self_train`]: a
            folder, or a table of paths.
        tune (`int`, *optional*, defaults to 0): Try that many settings of `search_space` instead of one training.
        search_space (`dict`, *optional*): What to try: a list of values, or `{low, high, log, step}`, by option.
        training (`dict`, *optional*): Options of [`SplitLossConfig`].
    """

    data: str | None = None
    model: str | None = None
    output_dir: str = "scorer"
    split: str | None = None
    pictures: str | None = None
    eval_data: str | None = None
    eval_split: str | None = None
    eval_share: float = 0.1
    attributes: list[str] | None = None
    score_range: list[Any] | None = None
    num_levels: int | None = None
    question: str | None = None
    skip_bad_rows: str | None = None
    lora: bool = False
    lora_rank: int = 16
    lora_alpha: float = 32.0
    lora_dropout: float = 0.05
    lora_parts: list[str] = field(default_factory=lambda: ["language_model"])
    load_in_4bit: bool = False
    dtype: str | None = None
    attn_implementation: str | None = None
    resume: bool = False
    unlabelled: str | None = None
    tune: int = 0
    search_space: dict[str, Any] | None = None
    training: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.data:
            raise ValueError("there is nothing to train on: state data (a CSV with path and score will do)")
        if not 0 <= self.eval_share < 1:
            raise ValueError(f"eval_share must be a share from 0 to below 1, got {self.eval_share}")
        if self.num_levels is not None and self.num_levels < 1:
            raise ValueError(
                f"num_levels must be at least 1, got {self.num_levels}; leave it out for the usual number"
            )
        if self.load_in_4bit and not self.lora:
            raise ValueError("weights of 4 bits cannot be trained: load_in_4bit needs lora")
        if self.lora_settings() and not self.lora:
            raise ValueError(f"{', '.join(self.lora_settings())} without lora would do nothing: set lora too")
        if self.tune and self.resume:
            raise ValueError("tune starts every run anew: leave out resume")

        self._check_self_training()

    def _check_self_training(self) -> None:
        rounds = self.training.get("self_training", 0)
        if bool(rounds) != bool(self.unlabelled):
            raise ValueError(
                "self_training needs a number of rounds and the pictures for them, unlabelled; got "
                f"{rounds} rounds and {self.unlabelled!r}"
            )
        if rounds and self.tune:
            raise ValueError("tune compares single trainings: find the settings first, then train with self_training")

    def lora_settings(self) -> list[str]:
        """Names of the settings of low-rank weights that are not at their defaults."""
        given = (f for f in dataclasses.fields(self) if f.name.startswith("lora_"))
        return [f.name for f in given if getattr(self, f.name) != default_of(f)]

    def to_dict(self) -> dict[str, Any]:
        """The settings as a flat dict that [`read_plan`] takes, without defaults and what is secret or of one run."""
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name != "training"}
        defaults = {f.name: default_of(f) for f in dataclasses.fields(self)}
        kept = {name: value for name, value in fields.items() if value != defaults[name] and name != "resume"}
        return kept | {name: value for name, value in self.training.items() if not name.endswith("_token")}


def default_of(known: dataclasses.Field) -> Any:
    """The default of a field."""
    made = known.default_factory
    return known.default if made is dataclasses.MISSING else made()


PLAN_KEYS = tuple(f.name for f in dataclasses.fields(TrainingPlan) if f.name != "training")
# `output_dir` is the plan's; the others say whether to train or to evaluate, which is not asked here
TRAINING_KEYS = tuple(
    f.name
    for f in dataclasses.fields(SplitLossConfig)
    if f.init and f.name not in ("output_dir", "do_train", "do_eval", "do_predict", "resume_from_checkpoint")
)
# those of rounds after a training do nothing in the single trainings that a search compares
SEARCH_KEYS = tuple(name for name in TRAINING_KEYS if name not in ("self_training", "sharpening", "pick_threshold"))


def read_plan(path: str | os.PathLike | None, overrides: Mapping[str, Any]) -> TrainingPlan:
    """
    Settings of a YAML file, overwritten by `overrides`.

    Args:
        path (`str` or `os.PathLike`, *optional*): The file: one mapping, of settings or options of
            [`SplitLossConfig`].
        overrides (`dict`): More settings, likewise.

    Raises:
        ValueError: If the file is no mapping, or a key or value is none that is known.
        OSError: If the file cannot be read.
    """
    settings = ({} if path is None else read_mapping(path)) | dict(overrides)
    refuse_unknown(settings, (*PLAN_KEYS, *TRAINING_KEYS), "setting")
    kinds = {**get_type_hints(SplitLossConfig), **get_type_hints(TrainingPlan)}
    settings = {name: checked_kind(name, value, kinds[name]) for name, value in settings.items()}
    space = settings.get("search_space") or {}
    refuse_unknown(space, SEARCH_KEYS, "option to search")
    for name, entry in space.items():
        for value in entry if isinstance(entry, list) else ():
            checked_kind(name, value, kinds[name])
    plan = {name: value for name, value in settings.items() if name in PLAN_KEYS}
    return TrainingPlan(**plan, training={name: settings[name] for name in settings if name not in PLAN_KEYS})


def checked_kind(name: str, value: Any, kind: Any) -> Any:
    """A value, if it is of the kind that the setting is annotated with; a whole number will do for any number."""
    kinds = get_args(kind) or (kind,)
    if isinstance(value, int) and not isinstance(value, bool) and float in kinds and int not in kinds:
        value = float(value)
    if isinstance(value, float) and value.is_integer() and int in kinds and float not in kinds:
        value = int(value)
    try:
        type_validator(name, value, kind)
    except TypeError as error:
        raise ValueError(f"{name} must be {kind if get_args(kind) else kind.__name__}, got {value!r}") from error
    return value


def read_mapping(path: str | os.PathLike) -> dict[str, Any]:
    """A YAML file that holds one mapping."""
    try:
        content = parse_yaml(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{os.fspath(path)} is not YAML: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{os.fspath(path)} must hold settings as `name: value`, got {type(content).__name__}")
    return content


def refuse_unknown(names: Iterable[str], known: tuple[str, ...], kind: str) -> None:
    """Raise for a name that is not known, with the nearest one that is."""
    for name in names:
        if name not in known:
            nearest = difflib.get_close_matches(str(name), known, n=1, cutoff=0.0)
            raise ValueError(f"there is no {kind} {name!r}; did you mean {nearest[0]!r}?")


def parse_yaml(text: str) -> Any:
    """
    Content of a YAML text, with the scalars of YAML 1.2: `1e-4` is a number there and `no`, as in `save_strategy: no`,
    a text. YAML 1.1, which the library reads, wants a dot in the one and makes the other `False`.

    Raises:
        ValueError: If it is not YAML.
    """
    import yaml  # type: ignore[import-untyped]

    class Loader(yaml.SafeLoader):
        yaml_implicit_resolvers = {
            first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith((":bool", ":float"))]
            for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
        }

    Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile("^(true|True|false|False)$"), list("tTfF"))
    number = re.compile(r"^[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?$")
    Loader.add_implicit_resolver("tag:yaml.org,2002:float", number, list("-+.0123456789"))
    try:
        return yaml.load(text, Loader)
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from error


__all__ = ["TrainingPlan", "parse_yaml", "read_plan"]
