"""All slices of a source as one array of bytes, decoded once and kept between starts.

A second start lists the source and reads only what has changed. Rows are in the order of the keys,
so the same objects give the same slices in the same order, whatever was fetched when.
"""

import hashlib
import itertools
import logging
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mrigan.data.exchange import agreed_listing
from mrigan.data.formats import Fit
from mrigan.data.manifest import ManifestEntry
from mrigan.data.pull import PullInterrupted
from mrigan.data.refresh import Request, refresh
from mrigan.data.source import Source, is_folder_marker
from mrigan.errors import DataError
from mrigan.runtime.ranks import ALONE, Ranks
from mrigan.storage.keys import ObjectInfo

__all__ = ["Pack", "PullInterrupted", "RefusedError", "open_pack"]

log = logging.getLogger(__name__)

_REASONS_SHOWN = 3


class RefusedError(DataError):
    """Too many objects are not slices; ``manifest`` says what became of each."""

    def __init__(self, message: str, manifest: tuple[ManifestEntry, ...]) -> None:
        super().__init__(message)
        self.manifest = manifest


@dataclass(frozen=True)
class Pack:
    """Slices ready to train on.

    Attributes:
        images: (R, 1, H, W) uint8, mapped from a file; only ``rows`` of it hold slices. The map is
            private: ``torch.from_numpy`` takes it as it is, and a stray write reaches neither the
            cache nor another process.
        rows: Rows (N,) of the N slices, in the order of their keys, ascending.
        manifest: Every object listed, by key. An entry's ``row`` counts the slices: its pixels are
            at ``images[rows[row]]``.
        fingerprint: Of keys, pixels, H, W and fit: the same exactly where training would be.
        fetched: Objects read this time, refused ones included.
        reused: Objects known from an earlier start.
        removed: Objects of the earlier start that are gone.
        training: Rows (n,) that are trained on, ascending: all, until ``holdout.split_holdout``.
        holdout: Rows (m,) that never are, ascending.
    """

    images: NDArray[np.uint8]
    rows: NDArray[np.int64]
    manifest: tuple[ManifestEntry, ...]
    fingerprint: str
    fetched: int
    reused: int
    removed: int
    training: NDArray[np.int64]
    holdout: NDArray[np.int64]

    @property
    def size_bytes(self) -> int:
        """Bytes of the N slices."""
        return self.images[:1].nbytes * len(self.rows)


