"""Every fault by name: where it strikes, and what injects it.

A scenario returns the exit status, what happened, and whether that is what mrigan promises.
"""

import json
import resource
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from fault_jobs import EPOCHS, Ended, Job, Place, published
from faulty_s3 import Request
from mrigan.artifacts.checkpoints import list_checkpoints
from mrigan.storage.store import Store, open_store

Outcome = tuple[int | None, str, bool]
Scenario = tuple[str, str, Callable[[Place], Outcome]]

_PASSING = (
    *("SlowDown", "ServiceUnavailable", "InternalError", "TooManyRequests"),
    *("reset", "cut", "flipped", "lost", "garbage", "slow"),
)
_LASTING = (
    *("AccessDenied", "InvalidAccessKeyId", "ExpiredToken", "RequestTimeTooSkewed"),
    *("NoSuchBucket", "QuotaExceeded"),
)
# A line by which a phase has begun, and what it is called.
_PHASES = {
    "machine": "before the lease",
    "slices": "after the pull",
    "plan": "before the first step",
    "epoch": "in training",
    "checkpoint": "right after a checkpoint",
}


def every() -> Iterator[Scenario]:
    """All of them."""
    for fault in _PASSING:
        often = "seventh" if fault == "garbage" else "third"
        where = f"every {often} request, output in S3"
        yield fault, where, partial(passing, fault=fault)
    yield "connections refused", "15 s of training, output in S3", refused
    yield "no answer", "10 s of training, output in S3", silent
    for fault in _LASTING:
        yield f"{fault}", "every write from epoch 3 on", partial(lasting, fault=fault)
    yield "disk full", "output folder, in training", disk_full
    yield "folder becomes a file", "plots/, in training", folder_becomes_file
    yield "read-only folder", "output, before the start", read_only
    yield "cache that can't be written", "before the start", read_only_cache
    yield "address space of 1.5 GB", "the whole job", little_memory
    for number in (signal.SIGKILL, signal.SIGTERM, signal.SIGINT):
        for event, phase in _PHASES.items():
            yield number.name, phase, partial(signalled, number=number, event=event)
    yield "SIGINT twice", "in training", twice
    for event, phase in _PHASES.items():
        yield "second job", phase, partial(second_job, event=event)
    yield "second job", "after the end", second_job_afterwards
    yield "second job, TAKE_OVER", "in training", taken_over
    for name, damage in _DAMAGE.items():
        yield name, "run folder, between two starts", partial(damaged, damage=damage)
    yield "all checkpoints damaged", "run folder, between two starts", all_damaged
    yield "all checkpoints damaged, START_OVER", "run folder, between two starts", started_over
    yield "a bit flipped in every GET", "the newest checkpoint, in S3", unreadable_checkpoint
    yield "a bit flipped in one GET", "the newest checkpoint, in S3", once_flipped


def passing(place: Place, fault: str) -> Outcome:
    """The job must not notice."""
    # No whole upload of three requests would come through among garbage any denser.
    every = 7 if fault == "garbage" else 3
    place.proxy.fault = lambda request: fault if request.number % every == 0 else None
    return _must_succeed(place, place.bucket, Job(place.bucket).end())


def refused(place: Place) -> Outcome:
    """Training must go on."""
    job = Job(place.bucket, "--epochs", "400")
    job.follow("epoch", 3)
    place.proxy.refuse()
    began = len(job._said)
    time.sleep(15)
    epochs = sum(" epoch " in line for line in job._said[began:])
    place.proxy.listen()
    job.process.send_signal(signal.SIGTERM)
    ended = job.end()
    newest = (list_checkpoints(open_store(place.bucket)) or [0])[-1]
    told = f"trained on for {epochs} epochs; stopped by SIGTERM, newest checkpoint {newest} images"
    return ended.status, told, ended.status == 143 and epochs > 3 and newest > 13 * epochs


def silent(place: Place) -> Outcome:
    """Training must go on, and what was asked for is asked for again."""
    job = Job(place.bucket)
    job.follow("epoch", 2)
    until = time.monotonic() + 10
    place.proxy.fault = lambda _: "silent" if time.monotonic() < until else None
    return _must_succeed(place, place.bucket, job.end())


def lasting(place: Place, fault: str) -> Outcome:
    """The job ends within seconds and keeps what it could not write."""
    job = Job(place.bucket, "--epochs", "400")
    job.follow("epoch", 3)
    place.proxy.fault = lambda request: fault if request.method == "PUT" else None
    began = time.monotonic()
    ended = job.end()
    seconds = time.monotonic() - began
    told, good = published(place, place.bucket, ended)
    return ended.status, f"ended after {seconds:.0f} s: {told}", good and seconds < 60


