"""Tells a tracker on a thread of its own: one that is slow or away never holds up training."""

import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence

from mrigan.artifacts.history import EpochRow
from mrigan.artifacts.run_status import State
from mrigan.jobs.train.trackers.tracker import Tracker, warn_of

log = logging.getLogger(__name__)

_MOST_WAITING = 256  # of them the grids are the largest, at half a megabyte
_FIRST_PAUSE_SECONDS = 5.0
_LONGEST_PAUSE_SECONDS = 300.0
# SageMaker and compose give 120 s from SIGTERM to SIGKILL, of which checkpoints may take 90.
_END_SECONDS = {"completed": 60.0, "interrupted": 15.0, "failed": 15.0}

Message = Callable[[Tracker], None]


class Beside:
    """A tracker behind a queue; what it does not take is tried again, and never ends the run.

    Args:
        name: Of the tracker, for messages.
        begin: Connects to it; called on the thread.
    """

    def __init__(self, name: str, begin: Callable[[], Tracker]) -> None:
        self._name, self._begin = name, begin
        self._tracker: Tracker | None = None
        self._waiting: deque[Message] = deque(maxlen=_MOST_WAITING)
        self._changed = threading.Condition()
        self._is_ending = self._is_left = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def rows(self, rows: Sequence[EpochRow]) -> None:
        """Queue ``rows``."""
        self._queue(lambda tracker: tracker.rows(rows))

    def grid(self, png: bytes, row: EpochRow) -> None:
        """Queue a sample grid."""
        self._queue(lambda tracker: tracker.grid(png, row))

    def end(self, state: State) -> None:
        """Queue the end, and wait some seconds until the tracker has all.

        A run that fails to publish its end has told of one already: the first counts.
        """
        with self._changed:
            if self._is_ending:
                return
            self._is_ending = True
            self._waiting.append(lambda tracker: tracker.end(state))
            self._changed.notify_all()
        self._thread.join(_END_SECONDS[state])
        with self._changed:
            left = len(self._waiting)
            self._is_left = True
        if left:
            log.warning("tracker_missed", extra={"tracker": self._name, "messages": left})

    def _queue(self, message: Message) -> None:
        with self._changed:
            self._waiting.append(message)
            self._changed.notify_all()

    def _run(self) -> None:
        pause = 0.0
        while (message := self._next(pause)) is not None:
            try:
                self._tracker = self._tracker or self._begin()
                message(self._tracker)
            except Exception as error:  # noqa: BLE001 - a tracker's own, of any kind
                if not pause and not self._is_left:
                    warn_of(error, self._name, "training goes on; it is tried again")
                if self._is_ending:
                    return
                pause = min(max(2 * pause, _FIRST_PAUSE_SECONDS), _LONGEST_PAUSE_SECONDS)
            else:
                pause = 0.0
                with self._changed:
                    if self._waiting[0] is message:  # else newer ones have pushed it out
                        self._waiting.popleft()

    def _next(self, pause: float) -> Message | None:
        """The message at the front, after ``pause`` seconds; None once the end was taken."""
        with self._changed:
            if pause:
                self._changed.wait_for(lambda: self._is_ending, pause)
            self._changed.wait_for(lambda: self._waiting or self._is_ending)
            return self._waiting[0] if self._waiting else None
