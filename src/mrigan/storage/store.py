"""One way to read and write objects, in a bucket or in a folder.

Promises:
    * ``put`` is atomic: a key holds a whole object or what it held before.
    * ``get`` and ``download`` return bytes only after checking their number, and their MD5 where
      the ETag is one.
    * Transient failures are retried; others become a ``StorageError`` with a remedy.
    * An endpoint in AWS_ENDPOINT_URL or a profile is never bypassed.

Thread-safe. Not fork-safe: see ``mrigan.storage``.
"""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import obstore
from obstore.exceptions import AlreadyExistsError as Taken

from mrigan.errors import AlreadyExistsError, StorageError
from mrigan.storage.backend import Backend
from mrigan.storage.bucket import Bucket
from mrigan.storage.connection import StoreOptions
from mrigan.storage.creation import SCRATCH
from mrigan.storage.download import OnBytes, download
from mrigan.storage.failures import STORE_ERRORS, Action, has_answer, s3_code
from mrigan.storage.folder import Folder
from mrigan.storage.integrity import Verifier
from mrigan.storage.keys import ObjectInfo, key_problem
from mrigan.storage.listing import info_of
from mrigan.storage.location import BucketLocation, parse_uri
from mrigan.storage.reading import Reading, again
from mrigan.storage.synced import SyncedFolder

__all__ = ["ObjectInfo", "Store", "StoreOptions", "open_backend", "open_store"]


def open_store(uri: str, options: StoreOptions | None = None) -> "Store":
    """Open ``s3://bucket/prefix`` or a folder (``runs/demo``, ``~/x``, ``file:///x``).

    A folder is made by the first ``put``. A bucket's credentials are looked up; no request is made
    yet, unless no setting names its region.

    Raises:
        StorageError: A URI that is neither, no credentials, or invalid AWS settings.
    """
    options = options or StoreOptions()
    return Store(open_backend(uri, options), options)


def open_backend(uri: str, options: StoreOptions) -> Backend:
    """Return the bucket or folder that ``uri`` names; raises as ``open_store``."""
    location = parse_uri(uri)
    if isinstance(location, BucketLocation):
        return Bucket(location, options)
    synced = options.synced_folder
    if synced and location.path.is_relative_to(synced.absolute()):
        return SyncedFolder(location)
    return Folder(location)


