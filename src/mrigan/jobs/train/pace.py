"""Keeps what is written beside training from slowing it down.

Rendering shares Python's lock with the thread that trains. Where epochs are shorter than what is
written after each, writing becomes rarer. Nothing is lost: the next writing holds it all, and a run
that ends, however it does, writes what is left.
"""

import time
from collections.abc import Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

_SETTLED_SECONDS = 10.0  # a short run is written in full
_MOST_SHARE = 0.05


class Pace:
    """How often one kind of work is done: at most 5 % of the time after the first 10 seconds.

    What counts is the processor's time: waiting for a store slows nothing down.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        busy: Callable[[], float] = time.thread_time,
    ) -> None:
        self._clock, self._busy = clock, busy
        self._began = self._last = clock()
        self._cost = 0.0

    def is_due(self) -> bool:
        """Whether it may be done now."""
        now = self._clock()
        is_settled = now - self._began >= _SETTLED_SECONDS
        return not is_settled or now - self._last >= self._cost / _MOST_SHARE

    def timed(self, work: Callable[P, R]) -> Callable[P, R]:
        """``work``, whose duration is noted wherever it runs."""
        self._last = self._clock()

        def run(*args: P.args, **kwargs: P.kwargs) -> R:
            began = self._busy()
            result = work(*args, **kwargs)
            self._cost = self._busy() - began
            return result

        return run