def disk_full(place: Place) -> Outcome:
    """A file system of 12 MiB; needs the right to mount one."""
    folder = place.path("small")
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        return None, "not tried: this user can't mount a small file system", True
    try:
        uri = str(folder / "run")
        ended = Job(uri, "--keep-checkpoints", "50", "--epochs", "100").end()
        subprocess.run(["mount", "-o", "remount,size=200m", str(folder)], check=True)
        return (ended.status, *published(place, uri, ended))
    finally:
        subprocess.run(["umount", str(folder)], check=False)


def folder_becomes_file(place: Place) -> Outcome:
    """Somebody's file stands where plots go."""
    Path(place.folder).mkdir()
    (Path(place.folder) / "plots").write_text("mine")
    ended = Job(place.folder).end()
    (Path(place.folder) / "plots").unlink()
    told, good = published(place, place.folder, ended)
    _, resumed, same = place.finished(place.folder)
    return ended.status, f"{told}, {resumed}", good and same


def read_only(place: Place) -> Outcome:
    """As a user who may not write there."""
    folder = place.path("theirs")
    folder.mkdir(mode=0o555)
    (folder / "file").write_text("a file, where the run's folder would be made")
    ended = Job(str(folder / "file" / "run")).end()
    return ended.status, ended.err.removeprefix("mrigan: "), ended.status == 5 and ended.is_one_line


def read_only_cache(place: Place) -> Outcome:
    """The pack then lives in a temporary file."""
    file = place.path("cache")
    file.write_text("no folder")
    ended = Job(place.folder, "--cache-dir", str(file)).end()
    return _must_succeed(place, place.folder, ended)


