"""One artifact of a run: kept if its file is whole already, else downloaded and verified."""

import hashlib
import logging
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Literal, TypeAlias

from mrigan.errors import StorageError
from mrigan.jobs.fetch.folder import check_no_links
from mrigan.jobs.fetch.selection import Item, read_record
from mrigan.storage.store import ObjectInfo, Store

log = logging.getLogger(__name__)

_MD5 = re.compile(r"[0-9a-f]{32}")

# "gone": the run, which may still be training, has removed it.
Outcome: TypeAlias = Literal["fetched", "kept", "gone"]


def fetch_item(store: Store, item: Item, folder: Path, on_bytes: Callable[[int], None]) -> Outcome:
    """Make sure that the item and its record are whole below ``folder``.

    Raises:
        StorageError: It can't be read, verified or written.
    """
    try:
        return _fetch_item(store, item, folder, on_bytes)
    except OSError as error:
        raise StorageError(
            f"{error.filename or folder}: {error.strerror}; correct that, or choose another folder"
        ) from error


def _fetch_item(store: Store, item: Item, folder: Path, on_bytes: Callable[[int], None]) -> Outcome:
    for key in (item.info.key, *([item.record.key] if item.record else [])):
        check_no_links(folder, key)
    path = folder / item.info.key
    if _is_here(path, item, is_s3=store.is_s3):
        on_bytes(item.info.size_bytes)
        outcome: Outcome = "kept"
    else:
        downloaded = _download(store, item, path, on_bytes)
        if downloaded is None:
            log.warning(
                "artifact_skipped", extra={"key": item.info.key, "reason": "removed meanwhile"}
            )
            return "gone"
        item, outcome = downloaded, "fetched"
        modified = item.info.modified.timestamp()
        os.utime(path, (modified, modified))
    if item.record:
        _write(folder / item.record.key, item.record.body)
    return outcome


def _download(store: Store, item: Item, path: Path, on_bytes: Callable[[int], None]) -> Item | None:
    """Return the item as downloaded; None if the run has removed it."""
    key = item.info.key
    try:
        store.download(key, path, sha256=item.sha256, on_bytes=on_bytes)
    except StorageError:
        if store.head(key) is None:
            return None
        record = read_record(store, item.record.key) if item.record else None
        if record is None or record == item.record:
            raise
        # The run has replaced both since the record was read.
        item = Item(item.info, record)
        store.download(key, path, sha256=item.sha256, on_bytes=on_bytes)
    return item


def _is_here(path: Path, item: Item, *, is_s3: bool) -> bool:
    """Whether ``path`` is certainly whole and the same."""
    info = item.info
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    if status.st_size != info.size_bytes:
        return False
    if item.sha256:
        return _digest(path, "sha256") == item.sha256
    if is_s3 and _MD5.fullmatch(info.etag):
        return _digest(path, "md5") == info.etag
    return _is_as_new(status.st_mtime, info)


def _is_as_new(modified: float, info: ObjectInfo) -> bool:
    return modified >= info.modified.timestamp() - 0.001  # file systems round


def _digest(path: Path, algorithm: str) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


def _write(path: Path, body: bytes) -> None:
    part = path.with_name(f"{path.name}.part")
    part.unlink(missing_ok=True)
    with part.open("xb") as out:  # not through a link
        out.write(body)
    part.replace(path)
