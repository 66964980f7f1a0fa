"""
Files of a checkpoint in the authors' format: JSON, and weights, one shard at a time.

A `.bin` file is a pickle, which may run code when it is read. Here only torch's reader of weights opens it, which runs
none.
"""

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

SAFETENSORS, PICKLED = "model.safetensors", "pytorch_model.bin"


def read_json(folder: str | os.PathLike[str], name: str) -> dict[str, Any]:
    """
    Content of a file of the folder; empty where it is missing.

    Raises:
        ValueError: If it is no JSON object.
    """
    path = Path(folder, name)
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{name} of the checkpoint is no JSON ({error}); fetch it again.") from error
    if not isinstance(content, dict):
        raise ValueError(f"{name} of the checkpoint holds a {type(content).__name__}; expected a JSON object.")
    return content


def hub_origin(folder: str | os.PathLike[str]) -> tuple[str, str | None]:
    """Name and commit of a checkpoint on the Hub if its folder lies in the Hub's cache, else the folder's name."""
    folder = Path(folder).resolve()
    if found := re.search(r"[/\\]models--([^/\\]+)[/\\]snapshots[/\\]([0-9a-f]{40})$", str(folder)):
        return found[1].replace("--", "/"), found[2]
    return folder.name, None


def find_shards(folder: str | os.PathLike[str]) -> list[Path]:
    """
    Files that hold the weights, in order; safetensors where there are both kinds.

    Raises:
        ValueError: If there are none, or the index names a file that is missing or lies elsewhere.
    """
    folder = Path(folder)
    for name in (SAFETENSORS, PICKLED):
        if (folder / f"{name}.index.json").is_file():
            return listed_shards(folder, f"{name}.index.json", Path(name).suffix)
        if (folder / name).is_file():
            return [folder / name]
    raise ValueError(f"{str(folder)!r} holds no weights: neither {SAFETENSORS} nor {PICKLED}, whole or with an index.")


def listed_shards(folder: Path, index: str, suffix: str) -> list[Path]:
    """Files that an index names, which must lie beside it."""
    weight_map = read_json(folder, index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise ValueError(f"{index} has no weight_map, which tells the file of each weight; fetch it again.")
    names = sorted(set(map(str, weight_map.values())))
    if outside := [name for name in names if name != os.path.basename(name) or not name.endswith(suffix)]:
        raise ValueError(f"{index} names {outside[0]!r}; expected {suffix} files of its own folder.")
    if missing := [name for name in names if not (folder / name).is_file()]:
        raise ValueError(
            f"{index} names {len(names)} files, of which {', '.join(missing)} is missing; fetch it again."
        )
    return [folder / name for name in names]


def read_shard(path: Path) -> dict[str, torch.Tensor]:
    """
    Weights of a file by name. They are mapped into memory: their bytes are read from the disk when they are used.

    Raises:
        ValueError: If the file is damaged or holds something else.
    """
    with path.open("rb") as file:
        start = file.read(2)
    if path.suffix != ".safetensors" and start != b"PK":
        raise ValueError(
            f"{path.name} is no file of torch.save's zip format (empty, of an old torch, or a git-lfs pointer that "
            f"stands for the file?); it starts with {start!r}. Fetch it again, as in: hf download NAME"
        )
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, framework="pt") as tensors:
                weights = {name: tensors.get_tensor(name) for name in tensors.keys()}  # noqa: SIM118, it is no dict
        else:
            weights = torch.load(path, map_location="cpu", mmap=True, weights_only=True)
    except UnpicklingError as error:
        raise ValueError(f"{path.name} is refused: it is more than weights, and reading it could run code.") from error
    except (RuntimeError, EOFError, OSError, SafetensorError) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(f"{path.name} cannot be read and may be cut short; fetch it again: {reason}") from error
    if not isinstance(weights, Mapping) or not all(
        isinstance(name, str) and isinstance(value, torch.Tensor) for name, value in weights.items()
    ):
        raise ValueError(f"{path.name} holds a {type(weights).__name__}; expected weights by name.")
    return dict(weights)


__all__ = ["PICKLED", "SAFETENSORS", "find_shards", "hub_origin", "read_json", "read_shard"]
