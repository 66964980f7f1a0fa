"""Names and dtypes of weights that a checkpoint should have, and those that it has."""

from collections.abc import Iterable, Mapping

import torch

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


def refuse_other_dtypes(dtypes: Mapping[str, torch.dtype]) -> None:
    """
    Raise a `ValueError` that names weights which are quantised, or in double precision.

    Args:
        dtypes (`Mapping[str, torch.dtype]`): Dtype of each weight by name.
    """
    if wrong := [f"{name} ({dtype})" for name, dtype in dtypes.items() if dtype not in DTYPES.values()]:
        raise ValueError(f"Expected weights of dtype {', '.join(DTYPES)}; got {shortened(wrong)}.")


def shortened(names: list[str], most: int = 8) -> str:
    """The first names, and how many there are."""
    return f"{', '.join(names[:most])}{', …' if len(names) > most else ''} ({len(names)})"


__all__ = ["DTYPES", "refuse_differences", "refuse_other_dtypes", "without_wrapper"]
