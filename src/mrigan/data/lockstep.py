"""Keeps the ranks together while some of them read slices: all of them go on, or none does."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from mrigan.data.pull import PullInterrupted
from mrigan.runtime.ranks import Ranks

_PAUSE_SECONDS = 0.1

OnProgress = Callable[[int, int], None]


@contextmanager
def lockstep(
    ranks: Ranks, on_progress: OnProgress | None, should_stop: Callable[[], bool]
) -> Iterator[OnProgress]:
    """Hold every rank in this block until none of them reads any more.

    A rank that reads calls what is yielded several times a second, with the number of objects it
    has read and is to read. A rank that leaves the block waits for the others, and an exception
    that leaves it on one rank ends the block on all of them.

    Args:
        ranks: All of them enter.
        on_progress: Called with the same two numbers, summed over the ranks.
        should_stop: Whether this rank was asked to stop.

    Raises:
        PullInterrupted: A rank was asked to stop.
        PeerFailedError: Another rank has failed.
    """
    counts = (0, 0)
    is_known_to_all = False  # whether every rank raises at the same point as this one

    def agree(*, is_reading: bool, failed: Exception | None = None) -> bool:
        """Tell the other ranks how this one is doing; return whether any still reads."""
        nonlocal is_known_to_all
        is_interrupted = isinstance(failed, PullInterrupted)
        is_known_to_all = True
        told = ranks.world.gather([int(is_reading), *counts])
        stop = is_interrupted or (not is_reading and should_stop())
        if ranks.check(None if is_interrupted else failed, stop=stop):
            raise PullInterrupted
        is_known_to_all = False
        done, total = (sum(each[column] for each in told) for column in (1, 2))
        if on_progress is not None and total:
            on_progress(done, total)
        return any(each[0] for each in told)

    def tick(done: int, total: int) -> None:
        nonlocal counts
        counts = (done, total)
        agree(is_reading=True)
        if should_stop():
            raise PullInterrupted

    try:
        yield tick
    except Exception as error:
        if not is_known_to_all:
            agree(is_reading=True, failed=error)
        raise
    while ranks.world.size > 1 and agree(is_reading=False):
        time.sleep(_PAUSE_SECONDS)
