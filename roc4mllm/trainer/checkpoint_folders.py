"""
Folders that training writes: checked before the first step, and complete as soon as they have their name.
"""

import os
import shutil
import tempfile
from pathlib import Path

from torch import nn
from transformers.trainer_utils import get_last_checkpoint

UNFINISHED = "unfinished"  # holds a checkpoint while it is written; what a killed run left there is dropped


def check_writable(folder: str | os.PathLike) -> None:
    """
    Make the folder and write to it, so that a training does not end at its first checkpoint.

    Raises:
        OSError: If the folder cannot be made or written.
    """
    try:
        os.makedirs(folder, exist_ok=True)
        with tempfile.TemporaryFile(dir=os.fspath(folder)) as probe:
            probe.write(b"\0")
    except OSError as error:
        raise OSError(f"nothing can be written to {os.fspath(folder)!r}: {error.strerror}") from error


def check_space(folder: str | os.PathLike, needed: int) -> None:
    """
    Refuse a folder whose disk has fewer free bytes than are needed.

    Raises:
        OSError: If so; the message says how much is missing.
    """
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise OSError(
            f"{os.fspath(folder)!r} has {free / 1e9:.2f} GB of free space, what is saved takes about "
            f"{needed / 1e9:.2f} GB. Free some, choose another output_dir, or train an adapter (LoRA)."
        )


def checkpoint_bytes(model: nn.Module, only_trained: bool, with_optimizer: bool) -> int:
    """Bytes of one checkpoint: weights, or the trained ones only, and two moments per trained weight for AdamW."""
    weights = [p for p in model.parameters() if p.requires_grad or not only_trained]
    moments = [p for p in model.parameters() if p.requires_grad] if with_optimizer else []
    return sum(p.numel() * p.element_size() for p in weights) + 2 * sum(p.numel() * p.element_size() for p in moments)


def has_checkpoint(folder: str | os.PathLike) -> bool:
    """Whether a training has left checkpoints in a folder."""
    return os.path.isdir(folder) and get_last_checkpoint(os.fspath(folder)) is not None


def find_checkpoint(folder: str | os.PathLike) -> str:
    """
    The newest checkpoint of a training that wrote to `folder`, or `folder` itself if it is one.

    Raises:
        ValueError: If there is none.
    """
    if (Path(folder) / "trainer_state.json").is_file():
        return os.fspath(folder)
    found = get_last_checkpoint(os.fspath(folder)) if os.path.isdir(folder) else None
    if found is None:
        raise ValueError(f"there is no checkpoint in {os.fspath(folder)!r} to resume from; train without resuming")
    return found


def refuse_checkpoints(folder: str | os.PathLike) -> None:
    """
    Refuse a folder with checkpoints of an earlier training, which would be taken for those of the new one.

    Raises:
        ValueError: If there are some.
    """
    if has_checkpoint(folder):
        raise ValueError(
            f"{os.fspath(folder)!r} holds checkpoints of an earlier training: resume it, remove them, or choose "
            "another output_dir"
        )


def publish(unfinished: Path, final: Path) -> None:
    """Give a finished file or folder its name; a folder that has the name already, from an earlier run, makes room."""
    if final.is_dir():
        shutil.rmtree(final)
    os.replace(unfinished, final)


__all__ = [
    "UNFINISHED",
    "check_space",
    "check_writable",
    "checkpoint_bytes",
    "find_checkpoint",
    "has_checkpoint",
    "publish",
    "refuse_checkpoints",
]