def little_memory(place: Place) -> Outcome:
    """Too little for torch."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (1_500_000_000, 1_500_000_000))

    ended = Job(place.folder, prepare=limit).end()
    good = ended.status not in (0, None) and ended.is_one_line
    return ended.status, ended.err.removeprefix("mrigan: ")[-300:], good


def signalled(place: Place, number: signal.Signals, event: str) -> Outcome:
    """The same command again must go on to the same bits."""
    job = Job(place.folder)
    job.follow(event)
    job.process.send_signal(number)
    ended = job.end()
    expected = {signal.SIGKILL: -9}.get(number, 143)
    status, told, same = place.finished(place.folder, first=ended)
    return status, told, same and status in (expected, 0)


def twice(place: Place) -> Outcome:
    """Ends at once, written down as interrupted."""
    job = Job(place.folder, "--epochs", "400")
    job.follow("epoch", 3)
    job.process.send_signal(signal.SIGINT)
    job.follow("stopping")
    job.process.send_signal(signal.SIGINT)
    ended = job.end()
    state = json.loads(open_store(place.folder).get("status.json"))["state"]
    told = f"status.json says {state}"
    return ended.status, told, state == "interrupted" and ended.status in (130, 143)


def second_job(place: Place, event: str) -> Outcome:
    """One of the two goes on, undisturbed; the other ends at once."""
    first = Job(place.folder)
    first.follow(event)
    second = Job(place.folder, "--seed", "1").end()
    ended = first.end()
    same = ended.status == 0 and place.is_same(place.folder)
    told = f"first: {'same bits' if same else 'OTHER BITS'}; second: {second.err.split('(')[0]}"
    return second.status, told, same and second.status in (2, 5) and second.is_one_line


def second_job_afterwards(place: Place) -> Outcome:
    """The same command again says that it is complete."""
    Job(place.folder).end()
    return place.finished(place.folder)


def taken_over(place: Place) -> Outcome:
    """The first stops and writes nothing more; the second goes on from its checkpoint."""
    first = Job(place.folder, "--epochs", "4000")
    first.follow("checkpoint")
    second = Job(place.folder, "--take-over").end()
    ended = first.end()
    told = f"first: {ended.status}, {ended.err.split(';')[0].removeprefix('mrigan: ')[-120:]}"
    state = json.loads(open_store(place.folder).get("status.json"))["state"]
    return second.status, told, (ended.status, second.status, state) == (5, 0, "completed")


def _flip(store: Store, key: str) -> None:
    data = bytearray(store.get(key))
    data[len(data) // 2] ^= 4
    store.put(key, bytes(data))


def _newest(store: Store) -> str:
    return f"checkpoints/{list_checkpoints(store)[-1]:09d}"


_DAMAGE: dict[str, Callable[[Store], None]] = {
    "newest checkpoint: a bit": lambda s: _flip(s, f"{_newest(s)}.pt"),
    "newest checkpoint: cut off": lambda s: s.put(
        f"{_newest(s)}.pt", s.get(f"{_newest(s)}.pt")[:-9]
    ),
    "newest checkpoint: gone": lambda s: s.delete(f"{_newest(s)}.pt"),
    "newest checkpoint: JSON torn": lambda s: s.put(f"{_newest(s)}.json", b'{"sha256": "'),
    "newest checkpoint: JSON nested": lambda s: s.put(f"{_newest(s)}.json", b"[" * 100_000),
    "metrics.jsonl torn": lambda s: s.put("metrics.jsonl", s.get("metrics.jsonl")[:-7]),
    "generator damaged": lambda s: _flip(s, "model/generator.safetensors"),
    "plot deleted": lambda s: s.delete("plots/losses.png"),
    "report deleted": lambda s: s.delete("report.html"),
    "lease garbage": lambda s: s.put("lease/000009.json", b"\xff\x00"),
}


def damaged(place: Place, damage: Callable[[Store], None]) -> Outcome:
    """A run that was killed near its end, then damaged, then resumed."""
    _killed(place, place.folder)
    damage(open_store(place.folder))
    return place.finished(place.folder)


def _killed(place: Place, uri: str) -> None:
    job = Job(uri)
    job.follow("epoch", EPOCHS - 3)
    job.process.kill()
    job.end()


def all_damaged(place: Place) -> Outcome:
    """Never from the beginning by itself; nothing is deleted."""
    _killed(place, place.folder)
    store = open_store(place.folder)
    numbers = list_checkpoints(store)
    for number in numbers:
        _flip(store, f"checkpoints/{number:09d}.pt")
    ended = Job(place.folder).end()
    stays = list_checkpoints(store) == numbers
    good = ended.status == 5 and ended.is_one_line and stays
    return ended.status, "nothing changed; " + ended.err.split(":")[1].strip(), good


def started_over(place: Place) -> Outcome:
    """When told to; what could not be read is set aside."""
    _killed(place, place.folder)
    store = open_store(place.folder)
    for number in list_checkpoints(store):
        _flip(store, f"checkpoints/{number:09d}.pt")
    ended = Job(place.folder, "--start-over").end()
    aside = [info.key for info in store.list("checkpoints/unverified")]
    status, told, same = _must_succeed(place, place.folder, ended)
    return status, f"{len(aside)} files set aside; {told}", same and bool(aside)


def unreadable_checkpoint(place: Place) -> Outcome:
    """What is stored may well be whole: no older one is taken, nothing is deleted."""
    _killed(place, place.bucket)
    store = open_store(place.bucket)
    newest = _newest(store)
    before = store.get(f"{newest}.pt")

    def flipped(request: Request) -> str | None:
        return "flipped" if f"{newest}.pt" in request.path and request.method == "GET" else None

    place.proxy.fault = flipped
    ended = Job(place.bucket).end()
    place.proxy.fault = lambda _: None
    stays = store.get(f"{newest}.pt") == before
    _, told, same = place.finished(place.bucket)
    good = ended.status == 5 and ended.is_one_line and stays and same
    return ended.status, f"checkpoint untouched; without the fault {told}", good


def once_flipped(place: Place) -> Outcome:
    """Read again."""
    _killed(place, place.bucket)
    newest = _newest(open_store(place.bucket))
    left = [1]

    def flipped(request: Request) -> str | None:
        hit = f"{newest}.pt" in request.path and request.method == "GET" and left
        return "flipped" if hit and left.pop() else None

    place.proxy.fault = flipped
    ended = Job(place.bucket).end()
    images_seen = int(newest.removeprefix("checkpoints/"))
    is_resumed = f" resumed images_seen={images_seen} " in ended.out
    told = f"{'resumed' if is_resumed else 'NOT resumed'} at {images_seen} images"
    status, same_told, same = _must_succeed(place, place.bucket, ended)
    return status, f"{told}; {same_told}", same and is_resumed


def _must_succeed(place: Place, uri: str, ended: Ended) -> Outcome:
    place.proxy.fault = lambda _: None
    if ended.status:
        return ended.status, ended.err[-300:], False
    same = place.is_same(uri)
    return 0, "same bits" if same else "OTHER BITS", same
