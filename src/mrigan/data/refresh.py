"""From what the cache holds, if anything, to exactly what the source lists."""

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from mrigan.data.cache import Generation, locked, manifest_stamp, read_generation, sweep
from mrigan.data.draft import Draft
from mrigan.data.formats import Fit
from mrigan.data.manifest import ManifestEntry
from mrigan.data.pull import PullInterrupted, Wanted, pull
from mrigan.data.share import OnProgress, Shares, Watch
from mrigan.data.source import Source
from mrigan.runtime.ranks import ALONE, Peers, Ranks
from mrigan.storage.keys import ObjectInfo

_SAVE_SECONDS = 30.0


@dataclass(frozen=True, kw_only=True)
class Request:
    """What to have, and how to go about it.

    Attributes:
        source: Of slices.
        infos: What it lists, by key.
        shape: H, W in px, and fit.
        concurrency: Reads under way at once.
        on_progress: Called with (objects read, objects to read).
        should_stop: Asked a few times a second.
        ranks: Those that want it, too, and share the reading.
    """

    source: Source
    infos: Sequence[ObjectInfo]
    shape: tuple[int, int, Fit]
    concurrency: int
    on_progress: Callable[[int, int], None] | None
    should_stop: Callable[[], bool] | None
    ranks: Ranks = ALONE

    @property
    def row_bytes(self) -> int:
        """Bytes of one decoded slice."""
        return self.shape[0] * self.shape[1]

    def cache_key(self) -> str:
        """Name what is decoded, and how; packs of other names share nothing."""
        parts = (self.source.identity, self.source.recipe, *self.shape)
        return hashlib.sha256(repr(parts).encode()).hexdigest()[:32]

    def stop_if_asked(self) -> None:
        """Raise PullInterrupted once ``should_stop`` says so."""
        if self.should_stop is not None and self.should_stop():
            raise PullInterrupted("stopped while the slices were being fetched")


@dataclass(frozen=True)
class Refreshed:
    """A generation that holds exactly what is listed, and what it took."""

    generation: Generation
    fetched: int
    removed: int


def refresh(request: Request, cache_dir: Path, files: ExitStack) -> Refreshed:
    """Read what has changed; ``files`` closes what this opens.

    The lock is taken only to change something, so a cache that is whole may be read-only. Of
    several ranks one on each machine reads; the others find the cache whole then.

    Raises:
        DataError: There is no room for the rows.
        StorageError: An object can't be read.
        PullInterrupted: ``should_stop`` said so.
    """
    folder = cache_dir / request.cache_key()
    ranks = request.ranks
    if ranks.world.size == 1:
        return _refresh_alone(request, folder, files)
    watch = Watch(ranks, request.on_progress, request.should_stop)
    done = None
    if ranks.leaders is None:
        with watch:
            pass
    else:
        done = _refresh_together(request, folder, files, ranks.leaders, watch)
    ranks.check(None)
    return done or _refresh_alone(request, folder, files)


def _refresh_alone(request: Request, folder: Path, files: ExitStack) -> Refreshed:
    stamp = manifest_stamp(folder)
    found = _read(folder, request, files)
    if found is not None and _is_whole(found, request.infos):
        return Refreshed(found, fetched=0, removed=0)
    with locked(folder, request.stop_if_asked) as writable:
        if manifest_stamp(folder) != stamp:  # another process was here first
            found = _read(folder, request, files)
            if found is not None and _is_whole(found, request.infos):
                return Refreshed(found, fetched=0, removed=0)
        draft, removed = _begin(request, writable, found, files)
        wanted = draft.wanted()
        _pull_into(draft, request, wanted, on_progress=request.on_progress or _unheard)
        return Refreshed(draft.finish(), len(wanted), removed)


def _refresh_together(
    request: Request, folder: Path, files: ExitStack, leaders: Peers, watch: Watch
) -> Refreshed:
    """Read this machine's share of what the machines lack, and exchange the rest."""
    found = _read(folder, request, files)
    kept = _unchanged(found.entries, request.infos) if found is not None else {}
    lacking = [number for number, info in enumerate(request.infos) if info.key not in kept]
    is_whole = found is not None and _is_whole(found, request.infos)
    told = [json.loads(each) for each in leaders.gather_bytes(json.dumps(lacking).encode())]
    if all(whole for (whole,) in leaders.gather([int(is_whole)])) and found is not None:
        with watch:
            return Refreshed(found, fetched=0, removed=0)
    shares = Shares(told, leaders.index)
    with ExitStack() as held:
        with watch:
            writable = held.enter_context(locked(folder, request.stop_if_asked))
            draft, removed = _begin(request, writable, found, files)
            wanted = shares.to_read(draft.wanted())
            _pull_into(draft, request, wanted, on_progress=watch.tick)
        shares.exchange(draft, request.row_bytes, leaders)
        fetched = sum(count for (count,) in leaders.gather([len(wanted)]))
        return Refreshed(draft.finish(), fetched, removed)


def _read(folder: Path, request: Request, files: ExitStack) -> Generation | None:
    generation = read_generation(folder, request.row_bytes)
    if generation is not None:
        files.callback(generation.rows.close)
    return generation


def _unchanged(
    entries: Mapping[str, ManifestEntry], infos: Sequence[ObjectInfo]
) -> dict[str, ManifestEntry]:
    """The entries of objects that are listed as they were, in the order of the listing."""
    return {
        info.key: entry
        for info in infos
        if (entry := entries.get(info.key)) is not None
        and (entry.etag, entry.size_bytes) == (info.etag, info.size_bytes)
    }


def _is_whole(generation: Generation, infos: Sequence[ObjectInfo]) -> bool:
    kept = _unchanged(generation.entries, infos)
    rows = [entry.row for entry in kept.values() if entry.row is not None]
    has_all = len(kept) == len(infos) == len(generation.entries)
    return has_all and rows == list(range(len(rows)))


def _begin(
    request: Request, folder: Path | None, old: Generation | None, files: ExitStack
) -> tuple[Draft, int]:
    """A draft with what is known already, and how many objects are gone."""
    if folder is not None:
        sweep(folder, keep=old.name if old is not None else None)
    draft = Draft(folder, request.infos, request.row_bytes)
    files.callback(draft.rows.close)
    if old is None:
        return draft, 0
    draft.carry_over(old, _unchanged(old.entries, request.infos))
    return draft, len(old.entries.keys() - {info.key for info in request.infos})


def _pull_into(
    draft: Draft, request: Request, wanted: Sequence[Wanted], *, on_progress: OnProgress
) -> None:
    """Read ``wanted``; ended early, the draft is saved with what it has."""
    save_at = time.monotonic() + _SAVE_SECONDS

    def on_tick() -> None:
        nonlocal save_at
        on_progress(len(draft.pulled), len(wanted))
        request.stop_if_asked()
        if time.monotonic() > save_at:  # a kill in a pull of hours costs seconds
            draft.save()
            save_at = time.monotonic() + _SAVE_SECONDS

    try:
        pull(
            request.source,
            wanted,
            draft.rows,
            request.shape,
            concurrency=request.concurrency,
            pulled=draft.pulled,
            on_tick=on_tick,
        )
    except BaseException:
        draft.save()
        raise


def _unheard(_done: int, _total: int) -> None:
    """For whoever does not want to know."""
