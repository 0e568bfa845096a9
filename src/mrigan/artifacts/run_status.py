"""status.json: where a run is, for people and for whatever watches it."""

import logging
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import Field, TypeAdapter

from mrigan.artifacts import run_tree
from mrigan.errors import StorageError
from mrigan.redaction import shown
from mrigan.storage.store import Store

log = logging.getLogger(__name__)

Count = Annotated[int, Field(ge=0, lt=2**63)]
State = Literal["running", "interrupted", "completed", "failed"]


class AlarmSpan(NamedTuple):
    """An alarm from its first epoch to its last."""

    alarm: str
    first_epoch: int
    last_epoch: int


class BestScore(NamedTuple):
    """The smallest distance so far, and when it was reached."""

    epoch: int
    images_seen: int
    swd: float  # not negative


def now() -> str:
    """The time as it is written everywhere: UTC, ISO 8601."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


@dataclass(frozen=True, kw_only=True)
class RunStatus:
    """The content of status.json.

    Attributes:
        state: What the run does, or how its last start ended.
        reason: For the state, where there is one to give.
        exit_status: Of the process, once it is known.
        epoch: Epochs finished.
        epochs: Of the whole run.
        images_seen: Progress.
        summary: The last score, the best, the alarms and the time that scores took.
        memory: What takes it, MiB, from the first step of the last start on.
        started: When the last start began; ISO 8601.
        updated: When this was written; ISO 8601.
    """

    state: str = ""
    reason: str = ""
    exit_status: int | None = None
    epoch: Count = 0
    epochs: Count = 0
    images_seen: Count = 0
    summary: Mapping[str, Any] = field(default_factory=dict)  # JSON that is only passed on
    memory: Mapping[str, Any] = field(default_factory=dict)
    started: str = field(default_factory=now)
    updated: str = ""


_ADAPTER = TypeAdapter(RunStatus)


def read_status(store: Store) -> RunStatus | None:
    """The status of the run in ``store``; None where there is none that can be read."""
    return run_tree.read_derived(store, run_tree.STATUS, _ADAPTER)


def write_status(store: Store, status: RunStatus) -> None:
    """Write ``status``, as of now."""
    told = {**asdict(status), "reason": shown(status.reason), "updated": now()}
    run_tree.write_json(store, run_tree.STATUS, told)


def record_end(
    store: Store, state: State, *, reason: str, exit_status: int | None = None
) -> RunStatus | None:
    """Write how a start ended, keeping the progress that stands there; never raises for the store.

    The reason for ending is the news, and a store that fails now has often been that reason. A run
    that is complete stays so: what failed then was an attempt to prolong it, not yet begun.

    Returns:
        What was written; None if nothing was.
    """
    try:
        before = read_status(store) or RunStatus(state=state)
        if before.state != "completed":
            ended = replace(before, state=state, reason=reason, exit_status=exit_status)
            write_status(store, ended)
            return ended
    except StorageError as error:
        log.warning("status_not_written", extra={"reason": str(error)})
    return None
