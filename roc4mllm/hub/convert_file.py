"""
A file of weights that the authors of TANet, EAT or ELTA published becomes a native folder.

The file is a `.pth` of `torch.save`, which is read without running code in it, or a `.safetensors`. Its weights tell
the config. The native folder is written beside the place where it goes, and gets its name when it is complete.
"""

import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from PIL import Image
from transformers import PreTrainedModel
from transformers.utils import logging

from ..processing_roc4mllm.picture_batches_aesthetics import PicturePreparation
from ..processing_roc4mllm.picture_stream_aesthetics import batches
from ..processing_roc4mllm.pipeline_image_aesthetics import ImageAestheticsPipeline
from .conversion_card import conversion_card
from .convert_folder import complete_or_nothing, refuse_bad_place, without_progress_bar
from .convert_original import conversion_of, native_model
from .original_files import read_shard
from .tanet_calibration import calibrate, effect_against_legacy, generated_pictures
from .weight_names import weights_within

logger = logging.get_logger(__name__)

FAMILIES = ("tanet", "eat", "elta")
LEVELS = {"AVA": 10, "TAD66K": 1}  # values of the head, by the data set that a variant was trained on
BATCH = 32  # pictures at once, as usual for the original, whose scores depend on that
MEASURED = 10  # batches that its effect is measured on
UNITS = {
    "AVA": "The score is the mean of the ten levels, in votes of AVA.",
    "TAD66K": "The score is in units of TAD66K's labels, which reach from 1 to 10: the authors teach a tenth of them, "
    "and the head's value times 10 is the score.",
}
RAW_UNITS = {
    "AVA": "The head's ten values are no shares of votes: no softmax follows them, and they need not sum to 1. The "
    "score is the sum of each level times its raw value, in votes of AVA, set to the range's end where it leaves the "
    "range. The distribution and its standard deviation are those of the positive part of the values, divided by its "
    "sum; the mean of that distribution need not be the score.",
    "TAD66K": f"{UNITS['TAD66K'].removesuffix('.')}, set to the range's end where it leaves the range.",
}
PREPARATION = {
    ("tanet", "AVA"): "as its authors test",
    ("tanet", "TAD66K"): "which is assumed: its authors train on random 224 × 224 of 256 × 256 pixels",
}
ASSUMED = "which is assumed, for so the same authors test TANet"
OWN_SPLIT = (
    "The authors divided AVA at random on their own: most pictures of its official test set were among those that "
    "these weights learnt from, and figures on that set would be too good."
)
BY_ITSELF = (
    "A picture's score does not depend on the other pictures of its batch, as it does in the authors' code; so scores "
    "differ from theirs."
)
UNCALIBRATED = (
    "**Uncalibrated theme branch.** The original normalises by statistics of each batch and publishes none; this "
    "model goes without. How near it comes to the original's scores: {effect}; measured on {measured} generated "
    "pictures (gradients, blobs and noise, not photographs) in batches of {batch}, for none were given. To "
    "measure the statistics, and their effect on real pictures: `roc4mllm convert tanet FILE DIR --calibrate "
    "PICTURES`."
)
CALIBRATED = (
    "**Calibrated theme branch.** The original normalises by statistics of each batch and publishes none; this model "
    "holds those of {count} pictures. How near it comes to the original's scores, in batches of {batch}: {after}. "
    "Without the statistics (uncalibrated theme branch): {before}. Both were measured on {measured} of the same "
    "pictures, so that on others it may come less near."
)


