"""
Which files of a folder go to the Hub: those of an allow-list, so that nothing goes along by accident.

A file that could run code when somebody opens it is refused by name instead of being left out: whoever has one in the
folder should know. The only code that travels is ours, and it must be that of the installed package.
"""

import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from ..processing_roc4mllm.pipeline_image_aesthetics import __version__

MODEL_FILES = (
    "README.md", "LICENSE*", "NOTICE*",
    "config.json", "generation_config.json", "trained_on.safetensors",
    "model.safetensors", "model-*.safetensors", "model.safetensors.index.json",
    "score_head.safetensors", "adapter/adapter_config.json", "adapter/adapter_model.safetensors",
    "*processor_config.json", "tokenizer*.json", "special_tokens_map.json", "added_tokens.json", "vocab.json",
    "vocab.txt", "merges.txt", "*.model", "chat_template.jinja", "chat_template.json", "additional_chat_templates/*",
)  # fmt: skip
DATA_FILES = re.compile(
    r"README\.md|LICENSE.*|NOTICE.*|.*\.(parquet|jsonl?|csv|tsv|txt|jpe?g|png|webp|gif|bmp|tiff?)", re.IGNORECASE
)
PICTURES = re.compile(
    r"[^/]+\.(jpe?g|png|svg|webp|gif)", re.IGNORECASE
)  # in a model's folder, where its card shows them
RUNS_CODE = re.compile(  # pickles and containers of them, programs, scripts, archives
    r".*\.(bin|pt|pth|pkl|pickle|ckpt|joblib|npy|npz|h5|hdf5|keras|msgpack|pyc?|pyd|so|dll|dylib|exe|com|msi|sh|bash|zsh"
    r"|bat|cmd|ps1|js|mjs|jar|wasm|rb|pl|php|ipynb|zip|tar|tgz|gz|bz2|xz|7z|rar)",
    re.IGNORECASE,
)
SHIPPED = {
    path.name: path
    for folder in ("modeling_roc4mllm", "processing_roc4mllm")
    for path in (Path(__file__).parents[1] / folder).glob("[!_]*.py")
}


@dataclass(frozen=True)
class FolderFiles:
    """
    What becomes of a folder's files.

    Args:
        published (`dict[str, Path]`): What goes to the Hub, by its path there, sorted.
        left_out (`list[str]`): What stays; a folder of which nothing goes ends in a slash.
    """

    published: dict[str, Path]
    left_out: list[str]


def model_files(folder: Path) -> FolderFiles:
    """
    Files of a model or an adapter.

    Args:
        folder (`Path`): As `save_pretrained` writes it; checkpoints and logs of its training may lie beside.

    Raises:
        ValueError: If it holds something that runs code, code that is not that of the installed package or none at
            all, a damaged file of weights, or a path of this machine.
    """
    card = folder / "README.md"
    text = card.read_text(encoding="utf-8", errors="replace") if card.is_file() else ""

    def belongs(name: str) -> bool:
        if name in SHIPPED or (PICTURES.fullmatch(name) and name in text):
            return True
        return any(pattern.count("/") == name.count("/") and fnmatchcase(name, pattern) for pattern in MODEL_FILES)

    found = chosen_files(folder, belongs, folders={"adapter", "additional_chat_templates"})
    check_code(folder, found.published)
    for name, path in found.published.items():
        if path.suffix == ".safetensors":
            check_weights(name, path)
    refuse_machine_paths({name: path for name, path in found.published.items() if name.endswith("config.json")})
    return found


def data_files(folder: Path) -> FolderFiles:
    """
    Files of a data set: tables, pictures, card and report.

    Raises:
        ValueError: If it holds something that runs code (`datasets` runs no loading scripts any more), no card, no
            data, or its report names a path of this machine.
    """
    found = chosen_files(folder, lambda name: DATA_FILES.fullmatch(name) is not None, folders=None)
    if "README.md" not in found.published:
        raise ValueError(
            f"{str(folder)!r} has no README.md, which tells source, terms and splits; `roc4mllm data` writes one"
        )
    if not any(path.suffix != ".md" for path in found.published.values()):
        raise ValueError(f"{str(folder)!r} holds no data: no .parquet, .csv, .jsonl, … and no pictures")
    refuse_machine_paths({name: path for name, path in found.published.items() if name == "report.json"})
    return found


