"""``mrigan train``: slices in, a trained generator out.

The order matters. Settings and the earlier run are checked before the input is used; the output is
claimed before the first step; everything is published before the status says so. Of several ranks
the first does all this; ``follow`` has what the others do meanwhile.
"""

import logging
from typing import Any

from mrigan.artifacts import run_tree
from mrigan.artifacts.checkpoints import SavedCheckpoint, list_checkpoints
from mrigan.artifacts.publisher import Publisher
from mrigan.data.pack import PullInterrupted
from mrigan.data.sampler import epoch_order
from mrigan.errors import DivergedError, MriganError, StorageError
from mrigan.jobs.model import fresh_state, is_r3, known, with_defaults
from mrigan.jobs.train.display import Display, open_display
from mrigan.jobs.train.follow import COMPLETE, Outcome, follow, open_training
from mrigan.jobs.train.initial import Initial, begin, check_holdout, find_initial
from mrigan.jobs.train.output import open_output
from mrigan.jobs.train.prepare import Prepared, prepare
from mrigan.jobs.train.previous import Previous, find_previous, resume_point
from mrigan.jobs.train.record.recorder import GRID_IMAGES, Recorder
from mrigan.jobs.train.status import record_end
from mrigan.runtime.device import Hardware, choose_hardware, keep_freed_memory
from mrigan.runtime.ranks import Ranks, join
from mrigan.runtime.signals import StopRequest
from mrigan.settings.fields import Settings
from mrigan.settings.ranks import rank_place
from mrigan.storage.store import Store
from mrigan.training.loop import Tick
from mrigan.training.plan import check_shares

log = logging.getLogger(__name__)

# SageMaker and compose give 120 s from SIGTERM to SIGKILL.
_FLUSH_SECONDS_WHEN_STOPPED = 90.0
_FLUSH_SECONDS = 1800.0


def train(settings: Settings, stop: StopRequest) -> Outcome:
    """Run the job to its end, or to the step after a stop request; every rank calls this.

    Raises:
        MriganError: One of its kinds, after status.json has been given the reason.
    """
    settings = with_defaults(settings)
    place = rank_place()
    local_rank = place.local_rank if place else 0
    hardware = choose_hardware(settings.device, settings.precision, local_rank)
    with join(place, hardware.device) as ranks:
        if not is_r3(settings):  # each rank takes whole groups of images
            check_shares(known(settings.accumulation_steps), ranks.world.size)
        if ranks.is_main:
            return _lead(settings, hardware, ranks, stop)
        return follow(settings, hardware, ranks, stop)


def _lead(settings: Settings, hardware: Hardware, ranks: Ranks, stop: StopRequest) -> Outcome:
    """Run the job as rank 0, which alone reads and writes the output."""
    found: list[tuple[Store, Previous | None]] = []
    initial: list[Initial] = []

    def open_run() -> bytes:
        store = open_output(settings)
        found.append((store, find_previous(store, settings)))
        if _is_complete(*found[0], settings):
            return COMPLETE
        if settings.init_from and not list_checkpoints(store):  # now: the pull may take long
            initial.append(find_initial(settings))
        return b""

    if ranks.from_main(open_run) == COMPLETE:
        return Outcome.COMPLETED
    store, previous = found[0]
    try:
        with open_display(settings.log_format) as display:
            prepared = prepare(
                settings,
                hardware,
                store,
                previous,
                ranks=ranks,
                on_progress=display.pulling,
                should_stop=lambda: bool(stop),
                check=lambda pack: check_holdout(initial[0], pack.manifest) if initial else None,
            )
            if facts := initial[0].facts if initial else _initial_before(previous):
                prepared.facts["initial"] = facts
                run_tree.write_json(store, run_tree.SETTINGS, prepared.facts)
            return _run(prepared, initial, ranks, stop, display)
    except PullInterrupted:
        stop.note_elsewhere()
        record_end(store, "interrupted", reason=stop.signal_name)
        log.info("interrupted", extra={"signal": stop.signal_name, "while": "pulling slices"})
        return Outcome.INTERRUPTED
    except Exception as error:
        status = getattr(error, "exit_status", MriganError.exit_status)
        record_end(store, "failed", reason=str(error) or type(error).__name__, exit_status=status)
        raise


