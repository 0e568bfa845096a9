"""``mrigan train``: slices in, a trained generator out, in the order in which it happens.

Every rank runs these lines. Rank 0 alone has the run at OUTPUT_URI, a recorder and a display; what
it finds out there, or fails with, all ranks hear of in the same call.
"""

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from enum import Enum
from functools import partial

from mrigan.artifacts.report.page import tell_state
from mrigan.artifacts.run_facts import machine_facts
from mrigan.artifacts.run_status import State, record_end
from mrigan.data.bank import open_bank
from mrigan.data.pack import Pack, RefusedError
from mrigan.environment import process_rank
from mrigan.errors import LeaseError, MriganError, StorageError
from mrigan.jobs.build import check_ranks, fresh_state, plan_of, recipe_of
from mrigan.jobs.train.display import Display, open_display
from mrigan.jobs.train.initial import Initial
from mrigan.jobs.train.prepare import (
    FoundRun,
    claim,
    find_run,
    hold,
    keep_refusals,
    pull_slices,
)
from mrigan.jobs.train.recorder import recording
from mrigan.jobs.train.resume import adopt_initial, resume
from mrigan.jobs.train.trackers.choice import check_trackers
from mrigan.models.family import Recipe
from mrigan.runtime.device import (
    Hardware,
    allocator_in_force,
    choose_hardware,
    free_bytes,
    keep_freed_memory,
)
from mrigan.runtime.ranks import OnMain, Ranks, join
from mrigan.runtime.signals import Stopped, StopRequest
from mrigan.settings.fields import Settings
from mrigan.storage.store import Store
from mrigan.training.loop import Tick
from mrigan.training.loop import train as training_loop
from mrigan.training.plan import Plan
from mrigan.training.state import TrainingState

log = logging.getLogger(__name__)

# What the first step takes longer for, by whether networks are compiled.
_WAIT = {
    False: "cuDNN chooses its algorithms",
    True: "the networks are compiled, cuDNN chooses its algorithms",
}


# A store that is away must not keep a job that has ended.
_LAST_WORDS_SECONDS = 5.0
_PATIENCE_SECONDS = 20.0


class Outcome(Enum):
    """How a training job that did not fail ended."""

    COMPLETED = "completed"
    INTERRUPTED = "interrupted"


def train(settings: Settings, stop: StopRequest) -> Outcome:
    """Run the job to its end, or to the step after a stop request.

    Raises:
        MriganError: One of its kinds, after status.json has been given the reason.
    """
    rank = process_rank()
    hardware = choose_hardware(settings.device, settings.precision, rank.local_rank if rank else 0)
    with (
        join(rank, hardware.device) as ranks,
        open_display(settings.log_format, is_main=ranks.is_main) as display,
    ):
        check_ranks(settings, ranks.world.size)
        check_trackers(settings.trackers)
        if _is_stopped(ranks, stop, "stopping once the run at OUTPUT_URI has been looked at"):
            return Outcome.INTERRUPTED
        found = ranks.on_main(lambda: find_run(settings))
        if found.ask(FoundRun.is_complete):
            return Outcome.COMPLETED
        _log_machine(hardware, ranks)
        state = fresh_state(settings, hardware, ranks)
        initial = adopt_initial(state, found, settings)
        try:
            held = found.then(lambda found: hold(found, stop))
        except Stopped as stopped:  # the run is another job's: its status.json stays as it is
            _tell_interrupted(stop, stopped)
            return Outcome.INTERRUPTED
        with _released(held.value), _ends_recorded(held.value, stop):
            return _train(settings, hardware, ranks, held, state, initial, display, stop)
        return Outcome.INTERRUPTED


def _train(
    settings: Settings,
    hardware: Hardware,
    ranks: Ranks,
    held: OnMain[FoundRun],
    state: TrainingState,
    initial: OnMain[Initial | None],
    display: Display,
    stop: StopRequest,
) -> Outcome:
    stop.effect = "stopping before training; the slices that were read are kept"
    pack = _pull(settings, ranks, held.value, display, stop)
    run = held.then(lambda held: claim(held, initial.value, pack, hardware, ranks))
    plan = plan_of(settings, len(pack.training))
    resumed = resume(state, run, initial, settings)
    recipe = recipe_of(settings, plan)
    keep_freed_memory(hardware.device)
    with recording(run.value, state, recipe, resumed.value, stop) as recorder:
        if _is_stopped(ranks, stop, "stopping after this step, with a checkpoint"):
            raise Stopped("getting ready for the first step")
        display.training(plan, state.images_seen)
        for tick in _ticks(settings, hardware, ranks, pack, plan, recipe, state):
            failed = recorder.record(tick, display)
            if ranks.check(failed, stop=bool(stop)):
                stop.note_elsewhere()
                break
        stop.effect = "stopping once the last uploads are done"
        recorder.finish()
    is_done = state.images_seen >= plan.total_images
    return Outcome.COMPLETED if is_done else Outcome.INTERRUPTED