def chosen_files(folder: Path, belongs: Callable[[str], bool], folders: set[str] | None) -> FolderFiles:
    """
    What belongs, and what stays.

    Args:
        folder (`Path`): Where to look.
        belongs (callable): Whether the file of a name, with slashes, goes along.
        folders (`set[str]`, *optional*): Where else to look; `None` for everywhere.

    Raises:
        ValueError: If something that runs code lies where is looked.
    """
    if not folder.is_dir():
        raise ValueError(f"there is no folder {str(folder)!r}")
    published, left_out, refused = {}, [], []
    for path in walk(folder, folder, folders):
        name = path.relative_to(folder).as_posix()
        if path.is_dir():
            left_out.append(f"{name}/")
        elif not name.startswith(".") and belongs(name):
            published[name] = path
        elif RUNS_CODE.fullmatch(name):
            refused.append(name)
        else:
            left_out.append(name)
    if refused:
        raise ValueError(
            f"{str(folder)!r} holds {listed(refused)}, which can run code on the machine of whoever opens it; publish "
            "safetensors, and move such files elsewhere"
        )
    return FolderFiles(published, left_out)


def walk(folder: Path, root: Path, folders: set[str] | None) -> Iterator[Path]:
    """Files in order of their names, and the folders that are not entered."""
    for path in sorted(folder.iterdir()):
        is_entered = folders is None or path.relative_to(root).as_posix() in folders
        if path.is_dir() and is_entered and not path.name.startswith((".", "__")):
            yield from walk(path, root, folders)
        else:
            yield path


# Checks --------------------------------------------------------------------------------------------------------------


def check_code(folder: Path, published: Mapping[str, Path]) -> None:
    """Refuse a model whose code is missing, or not that of the installed package."""
    code = {name: path for name, path in published.items() if name in SHIPPED}
    other = [name for name, path in code.items() if path.read_bytes() != SHIPPED[name].read_bytes()]
    if code and not other:
        return
    fault = f"{listed(other)} of other content than in the installed roc4mllm {__version__}" if other else "no code"
    raise ValueError(
        f"{str(folder)!r} holds {fault}, so who has not installed roc4mllm could not load it as it is; save it anew: "
        f"roc4mllm.load_scorer({str(folder)!r}).save_pretrained(NEW_FOLDER)"
    )


def check_weights(name: str, path: Path) -> None:
    """Refuse a file of weights that was cut short, or holds something else."""
    try:
        with safe_open(path, framework="np"):
            pass
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{name} cannot be read and may be cut short: {error}") from error


def refuse_machine_paths(files: Mapping[str, Path]) -> None:
    """Refuse JSON that names a path of this machine: nobody else has it, and it tells who lives here."""
    for name, path in files.items():
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"{name} is no JSON: {error}") from error
        for key, text in strings(content):
            if os.path.isabs(text) and (os.path.exists(text) or text.startswith(os.path.expanduser("~") + os.sep)):
                raise ValueError(
                    f"{name} names a path of this machine as {key or 'an entry'}: {text!r}. Write its name on the "
                    "Hub in its place; publish it first, if it is not there"
                )


def strings(content: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """All texts in JSON, with the nearest key above each."""
    if isinstance(content, str):
        yield key, content
    elif isinstance(content, dict):
        for name, value in content.items():
            yield from strings(value, str(name))
    elif isinstance(content, list):
        for value in content:
            yield from strings(value, key)


def listed(names: list[str], most: int = 3) -> str:
    """Names, the first of many."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


__all__ = ["FolderFiles", "data_files", "model_files"]
