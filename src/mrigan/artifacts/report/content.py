"""What the report tells: what the job knows, and what its run holds already."""

import json
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mrigan.artifacts import run_tree
from mrigan.artifacts.history import EpochRow, read_rows
from mrigan.artifacts.run_facts import RunFacts
from mrigan.artifacts.run_status import BestScore, RunStatus, read_status
from mrigan.data.manifest import ManifestEntry
from mrigan.errors import StorageError, UnreadableError
from mrigan.storage.store import Store

log = logging.getLogger(__name__)

_MOST_FRAMES = 10
_REASONS = 5


@dataclass(frozen=True, kw_only=True)
class Refusals:
    """What of the input was not used.

    Attributes:
        objects: That were listed.
        refused: Of these.
        copies: Slices on neither side, since the other side has their pixels.
        reasons: The most frequent ones, with how often.
    """

    objects: int
    refused: int
    copies: int
    reasons: tuple[tuple[str, int], ...]


@dataclass(frozen=True, kw_only=True)
class Stored:
    """What the report takes from the run itself.

    Attributes:
        frames: Sample grids (PNG) of some epochs, in their order.
        evaluation: evaluation/metrics.json, or nothing.
        privacy: evaluation/privacy.json, or nothing.
        closest: PNG of the closest pairs, or nothing.
    """

    frames: tuple[tuple[int, bytes], ...] = ()
    evaluation: Mapping[str, Any] = field(default_factory=dict)
    privacy: Mapping[str, Any] = field(default_factory=dict)
    closest: bytes = b""


@dataclass(frozen=True, kw_only=True)
class Content:
    """All of it.

    Attributes:
        facts: Of run.json.
        status: Of status.json, as it is to be told.
        rows: Of metrics.jsonl, none at least.
        best: The best score, if there is one.
        refusals: Of the input.
        uri: Of the run.
        real_grid: PNG of real slices.
        grid: PNG of samples of the networks as they are.
        losses: PNG of the training history.
        stored: What the run holds already.
    """

    facts: RunFacts
    status: RunStatus
    rows: Sequence[EpochRow]
    best: BestScore | None
    refusals: Refusals
    uri: str
    real_grid: bytes
    grid: bytes
    losses: bytes
    stored: Stored


def refusals_of(manifest: Sequence[ManifestEntry]) -> Refusals:
    """Count what of the input was not used."""
    return _count([(entry.status, entry.reason, entry.side) for entry in manifest])


def _count(entries: Sequence[tuple[str, str, str]]) -> Refusals:
    """Of status, reason and side of each object."""
    reasons = Counter(reason for status, reason, _ in entries if status == "refused")
    return Refusals(
        objects=len(entries),
        refused=reasons.total(),
        copies=sum(side == "copy" for _, _, side in entries),
        reasons=tuple(reasons.most_common(_REASONS)),
    )


def read_content(store: Store, facts: RunFacts) -> Content | None:
    """All of it from the run in ``store``; None where something is not there yet.

    Raises:
        StorageError: The run can't be read.
    """
    status, rows = read_status(store), read_rows(store)
    keys = {info.key for info in store.list("samples")}
    sampled = _sampled(keys)
    needed = (run_tree.REAL_GRID, run_tree.LOSSES_PLOT)
    if status is None or not sampled or any(store.head(key) is None for key in needed):
        return None
    best = status.summary.get("best") or None
    manifest = run_tree.read_rows(store, run_tree.MANIFEST)
    return Content(
        facts=facts,
        status=status,
        rows=rows,
        best=BestScore(**best) if best else None,
        refusals=_count([(row["status"], row["reason"], row.get("side", "")) for row in manifest]),
        uri=store.uri,
        real_grid=store.get(run_tree.REAL_GRID),
        grid=store.get(run_tree.sample_grid(sampled[-1])),
        losses=store.get(run_tree.LOSSES_PLOT),
        stored=read_stored(store, sampled[-1]),
    )


def read_stored(store: Store, epochs: int) -> Stored:
    """Read what the run in ``store`` holds of it.

    A report can do without: what can't be read is left out.

    Args:
        store: Of the run.
        epochs: The last epoch whose samples are shown.
    """
    try:
        keys = {info.key for info in store.list("samples")}
        numbers = [epoch for epoch in _sampled(keys) if epoch <= epochs]
        frames = [(epoch, store.get(run_tree.sample_grid(epoch))) for epoch in _some(numbers)]
        return Stored(
            frames=tuple(frames),
            evaluation=_json(store, run_tree.EVALUATION),
            privacy=_json(store, run_tree.PRIVACY),
            closest=store.get(run_tree.CLOSEST) if store.head(run_tree.CLOSEST) else b"",
        )
    except StorageError as error:
        log.warning("report_incomplete", extra={"reason": str(error)})
        return Stored()


def _sampled(keys: set[str]) -> list[int]:
    names = (key.removeprefix("samples/epoch-").removesuffix(".png") for key in keys)
    return sorted(int(name) for name in names if name.isdecimal())


def _some(numbers: Sequence[int]) -> list[int]:
    """Ten of them at most, evenly, with the first and the last."""
    if len(numbers) <= _MOST_FRAMES:
        return list(numbers)
    last = len(numbers) - 1
    return [numbers[round(at * last / (_MOST_FRAMES - 1))] for at in range(_MOST_FRAMES)]


def _json(store: Store, key: str) -> Mapping[str, Any]:
    try:
        return run_tree.read_json(store, key) or {}
    except (UnreadableError, json.JSONDecodeError):
        return {}
