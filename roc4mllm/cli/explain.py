"""`roc4mllm explain`: a picture of what a score rests on."""

import argparse
import os
import sys

from ..inference.explanation.explain import explain
from ..inference.inputs.expansion import expand_inputs
from ..inference.tables.score_table import shown
from ..processing_roc4mllm.image_reading_aesthetics import PictureError
from ..whole_files import check_writable
from .loading import choose_attributes, load


def run(args: argparse.Namespace) -> int:
    """Explain the score of `args.image` and write the drawing."""
    output = check_output(args.output, args.image)
    picture = next(expand_inputs([args.image]), None)  # of a folder or a shard no more than the first
    if picture is None or picture.path != args.image:
        raise ValueError(f"{args.image!r} is not one picture; name a file or a URL")
    if picture.error is not None:
        raise ValueError(f"{picture.path}: {picture.error}")
    scorer = load(args)
    (attribute, *_) = choose_attributes(args.attribute and [args.attribute], scorer.model.config)
    try:
        explanation = explain(scorer, picture.path, attribute)
    except (PictureError, RuntimeError) as error:  # the latter as where memory runs out
        raise ValueError(f"{picture.path}: {error}") from error
    explanation.save(output)
    low, high = explanation.record["score_range"]
    line = f"{attribute} {explanation.record['score']:.3f} of {low:g} to {high:g}; {explanation.caption}"
    print(shown(f"{line} Written to {args.output}"), file=sys.stderr)
    return 0


def check_output(path: str, image: str) -> str:
    """The file to be written, which must not be the picture."""
    if not path.lower().endswith(".png"):
        raise ValueError(f"an explanation is a .png file, got {path!r}")
    if os.path.exists(path) and os.path.exists(image) and os.path.samefile(path, image):
        raise ValueError(f"{path!r} would overwrite the picture")
    return str(check_writable(path))
