"""
Checkpoints in the authors' format that were asked for by name: converted once, into the cache.

The native folder is named after the commit on the Hub, or after what the files of a local folder look like from
outside, so that a changed checkpoint is converted anew. It has its name only when it is complete, so there is no lock:
of two processes that convert at once the faster one wins, and the other one's work is dropped.
"""

import hashlib
import os
from pathlib import Path
from typing import Any

from huggingface_hub import constants, snapshot_download
from transformers.utils import cached_file, logging
from transformers.utils.hub import extract_commit_hash

from .convert_folder import convert_folder
from .original_files import read_json

logger = logging.get_logger(__name__)

FORMAT = 1  # raised when a conversion changes what it writes
SMALL_FILES = ["*.json", "tokenizer.model"]


def native_folder(name: str, **options: Any) -> tuple[Path, str | None]:
    """
    The native folder of a ROC4MLLM checkpoint in the authors' format, converted if need be.

    Args:
        name (`str`): Hub name or folder.
        **options: `revision`, `token`, `local_files_only`, `cache_dir` of the Hub. The native folder lies under
            `cache_dir` too; by default under Hugging Face's own folder, where `HF_HOME` moves it.

    Returns:
        `tuple[Path, str | None]`: The native folder, and the checkpoint's commit on the Hub.

    Raises:
        ValueError: If the checkpoint is another one, or something about it is not as its config describes.
        OSError: If it is not found.
    """
    config_file = Path(cached_file(name, "config.json", **options))
    source = config_file.parent
    refuse_without_score_token(name, source)
    is_local = os.path.isdir(name)
    revision = None if is_local else extract_commit_hash(str(config_file), None)
    key = f"{(source.resolve().name if is_local else name).replace('/', '--')}--{revision or fingerprint(source)}"
    root = Path(options.get("cache_dir") or constants.HF_HOME)
    folder = root / "roc4mllm" / "converted" / f"{key}--{FORMAT}"
    if not is_complete(folder):
        if not is_local:
            source = download(name, **options | {"revision": revision})
        logger.warning(f"Converting {name}, once; the native model stays in {folder}")
        try:
            convert_folder("roc4mllm", source, folder, name=None if is_local else name, revision=revision)
        except OSError:
            if not is_complete(folder):  # else another process was faster
                raise
    return folder, revision


def is_complete(folder: Path) -> bool:
    """Whether a conversion has ended there."""
    return (folder / "config.json").is_file()


def refuse_without_score_token(name: str, source: Path) -> None:
    """Raise a `ValueError` before gigabytes of another mPLUG-Owl2 are downloaded."""
    if "score_id" not in read_json(source, "config.json"):
        raise ValueError(
            f"{name!r} is an mPLUG-Owl2 model without [SCORE]. If it scores by naming a level, as OneAlign and "
            "DeQA-Score do, convert its folder, and load the new one: roc4mllm convert level-words SRC DST"
        )


def fingerprint(folder: Path) -> str:
    """A name for the state of a folder: its config, and names, sizes and times of its files."""
    digest = hashlib.sha256((folder / "config.json").read_bytes())
    for path in sorted(path for path in folder.iterdir() if path.is_file()):
        status = path.stat()
        digest.update(f"{path.name} {status.st_size} {status.st_mtime_ns}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()[:40]


def download(name: str, **options: Any) -> Path:
    """The checkpoint's folder in the Hub's cache; weights as safetensors, as `.bin` only where there are no others."""
    folder = Path(snapshot_download(name, allow_patterns=[*SMALL_FILES, "model*.safetensors"], **options))
    if not any(folder.glob("model*.safetensors")):
        snapshot_download(name, allow_patterns=["pytorch_model*.bin"], **options)
    return folder


__all__ = ["native_folder"]
