"""Puts a fresh state where its run is: its newest checkpoint, or the weights of INIT_FROM."""

import logging
from dataclasses import asdict, dataclass

from mrigan.artifacts.checkpoints import delete_after, list_incomplete, read_newest, set_aside
from mrigan.artifacts.history import EpochRow, read_history
from mrigan.errors import CheckpointError, StorageError
from mrigan.jobs.train.initial import Initial, read_initial
from mrigan.jobs.train.prepare import FoundRun, Run
from mrigan.runtime.ranks import OnMain
from mrigan.settings.fields import Settings
from mrigan.training.checkpoint import Snapshot, adopt, check_fits, decode, restore
from mrigan.training.state import TrainingState

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class ResumePoint:
    """What rank 0 knows of where training starts.

    Attributes:
        images_seen: Of the checkpoint; None where there is none.
        rows: The epochs up to it.
    """

    images_seen: int | None
    rows: list[EpochRow]


def adopt_initial(
    state: TrainingState, found: OnMain[FoundRun], settings: Settings
) -> OnMain[Initial | None]:
    """Give ``state`` the weights of the run at INIT_FROM, if its own run is new and asks for them.

    Before the slices are pulled: that may take long, and the other run may move on.
    """
    asks = found.ask(FoundRun.takes_initial_weights)
    return _adopt(state, found, settings) if asks else found.then(lambda _: None)


def resume(
    state: TrainingState, run: OnMain[Run], initial: OnMain[Initial | None], settings: Settings
) -> OnMain[ResumePoint]:
    """Put ``state`` where the newest whole checkpoint of its run is; every rank calls this.

    Rows beyond it are removed: they are about to be made again. Newer checkpoints that can't be
    read are set aside.

    Raises:
        StorageError: The run has checkpoints, but none of them can be read, and START_OVER is off.
    """
    snapshot, images_seen = run.ask(lambda run: _newest_snapshot(run, state))
    if snapshot is not None:
        micro_batch = state.micro_batch
        restore(state, snapshot)
        if settings.micro_batch != "auto":  # else what was found to fit
            state.micro_batch = micro_batch
        uri = run.ask(lambda run: run.store.uri)
        log.info("resumed", extra={"images_seen": state.images_seen, "uri": uri})
    elif settings.init_from and initial.ask(lambda found: found is None):
        # The run has checkpoints, but none of them is whole.
        _adopt(state, run, settings)
    return run.then(lambda run: _resume_point(run, images_seen))


def _newest_snapshot(run: Run, state: TrainingState) -> tuple[Snapshot | None, int | None]:
    def fitting(data: bytes) -> Snapshot:
        snapshot = decode(data)
        check_fits(snapshot, state)
        if snapshot["images_seen"] < 0:  # beyond the end it may be: EPOCHS may have been lowered
            raise CheckpointError("counts no images")
        return snapshot

    found = read_newest(run.store, fitting)
    if found.saved is None and found.broken and not run.settings.start_over:
        raise StorageError(
            f"no checkpoint of this run can be read, and nothing was changed: "
            f"{'; '.join(found.broken.values())}; put whole ones back, or set "
            "MRIGAN_START_OVER=true to set them aside and train from the beginning"
        )
    lone = [] if found.saved else list_incomplete(run.store)
    for images_seen in {*found.broken, *lone}:
        set_aside(run.store, images_seen)
    return (found.saved.content, found.saved.images_seen) if found.saved else (None, None)


def _resume_point(run: Run, images_seen: int | None) -> ResumePoint:
    delete_after(run.store, images_seen or 0)
    rows = [row for row in read_history(run.store) if row.images_seen <= (images_seen or 0)]
    return ResumePoint(images_seen=images_seen, rows=rows)


def _adopt(
    state: TrainingState, run: OnMain[FoundRun] | OnMain[Run], settings: Settings
) -> OnMain[Initial | None]:
    read = run.then(lambda _: read_initial(settings, state))
    adopt(state, read.ask(lambda pair: pair[1]))
    found: OnMain[Initial | None] = read.then(lambda pair: pair[0])
    if found.value:
        log.info("initialised", extra=asdict(found.value.facts))
    return found
