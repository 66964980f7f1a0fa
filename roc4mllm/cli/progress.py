"""How far a run is: a bar on a terminal, a line now and then in a log."""

import sys
import time
from typing import Any

from tqdm import tqdm  # type: ignore[import-untyped]

from ..inference.tables.score_table import Row

SECONDS_PER_LINE = 30.0


class Progress:
    """
    Counts rows and tells of them on stderr: pictures per second, failures, time left.

    Args:
        count (`int`, *optional*): How many there will be, if that is known.
    """

    def __init__(self, count: int | None) -> None:
        self.count, self.done, self.failed, self.skipped = count, 0, 0, 0
        self.first_failure: Row | None = None
        self.start = self.told = time.monotonic()
        self.bar: Any = None

    def skip(self) -> None:
        """An input is done already."""
        self.skipped += 1
        if self.bar is not None:
            self.bar.initial += 1  # its rate is of what this run does
            self.bar.update()

    def __enter__(self) -> "Progress":
        self.start = self.told = time.monotonic()
        if sys.stderr.isatty():
            self.bar = tqdm(total=self.count, unit="picture", leave=False, smoothing=0.05)
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.close()

    def add(self, row: Row) -> None:
        """One more row is written."""
        self.done += 1
        if row["error"] is not None:
            self.failed += 1
            self.first_failure = self.first_failure or row
        if self.bar is not None:
            self.bar.set_postfix(failed=self.failed, refresh=False)
            self.bar.update()
        elif time.monotonic() - self.told > SECONDS_PER_LINE:
            self.told = time.monotonic()
            print(self.line(), file=sys.stderr, flush=True)

    def line(self) -> str:
        """Where the run is, in one line."""
        place = self.skipped + self.done
        rate = self.done / max(time.monotonic() - self.start, 1e-9)
        of = "" if self.count is None else f" of {self.count}"
        left = "" if self.count is None else f", {minutes((self.count - place) / rate)} left"
        return f"roc4mllm: {place}{of} pictures, {rate:.1f}/s, {self.failed} failed{left}"

    def summary(self) -> str:
        """What was done, in one line."""
        line = f"{self.done - self.failed} of {self.done} scored, {self.failed} failed"
        if self.first_failure is not None:
            line += f" (first: {self.first_failure['path']}: {self.first_failure['error']})"
        return line


def minutes(seconds: float) -> str:
    """A time as h:mm:ss."""
    whole = max(0, round(seconds))
    return f"{whole // 3600}:{whole // 60 % 60:02}:{whole % 60:02}"
