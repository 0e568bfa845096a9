"""A folder as a store: through obstore, and directly where obstore refuses a file's name."""

import logging
import os
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import obstore
from obstore.store import LocalStore

from mrigan.errors import StorageError
from mrigan.storage import creation
from mrigan.storage.failures import Action, Target, explain
from mrigan.storage.keys import STAGED, UNREADABLE, ObjectInfo
from mrigan.storage.listing import list_objects
from mrigan.storage.location import FolderLocation

log = logging.getLogger(__name__)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Folder:
    """Files under one folder, which is made by the first write."""

    is_s3 = False

    def __init__(self, location: FolderLocation) -> None:
        self.uri = location.uri
        self.identity = location.uri
        self.path = location.path
        self._store: LocalStore | None = None

    def reader(self) -> LocalStore:
        """Return the obstore to read from.

        Raises:
            StorageError: The folder does not exist, or is a file.
        """
        if self._store is None:
            self._store = self._open()
        return self._store

    def exists(self) -> bool:
        """Whether the path exists."""
        return self.path.exists()

    def listing(self, prefix: str) -> list[ObjectInfo]:
        """List files."""
        return list_objects(self.reader(), prefix, self._relist, has_markers=False)

    def unlisted(self) -> list[ObjectInfo]:
        """Name files that look half-written, links to nothing, and names that are not UTF-8."""
        found = []
        for folder, _, names in os.walk(self.path, followlinks=False):
            for name in names:
                path = Path(folder) / name
                if reason := _unreadable(path):
                    key = os.fsencode(path.relative_to(self.path)).decode(errors="replace")
                    found.append(ObjectInfo(key, 0, UNREADABLE + reason, _EPOCH))
        return found

    def put(self, key: str, data: bytes | Path) -> None:
        """Write under a temporary name, then rename."""
        obstore.put(self._writer(), key, data)

    def create(self, key: str, body: bytes, *, retries: int, is_ours: Callable[[], bool]) -> None:
        """Write under a temporary name, then link the file to its name."""
        creation.create(self._writer(), key, body, retries=retries, is_ours=is_ours)

    def refuses_second_write(self, *, retries: int) -> bool:
        """Try it on a scratch file."""
        return creation.refuses_second_write(self._writer(), retries=retries)

    def remove_unfinished(self, is_ours: Callable[[str], bool]) -> None:
        """Remove half-written files, which obstore names as the file with ``#`` and a number."""
        for path in self.path.rglob("*#*"):
            key = STAGED.sub("", path.relative_to(self.path).as_posix())
            if STAGED.search(path.name) and is_ours(key) and path.is_file():
                path.unlink(missing_ok=True)

    def delete(self, key: str) -> None:
        """Remove a file."""
        obstore.delete(self._writer(), key)

    def move(self, key: str, to: str) -> None:
        """Rename a file."""
        obstore.rename(self._writer(), key, to)

    def read_checked(self, key: str) -> tuple[bytes, str, bool]:
        """Read a file whose name obstore refuses; there is no ETag."""
        return (self.path / key).read_bytes(), "", False

    def explain(self, error: Exception, action: Action, key: str) -> StorageError:
        """Say what went wrong with the file ``key``, or with the folder if that is ""."""
        return explain(error, action, f"{self.uri}/{key}" if key else self.uri, Target())

    def _relist(self, prefix: str) -> list[ObjectInfo]:
        """List also what obstore's listing fails on: odd names, links in a circle."""
        found = []
        for path in _walk(self.path):
            if not path.is_relative_to(self.path / prefix):
                continue
            status = path.stat()
            microseconds = status.st_mtime_ns // 1000
            etag = f"{status.st_ino:x}-{microseconds:x}-{status.st_size:x}"
            modified = _EPOCH + timedelta(microseconds=microseconds)
            key = path.relative_to(self.path).as_posix()
            found.append(ObjectInfo(key, status.st_size, etag, modified))
        return found

    def _writer(self) -> LocalStore:
        """Return the obstore to write to, after making the folder."""
        if self._store is None:
            self.path.mkdir(parents=True, exist_ok=True)
        return self.reader()

    def _open(self) -> LocalStore:
        if not self.path.exists():
            raise StorageError(f"{self.uri}: there is no such folder; correct it, or create it")
        if not self.path.is_dir():
            raise StorageError(f"{self.uri}: is a file, not a folder; give the folder it is in")
        return LocalStore(self.path)


def _unreadable(path: Path) -> str:
    """Why the listing leaves a file out; "" if it does not."""
    if os.fsencode(path.name).decode(errors="replace") != path.name:
        return "a name that is not UTF-8; rename it"
    if STAGED.search(path.name):
        return "a name that ends in # and digits, as half-written files' do; rename it"
    if path.is_symlink() and not path.exists():
        target = str(path.readlink())
        if "annex/objects" in target:
            return "a link of git-annex whose content is not here; run git annex get"
        return "a link to a file that is not there"
    return ""


def _walk(folder: Path, above: frozenset[tuple[int, int]] = frozenset()) -> Iterator[Path]:
    """Yield every file, following links to folders except to one that contains the link."""
    status = folder.stat()
    inode = (status.st_dev, status.st_ino)
    if inode in above:
        log.warning(
            "path_not_listed", extra={"folder": str(folder), "reason": "a link in a circle"}
        )
        return
    for path in folder.iterdir():
        if path.is_dir():
            yield from _walk(path, above | {inode})
        elif os.fsencode(path.name).decode(errors="replace") != path.name:
            log.warning(
                "path_not_listed", extra={"folder": str(folder), "reason": "name is not UTF-8"}
            )
        elif path.is_file() and not STAGED.search(path.name):
            yield path
