"""What a store must know of the place its objects are in; ``Bucket`` and ``Folder`` are the two."""

from typing import Protocol

from obstore.store import LocalStore, S3Store

from mrigan.errors import StorageError
from mrigan.storage.failures import Action
from mrigan.storage.keys import ObjectInfo


class Backend(Protocol):
    """A place for objects. Its methods may raise ``failures.STORE_ERRORS``."""

    is_s3: bool
    uri: str
    identity: str

    def exists(self) -> bool:
        """Whether there is a place to read from; a folder may still have to be made."""
        ...

    def reader(self) -> S3Store | LocalStore:
        """Return the obstore to read from."""
        ...

    def writer(self) -> S3Store | LocalStore:
        """Return the obstore for writes that may be repeated and cut into parts."""
        ...

    def single_put(self, size_bytes: int) -> S3Store | LocalStore:
        """Return an obstore for one write in one piece that it does not repeat by itself."""
        ...

    def relist(self, prefix: str) -> list[ObjectInfo]:
        """List what obstore's own listing hides or stops at."""
        ...

    def read_odd(self, key: str) -> tuple[bytes, str]:
        """Return the bytes and the ETag of an object whose name obstore refuses."""
        ...

    def explain(self, error: Exception, action: Action, key: str) -> StorageError:
        """Say what went wrong with the object ``key``, or with the store if that is ""."""
        ...
