"""A folder as a store: obstore's local files, and plain ones where obstore can't name them."""

import logging
import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from obstore.store import LocalStore

from mrigan.errors import StorageError
from mrigan.storage.failures import Action, Place, explain
from mrigan.storage.keys import STAGED, ObjectInfo
from mrigan.storage.location import FolderLocation

log = logging.getLogger(__name__)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Folder:
    """Files under one folder, which is made by the first write."""

    is_s3 = False

    def __init__(self, location: FolderLocation) -> None:
        self.uri = location.uri
        self.identity = location.uri
        self._path = location.path
        self._store: LocalStore | None = None

    def reader(self) -> LocalStore:
        """Return the obstore to read from.

        Raises:
            StorageError: The folder does not exist, or is a file.
        """
        if self._store is None:
            self._store = self._open()
        return self._store

    def writer(self) -> LocalStore:
        """Return the obstore to write to, after making the folder."""
        if self._store is None:
            self._path.mkdir(parents=True, exist_ok=True)
        return self.reader()

    def single_put(self, size_bytes: int) -> LocalStore:
        """Return the obstore for a write in one piece, of any size."""
        del size_bytes
        return self.writer()

    def exists(self) -> bool:
        """Whether there is anything that could hold objects."""
        return self._path.exists()

    def relist(self, prefix: str) -> list[ObjectInfo]:
        """List what obstore's listing stops at: odd names, links in a circle."""
        found = []
        for path in _walk(self._path):
            if not path.is_relative_to(self._path / prefix):
                continue
            status = path.stat()
            microseconds = status.st_mtime_ns // 1000
            etag = f"{status.st_ino:x}-{microseconds:x}-{status.st_size:x}"
            modified = _EPOCH + timedelta(microseconds=microseconds)
            key = path.relative_to(self._path).as_posix()
            found.append(ObjectInfo(key, status.st_size, etag, modified))
        return found

    def read_odd(self, key: str) -> tuple[bytes, str]:
        """Read a file under a name that obstore refuses; there is no ETag."""
        return (self._path / key).read_bytes(), ""

    def explain(self, error: Exception, action: Action, key: str) -> StorageError:
        """Say what went wrong with the file ``key``, or with the folder if that is ""."""
        return explain(error, action, f"{self.uri}/{key}" if key else self.uri, Place())

    def _open(self) -> LocalStore:
        if not self._path.exists():
            raise StorageError(f"{self.uri}: there is no such folder; correct it, or create it")
        if not self._path.is_dir():
            raise StorageError(f"{self.uri}: is a file, not a folder; give the folder it is in")
        return LocalStore(self._path)


def _walk(folder: Path, above: frozenset[tuple[int, int]] = frozenset()) -> Iterator[Path]:
    """Yield every file, following links to folders, but not to one that the link lies in."""
    status = folder.stat()
    inode = (status.st_dev, status.st_ino)
    if inode in above:
        log.warning("unlisted", extra={"folder": str(folder), "reason": "a link in a circle"})
        return
    for path in folder.iterdir():
        if path.is_dir():
            yield from _walk(path, above | {inode})
        elif os.fsencode(path.name).decode(errors="replace") != path.name:
            log.warning("unlisted", extra={"folder": str(folder), "reason": "name is not UTF-8"})
        elif path.is_file() and not STAGED.search(path.name):
            yield path
