"""One writer per run: a lease that a job takes before it writes, renews, and releases.

Leases are numbered objects, ``lease/000003.json``; the highest number counts. A job takes the next
number with a create-only write, so of two jobs one is refused, and no job ever writes the number of
another. The holder writes its own object again every ``RENEWAL_SECONDS``. Whether a holder is alive
is told from its process where that can be seen, else by watching for a renewal: clocks of different
machines are never compared.
"""

import json
import logging
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace

from pydantic import TypeAdapter, ValidationError

from mrigan.artifacts import run_tree
from mrigan.artifacts.run_status import now
from mrigan.environment import training_job_arn
from mrigan.errors import AlreadyExistsError, LeaseError, StorageError, UnreadableError
from mrigan.runtime.process import Process, is_running, this_process
from mrigan.runtime.signals import Stopped
from mrigan.storage.store import Store

log = logging.getLogger(__name__)

FOLDER = "lease"
RENEWAL_SECONDS = 5.0
DEAD_SECONDS = 30.0  # without a renewal
_PAUSE_SECONDS = 0.5
_LOOKS = 3  # before a job believes that it has lost its run
_SETTLING_SECONDS = 1.0  # where a store replaces what it was told to create


@dataclass(frozen=True, kw_only=True)
class Holder:
    """Who holds a lease, as its object says."""

    token: str  # of this one taking
    process: Process
    job: str  # the SageMaker job's ARN; "" elsewhere
    since: str
    renewals: int = 0
    is_released: bool = False

    def __str__(self) -> str:
        job = f"SageMaker job {self.job.rpartition('/')[2]}, " if self.job else ""
        return f"{job}process {self.process.pid} on {self.process.host}, since {self.since}"


_ADAPTER = TypeAdapter(Holder)


class Lease:
    """A lease that this process holds; make it with ``take``."""

    def __init__(self, store: Store, number: int, holder: Holder) -> None:
        self._store = store
        self._number = number
        self._holder = holder
        self._lost = ""
        self._writing = threading.Lock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._renew, name="lease", daemon=True)
        self._thread.start()

    def verify(self) -> None:
        """Make sure that it is still ours; for use before each write to the run.

        Raises:
            LeaseError: Another job has taken the run over: nothing more may be written.
            StorageError: That can't be found out.
        """
        if not self._lost:
            self._lost = self._surely_lost()
        if self._lost:
            raise LeaseError(
                f"{self._store.uri}: {self._lost}; this job stops and writes nothing more"
            )

    def release(self) -> None:
        """Let the next job take the run at once; for the end of this one. Never raises."""
        self._ended.set()
        self._thread.join(timeout=RENEWAL_SECONDS)
        try:
            self.verify()
            self._write(replace(self._holder, is_released=True))
        except StorageError as error:
            log.info("lease_not_released", extra={"reason": str(error)})

    def _renew(self) -> None:
        while not self._ended.wait(RENEWAL_SECONDS):
            try:
                self.verify()
                self._write(replace(self._holder, renewals=self._holder.renewals + 1))
            except LeaseError:
                return
            except StorageError:  # for as long as the store is away, nobody else can take it
                continue

    def _write(self, holder: Holder) -> None:
        with self._writing:
            self._holder = holder
            self._store.put(_key(self._number), _encoded(holder))

    def _surely_lost(self) -> str:
        """Why the lease is lost; "" unless several looks agree: no checksum covers a listing."""
        for look in range(_LOOKS):
            if look:
                time.sleep(_PAUSE_SECONDS)
            if not (found := self._found_lost()):
                return ""
        return found

    def _found_lost(self) -> str:
        numbers = _numbers(self._store)
        if not numbers or numbers[-1] < self._number:
            return "this job's lease has been removed"
        found = _read(self._store, numbers[-1])
        if numbers[-1] > self._number or (found and found.token != self._holder.token):
            return f"another job has taken the run over ({found or 'unknown'})"
        return ""


