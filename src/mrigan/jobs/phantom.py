"""``mrigan phantom``: writes slices to a URI, procedural ones or those of a folder."""

import io
import logging
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from PIL import Image

from mrigan.data.phantom import SMALLEST_SIDE_PX, draw
from mrigan.errors import SettingsError
from mrigan.storage.store import Store, StoreOptions, open_store

log = logging.getLogger(__name__)

_UPLOADS_IN_FLIGHT = 16


def write_slices(
    uri: str,
    *,
    count: int,
    height: int,
    width: int,
    if_empty: bool,
    folder: Path | None,
    options: StoreOptions,
) -> int:
    """Write ``count`` phantoms (PNG), or the files below ``folder`` if one is given, to ``uri``.

    Returns:
        How many objects were written; 0 if ``if_empty`` and something is there.

    Raises:
        SettingsError: For a count or size that can't be drawn, or a folder without files.
        StorageError: From the store.
    """
    problems = []
    if count < 1:
        problems.append("--count: must be at least 1")
    if min(height, width) < SMALLEST_SIDE_PX:
        problems.append(f"--height and --width: must be at least {SMALLEST_SIDE_PX} pixels")
    if folder and not folder.is_dir():
        problems.append(f"--from: {folder} is not a folder")
    files = sorted(path for path in folder.rglob("*") if path.is_file()) if folder else []
    if folder and folder.is_dir() and not files:
        # Docker makes an empty folder of a mistyped one; nobody would notice phantoms instead.
        problems.append(
            f"--from: {folder} holds no files; name a folder of slices, with compose by SLICES, or "
            "leave it out"
        )
    if problems:
        raise SettingsError(*problems)
    store = open_store(uri, options)
    if if_empty and _has_objects(store):
        log.info(
            "slices_not_written", extra={"uri": store.uri, "reason": "it holds objects already"}
        )
        return 0
    if folder:
        jobs = list(_uploads(store, folder, files))
    else:
        jobs = list(_drawings(store, count, height, width))
    pool = ThreadPoolExecutor(_UPLOADS_IN_FLIGHT)
    try:
        for done in [pool.submit(job) for job in jobs]:
            done.result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)  # the first failure ends it
    log.info("slices_written", extra={"objects": len(jobs), "uri": store.uri})
    return len(jobs)


def _has_objects(store: Store) -> bool:
    if not store.is_s3 and not Path(store.uri).exists():
        return False
    return bool(store.list())


def _uploads(store: Store, folder: Path, files: list[Path]) -> Iterator[Callable[[], None]]:
    for path in files:
        yield partial(store.put, path.relative_to(folder).as_posix(), path)


def _drawings(store: Store, count: int, height: int, width: int) -> Iterator[Callable[[], None]]:
    def write(index: int) -> None:
        buffer = io.BytesIO()
        Image.fromarray(draw(index, height, width)).save(buffer, "PNG")
        store.put(f"phantom-{index:06d}.png", buffer.getvalue())

    for index in range(count):
        yield partial(write, index)
