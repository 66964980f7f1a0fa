"""How many worker processes pay."""

import os

MOST = 8


def workers_that_pay() -> int:
    """One per core that this process may use, which on a cluster or in a container can be few of many; up to 8."""
    if hasattr(os, "sched_getaffinity"):
        return min(len(os.sched_getaffinity(0)), MOST)
    return min(os.cpu_count() or 1, MOST)
