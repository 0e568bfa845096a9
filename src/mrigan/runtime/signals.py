"""SIGTERM and Ctrl-C as a request: seen between steps, so that a step is never cut in two.

Python runs a signal's handler between two instructions of the main thread; while that computes, or
waits in a library, there are none for seconds. So a thread of its own, which the interpreter wakes
at once, says what the signal will do.
"""

import ctypes
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable
from types import FrameType

log = logging.getLogger(__name__)

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_STOPS = (signal.SIGTERM, signal.SIGINT)
_AGAIN = "; again: at once, unsaved work is lost"
_MARK = b"\0"  # no signal has this number
# For the main thread, to end by itself after a second Ctrl-C.
_GRACE_SECONDS = 8.0


class Stopped(Exception):  # noqa: N818  # no error: someone asked for it
    """The work ended before its end, since a stop was asked for; ``phase`` says during what."""

    exit_status = 143

    def __init__(self, phase: str) -> None:
        super().__init__(f"stopped while {phase}")
        self.phase = phase


class StopRequest:
    """Whether, and by which signal, this process was asked to stop.

    The first signal sets the flag; a second Ctrl-C interrupts at once, for a person who means it.
    A process that is PID 1 of a container gets no signal it has no handler for, so this is
    installed first thing.

    Attributes:
        signal_name: The first signal's; empty until it came.
        at_once: Set by a command that has nothing to finish: the first signal interrupts it.
        effect: What a stop does now, said as soon as it comes: "stopping after this step".
        last_words: Called before the process is ended from outside the main thread, where that
            does not answer a second Ctrl-C; takes a few seconds at most.
    """

    def __init__(self) -> None:
        self.signal_name = ""
        self.at_once = False
        self.effect = "stopping as soon as the program has started"
        self.last_words: Callable[[], None] = lambda: None
        self._heard = self._handled = 0
        self._is_over = threading.Event()

    def install(self) -> None:
        """Take over SIGTERM and SIGINT; call from the main thread."""
        _Listener.tell(self)  # before the handlers: no signal that is taken goes unsaid
        for number in _STOPS:
            signal.signal(number, self._note)

    def end(self) -> None:
        """The command has ended by itself: nothing is left to be stopped."""
        self._is_over.set()

    def __bool__(self) -> bool:
        return bool(self.signal_name)

    def note_elsewhere(self) -> None:
        """Take over a stop that another rank was asked for."""
        self.signal_name = self.signal_name or "a signal to another rank"

    def _note(self, number: int, _frame: FrameType | None) -> None:
        """Take a signal in the main thread."""
        self._handled += 1
        self.signal_name = self.signal_name or signal.Signals(number).name
        if self.at_once or (self._handled > 1 and number == signal.SIGINT):
            raise KeyboardInterrupt

    def hear(self, number: int) -> None:
        """Take a signal at once, beside the main thread: say what it does."""
        self._heard += 1
        if self.at_once:
            return
        name = signal.Signals(number).name
        is_first, by_hand = self._heard == 1, number == signal.SIGINT
        if is_first:
            effect = f"{self.effect}{_AGAIN if by_hand else ''}"
            log.info("stopping", extra={"signal": name, "effect": effect})
        elif by_hand:
            log.info("stopping", extra={"signal": name, "effect": "stopping at once"})
            threading.Thread(target=self._end, name="end", daemon=True).start()

    def _end(self) -> None:
        """End the process where the main thread, in a library's code, does not."""
        if self._is_over.wait(_GRACE_SECONDS):
            return
        self.last_words()
        sys.stdout.flush()
        os._exit(130)


class _Listener:
    """Hands the byte that the interpreter writes for each signal to the request in force."""

    _request: StopRequest | None = None
    _sockets: tuple[socket.socket, socket.socket] | None = None
    _caught_up = threading.Event()

    @classmethod
    def tell(cls, request: StopRequest) -> None:
        """Hand signals to ``request`` from now on, and none that came before."""
        cls._request = None
        if cls._sockets is None:
            cls._sockets = socket.socketpair()
            cls._sockets[1].setblocking(False)
            threading.Thread(target=cls._listen, name="signals", daemon=True).start()
        cls._caught_up.clear()
        cls._sockets[1].send(_MARK)
        cls._caught_up.wait(1)
        cls._request = request
        signal.set_wakeup_fd(cls._sockets[1].fileno(), warn_on_full_buffer=False)

    @classmethod
    def _listen(cls) -> None:
        assert cls._sockets is not None
        reader = cls._sockets[0]
        for number in iter(lambda: reader.recv(1), b""):
            if number == _MARK:
                cls._caught_up.set()
                continue
            request = cls._request
            ours = request is not None and signal.getsignal(number[0]) == request._note
            if request is not None and ours and number[0] in _STOPS:
                request.hear(number[0])


def end_with_parent() -> None:
    """Have the kernel kill this process when the one that started it is gone (Linux).

    Ranks are in sessions of their own: nothing else would end them. Not SIGTERM: where a whole host
    dies they would still tell the others to stop in good order, and nobody would hear of a failure.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
