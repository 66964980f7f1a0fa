"""
Rounds of self-training after ELTA (ICML 2024): a scorer learns on from pictures without ratings that it is sure of.

In each round it predicts a distribution for every picture, sharpens it, the more the further the score lies from the
mean, and picks the pictures of which one level then has a share above a threshold. They are trained on beside the
rated ones, with the distribution as it was predicted: sharpening only picks.

Each round has a folder, `round-1`, …, with `picked.csv`, which can be read as rated pictures, and its checkpoints.
"""

import csv
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch.utils.data import Dataset

from ..datasets_scripts.split_guard import PictureSet
from ..modeling_roc4mllm.long_tail_aesthetics import on_one_to_ten, pick, sharpen
from ..modeling_roc4mllm.modeling_outputs_aesthetics import score_ranges
from .rating_checks import picture_folder, picture_problem
from .rating_rows import is_missing
from .rating_sources import METADATA_FILES, PICTURE_COLUMNS, open_source
from .split_loss_trainer import SplitLossTrainer

PICKED = "picked.csv"


class UnlabelledPictures(Dataset):
    """Rows of pictures alone, of paths."""

    def __init__(self, paths: list[str]):
        self.paths = paths

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"image": self.paths[index], "where": self.paths[index]}


# ---- pictures -------------------------------------------------------------------------------------------------------


def read_unlabelled(source: str, pictures: str | None, rated: PictureSet, notes: list[str]) -> list[str]:
    """
    Paths of the pictures of a folder, or of a table with a column of paths, that can be read and are not rated: those
    to judge on must stay unseen.

    Args:
        source (`str`): A folder, which is searched with its sub-folders, or a file as for ratings.
        pictures (`str`, *optional*): Folder that relative paths of a table start from.
        rated ([`PictureSet`]): Pictures that are left out, also copies under another name.
        notes (`list[str]`): Takes what a person should know.

    Raises:
        ValueError, OSError: If there are none.
    """
    found = list(dict.fromkeys(paths_in(source, pictures)))
    is_rated = rated.shared(PictureSet.of({"image": path, "columns": {}} for path in found))
    unknown = [path for path, known in zip(found, is_rated, strict=True) if not known]
    problems = {path: problem for path in unknown if (problem := picture_problem(path))}
    if len(unknown) < len(found):
        notes.append(f"{len(found) - len(unknown)} of the unlabelled pictures are rated, and left out there")
    if problems:
        notes.append(f"{len(problems)} unlabelled pictures cannot be read, the first: {next(iter(problems.values()))}")
    good = [path for path in unknown if path not in problems]
    if not good:
        raise ValueError(f"{source}: none of {len(found)} pictures can be read and has no rating")
    return good


def paths_in(source: str, pictures: str | None) -> Iterator[str]:
    """Absolute paths of the pictures of a folder or table, in its order; of a folder by name."""
    folder = Path(source)
    if folder.is_dir() and not any((folder / name).is_file() for name in METADATA_FILES):
        endings = Image.registered_extensions()
        files = (path for path in sorted(folder.rglob("*")) if endings.get(path.suffix.lower()) in Image.OPEN)
        yield from (os.path.abspath(path) for path in files)
        return
    opened = open_source(source)
    column = next((name for name in opened.columns if name.casefold() in PICTURE_COLUMNS), None)
    if opened.pictures is not None or column is None:
        raise ValueError(f"{opened.name}: expected a column of paths, one of {', '.join(PICTURE_COLUMNS)}")
    names = [name for record in opened if isinstance(name := record.fields.get(column), str) and not is_missing(name)]
    start = picture_folder(names, opened.folder, pictures)
    yield from (os.path.normpath(os.path.join(start, name)) for name in names)


# ---- picking --------------------------------------------------------------------------------------------------------


def pick_pictures(
    trainer: SplitLossTrainer, paths: list[str], sharpening: float, threshold: float
) -> tuple[list[dict[str, Any]], float]:
    """
    Rows of the pictures that the scorer is sure of, for at least one attribute.

    Returns:
        `tuple[list[dict], float]`: `path` and, for each attribute that was picked, `<name>_votes` (the predicted
        distribution, unsharpened) and `<name>_sharpened` (the largest share of a level, sharpened); and the largest of
        these shares among all pictures.
    """
    scores, distribution = trainer.predict_distributions(UnlabelledPictures(paths))  # (P, A), (P, A, N)
    config = trainer.model.config
    picked, largest = pick_sure(scores, distribution, config.score_range, sharpening, threshold)
    rows: list[dict[str, Any]] = [{"path": path} for path in paths]
    for place, column in picked.nonzero().tolist():
        name = config.attributes[column]
        rows[place][f"{name}_votes"] = json.dumps(distribution[place, column].tolist())
        rows[place][f"{name}_sharpened"] = f"{largest[place, column].item():.6g}"
    return [row for row in rows if len(row) > 1], largest.max().item()


def pick_sure(
    scores: torch.Tensor, distribution: torch.Tensor, score_range: Any, sharpening: float, threshold: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Which predictions are sure enough, of pictures P and attributes A.

    Args:
        scores (`torch.Tensor` of shape `(P, A)`): In units of the score range.
        distribution (`torch.Tensor` of shape `(P, A, N)`): As predicted.
        score_range (pair of `float`, or one pair per attribute): That of the scorer.
        sharpening, threshold (`float`): See [`sharpen`] and [`pick`].

    Returns:
        `tuple[torch.Tensor, torch.Tensor]`: `(P, A)` each: whether it is, and the largest share of a level, sharpened.
    """
    logits = distribution.clamp(min=torch.finfo(distribution.dtype).tiny).log()  # but for a constant in each row
    ranges = score_ranges(score_range, scores.shape[1])
    sharpened = [
        sharpen(logits[:, column], on_one_to_ten(scores[:, column], *ends), sharpening)
        for column, ends in enumerate(ranges)
    ]
    together = torch.stack(sharpened, 1)  # (P, A, N)
    return pick(together, threshold), together.amax(-1)


def write_picked(rows: list[dict[str, Any]], attributes: list[str], path: Path) -> None:
    """Write what was picked as a table that can be read as ratings; whole as soon as it has its name."""
    columns = ["path", *(f"{name}_{kind}" for name in attributes for kind in ("votes", "sharpened"))]
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)
    os.replace(partial, path)


def count_rows(path: Path) -> int:
    """How many pictures a table of picked ones holds."""
    with path.open(encoding="utf-8", newline="") as file:
        return sum(1 for _ in csv.DictReader(file))


__all__ = ["PICKED", "UnlabelledPictures", "pick_pictures", "pick_sure", "read_unlabelled", "write_picked"]
