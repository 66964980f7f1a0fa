"""
What a training is asked to do: one flat list of settings, from a YAML file, from flags, or both.

Settings of data and model are fields of [`TrainingPlan`]; every other key is an option of [`SplitLossConfig`] and goes
to `training`. A key that is neither is refused with the nearest known name.
"""

import dataclasses
import difflib
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .split_loss_config import SplitLossConfig


@dataclass
class TrainingPlan:
    """
    Settings of one training.

    Args:
        data (`str`): Rated pictures: CSV, JSON, JSON lines, Parquet, a folder or the name of a data set on the Hub.
        model (`str`, *optional*): Multimodal LLM to put a score head on, or a scorer to train on: a Hub name or a
            folder. By default the bundled scorer, which is for trying things out.
        output_dir (`str`, *optional*, defaults to `"scorer"`): Folder of the trained scorer and its checkpoints.
        split (`str`, *optional*): Part of a data set to train on.
        pictures (`str`, *optional*): Folder that relative paths start from.
        eval_data, eval_split (`str`, *optional*): Rated pictures to judge on, as `data` and `split`.
        eval_share (`float`, *optional*, defaults to 0.1): Share of `data` to judge on instead, 0 for none.
        attributes (`list[str]`, *optional*): What the columns rate, the main attribute first.
        score_range (pair of `float`, *optional*): Units of the scores; guessed from the data when missing.
        num_levels (`int`, *optional*): Levels of a new score head; the number of votes, or else 10, when missing.
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
    tune: int = 0
    search_space: dict[str, Any] | None = None
    training: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.data:
            raise ValueError("there is nothing to train on: state data (a CSV with path and score will do)")
        if not 0 <= self.eval_share < 1:
            raise ValueError(f"eval_share must be a share from 0 to below 1, got {self.eval_share}")
        if self.load_in_4bit and not self.lora:
            raise ValueError("weights of 4 bits cannot be trained: load_in_4bit needs lora")
        if self.tune and self.resume:
            raise ValueError("tune starts every run anew: leave out resume")

    def to_dict(self) -> dict[str, Any]:
        """The settings as a flat dict that [`read_plan`] takes; those at their defaults are left out."""
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name != "training"}
        defaults = {f.name: getattr(DEFAULTS, f.name) for f in dataclasses.fields(self) if f.name != "data"}
        return {name: value for name, value in fields.items() if value != defaults.get(name)} | self.training


DEFAULTS = TrainingPlan(data="any")
PLAN_KEYS = tuple(f.name for f in dataclasses.fields(TrainingPlan) if f.name != "training")
# `output_dir` is the plan's; the others say whether to train or to evaluate, which is not asked here
TRAINING_KEYS = tuple(
    f.name
    for f in dataclasses.fields(SplitLossConfig)
    if f.init and f.name not in ("output_dir", "do_train", "do_eval", "do_predict", "resume_from_checkpoint")
)


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
    refuse_unknown(settings.get("search_space") or {}, TRAINING_KEYS, "option to search")
    plan = {name: value for name, value in settings.items() if name in PLAN_KEYS}
    return TrainingPlan(**plan, training={k: as_number(v) for k, v in settings.items() if k not in PLAN_KEYS})


def read_mapping(path: str | os.PathLike) -> dict[str, Any]:
    """A YAML file that holds one mapping."""
    import yaml  # type: ignore[import-untyped]

    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
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


def as_number(value: Any) -> Any:
    """YAML 1.1 reads `1e-4` as text, since its numbers want a dot."""
    if isinstance(value, dict):
        return {name: as_number(entry) for name, entry in value.items()}
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value


__all__ = ["TrainingPlan", "read_mapping", "read_plan"]
