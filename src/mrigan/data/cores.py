"""How many cores this process may use; in a container that is fewer than the machine has."""

import os


def usable_cores() -> int:
    """Return the cores the scheduler gives us, where it says; at least 1."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
