"""`roc4mllm convert`: a checkpoint in its authors' format to a native folder."""

import argparse
import os
import shlex
import sys

from ..hub.convert_file import FAMILIES as FILE_FAMILIES
from ..hub.convert_file import convert_file
from ..hub.convert_folder import convert_folder
from ..inference.inputs.expansion import expand_inputs
from .interruption import exit_when_told

# Which families an option is for.
OPTIONS = {
    "dtype": ("roc4mllm", "level-words"),
    "attribute": ("roc4mllm", "level-words"),  # of which the first knows one only
    "variant": FILE_FAMILIES,
    "calibrate": ("tanet",),
}


def run(args: argparse.Namespace) -> int:
    """Convert `args.source`; always 0."""
    for option, families in OPTIONS.items():
        if getattr(args, option) is not None and args.family not in families:
            raise ValueError(f"--{option} is for {', '.join(families)}, not for {args.family}.")
    with exit_when_told():
        if args.family in FILE_FAMILIES:
            from_file(args)
        else:
            from_folder(args)
    folder = shlex.quote(args.destination)
    print(f"written to {args.destination}; try: roc4mllm score PICTURES -m {folder}", file=sys.stderr)
    return 0


def from_folder(args: argparse.Namespace) -> None:
    """A checkpoint of many files."""
    if not os.path.isdir(args.source):
        raise ValueError(f"there is no folder {args.source!r}; fetch a checkpoint first, as in: hf download NAME")
    convert_folder(args.family, args.source, args.destination, dtype=args.dtype, attribute=args.attribute)


def from_file(args: argparse.Namespace) -> None:
    """A single file of weights."""
    if not os.path.isfile(args.source):
        raise ValueError(f"there is no file {args.source!r}; {args.family} is converted from its authors' .pth")
    pictures = None
    if args.calibrate is not None:
        found = list(expand_inputs([args.calibrate]))
        if wrong := [f"{given.path}: {given.error}" for given in found if given.error is not None]:
            raise ValueError(wrong[0])
        pictures = [given.path for given in found]
    convert_file(args.family, args.source, args.destination, variant=args.variant, pictures=pictures)


__all__ = ["run"]
