"""
Does a folder work for those who get it from the Hub? Tried before anything is uploaded.

A model is loaded as a user without roc4mllm loads it, by transformers alone in a fresh process that trusts the code in
the folder, and scores a generated picture. Of an adapter, which needs the model below it, that model is loaded too,
from the Hub or its cache; a whole model has to do without the Hub. Of a data set the first row of each split is read.
"""

import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..processing_roc4mllm.pipeline_image_aesthetics import attribute_range

# Runs in the fresh process. It tells its result in its last line, whatever the libraries print before.
LOAD_AND_SCORE = """
import json, sys
sys.modules["roc4mllm"] = None  # any use of the package raises
folder, picture = sys.argv[1:]
try:
    from transformers import pipeline
    told = pipeline("image-aesthetics", model=folder, trust_remote_code=True)(picture)
except Exception as error:
    told = {"error": f"{type(error).__name__}: {error}"}
print("\\n" + json.dumps(told))
"""


def check_model(folder: Path, config: Any, is_adapter: bool) -> float:
    """
    Score a generated picture with a folder, without the package.

    Args:
        folder (`Path`): As it is to be published.
        config ([`ROC4MLLMConfig`] or [`ImageScorerConfig`]): The model's.
        is_adapter (`bool`): Whether it needs a model below it.

    Returns:
        `float`: The score, in units of `config.score_range`.

    Raises:
        ValueError: If it cannot be loaded so, or gives no score.
    """
    told = score_without_package(folder, offline=not is_adapter)
    score = told.get("score")
    if told.get("error") or score is None:
        reason = str(told.get("error") or "it gave no score")
        raise ValueError(f"{str(folder)!r} cannot be used without roc4mllm, so it was not published: {reason}")
    low, high = attribute_range(config, 0)
    if not (math.isfinite(score) and low <= score <= high):
        raise ValueError(
            f"{str(folder)!r} scores a picture {score}, outside of its range of {low:g} to {high:g}, so it was not "
            "published"
        )
    return float(score)


def score_without_package(folder: Path, offline: bool) -> dict[str, Any]:
    """The record of a generated picture from a fresh process, or an `error`."""
    with tempfile.TemporaryDirectory() as place:
        picture = Path(place, "picture.png")
        generated_picture().save(picture)
        # A cache of its own: the code in the user's could be that of an earlier folder of this name.
        environment = os.environ | {
            "HF_MODULES_CACHE": str(Path(place, "modules")),
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        }
        environment |= {"HF_HUB_OFFLINE": "1"} if offline else {}
        done = subprocess.run(
            [sys.executable, "-c", LOAD_AND_SCORE, str(folder.resolve()), str(picture)],
            cwd=place,  # `python -c` would import from the current folder
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
        )
    try:
        told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    except (IndexError, ValueError):
        last = done.stderr.strip().splitlines()[-1:] or ["no word"]
        return {"error": f"the process ended with code {done.returncode}: {last[0]}"}
    return told


def generated_picture(width: int = 320, height: int = 240) -> Image.Image:
    """A picture of smooth colours, the same each time."""
    across, down = np.linspace(0, 1, width), np.linspace(0, 1, height)[:, None]
    channels = [across + 0 * down, down + 0 * across, 0.5 + 0.5 * np.sin(9 * across) * np.cos(7 * down)]
    return Image.fromarray((255 * np.stack(channels, axis=-1)).astype(np.uint8))


def check_data(folder: Path) -> Mapping[str, list[str]]:
    """
    Read the first row of each split as a user of the Hub would, streaming.

    Returns:
        `dict[str, list[str]]`: Columns by split.

    Raises:
        ImportError: If `datasets` is missing.
        ValueError: If it cannot be loaded.
    """
    try:
        from datasets import load_dataset  # type: ignore[import-untyped]
    except ImportError as error:
        raise ImportError('data sets need datasets and pyarrow: pip install "roc4mllm[data]"') from error
    try:
        splits = load_dataset(str(folder.resolve()), streaming=True)
        return {name: sorted(list(rows.take(1))[0]) for name, rows in splits.items()}
    except Exception as error:  # of pyarrow, PIL, yaml, fsspec, … : whatever a user would get
        reason = f"{type(error).__name__}: {error}"
        raise ValueError(f"{str(folder)!r} cannot be loaded, so it was not published: {reason}") from error


__all__ = ["check_data", "check_model"]
