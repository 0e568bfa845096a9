"""How many cores this process may use; in a container it may be fewer than the machine has."""

import os


def usable_cores() -> int:
    """Return how many cores the scheduler lets this process use; at least 1."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
