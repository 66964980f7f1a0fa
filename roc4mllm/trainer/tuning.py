"""
Trying many settings of a training with optuna, through the Trainer's own search.

A search space is a dict of options of [`SplitLossConfig`], each a list of values or `{low, high}` with `log: true` or
a `step` if wanted; whole numbers stay whole.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

# What most decides how far a training comes; rates for all weights lie about a tenth of those for adapters.
DEFAULT_SPACE = {"learning_rate": {"low": 5e-6, "high": 1e-4, "log": True}, "num_train_epochs": [1, 2, 4]}
DEFAULT_LORA_SPACE = DEFAULT_SPACE | {"learning_rate": {"low": 5e-5, "high": 1e-3, "log": True}}


def checked_space(space: Mapping[str, Any]) -> dict[str, Any]:
    """
    The space, if every entry can be searched.

    Raises:
        ValueError: If an entry is neither a list of values nor a range.
    """
    for name, entry in space.items():
        if isinstance(entry, list) and entry:
            continue
        if not isinstance(entry, Mapping) or not {"low", "high"} <= set(entry) <= {"low", "high", "log", "step"}:
            raise ValueError(
                f"search_space: {name} must be a list of values or a mapping with low and high (log and step if "
                f"wanted), got {entry!r}"
            )
        if not all(isinstance(entry[end], int | float) for end in ("low", "high")) or not entry["low"] < entry["high"]:
            raise ValueError(f"search_space: {name} needs numbers with low < high, got {entry!r}")
        if entry.get("log") and (entry["low"] <= 0 or entry.get("step") is not None):
            raise ValueError(f"search_space: {name} with log needs a low above 0 and no step, got {entry!r}")
    return dict(space)


def suggester(space: Mapping[str, Any]) -> Callable[[Any], dict[str, Any]]:
    """A function from a trial of optuna to the settings that it tries."""
    space = checked_space(space)

    def suggest(trial: Any) -> dict[str, Any]:
        return {name: suggest_one(trial, name, entry) for name, entry in space.items()}

    return suggest


def suggest_one(trial: Any, name: str, entry: Any) -> Any:
    """The value of one setting for one trial."""
    if isinstance(entry, list):
        return trial.suggest_categorical(name, entry)
    bounds = {"low": entry["low"], "high": entry["high"], "log": bool(entry.get("log", False))}
    if entry.get("step") is not None:
        bounds["step"] = entry["step"]
    if all(isinstance(entry[end], int) for end in ("low", "high")):
        return trial.suggest_int(name, **bounds)
    return trial.suggest_float(name, **bounds)


def search(trainer: Any, space: Mapping[str, Any], trials: int, seed: int) -> tuple[dict[str, Any], float]:
    """
    Train `trials` times, each with other settings.

    Args:
        trainer ([`SplitLossTrainer`]): Made with a `model_init`, with data to judge on.
        space (`dict`): What to try.
        trials (`int`): How often.
        seed (`int`): Of the choice of settings.

    Returns:
        `tuple[dict, float]`: The best settings and their SRCC on the data to judge on; of several processes only the
        main one is told.

    Raises:
        ImportError: If optuna is not installed.
        ValueError: If no training came to an SRCC.
    """
    try:
        import optuna
    except ImportError as error:
        raise ImportError('searching settings needs optuna: pip install "roc4mllm[tune]"') from error
    found: list[float] = []

    def srcc(metrics: Mapping[str, float]) -> float:
        found.append(metrics["eval_srcc"])
        return found[-1]

    try:
        best = trainer.hyperparameter_search(
            hp_space=suggester(space),
            compute_objective=srcc,
            n_trials=trials,
            direction="maximize",
            backend="optuna",
            sampler=optuna.samplers.TPESampler(seed=seed),
        )
    except ValueError as error:  # optuna's is "No trials are completed yet"
        if not found or not all(map(math.isnan, found)):
            raise
        raise ValueError(
            f"none of {trials} trainings came to an SRCC: their scores are all alike, or no numbers. Search smaller "
            "learning rates, or train for longer"
        ) from error
    return ({}, float("nan")) if best is None else (best.hyperparameters, best.objective)


__all__ = ["DEFAULT_LORA_SPACE", "DEFAULT_SPACE", "checked_space", "search", "suggester"]