def open_pack(
    source: Source,
    *,
    height: int,
    width: int,
    fit: Fit = "stretch",
    cache_dir: Path,
    concurrency: int = 64,
    max_refused_percent: float = 5.0,
    on_progress: Callable[[int, int], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
    ranks: Ranks = ALONE,
) -> Pack:
    """List the source, read what is new, and return all of it as one array.

    Each machine of a run reads a part; afterwards the cache of each holds all slices.

    Args:
        source: Of slices.
        height: Rows of each image, px.
        width: Columns of each image, px.
        fit: How a slice of another shape is brought to height x width.
        cache_dir: Holds a folder per source and shape; may be shared by processes. Where it can't
            be written the pack lives in a temporary file and a warning is logged.
        concurrency: Reads under way at once.
        max_refused_percent: Of the objects listed, folder markers aside.
        on_progress: Called with (objects read, objects to read) from this thread while reading.
        should_stop: Asked a few times a second, from this thread, while reading.
        ranks: Of the run; all of them call this.

    Raises:
        DataError: Nothing is listed, or there is no room for the pack.
        RefusedError: No object is a slice, or more than ``max_refused_percent`` are not.
        StorageError: The source can't be listed, or an object can't be read.
        PullInterrupted: ``should_stop`` said so; what was decoded is kept.
    """
    should_stop = should_stop or (lambda: False)
    infos = agreed_listing(ranks, lambda: _listed(source), should_stop)
    if all(is_folder_marker(info.key, info.size_bytes) for info in infos):
        raise DataError(f"nothing under {source.uri}; check MRIGAN_INPUT_URI")
    shape = (height, width, fit)
    request = Request(
        source=source,
        infos=infos,
        shape=shape,
        concurrency=concurrency,
        on_progress=on_progress,
        should_stop=should_stop,
        ranks=ranks,
    )
    with ExitStack() as files:
        done = refresh(request, cache_dir, files)
        entries = [done.snapshot.entries[info.key] for info in infos]
        rows = np.array([entry.row for entry in entries if entry.row is not None])
        manifest = _numbered(entries)
        _check_refusals(manifest, source.uri, max_refused_percent)
        used = [entry for entry in manifest if entry.row is not None]
        mapped = np.memmap(
            done.snapshot.rows, np.uint8, "c", shape=(int(rows[-1]) + 1, 1, height, width)
        )
    _check_variety(used, source.uri)
    fingerprint = _fingerprint(used, shape)
    _check_agreement(ranks, fingerprint)
    return Pack(
        images=mapped.view(np.ndarray),
        rows=rows,
        manifest=manifest,
        fingerprint=fingerprint,
        fetched=done.fetched,
        reused=len(infos) - done.fetched,
        removed=done.removed,
        training=rows,
        holdout=rows[:0],
    )


def _listed(source: Source) -> list[ObjectInfo]:
    """What the source holds, by key; where the store has no ETag the time of writing stands in."""
    infos = sorted(source.list(), key=lambda info: info.key)
    return [info if info.etag else replace(info, etag=info.modified.isoformat()) for info in infos]


def _numbered(entries: Sequence[ManifestEntry]) -> tuple[ManifestEntry, ...]:
    """Number the slices from 0, so that a manifest does not depend on a cache's earlier starts."""
    number = itertools.count()
    return tuple(
        entry if entry.row is None else replace(entry, row=next(number)) for entry in entries
    )


def _check_refusals(manifest: tuple[ManifestEntry, ...], uri: str, max_percent: float) -> None:
    objects = [entry for entry in manifest if not is_folder_marker(entry.key, entry.size_bytes)]
    refused = [entry for entry in objects if entry.row is None]
    percent = 100.0 * len(refused) / len(objects)
    if len(refused) == len(objects):
        message = f"none of the {len(objects)} objects under {uri} is a slice"
        remedy = "check MRIGAN_INPUT_URI"
    elif percent > max_percent:
        message = (
            f"{len(refused)} of {len(objects)} objects under {uri} are no slices "
            f"({percent:.1f} %, {max_percent:g} % is allowed)"
        )
        remedy = "remove them, leave them out with MRIGAN_EXCLUDE, or raise MRIGAN_MAX_REFUSED"
    else:
        return
    raise RefusedError(
        f"{message}: {_reasons(refused)}; {remedy} (the output's data/manifest.jsonl has all)",
        manifest,
    )


def _reasons(refused: Sequence[ManifestEntry]) -> str:
    """The first few distinct reasons, each with its first key and how many more there are."""
    first: dict[str, str] = {}
    for entry in refused:
        first.setdefault(entry.reason, entry.key)
    counts = Counter(entry.reason for entry in refused)
    shown = [
        f"{key!r} {reason}"
        if counts[reason] == 1
        else f"{key!r} and {counts[reason] - 1} more {reason}"
        for reason, key in list(first.items())[:_REASONS_SHOWN]
    ]
    if len(first) > _REASONS_SHOWN:
        shown.append(f"{len(first) - _REASONS_SHOWN} other reasons")
    return ", ".join(shown)


def _check_variety(used: Sequence[ManifestEntry], uri: str) -> None:
    """Warn of copies, and refuse slices that are all alike: there is nothing to learn of them."""
    distinct = len({entry.sha256 for entry in used})
    extra = len(used) - distinct
    if extra and distinct == 1:
        raise DataError(
            f"all {len(used):,} slices under {uri} have the same pixels, as {used[0].key!r} and "
            f"{used[-1].key!r}; check what wrote them"
        )
    if extra:
        effect = "they count twice in training"
        log.warning("same_slices", extra={"copies": extra, "of": len(used), "effect": effect})


def _check_agreement(ranks: Ranks, fingerprint: str) -> None:
    """Refuse to train where two machines decode the same objects to other pixels."""
    if len({int(number) for (number,) in ranks.world.gather([int(fingerprint[:15], 16)])}) > 1:
        raise DataError(
            "the machines of this run have read different slices; give each the same input and "
            "the same version of mrigan, and run the same command again"
        )


def _fingerprint(used: Sequence[ManifestEntry], shape: tuple[int, int, Fit]) -> str:
    digest = hashlib.sha256(repr(shape).encode())
    for entry in used:
        digest.update(f"\n{entry.sha256} {entry.key}".encode("utf-8", "surrogatepass"))
    return digest.hexdigest()