class Store:
    """Objects by key below one URI.

    Every method raises ``StorageError``, naming the object and the remedy.

    Attributes:
        uri: Normalised, without a slash at the end or a credential.
        is_s3: Whether it is a bucket.
        identity: The same for the same objects in every process: endpoint, bucket and prefix, or
            the folder's absolute path.
    """

    def __init__(self, backend: Backend, options: StoreOptions) -> None:
        self.uri = backend.uri
        self.is_s3 = backend.is_s3
        self.identity = backend.identity
        self._backend = backend
        self._retries = options.max_retries
        self._verifier = Verifier(etags_are_hashes=backend.is_s3)
        self._reading = Reading(backend, self._verifier, self._retries)
        self._probing = threading.Lock()
        self._honours_create: bool | None = None
        self._bucket_is_there = False
        self._writes: dict[int, float] = {}  # when each thread's write under way began

    def list(self, prefix: str = "") -> list[ObjectInfo]:
        """Return every object below ``prefix``, at any depth, sorted by key.

        ``slices`` means ``slices/...``, not ``slices-old/...``. Consoles' markers for folders are
        listed with their ``/`` at the end, except that of the store's own prefix.

        Raises:
            StorageError: Also if the store is a folder that doesn't exist and ``prefix`` is empty.
                In a bucket an empty prefix is no error.
        """
        prefix = prefix.rstrip("/")
        if prefix:
            self._check(prefix, "list")
        with self._explained("list", prefix):
            if prefix and not self._backend.exists():
                return []
            found = again(lambda: self._backend.listing(prefix), self._retries)
        self._bucket_is_there = True
        return found

    def unlisted(self) -> Sequence[ObjectInfo]:
        """Return names that ``list`` leaves out; each ETag is ``UNREADABLE`` and the reason."""
        with self._explained("list", ""):
            return self._backend.unlisted()

    def head(self, key: str) -> ObjectInfo | None:
        """Return what is known of an object without reading it; None if there is none."""
        self._check(key, "look at")
        with self._explained("look at", key):
            if not self._backend.exists():
                return None
            try:
                found = again(lambda: obstore.head(self._backend.reader(), key), self._retries)
                return info_of(found)
            except STORE_ERRORS as error:
                missing = isinstance(error, FileNotFoundError)
                if missing and (self._bucket_is_there or not self.is_s3):
                    return None
                if has_answer(error):
                    return self._head_by_get(key)
                raise

    def get(self, key: str, *, etag: str = "", sha256: str = "") -> bytes:
        """Return an object's bytes, verified. Any key that ``list`` shows can be read.

        Args:
            key: The object.
            etag: As it is listed, if it is known: it tells how the bytes can be verified.
            sha256: What the bytes must have; "" to rely on the ETag, S3's own checksums, or on two
                reads that agree.
        """
        with self._explained("read", key):
            return self._reading.get(key, f"{self.uri}/{key}", etag=etag, sha256=sha256)

    def download(
        self, key: str, path: Path, *, sha256: str = "", on_bytes: OnBytes = lambda _: None
    ) -> None:
        """Download an object to ``path.part``, verify it, and rename it to ``path``.

        A ``.part`` that an earlier call has left, of the same version, is continued.

        Args:
            key: The object.
            path: Replaced by a whole file or not at all. Its folder is made.
            sha256: What the bytes must have; "" to rely on the ETag.
            on_bytes: Called with the number of bytes received; negative if some are discarded.
        """
        self._check(key, "read")
        with self._explained("read", key):
            download(
                self._backend.reader(),
                key,
                path,
                self._verifier,
                where=f"{self.uri}/{key}",
                sha256=sha256,
                on_bytes=on_bytes,
            )

    def put(self, key: str, data: bytes | Path, *, create: bool = False) -> None:
        """Write an object in one step, replacing what is there.

        More than 8 MiB go to S3 in parts. Those of a process that was killed stay in the bucket,
        invisible and paid for, until a lifecycle rule removes them.

        Args:
            key: Where to.
            data: The bytes, or a file of them.
            create: Replace nothing. Where the store can't do that in one step
                (``honours_create``), it is asked first, and of two writers at the same moment
                neither notices the other.

        Raises:
            AlreadyExistsError: With ``create``, the key is taken.
        """
        self._check(key, "write")
        if create and not self.honours_create():
            if self.head(key) is not None:
                raise self._taken(key)
            create = False
        with self._explained("write", key), self._timed():
            if create:
                self._create(key, data if isinstance(data, bytes) else data.read_bytes())
            else:
                if isinstance(data, Path):
                    data.stat()  # else a missing file would look like a missing bucket
                again(lambda: self._backend.put(key, data), self._retries)
        self._bucket_is_there = True

    def seconds_in_write(self) -> float:
        """For how long the oldest write that is under way has been so; 0 without one."""
        return time.monotonic() - min([*self._writes.values()], default=time.monotonic())

    def move(self, key: str, to: str) -> None:
        """Give an object another key without reading it here, replacing what is there.

        In a bucket it is copied and then removed: up to 5 GiB.
        """
        for each in (key, to):
            self._check(each, "write")
        with self._explained("write", to):
            self._backend.move(key, to)

    def remove_unfinished(self, is_ours: Callable[[str], bool]) -> None:
        """Remove what killed processes have left half-written under keys that ``is_ours`` knows.

        Only where no process writes them now.
        """
        with self._explained("delete", ""):
            self._backend.remove_unfinished(is_ours)

    def delete(self, key: str) -> None:
        """Remove an object, if there is one."""
        self._check(key, "delete")
        with self._explained("delete", key):
            if not self._backend.exists():
                return
            try:
                again(lambda: self._backend.delete(key), self._retries)
            except FileNotFoundError as error:
                if s3_code(error) == "NoSuchBucket":
                    raise

    def honours_create(self) -> bool:
        """Whether ``put(create=True)`` is atomic here: found out once, by trying."""
        with self._probing, self._explained("write", f"{SCRATCH}*"):
            if self._honours_create is None:
                self._honours_create = self._backend.refuses_second_write(retries=self._retries)
            return self._honours_create

    def _create(self, key: str, body: bytes) -> None:
        try:
            self._backend.create(
                key, body, retries=self._retries, is_ours=lambda: self.get(key) == body
            )
        except Taken as error:
            raise self._taken(key) from error

    def _head_by_get(self, key: str) -> ObjectInfo | None:
        """Use GET instead: an answer to HEAD has no body, and so no reason of a failure."""
        try:
            got = again(lambda: obstore.get(self._backend.reader(), key), self._retries)
            found = info_of(got.meta)
        except FileNotFoundError as error:
            if s3_code(error) == "NoSuchBucket":
                raise
            found = None
        self._bucket_is_there = True
        return found

    def _taken(self, key: str) -> AlreadyExistsError:
        return AlreadyExistsError(
            f"{self.uri}/{key}: is there already and was left alone; delete it, or choose another "
            "URI"
        )

    @contextmanager
    def _explained(self, action: Action, key: str) -> Iterator[None]:
        try:
            yield
        except STORE_ERRORS as error:
            raise self._backend.explain(error, action, key) from error

    @contextmanager
    def _timed(self) -> Iterator[None]:
        self._writes[threading.get_ident()] = time.monotonic()
        try:
            yield
        finally:
            del self._writes[threading.get_ident()]

    def _check(self, key: str, action: Action) -> None:
        if problem := key_problem(key, is_s3=self.is_s3):
            raise StorageError(f"can't {action} {self.uri}/{key!r}: {problem}; rename it")
