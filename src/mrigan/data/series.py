"""Slices of one acquisition, as their names tell it: they share an intensity window.

The window is taken from a few slices of the series, evenly spaced, which the listing alone decides.
So it is the same on every machine and at every start, and no second pass over the slices is needed.
"""

import hashlib
import re
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from mrigan.data.intensity import IntensityWindow, shared_window
from mrigan.data.volumes import MOST_SLICES, series_of
from mrigan.storage.keys import ObjectInfo

MAX_SAMPLES = 9
"""Slices of a series that its window is taken from."""

_MAX_BYTES = 8 * 2**20  # of a slice; larger objects are read one at a time
_NUMBER = re.compile(r"[0-9]+")

ReadPixels = Callable[[ObjectInfo], NDArray[np.generic] | None]


class Series:
    """One series; ``digest`` changes when its window may.

    Args:
        samples: The slices that the window is taken from.
    """

    def __init__(self, samples: Sequence[ObjectInfo]) -> None:
        self._samples = samples
        named = repr([(info.key, info.etag, info.size_bytes) for info in samples])
        self.digest = hashlib.sha256(named.encode("utf-8", "surrogatepass")).hexdigest()[:16]
        self._lock = threading.Lock()
        self._window: IntensityWindow | None = None
        self.is_deep = False

    def window(self, read: ReadPixels) -> IntensityWindow | None:
        """Return the window, found by the first who asks while the others wait; thread-safe.

        Args:
            read: Returns a slice's pixels (H, W), None where they are none of more than eight bits.
        """
        with self._lock:
            if not self.is_deep:
                with ThreadPoolExecutor(len(self._samples)) as pool:  # others wait for this
                    found = list(pool.map(read, self._samples))
                self._window = shared_window(pixels for pixels in found if pixels is not None)
                self.is_deep = True
            return self._window


def find_series(infos: Sequence[ObjectInfo]) -> dict[str, Series]:
    """Return the series of each key that is known to be of one."""
    named: dict[str, list[ObjectInfo]] = {}
    for info in infos:
        if (name := series_of(info.key)) and info.size_bytes:
            named.setdefault(name, []).append(info)
    return {
        info.key: series
        for members in named.values()
        if 1 < len(members) <= MOST_SLICES
        and max(info.size_bytes for info in members) <= _MAX_BYTES
        for series in [Series(_evenly_spaced(members))]
        for info in members
    }


def _evenly_spaced(members: Sequence[ObjectInfo]) -> list[ObjectInfo]:
    """At most ``MAX_SAMPLES``, in the order of the numbers in their names."""
    ordered = sorted(members, key=lambda info: ([*map(int, _NUMBER.findall(info.key))], info.key))
    count = min(len(ordered), MAX_SAMPLES)
    return [ordered[(2 * index + 1) * len(ordered) // (2 * count)] for index in range(count)]
