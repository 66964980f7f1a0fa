"""Names and dtypes of weights that a checkpoint should have, and those that it has."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch

NESTS = ("state_dict", "model")  # where a training script keeps the weights beside other things
DEEPEST = 4  # nests in each other; more is a mistake, or a dict that contains itself
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def refuse_differences(found: Iterable[str], expected: Iterable[str]) -> None:
    """
    Raise a `ValueError` that names unknown and missing weights.

    Args:
        found (`Iterable[str]`): Names of a checkpoint's weights.
        expected (`Iterable[str]`): Names that the config describes.
    """
    found, expected = set(found), set(expected)
    problems = {"unknown": sorted(found - expected), "missing": sorted(expected - found)}
    if text := "; ".join(f"{kind} {shortened(those)}" for kind, those in problems.items() if those):
        raise ValueError(f"These are not the weights that the config describes: {text}.")


def without_wrapper(state_dict: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Weights without the `module.` in front of all names that `nn.DataParallel` leaves there."""
    if all(name.startswith("module.") for name in state_dict):
        return {name.removeprefix("module."): weight for name, weight in state_dict.items()}
    return dict(state_dict)


def weights_within(content: Any, file: str) -> dict[str, torch.Tensor]:
    """
    Weights by name that stand bare in a file's content or under names of [`NESTS`], whose names may begin with
    `module.`; those in double precision in float32.

    Args:
        content (`Any`): What was read.
        file (`str`): Its name, for messages.

    Raises:
        ValueError: If these are not weights by name, or one is sparse, not finite or holds no values.
    """
    content = innermost(content, file)
    if not isinstance(content, Mapping) or not content:
        raise ValueError(f"{file} holds a {type(content).__name__}; expected weights by name.")
    for name, value in content.items():
        if not isinstance(name, str):
            raise ValueError(
                f"{file} holds something under {shown(name)}, which is no name; expected weights by name."
            )
        if not isinstance(value, torch.Tensor):
            raise ValueError(f"{file} holds {shown(name)}, which is no weight; expected weights by name.")
        if value.layout != torch.strided or value.is_meta:
            kind = "on no device" if value.is_meta else f"laid out as {value.layout}"
            raise ValueError(f"{shown(name)} in {file} is {kind}; expected dense values, as of Tensor.to_dense().")
    weights = {name: value.float() if value.dtype == torch.float64 else value for name, value in content.items()}
    if wrong := [name for name, value in weights.items() if not is_finite(value)]:
        raise ValueError(f"Weights in {file} are infinite or no numbers; the training broke: {shortened(wrong)}.")
    return without_wrapper(weights)


def innermost(content: Any, file: str) -> Any:
    """What stands under names of [`NESTS`]."""
    for _ in range(DEEPEST + 1):
        inner = content if isinstance(content, Mapping) else {}
        nest = next((name for name in NESTS if isinstance(inner.get(name), Mapping)), None)
        if nest is None:
            return content
        content = inner[nest]
    raise ValueError(f"{file} nests {' and '.join(NESTS)} deeper than {DEEPEST} times; expected weights by name.")


def is_finite(weight: torch.Tensor) -> bool:
    """Whether all values are; true for dtypes that are refused anyway."""
    return weight.dtype not in DTYPES.values() or bool(weight.isfinite().all())


def refuse_other_dtypes(dtypes: Mapping[str, torch.dtype]) -> None:
    """
    Raise a `ValueError` that names weights which are quantised, or in double precision.

    Args:
        dtypes (`Mapping[str, torch.dtype]`): Dtype of each weight by name.
    """
    if wrong := [f"{name} ({dtype})" for name, dtype in dtypes.items() if dtype not in DTYPES.values()]:
        hint = " Cast those in double precision: weight.float()." if torch.float64 in dtypes.values() else ""
        raise ValueError(f"Expected weights of dtype {', '.join(DTYPES)}; got {shortened(wrong)}.{hint}")


def shown(name: Any, most: int = 80) -> str:
    """A name as Python writes it, cut where it is long."""
    text = repr(name)
    return text if len(text) <= most else f"{text[:most]}…"


def shortened(names: list[str], most: int = 8) -> str:
    """The first names, and how many there are."""
    return f"{', '.join(names[:most])}{', …' if len(names) > most else ''} ({len(names)})"


__all__ = ["DTYPES", "refuse_differences", "refuse_other_dtypes", "weights_within", "without_wrapper"]
