"""Writes a run's artifacts to its store beside training, in order, one at a time.

A piece of work has a slot; newer work for a slot that has not begun yet takes its place, so the
newest metrics or plot is written rather than all of them. A checkpoint stands for everything before
it, so it goes behind all that waits. A store that fails for a while is waited for; one that fails
for longer ends the job at its next call here.
"""

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable

from mrigan.errors import AlreadyExistsError, LeaseError, StorageError

log = logging.getLogger(__name__)

Work = Callable[[], None]

_FIRST_PAUSE_SECONDS = 2.0
_LONGEST_PAUSE_SECONDS = 60.0
_TICK_SECONDS = 0.2


class Publisher:
    """One worker thread over a queue of slots.

    Args:
        patience_seconds: How long a failing store is tried again while training goes on.
        backlog: Slots that may wait; ``submit`` blocks beyond, so that memory stays bounded.
        should_stop: Whether time has become short; then nothing blocks before ``flush``.
        before_each: Called before each piece of work; may raise to refuse it and all later ones.
    """

    def __init__(
        self,
        *,
        patience_seconds: float = 600.0,
        backlog: int = 32,
        should_stop: Callable[[], bool] = lambda: False,
        before_each: Callable[[], None] = lambda: None,
    ) -> None:
        self._before_each = before_each
        self._patience = patience_seconds
        self._backlog = backlog
        self._should_stop = should_stop
        self._queue: OrderedDict[str, Work] = OrderedDict()
        self._changed = threading.Condition()
        self._busy = False
        self._closing = False
        self._error: BaseException | None = None
        self._trouble = ""  # what the store last failed with, while it is tried again
        self._thread = threading.Thread(target=self._run, name="publisher", daemon=True)
        self._thread.start()

    def submit(self, slot: str, work: Work) -> None:
        """Queue ``work``, in place of what waits in ``slot``; raises what went wrong before."""
        with self._changed:
            self._wait_until(lambda: slot in self._queue or len(self._queue) < self._backlog)
            self._queue[slot] = work
            self._changed.notify_all()

    def submit_behind_all(self, slot: str, work: Work) -> None:
        """Queue ``work`` so that it begins after all that was submitted before it.

        Blocks while earlier work waits in ``slot``; once time is short, drops that.
        """
        with self._changed:
            self._wait_until(lambda: slot not in self._queue and len(self._queue) < self._backlog)
            self._queue.pop(slot, None)
            self._queue[slot] = work
            self._changed.notify_all()

    def flush(self, timeout_seconds: float) -> None:
        """Wait until everything is written.

        Raises:
            StorageError: If it could not be, or not within ``timeout_seconds``.
        """
        deadline = time.monotonic() + timeout_seconds
        with self._changed:
            self._patience = min(self._patience, timeout_seconds)
            while (self._queue or self._busy) and self._error is None:
                left = deadline - time.monotonic()
                if left <= 0:
                    waiting = ", ".join(self._queue) or "the last upload"
                    trouble = f"; {self._trouble}" if self._trouble else ""
                    raise StorageError(
                        f"not everything was published within {timeout_seconds:.0f} s (waiting: "
                        f"{waiting}{trouble}); what is there is whole, run the same command again"
                    )
                self._changed.wait(left)
            self._raise_error()

    def close(self) -> None:
        """Drop what has not begun and end the thread."""
        with self._changed:
            self._closing = True
            self._queue.clear()
            self._changed.notify_all()
        self._thread.join(timeout=5)

    def _wait_until(self, is_ready: Callable[[], bool]) -> None:
        while not (is_ready() or self._error or self._should_stop()):
            self._changed.wait(_TICK_SECONDS)
        self._raise_error()

    def _raise_error(self) -> None:
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._queue and not self._closing:
                    self._changed.wait()
                if self._closing:
                    return
                slot, work = self._queue.popitem(last=False)
                self._busy = True
            error: BaseException | None = None
            try:
                self._persist(slot, work)
            except Exception as caught:  # noqa: BLE001 - surfaces in the training thread
                error = caught
            with self._changed:
                self._busy = False
                self._error = error
                self._changed.notify_all()
                if error is not None:
                    return

    def _persist(self, slot: str, work: Work) -> None:
        """Do ``work``, again and again while the store fails and patience lasts."""
        started = time.monotonic()
        pause = _FIRST_PAUSE_SECONDS
        while True:
            try:
                self._before_each()
                return work()
            except (AlreadyExistsError, LeaseError):  # waiting mends neither
                raise
            except StorageError as error:
                with self._changed:
                    self._trouble = str(error)
                    if self._closing or time.monotonic() - started + pause > self._patience:
                        raise
                    log.warning("publish_again", extra={"slot": slot, "reason": str(error)})
                    self._changed.wait_for(lambda: self._closing, timeout=pause)
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)
