"""
What a model was trained on, from the file that travels with it.

The split guard writes `trained_on.safetensors`: hashes of the pictures, for `evaluate`, and in its header what a card
can say. Read here are, each if it is there:

| entry of the header | content |
|---|---|
| `digest` | hash of the set of pictures, equal for equal sets |
| `protocols` | JSON list of `<split protocol>/<split>`, as in `ava-official/train` |
| `data` | JSON list with an object for each data set: `name`, `title`, `terms`, `citation` |
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

GUARD_FILE = "trained_on.safetensors"


@dataclass(frozen=True)
class DataUsed:
    """A data set as a card names it; what is not known is empty."""

    name: str = ""
    title: str = ""
    terms: str = ""
    citation: str = ""


@dataclass(frozen=True)
class TrainedOn:
    """
    Training data of a model.

    Args:
        digest (`str`, *optional*): Hash of the set of pictures.
        pictures (`int`, *optional*): How many there are.
        protocols (`tuple[str, ...]`): Division and split of each data set, as far as they are known.
        data (`tuple[DataUsed, ...]`): The data sets, as far as they are known.
    """

    digest: str | None = None
    pictures: int | None = None
    protocols: tuple[str, ...] = ()
    data: tuple[DataUsed, ...] = ()


def read_trained_on(folder: Path) -> TrainedOn | None:
    """What the file in a model's folder says; `None` without one."""
    path = folder / GUARD_FILE
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="np") as file:
            told = file.metadata() or {}
            counts = [file.get_slice(name).get_shape()[0] for name in file.keys()]  # noqa: SIM118, it is no dict
    except (SafetensorError, OSError, IndexError) as error:
        raise ValueError(f"{GUARD_FILE} cannot be read: {error}") from error
    entries = [entry for entry in json_list(told, "data") if isinstance(entry, dict)]
    return TrainedOn(
        digest=told.get("digest"),
        pictures=max(counts, default=None),
        protocols=tuple(str(name) for name in json_list(told, "protocols")),
        data=tuple(DataUsed(**{name: str(entry.get(name) or "") for name in vars(DataUsed())}) for entry in entries),
    )


def json_list(told: dict[str, str], name: str) -> list[Any]:
    """A list in the header; empty for anything else."""
    try:
        content = json.loads(told.get(name, "[]"))
    except ValueError:
        return []
    return content if isinstance(content, list) else []


__all__ = ["DataUsed", "TrainedOn", "read_trained_on"]
