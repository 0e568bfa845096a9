"""``mrigan fetch``: downloads a run's artifacts, each verified before it gets its name.

Running it again downloads what is new or was interrupted. A whole file is only ever replaced by a
whole one, and nothing is deleted.
"""

import logging
import shutil
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from rich.filesize import decimal
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from mrigan.errors import StorageError
from mrigan.jobs.fetch.folder import bring_run_facts
from mrigan.jobs.fetch.item import Outcome, fetch_item
from mrigan.jobs.fetch.selection import Item, Selection, parse_parts, select_artifacts
from mrigan.runtime.beside import do_beside
from mrigan.runtime.signals import Stopped
from mrigan.storage.store import Store, StoreOptions, open_store

__all__ = ["FetchSummary", "fetch", "parse_parts"]

log = logging.getLogger(__name__)

_AT_ONCE = 8
_SHOWN = 5
_TICK_SECONDS = 0.2
_LAST_READS_SECONDS = 2.0


class _Stopped(Exception):  # noqa: N818  # no error: a user asked for it
    """A download was asked to end; its ``.part`` is continued next time."""


@dataclass(frozen=True, kw_only=True)
class FetchSummary:
    """What a fetch has done.

    Attributes:
        fetched_files: Downloaded or completed by this call.
        fetched_bytes: In those files.
        kept_files: That were here before, and whole.
        skipped: Keys that are incomplete in the run, or were removed from it meanwhile.
        interrupted: Whether it was asked to stop before the end.
        seconds: How long it took.
    """

    fetched_files: int
    fetched_bytes: int
    kept_files: int
    skipped: tuple[str, ...]
    interrupted: bool
    seconds: float


def fetch(
    uri: str,
    folder: Path,
    only: frozenset[str] = frozenset(),
    options: StoreOptions | None = None,
    *,
    should_stop: Callable[[], bool] = lambda: False,
) -> FetchSummary:
    """Download the run at ``uri`` to ``folder``.

    Args:
        uri: A run's OUTPUT_URI.
        folder: Made if it isn't there.
        only: Among ``selection.PARTS``; empty for everything. The small files at the run's root
            are always included.
        options: For the store.
        should_stop: Asked five times a second; the next call continues unfinished downloads.

    Raises:
        StorageError: No run there, another one here, no space, or files that could not be read,
            verified or written.
    """
    started = time.monotonic()
    store = open_store(uri, options)
    folder = folder.expanduser().absolute()
    if not store.is_s3 and folder.resolve() == Path(store.uri).resolve():
        raise StorageError(f"{folder}: the run is in this very folder; choose another")
    try:
        begin = partial(_begin, store, folder, only)
        selection, new_bytes = do_beside(begin, should_stop, "looking at the run")
    except Stopped:
        return _stopped_early(store, folder, started)
    with _progress(selection.size_bytes) as advance:
        outcomes, failures, interrupted = _fetch_all(store, selection, folder, advance, should_stop)
    if failures:
        raise _failed(failures, folder)
    files: Counter[Outcome] = Counter()
    for item, outcome in outcomes.items():
        files[outcome] += item.files
    fetched = [item.info.size_bytes for item, outcome in outcomes.items() if outcome == "fetched"]
    gone = tuple(item.info.key for item, outcome in outcomes.items() if outcome == "gone")
    summary = FetchSummary(
        fetched_files=files["fetched"] + bool(new_bytes),
        fetched_bytes=sum(fetched) + new_bytes,
        kept_files=files["kept"] - bool(new_bytes),
        skipped=selection.skipped + gone,
        interrupted=interrupted,
        seconds=time.monotonic() - started,
    )
    _report(summary, store, folder)
    return summary


def _begin(store: Store, folder: Path, only: frozenset[str]) -> tuple[Selection, int]:
    """Find out what to download, and bring what says which run it is; the second is its size."""
    selection = select_artifacts(store, only)
    _check_space(selection, folder)
    return selection, bring_run_facts(store, folder)


def _stopped_early(store: Store, folder: Path, started: float) -> FetchSummary:
    seconds = time.monotonic() - started
    summary = FetchSummary(
        fetched_files=0,
        fetched_bytes=0,
        kept_files=0,
        skipped=(),
        interrupted=True,
        seconds=seconds,
    )
    _report(summary, store, folder)
    return summary


def _fetch_all(
    store: Store,
    selection: Selection,
    folder: Path,
    advance: Callable[[int], None],
    should_stop: Callable[[], bool],
) -> tuple[dict[Item, Outcome], dict[str, StorageError], bool]:
    """Return what became of each item, the errors by key, and whether it was asked to stop."""
    stopping = threading.Event()

    def count(received: int) -> None:
        if stopping.is_set() and received > 0:
            raise _Stopped
        advance(received)

    outcomes: dict[Item, Outcome] = {}
    failures: dict[str, StorageError] = {}
    pool = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="fetch")
    todo = {pool.submit(fetch_item, store, item, folder, count): item for item in selection.items}
    try:
        pending: set[Future[Outcome]] = set(todo)
        while pending and not should_stop():
            done, pending = wait(pending, _TICK_SECONDS, FIRST_COMPLETED)
            for future in done:
                item = todo[future]
                try:
                    outcomes[item] = future.result()
                except StorageError as error:
                    failures[item.info.key] = error
        return outcomes, failures, bool(pending)
    finally:
        stopping.set()
        pool.shutdown(wait=False, cancel_futures=True)
        # Time for running downloads to end well; a silent server would take minutes.
        wait([future for future in todo if future.running()], _LAST_READS_SECONDS)


def _check_space(selection: Selection, folder: Path) -> None:
    there = next(parent for parent in (folder, *folder.parents) if parent.exists())
    here = sum(_size(folder / item.info.key) for item in selection.items)
    needed, free = selection.size_bytes - here, shutil.disk_usage(there).free
    if needed > free:
        raise StorageError(
            f"{folder}: {decimal(needed)} are needed and {decimal(free)} are free; free some, or "
            "fetch less with --only"
        )


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


@contextmanager
def _progress(total_bytes: int) -> Iterator[Callable[[int], None]]:
    """Show a bar on a terminal; call what is yielded with the number of further bytes."""
    columns = (
        TextColumn("fetching"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, transient=True, disable=not sys.stdout.isatty()) as progress:
        task = progress.add_task("", total=total_bytes)
        yield lambda received: progress.advance(task, received)


def _failed(failures: dict[str, StorageError], folder: Path) -> StorageError:
    first = "; ".join(str(error) for error in list(failures.values())[:_SHOWN])
    more = f"; and {len(failures) - _SHOWN} more" if len(failures) > _SHOWN else ""
    return StorageError(
        f"{len(failures)} files were not fetched to {folder}: {first}{more}; whole files were "
        "kept; run the command again for the rest"
    )


def _report(summary: FetchSummary, store: Store, folder: Path) -> None:
    facts = {
        "uri": store.uri,
        "folder": str(folder),
        "files": summary.fetched_files,
        "size": decimal(summary.fetched_bytes),
        "already_here": summary.kept_files,
        "skipped": len(summary.skipped),
        "seconds": round(summary.seconds, 1),
    }
    log.info("fetch_interrupted" if summary.interrupted else "fetched", extra=facts)