def _is_stopped(ranks: Ranks, stop: StopRequest, next_effect: str) -> bool:
    """Whether any rank was asked to stop; ``next_effect`` is what a stop does from here on."""
    if ranks.check(None, stop=bool(stop)):
        stop.note_elsewhere()
        return True
    stop.effect = next_effect
    return False


def _pull(
    settings: Settings, ranks: Ranks, found: FoundRun | None, display: Display, stop: StopRequest
) -> Pack:
    """The slices; where too many are unusable, the manifest says why."""
    try:
        return pull_slices(
            settings, ranks, on_progress=display.pulling, should_stop=lambda: bool(stop)
        )
    except RefusedError as error:
        if found:
            keep_refusals(found, error)
        raise


def _ticks(
    settings: Settings,
    hardware: Hardware,
    ranks: Ranks,
    pack: Pack,
    plan: Plan,
    recipe: Recipe,
    state: TrainingState,
) -> Iterator[Tick]:
    """The training loop over ``pack``; says when memory ran out and the step was cut smaller."""
    device = hardware.device
    bank = open_bank(pack.images, device, free_bytes=free_bytes(device), rows=pack.training)
    if device.type == "cuda" or settings.compile:
        log.info("preparing_first_step", extra={"wait": _WAIT[settings.compile]})
    micro_batch = state.micro_batch
    for tick in training_loop(
        state,
        bank.take,
        plan,
        latent_dim=settings.latent_dim,
        seed=settings.seed,
        autocast=hardware.autocast(),
        recipe=recipe,
        ranks=ranks,
        graphs=settings.cuda_graphs,
    ):
        if tick.micro_batch < micro_batch and ranks.is_main:
            is_exact = not recipe.couples_images or tick.micro_batch >= settings.batch_size
            _warn_of_halving(tick.micro_batch, exact=is_exact)
        micro_batch = tick.micro_batch
        yield tick


def _log_machine(hardware: Hardware, ranks: Ranks) -> None:
    facts = asdict(machine_facts(hardware, ranks.world.size))
    log.info("machine", extra={**facts, "allocator": allocator_in_force(hardware.device)})


def _warn_of_halving(micro_batch: int, *, exact: bool) -> None:
    effect = "nothing else changes" if exact else "BatchNorm sees the smaller part from now on"
    consequence = f"the step was repeated in smaller parts; images per step stay, {effect}"
    log.warning("out_of_memory", extra={"micro_batch": micro_batch, "consequence": consequence})


@contextmanager
def _released(found: FoundRun | None) -> Iterator[None]:
    """Release the run's lease, however the job ends; on rank 0."""
    try:
        yield
    finally:
        if found and found.lease:
            _within(_PATIENCE_SECONDS, found.lease.release)


@contextmanager
def _ends_recorded(found: FoundRun | None, stop: StopRequest) -> Iterator[None]:
    """Write into status.json why the job fails, or stops before training; on rank 0.

    A stop before the first step leaves the block like its end.
    """

    def record(
        state: State, reason: str, exit_status: int | None = None, *, is_short: bool = False
    ) -> None:
        if found:
            end = partial(_record_end, found.store, state, reason=reason, exit_status=exit_status)
            _within(_LAST_WORDS_SECONDS if is_short else _PATIENCE_SECONDS, end)

    stop.last_words = lambda: record("interrupted", "a second Ctrl-C", is_short=True)
    try:
        yield
    except Stopped as stopped:
        stop.note_elsewhere()
        record("interrupted", stop.signal_name)
        _tell_interrupted(stop, stopped)
    except KeyboardInterrupt:
        record("interrupted", "a second Ctrl-C", is_short=True)
        raise
    except LeaseError:  # the run is another job's now
        raise
    except Exception as error:
        status = getattr(error, "exit_status", MriganError.exit_status)
        reason = str(error) or type(error).__name__
        record("failed", reason, status, is_short=isinstance(error, StorageError))
        raise


def _record_end(store: Store, state: State, *, reason: str, exit_status: int | None) -> None:
    if ended := record_end(store, state, reason=reason, exit_status=exit_status):
        tell_state(store, ended)


def _tell_interrupted(stop: StopRequest, stopped: Stopped) -> None:
    log.info("interrupted", extra={"signal": stop.signal_name, "while": stopped.phase})


def _within(seconds: float, work: Callable[[], None]) -> None:
    """Do ``work``, but wait no longer for it: the store may be away."""
    thread = threading.Thread(target=work, name="last words", daemon=True)
    thread.start()
    thread.join(timeout=seconds)
