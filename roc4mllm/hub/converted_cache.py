"""
Checkpoints in the authors' format that were asked for by name: converted once, into the cache.

The native folder is named after the commit on the Hub, or after what the files of a local folder look like from
outside, so that a changed checkpoint is converted anew. It has its name only when it is complete. Processes that ask
for it at once wait for the first one.
"""

import hashlib
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from huggingface_hub import constants, snapshot_download
from huggingface_hub.utils import WeakFileLock  # type: ignore[attr-defined]  # it has no __all__
from transformers.utils import cached_file, logging

from .convert_folder import convert_folder
from .original_files import PICKLED, SAFETENSORS, find_shards, hub_origin, read_json

logger = logging.get_logger(__name__)

FORMAT = 1  # raised when a conversion changes what it writes
SMALL_FILES = ["*.json", "tokenizer.model"]
READ_BESIDE_WEIGHTS = (
    "config.json",
    "added_tokens.json",
    "tokenizer_config.json",
    "preprocessor_config.json",
    "tokenizer.model",
    f"{SAFETENSORS}.index.json",
    f"{PICKLED}.index.json",
)


def native_folder(name: str, **options: Any) -> tuple[Path, str, str | None]:
    """
    The native folder of a ROC4MLLM checkpoint in the authors' format, converted if need be.

    Args:
        name (`str`): Hub name or folder.
        **options: `revision`, `token`, `local_files_only`, `cache_dir` of the Hub. The native folder lies under
            `cache_dir` too; by default beside the Hub's cache, where `HF_HOME` and `HF_HUB_CACHE` move it.

    Returns:
        `tuple[Path, str, str | None]`: The native folder, the checkpoint's name and its commit on the Hub. A folder
        of the Hub's cache has those of the Hub.

    Raises:
        ValueError: If the checkpoint is another one, or something about it is not as its config describes.
        OSError: If it is not found, or the cache cannot be written.
    """
    source = Path(cached_file(name, "config.json", **options)).parent
    refuse_without_score_token(name, source)
    origin, revision = hub_origin(source)
    key = f"{file_name(origin)}--{revision or fingerprint(source)}--{FORMAT}"
    cache_dir = options.get("cache_dir")
    root = Path(cache_dir or Path(constants.HF_HUB_CACHE).parent, "roc4mllm", "converted")
    folder = root / key
    if not is_complete(folder):
        with one_at_a_time(root, key):
            if not is_complete(folder):  # else another process has just converted it
                if not os.path.isdir(name):
                    source = download(name, **options | {"revision": revision})
                logger.warning(f"Converting {name}, once; the native model stays in {folder}")
                convert_folder("roc4mllm", source, folder, name=origin, revision=revision)
    return folder, origin if revision else name, revision


def file_name(origin: str) -> str:
    """A checkpoint's name as the beginning of a folder's, which some file systems limit in signs and in length."""
    return re.sub(r"[^\w.-]+", "-", origin.replace("/", "--"), flags=re.ASCII)[:120]


def is_complete(folder: Path) -> bool:
    """Whether a conversion has ended there."""
    return (folder / "config.json").is_file()


@contextmanager
def one_at_a_time(root: Path, key: str) -> Iterator[None]:
    """Only one process is in here for a key. A root that cannot be written is told before gigabytes are downloaded."""
    locks = root.parent / ".locks"
    try:
        for folder in (root, locks):
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                pass
    except OSError as error:
        raise OSError(
            f"The cache of converted models at {str(root)!r} cannot be written ({error.strerror}). Set HF_HOME, pass "
            "cache_dir=, or write the native folder yourself: roc4mllm convert roc4mllm SRC DST"
        ) from error
    with WeakFileLock(locks / f"{key}.lock"):
        yield


def refuse_without_score_token(name: str, source: Path) -> None:
    """Raise a `ValueError` before gigabytes of another mPLUG-Owl2 are downloaded."""
    if "score_id" not in read_json(source, "config.json"):
        raise ValueError(
            f"{name!r} is an mPLUG-Owl2 model without [SCORE]. If it scores by naming a level, as OneAlign and "
            "DeQA-Score do, convert its folder, and load the new one: roc4mllm convert level-words SRC DST"
        )


def fingerprint(folder: Path) -> str:
    """A name for the state of a folder: names, sizes and times of the files that a conversion reads."""
    digest = hashlib.sha256((folder / "config.json").read_bytes())
    small = [path for name in READ_BESIDE_WEIGHTS if (path := folder / name).is_file()]
    for path in [*small, *find_shards(folder)]:
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
