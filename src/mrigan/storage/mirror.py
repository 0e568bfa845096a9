"""A store whose objects, or some of them, are also copied to other stores.

Reads come from the store itself. A write goes to the store first and then to the copies; it fails
if a copy fails, and what that copy lacks is written before anything else the next time.
"""

import logging
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from mrigan.storage.keys import ObjectInfo
from mrigan.storage.store import Store, StoreOptions, open_backend

log = logging.getLogger(__name__)

_AT_ONCE = 8


@dataclass(frozen=True, kw_only=True)
class Copy:
    """Another store that objects are copied to.

    Attributes:
        store: That store.
        key_of: From an object's key to its key there; None if the object is not copied.
    """

    store: Store
    key_of: Callable[[str], str | None]


class MirroredStore(Store):
    """Writes and removes objects in the copies too."""

    def __init__(self, uri: str, options: StoreOptions, copies: Sequence[Copy]) -> None:
        super().__init__(open_backend(uri, options), options)
        self._copies = copies
        self._pending: dict[tuple[Store, str], bytes | Path | None] = {}
        self._updating = threading.Lock()

    def put(self, key: str, data: bytes | Path, *, create: bool = False) -> None:
        """Write an object; see ``Store.put``."""
        super().put(key, data, create=create)
        self._update_copies(key, data)

    def move(self, key: str, to: str) -> None:
        """Move an object here; the copies keep what they have, which may be the better one."""
        super().move(key, to)

    def delete(self, key: str) -> None:
        """Remove an object; a copy that can't do so yet is asked again at the next change."""
        super().delete(key)
        self._update_copies(key, None)

    def catch_up(self) -> None:
        """Copy the objects that a copy lacks, or has an older version or another size of."""
        for copy in self._copies:
            lacking = {
                info.key: key
                for info in self.list()
                if (key := copy.key_of(info.key)) and not _is_current(copy.store.head(key), info)
            }
            copy_objects(self, copy.store, lacking)
            if lacking:
                log.info("objects_copied", extra={"objects": len(lacking), "to": copy.store.uri})

    def _update_copies(self, key: str, data: bytes | Path | None) -> None:
        """Bring the copies up to date with ``key``, and with earlier changes that failed."""
        with self._updating:
            for copy in self._copies:
                if there := copy.key_of(key):
                    # At the end even where it replaces an earlier change: the order is kept.
                    self._pending.pop((copy.store, there), None)
                    self._pending[copy.store, there] = data
            for (store, there), change in list(self._pending.items()):
                if change is not None:
                    store.put(there, change)
                else:
                    store.delete(there)
                    if store.head(there):
                        continue
                del self._pending[store, there]


def copy_objects(source: Store, target: Store, keys: dict[str, str]) -> None:
    """Write objects of ``source`` to ``target``; ``keys`` maps keys of the one to the other."""

    def copy(here: str, there: str) -> None:
        target.put(there, source.get(here))

    with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="copy") as pool:
        for _ in pool.map(copy, keys.keys(), keys.values()):
            pass


def _is_current(found: ObjectInfo | None, info: ObjectInfo) -> bool:
    same_size = found is not None and found.size_bytes == info.size_bytes
    return same_size and found is not None and found.modified >= info.modified
