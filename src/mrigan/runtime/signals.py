"""SIGTERM and Ctrl-C as a request: seen between steps, so that a step is never cut in two."""

import signal
from types import FrameType


class StopRequest:
    """Whether, and by which signal, this process was asked to stop.

    The first signal sets the flag; a second Ctrl-C interrupts at once, for a person who means it.
    A process that is PID 1 of a container gets no signal it has no handler for, so this is
    installed first thing.
    """

    def __init__(self) -> None:
        self.signal_name = ""

    def install(self) -> None:
        """Take over SIGTERM and SIGINT; call from the main thread."""
        signal.signal(signal.SIGTERM, self._note)
        signal.signal(signal.SIGINT, self._note)

    def __bool__(self) -> bool:
        return bool(self.signal_name)

    def _note(self, number: int, _frame: FrameType | None) -> None:
        if self.signal_name and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal_name = signal.Signals(number).name
