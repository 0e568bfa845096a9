"""Keeps what is written beside training from slowing it down.

Rendering shares Python's lock with the thread that trains. Where epochs are shorter than what is
written after each, writing becomes rarer; nothing is lost, since the next writing holds it all.
"""

import time
from collections.abc import Callable

_SETTLED_SECONDS = 10.0  # a short run is written in full
_MOST_SHARE = 0.05


class Pace:
    """How often one kind of work is done: at most 5 % of the time after the first 10 seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._began = self._last = clock()
        self._cost = 0.0

    def is_due(self) -> bool:
        """Whether it may be done now."""
        now = self._clock()
        is_settled = now - self._began >= _SETTLED_SECONDS
        return not is_settled or now - self._last >= self._cost / _MOST_SHARE

    def timed(self, work: Callable[[], None]) -> Callable[[], None]:
        """``work``, whose duration is noted wherever it runs."""
        self._last = self._clock()

        def run() -> None:
            began = self._clock()
            work()
            self._cost = self._clock() - began

        return run
