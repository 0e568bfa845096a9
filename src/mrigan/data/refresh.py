"""From what the cache holds, if anything, to exactly what the source lists."""

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from mrigan.data.cache import Generation, locked, manifest_stamp, read_generation, sweep
from mrigan.data.draft import Draft
from mrigan.data.formats import Fit
from mrigan.data.manifest import ManifestEntry
from mrigan.data.pull import PullInterrupted, pull
from mrigan.data.source import Source
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
    """

    source: Source
    infos: Sequence[ObjectInfo]
    shape: tuple[int, int, Fit]
    concurrency: int
    on_progress: Callable[[int, int], None] | None
    should_stop: Callable[[], bool] | None

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

    The lock is taken only to change something, so a cache that is whole may be read-only.

    Raises:
        DataError: There is no room for the rows.
        StorageError: An object can't be read.
        PullInterrupted: ``should_stop`` said so.
    """
    folder = cache_dir / request.cache_key()
    stamp = manifest_stamp(folder)
    found = _read(folder, request, files)
    if found is not None and _is_whole(found, request.infos):
        return Refreshed(found, fetched=0, removed=0)
    with locked(folder, request.stop_if_asked) as writable:
        if manifest_stamp(folder) != stamp:  # another process was here first
            found = _read(folder, request, files)
            if found is not None and _is_whole(found, request.infos):
                return Refreshed(found, fetched=0, removed=0)
        if writable is not None:
            sweep(writable, keep=found.name if found is not None else None)
        return _build(request, writable, found, files)


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


def _build(
    request: Request, folder: Path | None, old: Generation | None, files: ExitStack
) -> Refreshed:
    draft = Draft(folder, request.infos, request.row_bytes)
    files.callback(draft.rows.close)
    removed = 0
    if old is not None:
        removed = len(old.entries.keys() - {info.key for info in request.infos})
        draft.carry_over(old, _unchanged(old.entries, request.infos))
    fetched = _pull_into(draft, request)
    return Refreshed(draft.finish(), fetched, removed)


def _pull_into(draft: Draft, request: Request) -> int:
    """Read what the draft lacks; ended early, it is saved with what it has."""
    wanted = draft.wanted()
    save_at = time.monotonic() + _SAVE_SECONDS

    def on_tick() -> None:
        nonlocal save_at
        if request.on_progress is not None:
            request.on_progress(len(draft.pulled), len(wanted))
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
    return len(wanted)
