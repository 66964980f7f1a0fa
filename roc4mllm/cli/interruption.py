"""Signals that end a command as exceptions do, so that what it began is tidied up."""

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager


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