def take(store: Store, *, take_over: bool, should_stop: Callable[[], bool]) -> Lease:
    """Take the lease of the run in ``store``, from a dead holder without a question.

    Args:
        store: The run.
        take_over: Take it from a holder that is alive, too.
        should_stop: Asked while a holder is watched.

    Raises:
        LeaseError: Another job holds it, naming it and how to take over.
        Stopped: ``should_stop`` said so.
        StorageError: The store can't be read or written.
    """
    number, holder = _surely_current(store)
    if holder and not take_over and _is_alive(store, number, holder, should_stop):
        raise _held(store, holder)
    own = Holder(
        token=uuid.uuid4().hex, process=this_process(), job=training_job_arn(), since=now()
    )
    try:
        store.put(_key(number + 1), _encoded(own), create=True)
    except AlreadyExistsError:
        _, winner = _current(store)
        raise _held(store, winner) from None
    if not store.honours_create():
        log.warning("no_conditional_writes", extra={"uri": store.uri, "effect": _EFFECT})
        time.sleep(_SETTLING_SECONDS)
    lease = Lease(store, number + 1, own)
    lease.verify()
    if holder and not holder.is_released:
        log.warning("taken_over", extra={"from": str(holder), "uri": store.uri})
    for old in _numbers(store):
        if old <= number:
            store.delete(_key(old))
    return lease


_EFFECT = "two jobs that start at the same moment may both believe to be alone for a second"


def holder_of(store: Store) -> Holder | None:
    """Who holds the run in ``store``; None where it is free."""
    _, holder = _current(store)
    return None if holder is None or holder.is_released else holder


def _is_alive(store: Store, number: int, holder: Holder, should_stop: Callable[[], bool]) -> bool:
    """Whether ``holder`` still runs; where its process can't be seen, by its renewals."""
    if holder.is_released or (holder.job and holder.job == training_job_arn()):
        return False  # the platform runs one container of a job at a time: this is its restart
    running = is_running(holder.process)
    if running is not None:
        return running
    log.info("watching_lease", extra={"holder": str(holder), "seconds": DEAD_SECONDS})
    deadline = time.monotonic() + DEAD_SECONDS
    while time.monotonic() < deadline:
        if should_stop():
            raise Stopped("waiting for another job's lease")
        time.sleep(_PAUSE_SECONDS)
        if _current(store) != (number, holder):
            return True
    return False


def _held(store: Store, holder: Holder | None) -> LeaseError:
    return LeaseError(
        f"{store.uri}: another job writes this run ({holder or 'unknown'}); stop it, choose "
        "another MRIGAN_OUTPUT_URI, or take the run over with MRIGAN_TAKE_OVER=true"
    )


def _current(store: Store) -> tuple[int, Holder | None]:
    numbers = _numbers(store)
    return (numbers[-1], _read(store, numbers[-1])) if numbers else (0, None)


def _surely_current(store: Store) -> tuple[int, Holder | None]:
    """As two looks agree: no checksum covers a listing."""
    found = _current(store)
    for _ in range(_LOOKS):
        before, found = found, _current(store)
        if found == before:
            break
    return found


def _numbers(store: Store) -> list[int]:
    keys = (info.key.removeprefix(f"{FOLDER}/") for info in store.list(FOLDER))
    stems = [key.removesuffix(".json") for key in keys]
    return sorted(int(stem) for stem in stems if stem.isdecimal())


def _read(store: Store, number: int) -> Holder | None:
    """What the lease says; None where it is gone or says nothing that can be understood."""
    try:
        found = run_tree.read_json(store, _key(number))
        return None if found is None else _ADAPTER.validate_python(found)
    except (UnreadableError, ValidationError):
        return None


def _key(number: int) -> str:
    return f"{FOLDER}/{number:06d}.json"


def _encoded(holder: Holder) -> bytes:
    return (json.dumps(asdict(holder), indent=2) + "\n").encode()
