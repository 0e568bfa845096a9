"""Writes a run's artifacts to its store beside training, in order, one at a time.

A piece of work has a slot; newer work for a slot that has not begun yet takes its place, so the
newest metrics, plot and checkpoint are written rather than all of them. A checkpoint stands for
everything before it, so it goes behind all that waits.

A store that is away is waited for while training goes on; one that refuses ends the job within
seconds. What could not be written then goes to a local folder (``redirect``).
"""

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple

from mrigan.errors import AlreadyExistsError, LeaseError, StorageError
from mrigan.storage.store import Store

log = logging.getLogger(__name__)

PATIENCE_SECONDS = 600.0
_UNMENDABLE_SECONDS = 5.0  # a permission that has just been given may take a moment
_BACKLOG_BYTES = 512 * 2**20
_SLOW_SECONDS = 3.0  # for one object
_FIRST_PAUSE_SECONDS = 2.0
_LONGEST_PAUSE_SECONDS = 60.0
_TICK_SECONDS = 0.2


class Work(NamedTuple):
    """What is to be written, and what it holds in memory until then."""

    write: Callable[[Store], None]
    size_bytes: int


class Publisher:
    """One worker thread over a queue of slots.

    Besides what is being written, at most one checkpoint waits in memory, and grids of at most
    ``backlog_bytes``. Training waits for a checkpoint's turn only while the store makes progress.

    Args:
        store: Of the run.
        patience_seconds: How long a store that is away is tried again while training goes on.
        backlog_bytes: What may wait; ``submit`` blocks beyond, so that memory stays bounded.
        should_stop: Whether time has become short; then nothing blocks before ``flush``.
        before_each: Called before each piece of work; may raise to refuse it and all later ones.
    """

    def __init__(
        self,
        store: Store,
        *,
        patience_seconds: float = PATIENCE_SECONDS,
        backlog_bytes: int = _BACKLOG_BYTES,
        should_stop: Callable[[], bool] = lambda: False,
        before_each: Callable[[], None] = lambda: None,
    ) -> None:
        self._store = store
        self._before_each = before_each
        self._patience = patience_seconds
        self._backlog_bytes = backlog_bytes
        self._should_stop = should_stop
        self._queue: OrderedDict[str, Work] = OrderedDict()
        self._changed = threading.Condition()
        self._current: tuple[str, Work] | None = None
        self._closing = False
        self._error: BaseException | None = None
        self._trouble: StorageError | None = None  # of the store, while it is tried again
        self._start()

    def submit(self, slot: str, write: Callable[[Store], None], *, size_bytes: int = 0) -> None:
        """Queue work, in place of what waits in ``slot``.

        After a failure, too (``check`` tells of it): then it waits for ``redirect``.

        Args:
            slot: Its name.
            write: Writes it to the store that it is given.
            size_bytes: What it holds in memory, where that counts.
        """
        with self._changed:
            self._wait_until(lambda: size_bytes == 0 or self._has_room(size_bytes))
            self._queue[slot] = Work(write, size_bytes)
            self._changed.notify_all()

    def submit_behind_all(self, slot: str, write: Callable[[Store], None]) -> None:
        """Queue work that begins after all that was submitted before it.

        Waits while earlier work waits in ``slot``; where the store is away or slow, drops that.
        """
        with self._changed:
            self._wait_until(lambda: slot not in self._queue or self._is_held_up())
            self._queue.pop(slot, None)
            self._queue[slot] = Work(write, 0)
            self._changed.notify_all()

    def check(self) -> None:
        """Raise what went wrong, if anything did."""
        with self._changed:
            self._raise_error()

    def flush(self, timeout_seconds: float) -> None:
        """Wait until everything is written.

        Raises:
            StorageError: If it could not be, or not within ``timeout_seconds``.
        """
        deadline = time.monotonic() + timeout_seconds
        with self._changed:
            self._patience = min(self._patience, timeout_seconds)
            while (self._queue or self._current) and self._error is None:
                left = deadline - time.monotonic()
                if left <= 0:
                    waiting = ", ".join(self._queue) or "the last upload"
                    trouble = f"; {self._trouble}" if self._trouble else ""
                    raise StorageError(
                        f"not everything was published within {timeout_seconds:.0f} s (waiting: "
                        f"{waiting}{trouble})",
                        is_passing=True,
                    )
                self._changed.wait(left)
            self._raise_error()

    def redirect(self, store: Store) -> None:
        """Write everything that is not yet written to ``store`` instead, and what comes later."""
        with self._changed:
            if self._current is not None:
                slot, work = self._current
                self._queue.setdefault(slot, work)  # newer work may wait there already
                self._queue.move_to_end(slot, last=False)
            self._store, self._before_each = store, lambda: None
            self._current, self._error, self._trouble, self._patience = None, None, None, 0.0
            self._start()

    def close(self) -> None:
        """Drop what has not begun and end the thread."""
        with self._changed:
            self._closing = True
            self._queue.clear()
            self._changed.notify_all()
        self._thread.join(timeout=5)

    def _start(self) -> None:
        self._thread = threading.Thread(target=self._run, name="publisher", daemon=True)
        self._thread.start()

    def _is_held_up(self) -> bool:
        """Whether the store does not answer, or has failed and is tried again."""
        return self._trouble is not None or self._store.seconds_in_write() > _SLOW_SECONDS

    def _has_room(self, size_bytes: int) -> bool:
        waiting = sum(work.size_bytes for work in self._queue.values())
        return waiting == 0 or waiting + size_bytes <= self._backlog_bytes

    def _wait_until(self, is_ready: Callable[[], bool]) -> None:
        while not (is_ready() or self._error or self._should_stop()):
            self._changed.wait(_TICK_SECONDS)

    def _raise_error(self) -> None:
        if self._error is not None:
            raise self._error

    def _is_superseded(self) -> bool:
        """Whether another thread has taken over, since this one's store did not answer."""
        return threading.current_thread() is not self._thread

    def _run(self) -> None:
        while True:
            with self._changed:
                while not (self._queue or self._closing or self._is_superseded()):
                    self._changed.wait()
                if self._closing or self._is_superseded():
                    return
                slot, work = self._current = self._queue.popitem(last=False)
            error: BaseException | None = None
            try:
                self._persist(slot, work)
            except Exception as caught:  # noqa: BLE001 - surfaces in the training thread
                error = caught
            with self._changed:
                if self._is_superseded():
                    return
                self._error = error
                if error is None:
                    self._current = None
                self._changed.notify_all()
                if error is not None:
                    return

    def _persist(self, slot: str, work: Work) -> None:
        """Do ``work``, again and again while the store is away and patience lasts."""
        started = time.monotonic()
        pause = _FIRST_PAUSE_SECONDS
        while True:
            store = self._store
            try:
                self._before_each()
                work.write(store)
            except (AlreadyExistsError, LeaseError):  # waiting mends neither
                raise
            except StorageError as error:
                with self._changed:
                    self._trouble = error
                    patience = self._patience
                    if not error.is_passing:
                        patience = min(patience, _UNMENDABLE_SECONDS)
                    if self._closing or time.monotonic() - started + pause > patience:
                        raise
                    facts = {"slot": slot, "reason": str(error), "for_seconds": round(patience)}
                    log.warning("publish_again", extra=facts)
                    self._changed.wait_for(lambda: self._closing, timeout=pause)
            else:
                self._trouble = None
                return
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)
