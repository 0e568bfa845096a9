"""Decoded slices kept on disk between starts: a file of rows and a manifest that names it.

Each refresh writes a new snapshot, its rows in a file of their own, and replaces the manifest last,
in one step. So a process that is killed leaves a snapshot that can be read, a reader keeps the file
it has open, and a row that was damaged since is found by its hash and read again. Writers hold the
folder's lock.
"""

import errno
import hashlib
import json
import logging
import os
import re
import tempfile
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple

from filelock import FileLock, Timeout

from mrigan.data.cores import usable_cores
from mrigan.data.manifest import ManifestEntry, decode_manifest, encode_manifest
from mrigan.errors import DataError

log = logging.getLogger(__name__)

_MANIFEST = "manifest.jsonl"
_FORMAT = 1
_ROWS_NAME = re.compile(r"rows-[0-9a-f]{12}\.u8")
_ENTRIES_PER_TASK = 256


class _Header(NamedTuple):
    """The manifest's first line, as JSON: of which file of rows it is, and its own checksum."""

    format: int
    rows: str
    row_bytes: int
    sha256: str


@dataclass(frozen=True)
class Snapshot:
    """Rows in an open file, and the objects they came from.

    Attributes:
        rows: Row r is at ``r * row_bytes``; a row that no entry names holds nothing.
        name: Of the file in the cache folder; None for a private file, which has no name.
        entries: By key; those whose rows are damaged are left out.
    """

    rows: BinaryIO
    name: str | None
    entries: dict[str, ManifestEntry]


def manifest_stamp(folder: Path) -> tuple[int, int] | None:
    """Return what changes whenever the folder's manifest is replaced."""
    with suppress(OSError):
        status = (folder / _MANIFEST).stat()
        return status.st_ino, status.st_mtime_ns
    return None


def read_snapshot(folder: Path, row_bytes: int) -> Snapshot | None:
    """Open the folder's snapshot and check every row, or return None where there is none."""
    try:
        first, _, body = (folder / _MANIFEST).read_bytes().partition(b"\n")
        header = _Header(**json.loads(first))
        if (header.format, header.sha256) != (_FORMAT, hashlib.sha256(body).hexdigest()):
            raise ValueError("its manifest does not match its checksum")
        entries = decode_manifest(body)
        if header.row_bytes != row_bytes or not _ROWS_NAME.fullmatch(header.rows):
            raise ValueError("its header is of another pack")
        rows = (folder / header.rows).open("rb", buffering=0)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, TypeError, RecursionError) as error:
        reason = " ".join(str(error).split())[:200]
        log.warning("cache_damaged", extra={"folder": str(folder), "reason": reason})
        return None
    sound = _sound(rows, entries, row_bytes)
    if len(sound) < len(entries):
        damaged = {"slices": len(entries) - len(sound), "of": len(entries)}
        log.warning("cache_damaged", extra={"folder": str(folder), **damaged})
    return Snapshot(rows, header.rows, {entry.key: entry for entry in sound})


def _sound(rows: BinaryIO, entries: Sequence[ManifestEntry], row_bytes: int) -> list[ManifestEntry]:
    """The entries that were refused, or whose row still has the hash it was written with."""

    def check(part: Sequence[ManifestEntry]) -> list[ManifestEntry]:
        return [
            entry
            for entry in part
            if entry.row is None
            # Read, not mapped: the pages of a map count as this process's memory.
            or hashlib.sha256(os.pread(rows.fileno(), row_bytes, entry.row * row_bytes)).hexdigest()
            == entry.sha256
        ]

    parts = [
        entries[start : start + _ENTRIES_PER_TASK]
        for start in range(0, len(entries), _ENTRIES_PER_TASK)
    ]
    with ThreadPoolExecutor(min(usable_cores(), 16)) as pool:
        return [entry for part in pool.map(check, parts) for entry in part]


def new_rows(folder: Path | None, size_bytes: int) -> tuple[BinaryIO, str | None]:
    """Open a file of rows with all its space reserved: in the folder, or private and nameless.

    Raises:
        DataError: There is no room in either.
    """
    if folder is not None:
        name = f"rows-{uuid.uuid4().hex[:12]}.u8"
        try:
            rows = (folder / name).open("x+b", buffering=0)
            return _with_room(rows, size_bytes), name
        except OSError as error:
            (folder / name).unlink(missing_ok=True)
            warn_not_kept(folder, error)
    try:
        private = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115  # the caller closes it
        return _with_room(private, size_bytes), None
    except OSError as error:
        raise DataError(
            f"no room for {size_bytes / 2**20:.0f} MiB of decoded slices in the cache or in "
            f"{tempfile.gettempdir()}: {error.strerror}; set MRIGAN_CACHE_DIR to a roomier folder"
        ) from error


def _with_room(rows: BinaryIO, size_bytes: int) -> BinaryIO:
    """Reserve the space now: a disk that fills up later would end the job in mid-pull."""
    try:
        if hasattr(os, "posix_fallocate"):
            with _tolerating(errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):
                os.posix_fallocate(rows.fileno(), 0, size_bytes)
        os.ftruncate(rows.fileno(), size_bytes)
    except OSError:
        rows.close()
        raise
    return rows


@contextmanager
def _tolerating(*numbers: int) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in numbers:
            raise


def publish(folder: Path, name: str, row_bytes: int, entries: Iterable[ManifestEntry]) -> None:
    """Make ``name`` the folder's snapshot, in one step; other rows may still be written to it.

    Nothing is synced to the disk: a row lost in a power cut fails its hash and is fetched again.
    """
    body = encode_manifest(entries)
    header = _Header(_FORMAT, name, row_bytes, hashlib.sha256(body).hexdigest())
    scratch = folder / f"{name}.manifest.tmp"
    scratch.write_bytes(json.dumps(header._asdict()).encode("ascii") + b"\n" + body)
    scratch.replace(folder / _MANIFEST)


def remove_stale(folder: Path, keep: str | None) -> None:
    """Remove the files of killed and earlier writers; a process that has one open can read on."""
    for path in folder.iterdir():
        is_ours = path.name.startswith("rows-") and path.suffix in (".u8", ".tmp")
        if is_ours and path.name != keep:
            with suppress(OSError):
                path.unlink()


@contextmanager
def locked(folder: Path, on_wait: Callable[[], None]) -> Iterator[Path | None]:
    """Hold the folder's lock, creating the folder; yields None when it can't be written.

    Args:
        folder: Of one pack.
        on_wait: Called twice a second while another process holds the lock; may raise.
    """
    lock = FileLock(folder / "lock")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _acquire(lock, folder, on_wait)
    except (OSError, NotImplementedError) as error:  # the latter: a file system without locks
        warn_not_kept(folder, error)
        yield None
        return
    try:
        yield folder
    finally:
        lock.release()


def _acquire(lock: FileLock, folder: Path, on_wait: Callable[[], None]) -> None:
    is_logged = False
    while True:
        try:
            lock.acquire(timeout=0.5)
        except Timeout:
            on_wait()
            if not is_logged:
                log.info("waiting_for_cache", extra={"folder": str(folder)})
            is_logged = True
        else:
            return


def warn_not_kept(folder: Path, error: Exception) -> None:
    """Warn that the next start will fetch everything again, and say what to do about it."""
    reason = getattr(error, "strerror", None) or str(error)
    remedy = "set MRIGAN_CACHE_DIR to a folder with room, or the next start fetches them again"
    log.warning(
        "slices_not_kept", extra={"folder": str(folder), "reason": reason, "remedy": remedy}
    )