def convert_file(
    family: str,
    source: str | os.PathLike[str],
    destination: str | os.PathLike[str],
    *,
    variant: str | None = None,
    pictures: Sequence[str | os.PathLike[str]] | None = None,
) -> None:
    """
    Write a native folder with the weights of an original's file.

    Args:
        family (`str`): `"tanet"`, `"eat"` or `"elta"`.
        source (`str` or `os.PathLike`): The file; weights by name, bare or under `"state_dict"` or `"model"`.
        destination (`str` or `os.PathLike`): The native folder, which must be new or empty.
        variant (`str`, *optional*): `"AVA"` for a head of ten levels, `"TAD66K"` for one of one value. Only needed for
            an ELTA that holds both heads; otherwise the file tells, and must agree.
        pictures (sequence of `str` or `os.PathLike`, *optional*): Of the kind that will be scored, a few hundred: the
            statistics that the theme branch of a TANet for AVA lacks are measured on them.

    Raises:
        ValueError: If the file is not one of weights of that family, a weight is unknown, missing, of another shape or
            not finite, or the pictures cannot be used. Nothing is left behind then.
        OSError: If the file cannot be opened, or the destination holds something or cannot be written.
    """
    if family not in FAMILIES or variant not in (None, *LEVELS):
        raise ValueError(f"Got {family!r}, variant {variant!r}; known are {list(FAMILIES)} and {list(LEVELS)}.")
    if pictures is not None and family != "tanet":
        raise ValueError(f"Calibrating is for TANet; {family} needs no statistics of pictures.")
    source, destination = Path(source), Path(os.path.realpath(destination))  # a link stays, and gets the folder
    refuse_bad_place(destination)
    weights = read_weights(source)
    conversion = checked_conversion(family, weights, variant, source.name)
    with without_progress_bar():
        model, theme = calibrated(conversion, weights, pictures)
        with complete_or_nothing(destination) as folder:
            scorer: Any = ImageAestheticsPipeline(model=model, image_processor=conversion.image_processor)
            scorer.save_pretrained(folder)
            dtype = str(model.dtype).removeprefix("torch.")
            notes = [*remarks(family, conversion), *theme]
            card = conversion_card(
                family, model.config, destination.name, None, dtype, source=source.name, notes=notes
            )
            (folder / "README.md").write_text(card, encoding="utf-8")


# ---- reading --------------------------------------------------------------------------------------------------------


def read_weights(path: Path) -> dict[str, torch.Tensor]:
    """
    Weights of a file by name.

    Raises:
        ValueError: If the file is damaged or holds something else.
    """
    if path.suffix == ".safetensors":
        return weights_within(read_shard(path), path.name)
    return weights_within(read_saved(path), path.name)


def read_saved(path: Path) -> Any:
    """What `torch.save` wrote, as far as it can be read without running code."""
    with path.open("rb") as file:
        start = file.read(2)
    if start not in (b"PK", b"\x80\x02"):  # the zip format, and that of torch before 1.6
        raise ValueError(
            f"{path.name} was not written by torch.save (empty, or a page or pointer that stands for the file?); it "
            f"starts with {start!r}. Fetch it again."
        )
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        raise ValueError(
            f"{path.name} is refused: it is more than weights, and reading it could run code. If you trust where it "
            f"comes from, save its weights alone, in Python: torch.save(torch.load({path.name!r}, weights_only=False)"
            "['state_dict'], 'weights.pth'), or whatever they are called there; and convert that."
        ) from error
    except (RuntimeError, EOFError, OSError, KeyError) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(f"{path.name} cannot be read and may be cut short; fetch it again: {reason}") from error


def checked_conversion(family: str, weights: Mapping[str, torch.Tensor], variant: str | None, name: str) -> Any:
    """The conversion of a file's weights, whose head is that of the variant asked for, or of any."""
    fields = {"variant": variant} if variant and family == "elta" else {}
    try:
        conversion = conversion_of(family, weights, **fields)
    except (StrictDataclassError, TypeError, ArithmeticError, AssertionError, LookupError, RuntimeError) as error:
        raise ValueError(f"{name} cannot be used as {family}: {type(error).__name__}: {error}") from error
    known = [variant] if variant else list(LEVELS)
    if (num_levels := conversion.config.num_levels) not in (LEVELS[choice] for choice in known):
        expected = " or ".join(f"{LEVELS[choice]} ({choice})" for choice in known)
        raise ValueError(f"The head in {name} gives {num_levels} value(s); expected {expected}.")
    return conversion


# ---- calibrating ----------------------------------------------------------------------------------------------------


