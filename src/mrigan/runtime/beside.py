"""Work that can't be asked to stop, done beside the thread that can."""

import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from typing import TypeVar

from mrigan.runtime.signals import Stopped

T = TypeVar("T")

_TICK_SECONDS = 0.2


def do_beside(work: Callable[[], T], should_stop: Callable[[], bool], phase: str) -> T:
    """Do ``work`` in another thread and wait for it, or for a stop.

    Args:
        work: Such as a listing, or a request to a server that may be silent for minutes.
        should_stop: Asked five times a second.
        phase: What a stop ends.

    Raises:
        Stopped: ``should_stop`` said so; the work goes on by itself, and ends with the process.
        Exception: Whatever ``work`` raised.
    """
    future: Future[T] = Future()

    def do() -> None:
        try:
            future.set_result(work())
        except BaseException as error:  # noqa: BLE001 - the waiting thread raises it
            future.set_exception(error)

    threading.Thread(target=do, name=phase, daemon=True).start()
    while not wait([future], timeout=_TICK_SECONDS).done:
        if should_stop():
            raise Stopped(phase)
    return future.result()
