"""What glibc does with the memory that a forward pass has freed."""

import ctypes
import sys

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of <malloc.h>
KEPT_BYTES = 1 << 30
OLD_LIMIT = 32 << 20  # of M_MMAP_THRESHOLD, before glibc 2.35


def keep_freed_memory() -> bool:
    """
    Let this process keep what a forward pass has freed for the next one, up to a GiB. glibc gives large blocks back to
    the system, which then fills each one with zeros when it is asked again: a fifth of the time of an EAT in batches
    of 8 (benchmarks/bulk.py). Whether it could be told; only Linux has it.
    """
    set_option = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if set_option is None or not any(set_option(M_MMAP_THRESHOLD, size) for size in (KEPT_BYTES, OLD_LIMIT)):
        return False  # the other alone would make things worse: it fixes this one at 128 kB
    return bool(set_option(M_TRIM_THRESHOLD, KEPT_BYTES))


__all__ = ["keep_freed_memory"]
