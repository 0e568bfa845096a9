"""Many slices at once, from a source into a file of rows.

Each worker takes the next object, reads it, and writes its row in place; nothing else is held, so
memory does not grow with the number of slices. A pull starts with few workers and adds as many as
the store's latency asks for. Where there is no latency, more workers only compete for the cores:
a fixed pool takes 1.3 times as long there (docs/decisions.md).
"""

import hashlib
import math
import os
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from typing import BinaryIO, NamedTuple

from mrigan.data.cores import usable_cores
from mrigan.data.formats import Fit
from mrigan.data.refusal import UnusableSliceError
from mrigan.data.series import Series
from mrigan.data.source import Source
from mrigan.runtime.host_memory import return_freed_memory
from mrigan.runtime.signals import Stopped
from mrigan.storage.keys import ObjectInfo

_TICK_SECONDS = 0.2
_GROWTH_SECONDS = 0.02
_BUSY = 0.7
_AMPLE = 1.5  # times the workers that would do if every read took the same time
_USUAL_WAIT = 2.0  # the store's usual latency, as a multiple of its shortest
_NO_WAIT_SECONDS = 1e-4
_LAST_READS_SECONDS = 1.0


class PullInterrupted(Stopped):
    """The pull was asked to stop; what it had decoded is kept for the next start."""

    def __init__(self) -> None:
        super().__init__("pulling slices")


class Pulled(NamedTuple):
    """What became of an object: a row with this sha256, or a refusal's reason.

    ``series`` is the digest of the series whose intensity window was used, else empty.
    """

    number: int
    sha256: str
    reason: str
    series: str = ""


class Wanted(NamedTuple):
    """An object to read; its row goes to ``number * H * W`` in the file."""

    number: int
    info: ObjectInfo
    series: Series | None = None


def pull(
    source: Source,
    wanted: Sequence[Wanted],
    rows: BinaryIO,
    shape: tuple[int, int, Fit],
    *,
    concurrency: int,
    pulled: deque[Pulled],
    on_tick: Callable[[], None],
) -> None:
    """Read every wanted object and append what became of it to ``pulled``, in any order.

    Args:
        source: Read from ``concurrency`` threads.
        wanted: What to read.
        rows: Rows of H x W bytes are written into it in place.
        shape: H, W and fit.
        concurrency: Reads under way at once, at most.
        pulled: Grows while this runs, and holds what was done when it ends early.
        on_tick: Called several times a second from this thread; may raise to stop the pull.

    Raises:
        StorageError: An object could not be read; no further reads are started.
    """
    return_freed_memory()
    todo = deque(wanted)
    pool = ThreadPoolExecutor(concurrency, thread_name_prefix="pull")
    pending: set[Future[None]] = set()
    load = _Load()
    try:
        extra = min(usable_cores() + 1, concurrency, len(todo))
        while extra or pending:
            for _ in range(extra):
                # A descriptor each: a read that outlives this call must not write to a file that
                # was opened since under the same number.
                descriptor = os.dup(rows.fileno())
                pending.add(pool.submit(_work, source, todo, descriptor, shape, pulled, load))
            tick = _GROWTH_SECONDS if len(pending) < concurrency else _TICK_SECONDS
            done, pending = wait(pending, timeout=tick, return_when=FIRST_EXCEPTION)
            for future in done:
                future.result()
            on_tick()
            useful = load.useful_workers() if load.leaves_cores_idle() else 0
            extra = max(min(useful, concurrency, len(pending) + len(todo)) - len(pending), 0)
    finally:
        todo.clear()
        wait(pending, timeout=_LAST_READS_SECONDS)
        pool.shutdown(wait=False)


class _Load:
    """How busy this process keeps the cores, and how much of a read is waiting."""

    def __init__(self) -> None:
        self._wall, self._cpu = time.monotonic(), time.process_time()
        self._reads: deque[tuple[float, float]] = deque()
        self._count, self._worked, self._least_waited = 0, 0.0, math.inf

    def leaves_cores_idle(self) -> bool:
        """Whether cores were idle since this was last asked."""
        wall, cpu = time.monotonic(), time.process_time()
        share = (cpu - self._cpu) / max(wall - self._wall, 1e-6) / usable_cores()
        self._wall, self._cpu = wall, cpu
        return share < _BUSY

    def note(self, seconds: float, cpu_seconds: float) -> None:
        """Count one read; called by the thread that did it.

        A read that did not wait asked no store: a phantom, or an object refused by its listing.
        """
        if seconds - cpu_seconds > _NO_WAIT_SECONDS:
            self._reads.append((seconds, cpu_seconds))

    def useful_workers(self) -> int:
        """Return how many workers keep the cores busy, by Little's law; 0 while that is unknown.

        Reads also wait for each other and for cores that other processes hold, so the shortest
        wait of all stands for the store's latency. The first reads open connections.
        """
        while self._reads:
            seconds, cpu_seconds = self._reads.popleft()
            self._count += 1
            self._worked += cpu_seconds
            self._least_waited = min(self._least_waited, seconds - cpu_seconds)
        if self._count < 2 * (usable_cores() + 1):
            return 0
        waits_per_work = _USUAL_WAIT * self._least_waited * self._count / max(self._worked, 1e-9)
        return int(_AMPLE * usable_cores() * (1 + waits_per_work))


def _work(
    source: Source,
    todo: deque[Wanted],
    descriptor: int,
    shape: tuple[int, int, Fit],
    pulled: deque[Pulled],
    load: _Load,
) -> None:
    """Read what is in ``todo`` until it is empty; deques are safe to share between threads."""
    height, width, fit = shape
    row_bytes = height * width
    try:
        while todo:
            try:
                number, info, series = todo.popleft()
            except IndexError:  # another worker took the last one meanwhile
                return
            started, cpu_started = time.monotonic(), time.thread_time()
            try:
                pixels = source.read(info, height, width, fit, series).tobytes()
            except UnusableSliceError as refusal:
                pulled.append(Pulled(number, "", refusal.reason, _window_of(series)))
                continue
            finally:
                load.note(time.monotonic() - started, time.thread_time() - cpu_started)
            _write_all(descriptor, pixels, number * row_bytes)
            sha256 = hashlib.sha256(pixels).hexdigest()
            pulled.append(Pulled(number, sha256, "", _window_of(series)))
    finally:
        os.close(descriptor)


def _window_of(series: Series | None) -> str:
    return series.digest if series is not None and series.is_deep else ""


def _write_all(descriptor: int, data: bytes, offset: int) -> None:
    while data:
        written = os.pwrite(descriptor, data, offset)
        data, offset = data[written:], offset + written
