"""
A revision for models that lie in a folder: a fingerprint of its files, as a commit tells those of the Hub.

It is the same for copies of a folder, and another after a step of training, since every tensor of a checkpoint is
looked at, large ones in three places: 16 GB take as long as 50 MB.
"""

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

# What scores depend on; notes of a training and metrics, which others lay beside them, are left out.
SMALL_FILES = (
    "config.json", "processor_config.json", "preprocessor_config.json", "chat_template.jinja", "chat_template.json",
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json",
    "merges.txt", "tokenizer.model", "adapter_config.json",
)  # fmt: skip
WEIGHTS = ("model*.safetensors", "adapter_model*.safetensors", "score_head.safetensors")
FOLDERS = ("", "adapter")  # an adapter's weights lie in the second
PIECE = 16 * 1024  # bytes
LONGEST_HEAD = 100_000_000  # bytes, as the safetensors library has it
PREFIX = "sha256:"  # which no branch, tag or commit begins with


def folder_revision(*folders: str | os.PathLike[str]) -> str:
    """
    The revision of a model in a folder.

    Args:
        folders (`str` or path): The model's; of an adapter also that of the model below.

    Returns:
        `str`: `sha256:` and 16 hexadecimal digits.

    Raises:
        OSError: If a file cannot be read.
    """
    digest = hashlib.sha256()
    for folder in folders:
        for path in files_of(Path(folder)):
            digest.update(f"{path.name} {path.stat().st_size}\n".encode("utf-8", "surrogateescape"))
            with path.open("rb") as file:
                for piece in pieces_of(file) if path.suffix == ".safetensors" else [file.read()]:
                    digest.update(piece)
    return PREFIX + digest.hexdigest()[:16]


def files_of(folder: Path) -> Iterator[Path]:
    """The files of a model, in an order that depends on their names alone."""
    for part in FOLDERS:
        yield from (path for name in SMALL_FILES if (path := folder / part / name).is_file())
        yield from sorted(path for pattern in WEIGHTS for path in (folder / part).glob(pattern))


def pieces_of(file: BinaryIO) -> Iterator[bytes]:
    """The head of a safetensors file, then beginning, middle and end of each tensor."""
    length = min(int.from_bytes(file.read(8), "little"), LONGEST_HEAD)
    head = file.read(length)
    yield head
    for start, end in tensor_places(head):
        for place in sorted({start, max(start, (start + end - PIECE) // 2), max(start, end - PIECE)}):
            file.seek(8 + length + place)
            yield file.read(min(PIECE, end - place))


def tensor_places(head: bytes) -> list[tuple[int, int]]:
    """Where tensors begin and end behind a head; nowhere if it is none, which is for whoever loads the file to say."""
    try:
        entries = {name: entry for name, entry in json.loads(head).items() if name != "__metadata__"}
        places = [(int(start), int(end)) for start, end in (entry["data_offsets"] for entry in entries.values())]
    except (ValueError, TypeError, KeyError, AttributeError):
        return []
    return sorted((start, end) for start, end in places if 0 <= start <= end)


__all__ = ["folder_revision"]
