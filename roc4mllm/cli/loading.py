"""From what a person types to a loaded scorer, for every command that scores."""

import argparse
import os
from collections.abc import Sequence
from typing import Any

from huggingface_hub.errors import StrictDataclassError

from ..inference.freed_memory import keep_freed_memory
from ..inference.load_scorer import BUNDLED_CHECKPOINT, load_scorer
from .interruption import exit_when_told


def load(args: argparse.Namespace) -> Any:
    """The scorer that `args.model` names."""
    return load_named(args.model, args)


def load_named(given: str | None, args: argparse.Namespace) -> Any:
    """A scorer by its name. Whatever keeps it from loading is for the user to change, so it becomes a ValueError."""
    name = given or "the bundled model"
    model = known_model(given)
    options = {key: getattr(args, key) for key in ("device", "dtype") if getattr(args, key) is not None}
    try:
        with exit_when_told():  # so that a conversion on the fly leaves no unfinished folder
            scorer = load_scorer(model, allow_untrained=args.allow_untrained, **options)
    # the last three: a device that torch lacks, a config with wrong values
    except (ValueError, OSError, RuntimeError, AssertionError, StrictDataclassError) as error:
        reason = str(error).replace("allow_untrained=True", "--allow-untrained")
        raise ValueError(f"cannot load {name}{f' on {args.device}' if args.device else ''}: {reason}") from error
    if scorer.device.type == "cpu" and args.owns_process:
        keep_freed_memory()
    return scorer


def known_model(name: str | None) -> str | None:
    """
    A model as `load_scorer` takes it: `None` for the bundled one, which may be named.

    Raises:
        ValueError: If the name can only be a folder's, and there is none.
    """
    if name is not None and looks_like_folder(name) and not os.path.isdir(name):
        raise ValueError(f"there is no folder {name!r}; a model is a folder or a Hub name as in user/model")
    bundled = name == BUNDLED_CHECKPOINT.name and not os.path.isdir(name)  # no Hub name: it has no user
    return None if bundled else name


def looks_like_folder(model: str) -> bool:
    """Whether a model's name can only be a folder: a Hub name is `name` or `user/name`."""
    ends = model.startswith((".", "~", os.sep)) or model.endswith("/")
    return not model or ends or model.count("/") > 1 or "\\" in model


def choose_attributes(wanted: Sequence[str] | None, config: Any) -> list[str]:
    """The attributes to score: `wanted`, or all of the model's."""
    known = list(getattr(config, "attributes", ["aesthetics"]))
    if unknown := sorted(set(wanted or []) - set(known)):
        raise ValueError(f"the model does not score {', '.join(unknown)}; it scores {', '.join(known)}")
    return list(wanted or known)
