"""
The parts of a model that may be frozen or get a learning rate of their own, as the model itself names them.

A model tells them by `part_prefixes`: part by beginning of parameter names, the longest beginning wins.
"""

from collections.abc import Collection

from torch import nn

NamedParameters = list[tuple[str, nn.Parameter]]


def named_parts(model: nn.Module) -> dict[str, NamedParameters]:
    """
    Parameters by part, in the order in which the parts first appear.

    Args:
        model (`nn.Module`): A model of this package, also inside peft's, DDP's or FSDP's wrapper.

    Returns:
        `dict[str, list]`: Name and parameter by part.

    Raises:
        ValueError: If the model names no parts.
    """
    start, owner = next(
        # asked of the class: peft's wrapper passes on what its model has
        ((name, part) for name, part in model.named_modules() if hasattr(type(part), "part_prefixes")),
        ("", None),
    )
    if owner is None:
        raise ValueError(f"{type(model).__name__} names no parts (`part_prefixes`), so none can be frozen or slowed.")
    prefixes = owner.part_prefixes
    parts: dict[str, NamedParameters] = {}
    for name, parameter in model.named_parameters():
        parts.setdefault(part_of(name.removeprefix(start).lstrip("."), prefixes), []).append((name, parameter))
    return parts


def part_of(name: str, prefixes: dict[str, str]) -> str:
    """The part of the longest beginning that ends where a name of a module ends."""
    fitting = (prefix for prefix in prefixes if not prefix or f"{name}.".startswith(f"{prefix}."))
    return prefixes[max(fitting, key=len)]


def checked_parts(model: nn.Module, wanted: Collection[str]) -> dict[str, NamedParameters]:
    """
    [`named_parts`], if it has all that are wanted.

    Raises:
        ValueError: If a part is unknown; the message names those of the model.
    """
    parts = named_parts(model)
    if unknown := sorted(set(wanted) - set(parts)):
        raise ValueError(f"The model has no part {', '.join(unknown)}; its parts are {', '.join(parts)}.")
    return parts


def freeze_parts(model: nn.Module, frozen: Collection[str]) -> None:
    """Let the parts named in `frozen` keep their values; the others stay as they are."""
    if frozen:
        parts = checked_parts(model, frozen)
        for part in frozen:
            for _, parameter in parts[part]:
                parameter.requires_grad_(False)


def describe_trainable(model: nn.Module) -> str:
    """One line for a person: trainable parameters of all, and by part."""
    parts = named_parts(model)
    trained = {part: sum(p.numel() for _, p in named if p.requires_grad) for part, named in parts.items()}
    total = sum(p.numel() for named in parts.values() for _, p in named)
    share = sum(trained.values()) / max(total, 1)
    by_part = ", ".join(f"{part} {count:,}" if count else f"{part} frozen" for part, count in trained.items())
    return f"{sum(trained.values()):,} of {total:,} parameters are trained ({share:.2%}): {by_part}"


__all__ = ["checked_parts", "describe_trainable", "freeze_parts", "named_parts"]
