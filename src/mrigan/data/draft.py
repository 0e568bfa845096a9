"""A generation of rows in the making.

Row n belongs to object n of the listing until ``finish`` closes the gaps that refused objects
leave. Saved at any moment before, what is there already counts at the next start.
"""

import os
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from mrigan.data.cache import Generation, new_rows, publish, sweep, warn_not_kept
from mrigan.data.manifest import ManifestEntry
from mrigan.data.pull import Pulled, Wanted
from mrigan.storage.keys import ObjectInfo


class Draft:
    """Rows being gathered for ``infos``, in the cache's folder or in a private file.

    Attributes:
        rows: Open for reading and writing in place; whoever made the draft closes it.
        pulled: What was read so far, appended to by ``pull``.
    """

    def __init__(self, folder: Path | None, infos: Sequence[ObjectInfo], row_bytes: int) -> None:
        self._folder = folder
        self._infos = infos
        self._row_bytes = row_bytes
        self._carried: dict[str, ManifestEntry] = {}
        self.rows, self._name = new_rows(folder, len(infos) * row_bytes)
        self.pulled: deque[Pulled] = deque()

    def carry_over(self, old: Generation, kept: Mapping[str, ManifestEntry]) -> None:
        """Copy the rows of the objects that have not changed since ``old``."""
        for index, info in enumerate(self._infos):
            entry = kept.get(info.key)
            if entry is None:
                continue
            if entry.row is not None:
                pixels = os.pread(old.rows.fileno(), self._row_bytes, entry.row * self._row_bytes)
                os.pwrite(self.rows.fileno(), pixels, index * self._row_bytes)
                entry = replace(entry, row=index)
            self._carried[info.key] = entry

    def wanted(self) -> list[Wanted]:
        """Return what still has to be read."""
        return [
            Wanted(index, info)
            for index, info in enumerate(self._infos)
            if info.key not in self._carried
        ]

    def facts(self, numbers: Sequence[int]) -> list[tuple[str, str]]:
        """The sha256 and the reason of refusal of each object, one of which is ""."""
        entries = self._entries()
        found = [entries[self._infos[number].key] for number in numbers]
        return [(entry.sha256, entry.reason) for entry in found]

    def save(self) -> None:
        """Let the next start find what is here, where the folder takes it."""
        if self._folder is not None and self._name is not None:
            with suppress(OSError):
                publish(self._folder, self._name, self._row_bytes, self._entries().values())

    def finish(self) -> Generation:
        """Close the gaps, make this the folder's generation and remove the others."""
        entries = self._closed_up(self._entries())
        if self._folder is not None and self._name is not None:
            try:
                publish(self._folder, self._name, self._row_bytes, entries.values())
            except OSError as error:
                warn_not_kept(self._folder, error)
            sweep(self._folder, keep=self._name)
        return Generation(self.rows, self._name, entries)

    def _entries(self) -> dict[str, ManifestEntry]:
        """What is known so far, by key."""
        entries = dict(self._carried)
        for index, sha256, reason in list(self.pulled):
            info = self._infos[index]
            is_used = not reason
            entries[info.key] = ManifestEntry(
                key=info.key,
                size_bytes=info.size_bytes,
                etag=info.etag,
                status="used" if is_used else "refused",
                reason=reason,
                row=index if is_used else None,
                sha256=sha256,
            )
        return entries

    def _closed_up(self, entries: Mapping[str, ManifestEntry]) -> dict[str, ManifestEntry]:
        """Move every used row up behind the one before it, in the order of the listing."""
        descriptor, row_bytes = self.rows.fileno(), self._row_bytes
        closed: dict[str, ManifestEntry] = {}
        count = 0
        for entry in (entries[info.key] for info in self._infos):
            moved = entry
            if entry.row is not None:
                if entry.row != count:
                    pixels = os.pread(descriptor, row_bytes, entry.row * row_bytes)
                    os.pwrite(descriptor, pixels, count * row_bytes)
                    moved = replace(entry, row=count)
                count += 1
            closed[entry.key] = moved
        os.ftruncate(descriptor, count * row_bytes)
        return closed
