"""`roc4mllm convert`: a checkpoint in its authors' format to a native folder."""

import argparse
import os
import sys

from ..hub.convert_folder import convert_folder


def run(args: argparse.Namespace) -> int:
    """Convert `args.source`; always 0."""
    if not os.path.isdir(args.source):
        raise ValueError(f"there is no folder {args.source!r}; fetch a checkpoint first, as in: hf download NAME")
    convert_folder(args.family, args.source, args.destination, dtype=args.dtype, attribute=args.attribute)
    print(f"written to {args.destination}; try: roc4mllm score PICTURES -m {args.destination}", file=sys.stderr)
    return 0
