"""The process's size, and what the C library does with memory that was freed.

glibc's own guess at that is wrong for pictures.
"""

import ctypes
import resource
import sys
from pathlib import Path

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # malloc.h
# Four times a grey slice of 512x512: those would be paged in anew each time otherwise.
_LARGE_BYTES = 2**20


def return_freed_memory() -> bool:
    """Make glibc give freed memory back to the kernel from 1 MiB on, in every thread's heap.

    Left alone it raises that limit to the largest block ever freed, so that each decoding thread
    keeps the pictures of its past: a pull of 2,570 slices took 150 MiB at most, and so 118. True
    where it took effect.
    """
    if sys.platform != "linux":
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return bool(mallopt(_MMAP_THRESHOLD, _LARGE_BYTES) and mallopt(_TRIM_THRESHOLD, _LARGE_BYTES))


def resident_bytes() -> int:
    """What the process has in memory now; its peak where the kernel does not tell (macOS)."""
    statm = Path("/proc/self/statm")
    if not statm.exists():
        return peak_resident_bytes()
    return int(statm.read_text().split()[1]) * resource.getpagesize()


def peak_resident_bytes() -> int:
    """The most it has had."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # bytes there, KiB elsewhere
