"""Which process one is, so that another one can tell whether it still runs."""

import os
import socket
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Process:
    """A process among all that have ever run anywhere.

    Attributes:
        host: For people.
        namespace: Where ``pid`` means this process: the running kernel and the PID namespace (a
            container has its own). "" where that is not known.
        pid: Its number there.
        started: When, in clock ticks since the kernel's start: numbers are used again.
    """

    host: str
    namespace: str
    pid: int
    started: int


def this_process() -> Process:
    """The one that asks."""
    pid = os.getpid()
    return Process(
        host=socket.gethostname(), namespace=_namespace(), pid=pid, started=_started(pid) or 0
    )


def is_running(process: Process) -> bool | None:
    """Whether ``process`` runs; None where that can't be seen from here."""
    if not process.namespace or process.namespace != _namespace():
        return None
    return _started(process.pid) == process.started


def _namespace() -> str:
    """Of this process; "" where there is no /proc."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"  # noqa: PTH115 - the link has no target
    except OSError:
        return ""


def _started(pid: int) -> int | None:
    """When process ``pid`` started; None if there is none, or only what is left of it."""
    try:
        # The name, in brackets, may hold anything; what follows is separated by blanks.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    state, start_ticks = fields[0], int(fields[19])
    return None if state in "ZX" else start_ticks