def calibrated(
    conversion: Any, weights: Mapping[str, torch.Tensor], pictures: Sequence[str | os.PathLike[str]] | None
) -> tuple[PreTrainedModel, list[str]]:
    """The native model, with statistics where there are pictures, and what its card says of them."""
    lacks_statistics = getattr(conversion.config, "theme_calibrated", None) is False
    if pictures is None:
        model: Any = native_model(conversion, weights)
        return model, [uncalibrated_note(model, conversion)] if lacks_statistics else []
    if not lacks_statistics:
        raise ValueError("Calibrating is for the TANet of AVA; this one uses no statistics of pictures.")
    conversion.config.theme_calibrated = None  # no warning: they will be there
    model = native_model(conversion, weights)
    parts = list(islice(even_batches(prepared(conversion, pictures)), MEASURED))
    if not parts:
        raise ValueError("Calibrating needs at least two pictures that can be read, better a few hundred.")
    before = effect_text(model, parts)
    count = calibrate(model, prepared(conversion, pictures))
    facts = {"count": count, "measured": sum(map(len, parts)), "batch": len(parts[0])}
    return model, [CALIBRATED.format(**facts, before=before, after=effect_text(model, parts))]


def uncalibrated_note(model: Any, conversion: Any) -> str:
    """What a card says of a model without statistics, measured on pictures that are made for that."""
    pixel_values = conversion.image_processor(generated_pictures(BATCH), return_tensors="pt")["pixel_values"]
    effect = effect_text(model, [pixel_values])
    return UNCALIBRATED.format(effect=effect, measured=len(pixel_values), batch=len(pixel_values))


def prepared(conversion: Any, pictures: Sequence[str | os.PathLike[str]]) -> Iterator[torch.Tensor]:
    """Pictures in batches `(B, 3, H, W)`; those that cannot be read are left out, and said."""
    preparation = PicturePreparation(conversion.image_processor, {"return_tensors": "pt"})
    for batch in batches(pictures, preparation, BATCH, num_workers=0):
        for place, error in zip(batch.sources, batch.errors, strict=True):
            if error is not None:
                logger.warning_once(f"{os.fspath(place)!r} is left out of the statistics: {error}")
        if batch.inputs is not None:
            yield batch.inputs["pixel_values"]


def even_batches(parts: Iterable[torch.Tensor], size: int = BATCH) -> Iterator[torch.Tensor]:
    """
    Batches of exactly `size` pictures, whatever could not be read; what is left over makes none.

    Where there are fewer pictures, two at least, all of them are one batch.
    """
    rest: torch.Tensor | None = None
    has_full = False
    for part in parts:
        rest = part if rest is None else torch.cat([rest, part])
        while len(rest) >= size:
            yield rest[:size]
            rest, has_full = rest[size:], True
    if rest is not None and len(rest) > 1 and not has_full:
        yield rest


def effect_text(model: Any, parts: Sequence[torch.Tensor]) -> str:
    """How far the scores of batches are from the original's, in words."""
    effect = effect_against_legacy(model, parts)
    srcc, shift = effect["srcc"], effect["mean_shift"]
    if not math.isfinite(shift) or (model.config.theme_calibrated and not math.isfinite(srcc)):
        raise ValueError(
            f"Scores of these weights in {model.dtype} are not finite, or all alike (SRCC with the original {srcc}, "
            f"mean shift {shift}): they cannot be used. In half precision, convert them in float32."
        )
    order = f"SRCC {srcc:.4f}" if math.isfinite(srcc) else "no SRCC, for all scores are alike"
    return f"{order}, mean shift {shift:+.4f}"


# ---- card -----------------------------------------------------------------------------------------------------------


def remarks(family: str, conversion: Any) -> list[str]:
    """What a card says of units, preparation and data, a paragraph each."""
    variant = next(name for name, levels in LEVELS.items() if levels == conversion.config.num_levels)
    size, resample = conversion.image_processor.size, Image.Resampling(conversion.image_processor.resample)
    how = PREPARATION.get((family, variant), ASSUMED)
    found = [
        (RAW_UNITS if conversion.config.raw_head else UNITS)[variant],
        f"Pictures are stretched to {size['height']} × {size['width']} pixels ({resample.name.lower()}), {how}, and "
        "normalised by the statistics of ImageNet.",
    ]
    if family != "elta":
        found.append(BY_ITSELF)
    if family != "elta" and variant == "AVA":
        found.append(OWN_SPLIT)
    return found


__all__ = ["FAMILIES", "convert_file", "read_weights"]
