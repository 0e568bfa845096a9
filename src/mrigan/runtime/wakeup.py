"""A way to end a process that a signal can't reach: one that waits inside a library's C++ code.

Python runs its signal handlers between two instructions of the main thread. While that waits for
other machines to appear there are none, for minutes; only the byte that the interpreter writes at
once tells another thread.
"""

import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_STOPS = (signal.SIGTERM, signal.SIGINT)


@contextmanager
def leaving_at_once(status: int) -> Iterator[None]:
    """End the process with ``status`` on the first SIGTERM or SIGINT, whatever it waits for.

    For as long as the handler that is in force at the beginning stays in force: whoever takes the
    signals over has taken over this, too. Enter it from the main thread.
    """
    handler = signal.getsignal(signal.SIGTERM)
    reader, writer = socket.socketpair()
    writer.setblocking(False)

    def watch() -> None:
        for number in iter(lambda: reader.recv(1), b""):
            if number[0] in _STOPS and signal.getsignal(signal.SIGTERM) == handler:
                sys.stdout.flush()
                os._exit(status)

    thread = threading.Thread(target=watch, name="wakeup", daemon=True)
    thread.start()
    before = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        writer.close()
        thread.join()
        reader.close()
