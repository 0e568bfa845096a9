"""Writes that must not replace anything, and whether a store can do them.

Several stores accept ``If-None-Match: *`` and overwrite all the same. So a store counts as able
only after it has refused a second write of a scratch object.
"""

import logging
import random
import time
import uuid
from collections.abc import Callable
from typing import TYPE_CHECKING

import obstore
from obstore.exceptions import AlreadyExistsError as Taken

from mrigan.storage.failures import STORE_ERRORS, is_transient

if TYPE_CHECKING:
    from obstore import Attributes
    from obstore.store import LocalStore, S3Store

log = logging.getLogger(__name__)

SCRATCH = ".mrigan-scratch-"
_LONGEST_PAUSE_SECONDS = 15.0


def create(
    store: "S3Store | LocalStore",
    key: str,
    body: bytes,
    *,
    retries: int,
    is_ours: Callable[[], bool],
    attributes: "Attributes | None" = None,
) -> None:
    """Write ``body`` unless ``key`` is taken.

    After a broken connection it is unknown whether the write took place. If the next attempt is
    refused, the write was a success if ``is_ours`` finds our bytes there.

    Raises:
        obstore.exceptions.AlreadyExistsError: It is taken.
    """
    in_doubt = False
    for attempt in range(retries + 1):
        try:
            obstore.put(store, key, body, mode="create", attributes=attributes)
            return
        except Taken as error:
            if in_doubt and is_ours():
                return
            if attempt == retries or not is_transient(error):
                raise
        except STORE_ERRORS as error:
            if attempt == retries or not is_transient(error):
                raise
            in_doubt = True
        time.sleep(random.uniform(0.5, 1.0) * min(0.1 * 2**attempt, _LONGEST_PAUSE_SECONDS))


def refuses_second_write(store: "S3Store | LocalStore", *, retries: int) -> bool:
    """Create a scratch object twice, and delete it again.

    Raises:
        obstore.exceptions.BaseError, OSError: Nothing can be written there at all.
    """
    key = f"{SCRATCH}{uuid.uuid4().hex}"
    try:
        try:
            create(store, key, b"1", retries=retries, is_ours=lambda: True)
        except STORE_ERRORS as error:
            if is_transient(error):
                raise
            # The store lacks conditional writes, or these credentials can't write: try a plain one.
            obstore.put(store, key, b"1")
            return False
        try:
            create(store, key, b"2", retries=retries, is_ours=lambda: False)
        except Taken:
            return True
        return False
    finally:
        _remove(store, key)


def _remove(store: "S3Store | LocalStore", key: str) -> None:
    for is_last in (False, True):
        try:
            obstore.delete(store, key)
        except FileNotFoundError:
            return
        except STORE_ERRORS as error:
            if is_last or not is_transient(error):
                reason = "these credentials can't delete, or the store is away"
                log.warning("scratch_left", extra={"key": key, "reason": reason})
                return
        else:
            return
