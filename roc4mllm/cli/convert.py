"""`roc4mllm convert`: a checkpoint in its authors' format to a native folder."""

import argparse
import os
import shlex
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from ..hub.convert_folder import convert_folder


def run(args: argparse.Namespace) -> int:
    """Convert `args.source`; always 0."""
    if not os.path.isdir(args.source):
        raise ValueError(f"there is no folder {args.source!r}; fetch a checkpoint first, as in: hf download NAME")
    with exit_when_told():
        convert_folder(args.family, args.source, args.destination, dtype=args.dtype, attribute=args.attribute)
    folder = shlex.quote(args.destination)
    print(f"written to {args.destination}; try: roc4mllm score PICTURES -m {folder}", file=sys.stderr)
    return 0


@contextmanager
def exit_when_told() -> Iterator[None]:
    """
    End by an exception where SIGTERM or a closed terminal would kill, so that the unfinished folder is removed. A
    signal that is ignored, as under nohup, stays so.
    """
    signals = [number for name in ("SIGTERM", "SIGHUP") if (number := getattr(signal, name, None))]
    is_main = threading.current_thread() is threading.main_thread()  # no other may set handlers
    changed = [number for number in signals if is_main and signal.getsignal(number) is signal.SIG_DFL]
    for number in changed:
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    try:
        yield
    finally:
        for number in changed:
            signal.signal(number, signal.SIG_DFL)


__all__ = ["run"]