def _is_complete(store: Store, previous: Previous | None, settings: Settings) -> bool:
    status = previous.status if previous else {}
    if status.get("state") != "completed" or status.get("epoch", 0) < settings.epochs:
        return False
    log.info("already_complete", extra={"epochs": status["epoch"], "uri": store.uri})
    return True


def _initial_before(previous: Previous | None) -> dict[str, Any] | None:
    return previous.facts.get("initial") if previous else None


def _run(
    prepared: Prepared,
    initial: list[Initial],
    ranks: Ranks,
    stop: StopRequest,
    display: Display,
) -> Outcome:
    settings, plan, hardware = prepared.settings, prepared.plan, prepared.hardware
    keep_freed_memory(hardware.device)
    state = fresh_state(settings, hardware, ranks)
    resumed: list[tuple[SavedCheckpoint | None, list[dict[str, Any]]]] = []

    def find_checkpoint() -> bytes:
        resumed.append(resume_point(prepared.store))
        saved, _ = resumed[0]
        return saved.data if saved else b""

    def find_weights() -> bytes:
        found = initial.pop() if initial else find_initial(settings)
        log.info("initialised", extra=found.facts)
        return found.data

    if begin(state, settings, ranks, find_checkpoint, find_weights):
        log.info("resumed", extra={"images_seen": state.images_seen, "uri": prepared.store.uri})
    ticks = open_training(settings, hardware, prepared.pack, state, ranks)
    publisher = Publisher(should_stop=lambda: bool(stop))
    saved, rows = resumed[0]
    recorder = Recorder(
        prepared, publisher, state, rows=rows, saved_images=saved.images_seen if saved else None
    )
    shown = epoch_order(plan.slices, settings.seed, 0)[:GRID_IMAGES].sort().values
    recorder.start(prepared.pack.images[prepared.pack.training[shown.numpy()]])
    display.training(plan, state.images_seen)
    try:
        for tick in ticks:
            failed = _record(recorder, display, tick)
            if ranks.check(failed, stop=bool(stop)):
                stop.note_elsewhere()
                break
        recorder.save_checkpoint()
        return _finish(recorder, publisher, prepared, stop)
    except Exception as error:
        if isinstance(error, DivergedError):
            log.warning("diverged", extra={"nonfinite": 1, "images_seen": state.images_seen})
        if not isinstance(error, StorageError):
            _save_what_waits(recorder, publisher)
        raise
    finally:
        publisher.close()


def _record(recorder: Recorder, display: Display, tick: Tick) -> Exception | None:
    """Save and show what is due; what goes wrong is handed back, for all ranks to hear of it."""
    try:
        row = recorder.record(tick)
        display.tick(tick)
        if row:
            display.epoch(row)
    except Exception as error:  # noqa: BLE001 - raised by the caller
        return error
    return None


def _finish(
    recorder: Recorder, publisher: Publisher, prepared: Prepared, stop: StopRequest
) -> Outcome:
    uri = prepared.store.uri
    if recorder.is_done:
        publisher.flush(_FLUSH_SECONDS_WHEN_STOPPED if stop else _FLUSH_SECONDS)
        recorder.write_status("completed", exit_status=0)
        log.info("completed", extra={"epochs": prepared.plan.epochs, "uri": uri})
        for name, key in (
            ("samples", run_tree.sample_grid(prepared.plan.epochs)),
            ("reals", run_tree.REAL_GRID),
            ("losses", run_tree.LOSSES_PLOT),
            ("generator", run_tree.GENERATOR),
            ("report", run_tree.REPORT),
        ):
            log.info("see", extra={name: f"{uri}/{key}"})
        return Outcome.COMPLETED
    publisher.flush(_FLUSH_SECONDS_WHEN_STOPPED)
    recorder.write_status("interrupted", reason=stop.signal_name)
    log.info(
        "interrupted",
        extra={
            "signal": stop.signal_name,
            "images_seen": recorder.images_seen,
            "uri": uri,
            "resume": "run the same command again",
        },
    )
    return Outcome.INTERRUPTED


def _save_what_waits(recorder: Recorder, publisher: Publisher) -> None:
    """Let the last rows and a whole checkpoint that still waits reach the store before failing."""
    try:
        recorder.publish_rows()
        publisher.flush(_FLUSH_SECONDS_WHEN_STOPPED)
    except StorageError as error:
        log.warning("not_published", extra={"reason": str(error)})
