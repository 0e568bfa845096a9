"""An object's bytes, read in each of the ways that can tell whether they are right."""

import hashlib
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

import obstore

from mrigan.storage.backend import Backend
from mrigan.storage.failures import STORE_ERRORS, broke_off
from mrigan.storage.integrity import Received, Verifier, settle_by_sha256
from mrigan.storage.keys import key_problem
from mrigan.storage.listing import info_of

if TYPE_CHECKING:
    from obstore import GetResult
    from obstore.store import LocalStore, S3Store

_PART_BYTES = 8 * 2**20
_READS_OF_A_PART = 4
_BROKEN_ANSWERS = 4
_QUICK_SECONDS = 5.0
_PAUSE_SECONDS = 0.2

T = TypeVar("T")


class Reading:
    """Reads from one store; its methods raise ``failures.STORE_ERRORS`` and DamagedError.

    Args:
        backend: The store.
        verifier: Of the same store.
        retries: After an answer that broke off.
    """

    def __init__(self, backend: Backend, verifier: Verifier, retries: int) -> None:
        self._backend = backend
        self._verifier = verifier
        self._retries = retries

    def get(self, key: str, where: str, *, etag: str, sha256: str) -> bytes:
        """Read an object until its bytes are verified; see ``Store.get``."""
        if sha256:
            ways = (self._whole, self._whole, self._in_parts, self._in_parts)
            return settle_by_sha256(where, ways, key, sha256)
        needs_checksum = self._verifier.needs_checksum(etag)

        def fetch() -> Received:
            nonlocal needs_checksum
            read, needs_checksum = self._checked if needs_checksum else self._whole, True
            return read(key)

        return self._verifier.settle(where, fetch).body

    def _whole(self, key: str) -> Received:
        if key_problem(key, is_s3=self._backend.is_s3):
            return self._checked(key)
        result, body = again(lambda: _got(self._backend.reader(), key), self._retries)
        whole = len(body) == result.meta["size"]
        return self._received(body, info_of(result.meta).etag, whole=whole)

    def _checked(self, key: str) -> Received:
        """Read what obstore can't name, or with the checksum that S3 has stored."""
        body, etag, is_checked = self._backend.read_checked(key)
        whole = body is not None
        return self._received(body or b"", etag, whole=whole, is_checked=is_checked)

    def _received(
        self, body: bytes, etag: str, *, whole: bool, is_checked: bool = False
    ) -> Received:
        needs_md5 = self._verifier.needs_md5
        md5 = hashlib.md5(body, usedforsecurity=False).hexdigest() if needs_md5 else ""
        return Received(etag=etag, md5=md5, whole=whole, body=body, is_checked=is_checked)

    def _in_parts(self, key: str) -> Received:
        """Read one part after the other, each until two reads of it agree."""
        try:
            size = obstore.head(self._backend.reader(), key)["size"]
            parts = [
                self._part(key, start, min(_PART_BYTES, size - start))
                for start in range(0, size, _PART_BYTES)
            ]
        except STORE_ERRORS:  # perhaps a store without ranges
            return self._whole(key)
        return Received(etag="", md5="", body=b"".join(parts))

    def _part(self, key: str, start: int, length: int) -> bytes:
        """Return a part of an object that was read alike twice, or what the last read gave."""
        seen: list[bytes] = []
        for _ in range(_READS_OF_A_PART):
            reader = self._backend.reader()
            part = obstore.get_range(reader, key, start=start, length=length).to_bytes()
            if part in seen:
                break
            seen.append(part)
        return part


def again(call: Callable[[], T], retries: int) -> T:
    """Do ``call`` again where an answer broke off; after a long time obstore has done that."""
    for _ in range(min(retries, _BROKEN_ANSWERS)):
        began = time.monotonic()
        try:
            return call()
        except STORE_ERRORS as error:
            if not broke_off(error) or time.monotonic() - began > _QUICK_SECONDS:
                raise
        time.sleep(_PAUSE_SECONDS)
    return call()


def _got(reader: "S3Store | LocalStore", key: str) -> tuple["GetResult", bytes]:
    result = obstore.get(reader, key)
    return result, result.bytes().to_bytes()
