"""A snapshot in the making: row n of its file belongs to object n of the listing.

It can be saved at any moment, and the next start then reads only what is still missing.
"""

import os
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from mrigan.data.cache import Snapshot, new_rows, publish, remove_stale, warn_not_kept
from mrigan.data.manifest import ManifestEntry
from mrigan.data.pull import Pulled, Wanted
from mrigan.data.series import Series
from mrigan.storage.keys import ObjectInfo


class SnapshotBuilder:
    """Gathers the rows of ``infos`` in the cache's folder, or in a private file.

    Attributes:
        rows: Open for reading and writing in place; the caller closes it.
        row_bytes: Of one slice.
        pulled: What has been read so far; ``pull`` appends to it.
    """

    def __init__(
        self,
        folder: Path | None,
        infos: Sequence[ObjectInfo],
        series: Mapping[str, Series],
        row_bytes: int,
    ) -> None:
        self._folder = folder
        self._infos = infos
        self._series = series
        self._reused: dict[str, ManifestEntry] = {}
        self.row_bytes = row_bytes
        self.rows, self._name = new_rows(folder, len(infos) * row_bytes)
        self.pulled: deque[Pulled] = deque()

    def reuse(self, old: Snapshot, unchanged: Mapping[str, ManifestEntry]) -> None:
        """Copy the rows of objects that have not changed since ``old``."""
        for number, info in enumerate(self._infos):
            entry = unchanged.get(info.key)
            if entry is None:
                continue
            if entry.row is not None:
                pixels = os.pread(old.rows.fileno(), self.row_bytes, entry.row * self.row_bytes)
                os.pwrite(self.rows.fileno(), pixels, number * self.row_bytes)
                entry = replace(entry, row=number)
            self._reused[info.key] = entry

    def wanted(self) -> list[Wanted]:
        """Return what still has to be read."""
        return [
            Wanted(number, info, self._series.get(info.key))
            for number, info in enumerate(self._infos)
            if info.key not in self._reused
        ]

    def results(self, numbers: Sequence[int]) -> list[Pulled]:
        """Return what became of each of these objects, here or at an earlier start."""
        entries = self._entries()
        found = [(number, entries[self._infos[number].key]) for number in numbers]
        return [Pulled(number, entry.sha256, entry.reason, entry.series) for number, entry in found]

    @contextmanager
    def saved_on_failure(self) -> Iterator[None]:
        """Save what there is when an exception leaves the block."""
        try:
            yield
        except BaseException:
            self.save()
            raise

    def save(self) -> None:
        """Let the next start find what is here, where the folder can be written."""
        if self._folder is not None and self._name is not None:
            with suppress(OSError):
                publish(self._folder, self._name, self.row_bytes, self._entries().values())

    def finish(self) -> Snapshot:
        """Make this the folder's snapshot and remove the others."""
        entries = self._entries()
        if self._folder is not None and self._name is not None:
            try:
                publish(self._folder, self._name, self.row_bytes, entries.values())
            except OSError as error:
                warn_not_kept(self._folder, error)
            remove_stale(self._folder, keep=self._name)
        return Snapshot(self.rows, self._name, entries)

    def _entries(self) -> dict[str, ManifestEntry]:
        """What is known so far, by key."""
        entries = dict(self._reused)
        for number, sha256, reason, series in list(self.pulled):
            info = self._infos[number]
            is_used = not reason
            entries[info.key] = ManifestEntry(
                key=info.key,
                size_bytes=info.size_bytes,
                etag=info.etag,
                status="used" if is_used else "refused",
                reason=reason,
                row=number if is_used else None,
                sha256=sha256,
                series=series,
            )
        return entries
