"""``mrigan train``: slices in, a trained generator out.

The order matters. Settings and the earlier run are checked before a GPU or the input is used; the
output is claimed before the first step; everything is published before the status says so.
"""

import logging
from enum import Enum

from mrigan.artifacts import run_tree
from mrigan.artifacts.publisher import Publisher
from mrigan.data.bank import open_bank
from mrigan.data.pack import PullInterrupted
from mrigan.data.sampler import epoch_order
from mrigan.errors import DivergedError, MriganError, StorageError
from mrigan.jobs.display import Display, open_display
from mrigan.jobs.output import open_output
from mrigan.jobs.prepare import Prepared, fresh_state, prepare, with_defaults
from mrigan.jobs.previous import Previous, find_previous, resume_point
from mrigan.jobs.recorder import GRID_IMAGES, Recorder
from mrigan.jobs.status import record_end
from mrigan.runtime.device import choose_hardware, free_bytes, keep_freed_memory
from mrigan.runtime.signals import StopRequest
from mrigan.settings.fields import Settings
from mrigan.training.checkpoint import decode, restore
from mrigan.training.loop import train as training_loop

log = logging.getLogger(__name__)

# SageMaker and compose give 120 s from SIGTERM to SIGKILL.
_FLUSH_SECONDS_WHEN_STOPPED = 90.0
_FLUSH_SECONDS = 1800.0


class Outcome(Enum):
    """How a training job that did not fail ended."""

    COMPLETED = "completed"
    INTERRUPTED = "interrupted"


def train(settings: Settings, stop: StopRequest) -> Outcome:
    """Run the job to its end, or to the step after a stop request.

    Raises:
        MriganError: One of its kinds, after status.json has been given the reason.
    """
    settings = with_defaults(settings)
    hardware = choose_hardware(settings.device, settings.precision)
    store = open_output(settings)
    previous = find_previous(store, settings)
    if previous and _is_complete(previous, settings):
        log.info("already_complete", extra={"epochs": previous.status["epoch"], "uri": store.uri})
        return Outcome.COMPLETED
    try:
        with open_display(settings.log_format) as display:
            prepared = prepare(
                settings,
                hardware,
                store,
                previous,
                on_progress=display.pulling,
                should_stop=lambda: bool(stop),
            )
            return _run(prepared, stop, display)
    except PullInterrupted:
        record_end(store, "interrupted", reason=stop.signal_name)
        log.info("interrupted", extra={"signal": stop.signal_name, "while": "pulling slices"})
        return Outcome.INTERRUPTED
    except Exception as error:
        status = getattr(error, "exit_status", MriganError.exit_status)
        record_end(store, "failed", reason=str(error) or type(error).__name__, exit_status=status)
        raise


def _is_complete(previous: Previous, settings: Settings) -> bool:
    status = previous.status
    return status.get("state") == "completed" and status.get("epoch", 0) >= settings.epochs


def _run(prepared: Prepared, stop: StopRequest, display: Display) -> Outcome:
    settings, plan, hardware = prepared.settings, prepared.plan, prepared.hardware
    keep_freed_memory(hardware.device)
    state = fresh_state(settings, hardware)
    saved, rows = resume_point(prepared.store)
    if saved:
        restore(state, decode(saved.data))
        log.info("resumed", extra={"images_seen": state.images_seen, "uri": prepared.store.uri})
    bank = open_bank(prepared.pack.images, hardware.device, free_bytes=free_bytes(hardware.device))
    publisher = Publisher(should_stop=lambda: bool(stop))
    recorder = Recorder(
        prepared, publisher, state, rows=rows, saved_images=saved.images_seen if saved else None
    )
    shown = epoch_order(plan.slices, settings.seed, 0)[:GRID_IMAGES].sort().values
    recorder.start(prepared.pack.images[shown.numpy()])
    display.training(plan, state.images_seen)
    ticks = training_loop(
        state,
        bank.take,
        plan,
        latent_dim=settings.latent_dim,
        seed=settings.seed,
        autocast=hardware.autocast(),
    )
    micro_batch = state.micro_batch
    try:
        for tick in ticks:
            if tick.micro_batch < micro_batch:
                micro_batch = tick.micro_batch
                _warn_of_halving(micro_batch)
            row = recorder.record(tick)
            display.tick(tick)
            if row:
                display.epoch(row)
            if stop:
                break
        recorder.save_checkpoint()
        return _finish(recorder, publisher, prepared, stop)
    except Exception as error:
        if isinstance(error, DivergedError):
            log.warning("diverged", extra={"nonfinite": 1, "images_seen": state.images_seen})
        if not isinstance(error, StorageError):
            _save_what_waits(publisher)
        raise
    finally:
        publisher.close()


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


def _save_what_waits(publisher: Publisher) -> None:
    """Let a whole checkpoint that still waits reach the store before the job fails."""
    try:
        publisher.flush(_FLUSH_SECONDS_WHEN_STOPPED)
    except StorageError as error:
        log.warning("not_published", extra={"reason": str(error)})


def _warn_of_halving(micro_batch: int) -> None:
    log.warning(
        "out_of_memory",
        extra={
            "micro_batch": micro_batch,
            "consequence": "the step was repeated in smaller parts; images per step stay, "
            "BatchNorm's statistics are now of the smaller part",
        },
    )
