"""status.json: where a run is, for people and for whatever watches it."""

import logging
import time
from collections.abc import Mapping
from typing import Any

from mrigan.artifacts import run_tree
from mrigan.errors import StorageError
from mrigan.storage.store import Store

log = logging.getLogger(__name__)


def now() -> str:
    """The time as it is written everywhere: UTC, ISO 8601."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def status_facts(
    state: str,
    *,
    started: str,
    epoch: int = 0,
    epochs: int = 0,
    images_seen: int = 0,
    reason: str = "",
    exit_status: int | None = None,
    summary: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The content of status.json.

    Args:
        state: running, interrupted, completed or failed.
        started: When this start began; ISO 8601.
        epoch: Epochs finished.
        epochs: Of the whole run.
        images_seen: Progress.
        reason: For the state, where there is one to give.
        exit_status: Of the process, once it is known.
        summary: How training went so far, by ``watch.summary``.
    """
    return {
        "state": state,
        "reason": reason,
        "exit_status": exit_status,
        "epoch": epoch,
        "epochs": epochs,
        "images_seen": images_seen,
        "summary": dict(summary or {}),
        "started": started,
        "updated": now(),
    }


def record_end(store: Store, state: str, *, reason: str, exit_status: int | None = None) -> None:
    """Write how a start ended, keeping the progress that stands there; never raises for the store.

    The reason for ending is the news, and a store that fails now has often been that reason. A run
    that is complete stays so: what failed then was an attempt to prolong it, not yet begun.
    """
    try:
        before = run_tree.read_json(store, run_tree.STATUS) or {}
        if before.get("state") == "completed":
            return
        kept = {name: before.get(name, 0) for name in ("epoch", "epochs", "images_seen")}
        facts = status_facts(
            state,
            started=before.get("started", now()),
            reason=reason,
            exit_status=exit_status,
            summary=before.get("summary"),
            **kept,
        )
        run_tree.write_json(store, run_tree.STATUS, facts)
    except StorageError as error:
        log.warning("status_not_written", extra={"reason": str(error)})
