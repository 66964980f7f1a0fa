"""What glibc does with the memory that a forward pass has freed."""

import ctypes
import sys

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of <malloc.h>
KEPT_BYTES = 1 << 30


def keep_freed_memory() -> bool:
    """
    Let this process keep what a forward pass has freed for the next one, up to a GiB. glibc gives large blocks back to
    the system, which then fills each one with zeros when it is asked again: a fifth of the time of an EAT in batches
    of 8 (benchmarks/bulk.py). Whether it could be told; only Linux has it.
    """
    set_option = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    return set_option is not None and all(
        set_option(option, KEPT_BYTES) for option in (M_MMAP_THRESHOLD, M_TRIM_THRESHOLD)
    )


__all__ = ["keep_freed_memory"]
