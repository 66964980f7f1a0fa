"""
What a scorer was trained on, as far as a file of it tells, and what a test shares with that.

`trained_on.safetensors` lies beside the weights: a training writes it, one that begins with a scorer adds to that
scorer's, and whatever is measured is compared with it first.
"""

import os
from pathlib import Path
from typing import Any

from transformers.utils import cached_file

from ..datasets_scripts.split_guard import GUARD_FILE, Overlap, PictureSet, check_leak

NOTHING_TELLS = "nothing tells what this model was trained on: these pictures may be among it"
LEAK = "LEAK"  # begins the note on a result that a person allowed in spite of it


def find_trained_on(model: str | os.PathLike[str], revision: str | None = None) -> PictureSet | None:
    """
    The pictures that a scorer was trained on; `None` where nothing tells.

    Args:
        model (`str` or `os.PathLike`): Hub name or folder, of an adapter too.
        revision (`str`, *optional*): Revision on the Hub.

    Raises:
        ValueError: If the file is damaged.
    """
    try:
        path = cached_file(os.fspath(model), GUARD_FILE, revision=revision)
    except OSError:  # no such file or repository, or it cannot be asked
        return None
    return PictureSet.load(Path(path).parent)


def trained_below(model: str | os.PathLike[str]) -> PictureSet:
    """What a scorer that is trained on has seen; if nothing tells, its name stands among those unknown."""
    found = find_trained_on(model)
    name = Path(model).absolute().name if os.path.isdir(model) else os.fspath(model)
    return PictureSet.empty(unknown=[name]) if found is None else found


def compare_with_training(model: Any, rated: Any, allow_leak: bool = False) -> tuple[Overlap | None, list[str]]:
    """
    What rated pictures share with the training of a model, and what a reader of the result has to know about it.

    Args:
        model (`PreTrainedModel`): As it was loaded, by name or from a folder.
        rated ([`RatedPictures`]): The test.
        allow_leak (`bool`, *optional*, defaults to `False`): Return an overlap instead of raising it.

    Returns:
        `tuple[Overlap | None, list[str]]`: the overlap, `None` where nothing tells; and notes.

    Raises:
        LeakError: If there is one.
    """
    name = model.config.name_or_path
    trained = find_trained_on(name, getattr(model, "loaded_revision", None)) if name else None
    if trained is None:
        return None, [NOTHING_TELLS]
    overlap = check_leak(trained, PictureSet.of(rated.outlines()), allow_leak=allow_leak)
    notes = [f"nothing tells what {below}, which it was trained on from, was trained on" for below in trained.unknown]
    if overlap:
        return overlap, [f"{LEAK}: {overlap}; these numbers say nothing about new pictures", *notes]
    where = f" ({', '.join(trained.protocols)})" if trained.protocols else ""
    return overlap, [f"the model was trained on none of these pictures{where}", *notes]


__all__ = ["LEAK", "compare_with_training", "find_trained_on", "trained_below"]
