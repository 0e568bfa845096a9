"""What ``Store`` asks of a bucket, or of a folder of either kind."""

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from obstore.store import LocalStore, S3Store

from mrigan.errors import StorageError
from mrigan.storage.failures import Action
from mrigan.storage.keys import ObjectInfo


class Backend(Protocol):
    """A bucket or a folder. Its methods may raise ``failures.STORE_ERRORS``."""

    is_s3: bool
    uri: str
    identity: str

    def exists(self) -> bool:
        """Whether there is anything to read from: a folder may not have been made yet."""
        ...

    def reader(self) -> S3Store | LocalStore:
        """Return the obstore to read from."""
        ...

    def listing(self, prefix: str) -> list[ObjectInfo]:
        """List every object below ``prefix``, sorted by key."""
        ...

    def unlisted(self) -> list[ObjectInfo]:
        """Name what the listing leaves out; each ETag is ``UNREADABLE`` and the reason."""
        ...

    def put(self, key: str, data: bytes | Path) -> None:
        """Write in one step, replacing what is there."""
        ...

    def create(self, key: str, body: bytes, *, retries: int, is_ours: Callable[[], bool]) -> None:
        """Write in one step, replacing nothing.

        Args:
            key: Where to.
            body: The bytes.
            retries: After a transient failure.
            is_ours: Whether ``body`` is there; asked when an attempt's outcome is unknown.

        Raises:
            obstore.exceptions.AlreadyExistsError: The key is taken.
        """
        ...

    def refuses_second_write(self, *, retries: int) -> bool:
        """Find out, by trying, whether ``create`` is atomic here."""
        ...

    def remove_unfinished(self, is_ours: Callable[[str], bool]) -> None:
        """Remove what killed writers have left of the keys that ``is_ours`` knows."""
        ...

    def delete(self, key: str) -> None:
        """Remove an object; a missing one may raise FileNotFoundError."""
        ...

    def move(self, key: str, to: str) -> None:
        """Give an object another key; the store does it, nothing is read here."""
        ...

    def read_checked(self, key: str) -> tuple[bytes | None, str, bool]:
        """Read an object whose key obstore refuses, or with the store's own checksum.

        Returns:
            The bytes, None where they were damaged on the way; the ETag; and whether they have the
            checksum that the store keeps of them.
        """
        ...

    def explain(self, error: Exception, action: Action, key: str) -> StorageError:
        """Say what went wrong with the object ``key``, or with the store if that is ""."""
        ...
