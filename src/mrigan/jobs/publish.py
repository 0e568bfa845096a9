"""``mrigan publish``: what a job could not publish, from the local folder that kept it."""

import logging
from pathlib import Path

from mrigan.artifacts.lease import take
from mrigan.artifacts.unpublished import publish_kept, read_record, remove_kept
from mrigan.runtime.signals import StopRequest
from mrigan.storage.store import StoreOptions, open_store

log = logging.getLogger(__name__)


def publish(
    folder: Path, to: str | None, options: StoreOptions, *, take_over: bool, stop: StopRequest
) -> None:
    """Publish what ``folder`` keeps, then remove the folder.

    Args:
        folder: As the job named it.
        to: The run's URI, where it is not the one that it had.
        options: Of the run's store.
        take_over: Take the run over from a job that still writes it.
        stop: Of this process.

    Raises:
        LeaseError: A job writes the run.
        StorageError: The folder keeps nothing, the run has gone on meanwhile, or a store failed.
    """
    kept = open_store(str(folder))
    record = read_record(kept)
    run = open_store(to or record.uri, options)
    lease = take(run, take_over=take_over, should_stop=lambda: bool(stop))
    try:
        objects = publish_kept(kept, run, record)
    finally:
        lease.release()
    remove_kept(folder)
    log.info("published", extra={"objects": objects, "uri": run.uri})
    log.info("removed", extra={"folder": str(folder), "reason": "all of it is in the run now"})
