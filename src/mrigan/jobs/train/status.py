"""How a start that did not come to training's end is written into status.json."""

import logging
from dataclasses import replace

from mrigan.artifacts.run_status import RunStatus, State, read_status, write_status
from mrigan.errors import StorageError
from mrigan.storage.store import Store

log = logging.getLogger(__name__)


def record_end(store: Store, state: State, *, reason: str, exit_status: int | None = None) -> None:
    """Write how a start ended, keeping the progress that stands there; never raises for the store.

    The reason for ending is the news, and a store that fails now has often been that reason. A run
    that is complete stays so: what failed then was an attempt to prolong it, not yet begun.
    """
    try:
        before = read_status(store) or RunStatus(state=state)
        if before.state != "completed":
            ended = replace(before, state=state, reason=reason, exit_status=exit_status)
            write_status(store, ended)
    except StorageError as error:
        log.warning("status_not_written", extra={"reason": str(error)})
