"""Accepts bytes only when their MD5 is the ETag, where the ETag is an MD5.

S3's ETag is the MD5 of a single-part object unless a KMS or customer key encrypts it, and the
answer does not say which. So bytes that do not match are fetched again: if they are the same, the
ETag is no MD5; if they differ, they were damaged in transit. Bytes without an ETag that is an MD5
count only with the checksum that S3 has stored of them, or when they came alike twice.
"""

import hashlib
import logging
import re
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from mrigan.errors import DamagedError

log = logging.getLogger(__name__)

_FETCHES = 4
_OTHER_ETAGS = 3
_MD5 = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True, kw_only=True)
class Received:
    """The result of one fetch.

    Attributes:
        etag: Of the object.
        md5: Of the bytes; used only of a bucket.
        sha256: Of the bytes; used only where one is expected.
        whole: Whether there are as many bytes as the store announced.
        is_checked: Whether they have the checksum that the store keeps of them.
        body: The bytes, unless they went to a file.
    """

    etag: str
    md5: str
    sha256: str = ""
    whole: bool = True
    body: bytes = b""
    is_checked: bool = False


def settle_by_sha256(
    where: str, ways: Iterable[Callable[[str], Received]], key: str, sha256: str
) -> bytes:
    """Read ``key`` in one way after the other until the bytes have the right sha256.

    Raises:
        DamagedError: They never have.
    """
    found = []
    for read in ways:
        body = read(key).body
        found.append(hashlib.sha256(body).hexdigest())
        if found[-1] == sha256:
            return body
    if len(set(found)) > 1:
        raise DamagedError(
            f"{where}: other bytes each time it is read; check the network, proxies and memory",
            is_passing=True,
        )
    raise DamagedError(
        f"{where}: its bytes do not have the sha256 that is on record; what is stored there is "
        "damaged or was replaced"
    )


class Verifier:
    """Checks what one store returns, and learns whether its ETags are MD5s; thread-safe."""

    def __init__(self, *, etags_are_hashes: bool) -> None:
        self._lock = threading.Lock()
        self._is_bucket = self._checking = etags_are_hashes
        self._matched = False
        self._others: set[str] = set()

    @property
    def needs_md5(self) -> bool:
        """Whether the MD5 of what is received decides."""
        return self._is_bucket

    def needs_checksum(self, etag: str) -> bool:
        """Whether only a checksum can verify an object: ``etag``, if known, is no MD5."""
        return self._is_bucket and not (
            self._checking and (not etag or _MD5.fullmatch(etag) is not None)
        )

    def settle(self, where: str, fetch: Callable[[], Received], sha256: str = "") -> Received:
        """Fetch until the bytes are verified.

        Args:
            where: The object's URI.
            fetch: Reads the object from its beginning; called at most four times.
            sha256: What the bytes must have; where it is given, the ETag is not used.

        Raises:
            DamagedError: The bytes differ from fetch to fetch, or from ``sha256`` every time.
        """
        seen: set[str] = set()
        for _ in range(_FETCHES):
            received = fetch()
            if not received.whole:
                continue
            if sha256:
                if received.sha256 == sha256:
                    return received
                if received.sha256 in seen:
                    raise DamagedError(
                        f"{where}: its bytes do not have the sha256 that is on record; what is "
                        "stored there is damaged or was replaced"
                    )
                seen.add(received.sha256)
                continue
            if self._is_verified(where, received, seen):
                return received
            seen.add(received.md5)
        raise DamagedError(
            f"{where}: corrupt in transit {_FETCHES} times; check the network, proxies and memory",
            is_passing=True,
        )

    def _is_verified(self, where: str, received: Received, seen: set[str]) -> bool:
        may_be_md5 = self._checking and _MD5.fullmatch(received.etag) is not None
        if may_be_md5 and received.md5 == received.etag:
            self._matched = True
            return True
        if self._is_bucket and not received.is_checked and received.md5 not in seen:
            return False
        if may_be_md5:
            self._note_other_etag(where)
        return True

    def _note_other_etag(self, where: str) -> None:
        with self._lock:
            self._others.add(where)
            if self._matched or not self._checking or len(self._others) < _OTHER_ETAGS:
                return
            self._checking = False
        log.info("md5_unchecked", extra={"reason": "this store's ETags are no MD5s (KMS?)"})
