"""A store whose objects are also kept elsewhere, in whole or in part.

The store comes first and is what is read; copies follow it. One that fails fails the write that it
belongs to, and what it then lacks is written to it before anything else is.
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
    """Where else objects go.

    Attributes:
        store: There.
        key_of: An object's key there, by its key; None for one that does not go there.
    """

    store: Store
    key_of: Callable[[str], str | None]


class MirroredStore(Store):
    """What is written here, and removed, is so in every copy too."""

    def __init__(self, uri: str, options: StoreOptions, copies: Sequence[Copy]) -> None:
        super().__init__(open_backend(uri, options), options)
        self._copies = copies
        self._owed: dict[tuple[Store, str], bytes | Path | None] = {}
        self._settling = threading.Lock()

    def put(self, key: str, data: bytes | Path, *, create: bool = False) -> None:
        """Write an object; see ``Store.put``."""
        super().put(key, data, create=create)
        self._settle(key, data)

    def delete(self, key: str) -> None:
        """Remove an object; a copy that can't yet is asked again at the next change."""
        super().delete(key)
        self._settle(key, None)

    def catch_up(self) -> None:
        """Give each copy what it lacks of the objects here, or has older or in another size."""
        for copy in self._copies:
            lacking = {
                info.key: key
                for info in self.list()
                if (key := copy.key_of(info.key)) and not _is_current(copy.store.head(key), info)
            }
            copy_objects(self, copy.store, lacking)
            if lacking:
                log.info("copied", extra={"objects": len(lacking), "to": copy.store.uri})

    def _settle(self, key: str, data: bytes | Path | None) -> None:
        """Bring the copies to where this store is with ``key`` and all that failed before."""
        with self._settling:
            for copy in self._copies:
                if there := copy.key_of(key):
                    # Last, also where an older debt is replaced: the order of writing is kept.
                    self._owed.pop((copy.store, there), None)
                    self._owed[copy.store, there] = data
            for (store, there), owed in list(self._owed.items()):
                if owed is not None:
                    store.put(there, owed)
                else:
                    store.delete(there)
                    if store.head(there):
                        continue
                del self._owed[store, there]


def copy_objects(source: Store, target: Store, keys: dict[str, str]) -> None:
    """Write objects of ``source`` to ``target``; ``keys`` are those here to those there."""

    def copy(here: str, there: str) -> None:
        target.put(there, source.get(here))

    with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="copy") as pool:
        for _ in pool.map(copy, keys.keys(), keys.values()):
            pass


def _is_current(found: ObjectInfo | None, info: ObjectInfo) -> bool:
    same_size = found is not None and found.size_bytes == info.size_bytes
    return same_size and found is not None and found.modified >= info.modified
