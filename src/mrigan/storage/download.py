"""An object into a file: written as ``.part``, continued after an interruption, renamed when whole.

A file beside the ``.part`` holds the object's ETag; a ``.part`` of another version starts again.
"""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import obstore
from obstore.exceptions import BaseError

from mrigan.errors import StorageError
from mrigan.storage.failures import STORE_ERRORS, is_transient
from mrigan.storage.integrity import Received, Verifier

if TYPE_CHECKING:
    from obstore import GetOptions, GetResult
    from obstore.store import LocalStore, S3Store

_CHUNK_BYTES = 4 * 2**20

OnBytes: TypeAlias = Callable[[int], None]


class PartFile:
    """The unfinished ``path``, and the ETag of the object it comes from."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.part = path.with_name(f"{path.name}.part")
        self._etag = path.with_name(f"{path.name}.part.etag")

    def begun(self) -> tuple[str, int]:
        """Return the ETag and the length received; ("", 0) if it can't be continued."""
        try:
            etag = self._etag.read_text()
            return (etag, self.part.stat().st_size) if etag else ("", 0)
        except (FileNotFoundError, UnicodeDecodeError):
            return "", 0

    def begin(self, etag: str) -> None:
        """Start from the beginning."""
        self.part.parent.mkdir(parents=True, exist_ok=True)
        self.discard()
        self.part.touch(exist_ok=False)
        self._etag.write_text(etag)

    def finish(self) -> None:
        """Give the file its name, now that it is whole."""
        self.part.replace(self._path)
        self._etag.unlink(missing_ok=True)

    def discard(self) -> None:
        """Remove what was received."""
        self._etag.unlink(missing_ok=True)
        self.part.unlink(missing_ok=True)

    def digest(self, algorithm: str) -> str:
        """Return the hash of what was received, in hexadecimal."""
        with self.part.open("rb") as received:
            return hashlib.file_digest(received, algorithm).hexdigest()


def download(
    store: "S3Store | LocalStore",
    key: str,
    path: Path,
    verifier: Verifier,
    *,
    where: str,
    sha256: str,
    on_bytes: OnBytes,
) -> None:
    """Bring an object to ``path``; see ``Store.download``.

    Raises:
        StorageError: The bytes could not be verified.
        OSError, obstore.exceptions.BaseError: As ``failures.explain`` understands them.
    """
    file = PartFile(path)
    brought = 0

    def count(received: int) -> None:
        nonlocal brought
        brought += received
        on_bytes(received)

    def fetch() -> Received:
        if brought:
            file.discard()
            count(-brought)
        etag, whole = _receive_with_retries(store, key, file, count)
        return Received(
            etag=etag,
            md5=file.digest("md5") if verifier.needs_md5 and not sha256 else "",
            sha256=file.digest("sha256") if sha256 else "",
            whole=whole,
        )

    try:
        verifier.settle(where, fetch, sha256)
    except StorageError:
        file.discard()
        raise
    file.finish()


def _receive_with_retries(
    store: "S3Store | LocalStore", key: str, file: PartFile, on_bytes: OnBytes
) -> tuple[str, bool]:
    """Receive, and continue after broken connections while each attempt brings some bytes.

    obstore itself stops ``retry_timeout`` after the request began, whatever its progress.
    """
    while True:
        before = file.begun()
        try:
            return _receive(store, key, file, on_bytes)
        except STORE_ERRORS as error:
            if not is_transient(error) or file.begun() == before:
                raise


def _receive(
    store: "S3Store | LocalStore", key: str, file: PartFile, on_bytes: OnBytes
) -> tuple[str, bool]:
    """Receive what is missing of an object into ``file``.

    Returns:
        The object's ETag, and whether the file is as long as the object.
    """
    etag, length = file.begun()
    result = _continue(store, key, etag, length) if length else None
    if result is None:
        result = obstore.get(store, key)
        file.begin(_etag_of(result))
    received = result.range[0]
    on_bytes(received)
    try:
        # No link: it would lead out of the folder.
        descriptor = os.open(file.part, os.O_RDWR | getattr(os, "O_NOFOLLOW", 0))
        with os.fdopen(descriptor, "r+b") as out:
            out.seek(received)
            out.truncate()
            for chunk in result.stream(min_chunk_size=_CHUNK_BYTES):
                out.write(chunk)
                received += len(chunk)
                on_bytes(len(chunk))
    except BaseException as error:
        on_bytes(-received)
        if isinstance(error, OSError) and error.errno and not error.filename:
            error.filename = str(file.part)  # the error of a full disk names no file
        raise
    return _etag_of(result), received == result.meta["size"]


def _continue(
    store: "S3Store | LocalStore", key: str, etag: str, length: int
) -> "GetResult | None":
    """Request what is missing; None if it is no longer the same object."""
    found = obstore.head(store, key)
    # A file that lacks only its name requests its last byte again: a range can't be empty.
    offset = min(length, found["size"] - 1)
    if (found["e_tag"] or "").strip('"') != etag or offset < 1:
        return None
    options: GetOptions = {"range": {"offset": offset}, "if_match": found["e_tag"]}
    try:
        result = obstore.get(store, key, options=options)
    except BaseError as error:
        if is_transient(error):
            raise
        return None  # perhaps a store without ranges; requesting all of it will tell
    return result if _etag_of(result) == etag and result.range[0] == offset else None


def _etag_of(result: "GetResult") -> str:
    return (result.meta["e_tag"] or "").strip('"')
