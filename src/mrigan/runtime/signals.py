"""SIGTERM and Ctrl-C as a request: seen between steps, so that a step is never cut in two."""

import ctypes
import signal
import sys
from types import FrameType

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


class StopRequest:
    """Whether, and by which signal, this process was asked to stop.

    The first signal sets the flag; a second Ctrl-C interrupts at once, for a person who means it.
    A process that is PID 1 of a container gets no signal it has no handler for, so this is
    installed first thing.

    Attributes:
        signal_name: The first signal's; empty until it came.
        at_once: Set by a command that has nothing to finish: the first signal interrupts it.
    """

    def __init__(self) -> None:
        self.signal_name = ""
        self.at_once = False

    def install(self) -> None:
        """Take over SIGTERM and SIGINT; call from the main thread."""
        signal.signal(signal.SIGTERM, self._note)
        signal.signal(signal.SIGINT, self._note)

    def __bool__(self) -> bool:
        return bool(self.signal_name)

    def note_elsewhere(self) -> None:
        """Take over a stop that another rank was asked for."""
        self.signal_name = self.signal_name or "a signal to another rank"

    def _note(self, number: int, _frame: FrameType | None) -> None:
        was_asked = bool(self.signal_name)
        self.signal_name = signal.Signals(number).name
        if self.at_once or (was_asked and number == signal.SIGINT):
            raise KeyboardInterrupt


def end_with_parent() -> None:
    """Have the kernel kill this process when the one that started it is gone (Linux).

    Ranks are in sessions of their own: nothing else would end them. Not SIGTERM: where a whole host
    dies they would still tell the others to stop in good order, and nobody would hear of a failure.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
