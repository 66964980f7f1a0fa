"""`roc4mllm train`: rated pictures to a scorer."""

import argparse
from typing import Any

from ..trainer.run_training import run_training
from ..trainer.training_plan import TrainingPlan, parse_yaml, read_plan
from .loading import known_model


def run(args: argparse.Namespace) -> int:
    """Train as the YAML file and the flags say; always 0."""
    run_training(plan_of(args), dry_run=args.dry_run)
    return 0


def plan_of(args: argparse.Namespace) -> TrainingPlan:
    """The plan: the file's settings, then flags, then `--set`."""
    flags = {name: value for name, value in vars(args).items() if value is not None and name not in OWN}
    plan = read_plan(args.config, flags | dict(setting(text) for text in args.set or ()))
    plan.model = known_model(plan.model)
    return plan


OWN = {"command", "traceback", "owns_process", "config", "set", "dry_run"}  # of the command, not of a training


def setting(text: str) -> tuple[str, Any]:
    """A `NAME=VALUE`, the value as YAML reads it."""
    name, equals, value = text.partition("=")
    if not equals:
        raise ValueError(f"--set takes NAME=VALUE, got {text!r}")
    try:
        return name.strip(), parse_yaml(value)
    except ValueError as error:
        raise ValueError(f"--set {name}: {value!r} cannot be read: {error}") from error
