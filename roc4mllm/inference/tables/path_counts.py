"""How many rows there are of each path, in little memory: a table may have a hundred million."""

import hashlib
from collections.abc import Iterable

import numpy as np

DIGEST_BYTES = 16  # two of a hundred million paths share one with a probability of 1e-23


class PathCounts:
    """
    Counts of paths in 20 bytes a row: each is kept as a digest, and found again by bisection.

    Args:
        paths (iterable of `str`, *optional*): Paths to begin with.
    """

    def __init__(self, paths: Iterable[str] = ()) -> None:
        self._added = bytearray()
        self._sorted = np.empty(0, f"S{DIGEST_BYTES}")
        self._taken = np.empty(0, np.uint32)  # of each run of equal digests, at its first: how many were taken
        for path in paths:
            self.add(path)

    def __len__(self) -> int:
        return len(self._sorted) + len(self._added) // DIGEST_BYTES

    def add(self, path: str) -> None:
        """
        Count a path.

        Raises:
            RuntimeError: If one was taken before.
        """
        if len(self._sorted):
            raise RuntimeError("add all paths before the first is taken")
        self._added += digest_of(path)

    def take(self, path: str) -> bool:
        """Count a path down; `False` if its count is 0."""
        if self._added:
            self._sorted = np.frombuffer(self._added, self._sorted.dtype)
            self._sorted.sort()  # in place
            self._taken = np.zeros(len(self._sorted), np.uint32)
            self._added = bytearray()
        wanted = np.frombuffer(digest_of(path), self._sorted.dtype)
        first = int(np.searchsorted(self._sorted, wanted)[0])
        place = first + int(self._taken[first]) if first < len(self._sorted) else first
        if place >= len(self._sorted) or self._sorted[place] != wanted[0]:
            return False
        self._taken[first] += 1
        return True


def digest_of(path: str) -> bytes:
    """What stands for a path."""
    return hashlib.blake2b(path.encode("utf-8", "surrogateescape"), digest_size=DIGEST_BYTES).digest()


__all__ = ["PathCounts"]
