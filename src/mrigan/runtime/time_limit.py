"""A limit on work that cannot be asked to stop, such as a compiler's."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class TimeLimitError(Exception):
    """The work took too long."""


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Interrupt what is inside after ``seconds``; beside the main thread there is no limit.

    Raises:
        TimeLimitError: When the time is up, from within the work.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise TimeLimitError(f"took longer than {seconds:.0f} s")

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
