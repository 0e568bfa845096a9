"""From what the cache holds, if anything, to a snapshot of exactly what the source lists."""

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from mrigan.data.cache import Snapshot, locked, manifest_stamp, read_snapshot, remove_stale
from mrigan.data.exchange import Assignment
from mrigan.data.formats import Fit
from mrigan.data.lockstep import OnProgress, lockstep
from mrigan.data.manifest import ManifestEntry
from mrigan.data.pull import Wanted, pull
from mrigan.data.series import Series, find_series
from mrigan.data.snapshot_builder import SnapshotBuilder
from mrigan.data.source import Source
from mrigan.runtime.ranks import ALONE, Peers, Ranks
from mrigan.storage.keys import ObjectInfo

_SAVE_SECONDS = 30.0


@dataclass(frozen=True, kw_only=True)
class Request:
    """Which slices are wanted, and how they are read.

    Attributes:
        source: Of slices.
        infos: What it lists, by key.
        shape: H, W in px, and fit.
        concurrency: Reads under way at once.
        on_progress: Called with (objects read, objects to read).
        should_stop: Asked a few times a second.
        ranks: Those that want the slices; they share the reading.
    """

    source: Source
    infos: Sequence[ObjectInfo]
    shape: tuple[int, int, Fit]
    concurrency: int
    on_progress: OnProgress | None
    should_stop: Callable[[], bool]
    ranks: Ranks = ALONE

    @property
    def row_bytes(self) -> int:
        """Bytes of one decoded slice."""
        return self.shape[0] * self.shape[1]

    @cached_property
    def series(self) -> dict[str, Series]:
        """The series of each key that is of one."""
        return find_series(self.infos)

    def cache_key(self) -> str:
        """Name what is decoded, and how; packs of other names share nothing."""
        parts = (self.source.identity, self.source.recipe, *self.shape)
        return hashlib.sha256(repr(parts).encode()).hexdigest()[:32]


@dataclass(frozen=True)
class Refreshed:
    """A snapshot of exactly what is listed; how many objects were read for it, and are gone."""

    snapshot: Snapshot
    fetched: int
    removed: int


def refresh(request: Request, cache_dir: Path, files: ExitStack) -> Refreshed:
    """Read what has changed; ``files`` closes what this opens.

    The first rank of each machine reads its part and gets the rest from the other machines. The
    other ranks wait and then find it in their machine's cache.

    Raises:
        DataError: There is no room for the rows.
        StorageError: An object can't be read.
        PullInterrupted: ``should_stop`` said so.
    """
    folder, ranks = cache_dir / request.cache_key(), request.ranks
    if ranks.leaders is not None:
        refreshed = _refresh(request, folder, files, ranks.leaders)
        ranks.check(None)
        return refreshed
    with lockstep(ranks, request.on_progress, request.should_stop):
        pass
    ranks.check(None)
    return refresh(replace(request, ranks=ALONE), cache_dir, files)


def _refresh(request: Request, folder: Path, files: ExitStack, machines: Peers) -> Refreshed:
    """Do so on the first rank of each of ``machines``.

    The lock is taken only to change something, so a cache that is up to date may be read-only.
    """
    stamp = manifest_stamp(folder)
    found = _open(folder, request, files)
    said = machines.gather_bytes(json.dumps(_lacking(found, request)).encode())
    lacking: list[list[int] | None] = [json.loads(each) for each in said]
    with ExitStack() as held:
        with lockstep(request.ranks, request.on_progress, request.should_stop) as tick:
            if found is not None and all(numbers is None for numbers in lacking):
                return Refreshed(found, fetched=0, removed=0)
            writable = held.enter_context(locked(folder, lambda: tick(0, 0)))
            if machines.size == 1 and manifest_stamp(folder) != stamp:
                found = _open(folder, request, files)  # another process has changed it meanwhile
                if found is not None and _lacking(found, request) is None:
                    return Refreshed(found, fetched=0, removed=0)
            builder, removed = _begin(request, writable, found, files)
            held.enter_context(builder.saved_on_failure())
            assignment = Assignment([numbers or [] for numbers in lacking], machines.index)
            wanted = assignment.to_read(builder.wanted())
            _pull_into(builder, request, wanted, tick)
        assignment.exchange(builder, machines)
        fetched = sum(count for (count,) in machines.gather([len(wanted)]))
        return Refreshed(builder.finish(), fetched, removed)


def _open(folder: Path, request: Request, files: ExitStack) -> Snapshot | None:
    snapshot = read_snapshot(folder, request.row_bytes)
    if snapshot is not None:
        files.callback(snapshot.rows.close)
    return snapshot


def _unchanged(entries: Mapping[str, ManifestEntry], request: Request) -> dict[str, ManifestEntry]:
    """The entries of objects that are listed as they were, in the order of the listing.

    Those that went through the intensity window of a series need the same window still.
    """
    return {
        info.key: entry
        for info in request.infos
        if (entry := entries.get(info.key)) is not None
        and (entry.etag, entry.size_bytes) == (info.etag, info.size_bytes)
        and (not entry.series or entry.series == _digest(request, info.key))
    }


def _digest(request: Request, key: str) -> str:
    series = request.series.get(key)
    return series.digest if series is not None else ""


def _lacking(found: Snapshot | None, request: Request) -> list[int] | None:
    """The numbers of the objects to read; None if ``found`` is up to date, none of them gone."""
    entries = found.entries if found is not None else {}
    infos, unchanged = request.infos, _unchanged(entries, request)
    if found is not None and len(unchanged) == len(infos) == len(entries):
        return None
    return [number for number, info in enumerate(infos) if info.key not in unchanged]


def _begin(
    request: Request, folder: Path | None, old: Snapshot | None, files: ExitStack
) -> tuple[SnapshotBuilder, int]:
    """Start a snapshot from what is known already; the second is how many objects are gone."""
    if folder is not None:
        remove_stale(folder, keep=old.name if old is not None else None)
    builder = SnapshotBuilder(folder, request.infos, request.series, request.row_bytes)
    files.callback(builder.rows.close)
    if old is None:
        return builder, 0
    builder.reuse(old, _unchanged(old.entries, request))
    return builder, len(old.entries.keys() - {info.key for info in request.infos})


def _pull_into(
    builder: SnapshotBuilder, request: Request, wanted: Sequence[Wanted], tick: OnProgress
) -> None:
    save_at = time.monotonic() + _SAVE_SECONDS

    def on_tick() -> None:
        nonlocal save_at
        tick(len(builder.pulled), len(wanted))
        if time.monotonic() > save_at:  # so that a kill costs seconds of a pull that takes hours
            builder.save()
            save_at = time.monotonic() + _SAVE_SECONDS

    pull(
        request.source,
        wanted,
        builder.rows,
        request.shape,
        concurrency=request.concurrency,
        pulled=builder.pulled,
        on_tick=on_tick,
    )
