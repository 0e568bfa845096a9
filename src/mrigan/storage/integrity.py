"""Accepts bytes only when their MD5 is the ETag, where the ETag is an MD5.

S3's ETag is the MD5 of a single-part object unless a KMS or customer key encrypts it, and the
answer does not say which. So bytes that do not match are fetched again: if they are the same, the
ETag is no MD5; if they differ, they were damaged in transit.
"""

import logging
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass

from mrigan.errors import StorageError

log = logging.getLogger(__name__)

_FETCHES = 4
_OTHER_ETAGS = 3
_MD5 = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True, kw_only=True)
class Received:
    """The result of one fetch.

    Attributes:
        etag: Of the object.
        md5: Of the bytes; used only where the ETag can be one.
        sha256: Of the bytes; used only where one is expected.
        whole: Whether there are as many bytes as the store announced.
        body: The bytes, unless they went to a file.
    """

    etag: str
    md5: str
    sha256: str = ""
    whole: bool = True
    body: bytes = b""


class Verifier:
    """Checks what one store returns, and learns whether its ETags are MD5s; thread-safe."""

    def __init__(self, *, etags_are_hashes: bool) -> None:
        self._lock = threading.Lock()
        self._checking = etags_are_hashes
        self._matched = False
        self._others: set[str] = set()

    def checks(self, etag: str) -> bool:
        """Whether ``etag`` may be an MD5, so that the bytes' MD5 is needed."""
        return self._checking and _MD5.fullmatch(etag) is not None

    def settle(self, where: str, fetch: Callable[[], Received], sha256: str = "") -> Received:
        """Fetch until the bytes are verified.

        Args:
            where: The object's URI.
            fetch: Reads the object from its beginning; called at most four times.
            sha256: What the bytes must have; where it is given, the ETag is not used.

        Raises:
            StorageError: The bytes differ from fetch to fetch, or from ``sha256`` every time.
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
                    raise StorageError(
                        f"{where}: its bytes do not have the sha256 that is on record; what is "
                        "stored there is damaged or was replaced"
                    )
                seen.add(received.sha256)
                continue
            if self._is_verified(where, received, seen):
                return received
            seen.add(received.md5)
        raise StorageError(
            f"{where}: corrupt in transit {_FETCHES} times; check the network, proxies and memory"
        )

    def _is_verified(self, where: str, received: Received, seen: set[str]) -> bool:
        if not self.checks(received.etag):
            return True
        if received.md5 == received.etag:
            self._matched = True
            return True
        if received.md5 not in seen:
            return False
        self._note_other_etag(where)
        return True

    def _note_other_etag(self, where: str) -> None:
        with self._lock:
            self._others.add(where)
            if self._matched or not self._checking or len(self._others) < _OTHER_ETAGS:
                return
            self._checking = False
        log.info("md5_unchecked", extra={"reason": "this store's ETags are no MD5s (KMS?)"})
