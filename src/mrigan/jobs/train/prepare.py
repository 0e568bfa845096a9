"""Brings a training job to the point where nothing but training is left.

The order matters: the settings and the run at OUTPUT_URI are checked before the input is used, and
the output is claimed before the first step.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace

from pydantic import TypeAdapter

from mrigan.artifacts import run_tree
from mrigan.artifacts.checkpoints import list_checkpoints
from mrigan.artifacts.lease import Lease, take
from mrigan.artifacts.run_facts import DataFacts, RunFacts, machine_facts, versions
from mrigan.artifacts.run_status import RunStatus, now, read_status, write_status
from mrigan.data.holdout import split_holdout
from mrigan.data.manifest import encode_manifest
from mrigan.data.pack import Pack, RefusedError, open_pack
from mrigan.errors import DataError
from mrigan.jobs.build import input_source, plan_of
from mrigan.jobs.train.initial import Initial, check_holdout
from mrigan.jobs.train.output import open_output, read_matching
from mrigan.runtime.device import Hardware
from mrigan.runtime.ranks import Ranks
from mrigan.runtime.signals import StopRequest
from mrigan.settings.fields import Settings
from mrigan.settings.identity import identity
from mrigan.storage.store import Store
from mrigan.training.checkpoint import REVISION
from mrigan.training.plan import ENOUGH_STEPS, Plan

log = logging.getLogger(__name__)

_CONFIG = TypeAdapter(run_tree.JsonObject)


@dataclass(frozen=True, kw_only=True)
class FoundRun:
    """OUTPUT_URI as the job finds it: ``facts`` and ``status`` of an earlier start, if any."""

    settings: Settings
    store: Store
    facts: RunFacts | None
    status: RunStatus | None
    started: str
    lease: Lease | None = None

    def is_complete(self) -> bool:
        """Whether nothing is left to do; if so, say it.

        Where the generator is not that of the end, a job that was taken over has written it: the
        run is resumed, which publishes what its newest checkpoint holds.
        """
        status = self.status
        if self.facts is None or status is None or status.state != "completed":
            return False
        if status.epoch < self.settings.epochs:
            return False
        config = run_tree.read_derived(self.store, run_tree.GENERATOR_CONFIG, _CONFIG) or {}
        if config.get("images_seen") != status.images_seen:
            return False
        log.info("already_complete", extra={"epochs": status.epoch, "uri": self.store.uri})
        return True

    def takes_initial_weights(self) -> bool:
        """Whether INIT_FROM is to be read: only by a run without a checkpoint of its own."""
        return self.settings.init_from is not None and not list_checkpoints(self.store)


@dataclass(frozen=True, kw_only=True)
class Run:
    """A claimed run: what trains, on what, into which store."""

    settings: Settings
    store: Store
    facts: RunFacts
    pack: Pack
    plan: Plan
    started: str
    lease: Lease


def find_run(settings: Settings) -> FoundRun:
    """Open OUTPUT_URI and look what is there; on rank 0.

    Raises:
        SettingsError: The run there was begun with other settings.
        StorageError: It can't be opened or read.
    """
    return _look(settings, open_output(settings))


def hold(found: FoundRun, stop: StopRequest) -> FoundRun:
    """Take the lease of the run, and look again what is there; on rank 0.

    Raises:
        LeaseError: Another job writes it.
        SettingsError: Another job has begun it with other settings meanwhile.
        StorageError: It can't be read or written.
    """
    settings, store = found.settings, found.store
    lease = take(store, take_over=settings.take_over, should_stop=lambda: bool(stop))
    try:
        store.remove_unfinished(run_tree.is_artifact)
        return replace(_look(settings, store), lease=lease)
    except Exception:
        lease.release()
        raise


def _look(settings: Settings, store: Store) -> FoundRun:
    facts = read_matching(store, settings)
    status = read_status(store)
    return FoundRun(settings=settings, store=store, facts=facts, status=status, started=now())


def pull_slices(
    settings: Settings,
    ranks: Ranks,
    *,
    on_progress: Callable[[int, int], None] | None = None,
    should_stop: Callable[[], bool],
) -> Pack:
    """Bring the slices here and hold some out of training; every rank calls this.

    Raises:
        DataError: The slices are unusable.
        StorageError: Reading the input failed.
        PullInterrupted: ``should_stop`` said so.
        SettingsError: MRIGAN_VOLUME_PATTERN does not fit the keys.
    """
    pack = open_pack(
        input_source(settings),
        height=settings.image_height,
        width=settings.image_width,
        fit=settings.fit,
        cache_dir=settings.cache_dir,
        concurrency=settings.download_concurrency,
        max_refused_percent=settings.max_refused,
        on_progress=on_progress,
        should_stop=should_stop,
        ranks=ranks,
    )
    return split_holdout(
        pack,
        percent=settings.holdout,
        pattern=settings.volume_pattern,
        seed=settings.seed,
    )


def keep_refusals(found: FoundRun, error: RefusedError) -> None:
    """Write why each object was refused, unless a run's own list of its slices is there."""
    if found.facts is None:
        found.store.put(run_tree.MANIFEST, encode_manifest(error.manifest))


def claim(
    found: FoundRun, initial: Initial | None, pack: Pack, hardware: Hardware, ranks: Ranks
) -> Run:
    """Write what the run is before its first step; on rank 0.

    Raises:
        DataError: The slices are not those that the run began with.
        SettingsError: Slices are held out that the weights of ``initial`` were trained on.
        StorageError: The output can't be written.
    """
    settings, store = found.settings, found.store
    assert found.lease is not None
    _log_slices(settings, pack)
    if initial:
        check_holdout(initial, pack.manifest)
    data = DataFacts(
        slices=len(pack.rows),
        training=len(pack.training),
        holdout=len(pack.holdout),
        fingerprint=pack.fingerprint,
    )
    if found.facts:
        _check_same_slices(store, found.facts.data, data)
    facts = RunFacts(
        settings=settings.model_dump(mode="json"),
        identity=identity(settings),
        revision=REVISION,
        data=data,
        machine=machine_facts(hardware, ranks.world.size),
        versions=versions(),
        initial=initial.facts if initial else found.facts.initial if found.facts else None,
    )
    before = found.status or RunStatus(state="running")
    status = RunStatus(
        state="running",
        epoch=before.epoch,
        epochs=settings.epochs,
        images_seen=before.images_seen,
        summary=before.summary,
        started=found.started,
    )
    store.put(run_tree.MANIFEST, encode_manifest(pack.manifest))
    run_tree.write_json(store, run_tree.RUN, facts.to_json())
    if found.facts:
        store.delete(run_tree.RUN_BEFORE)
    write_status(store, status)
    plan = plan_of(settings, len(pack.training))
    _log_plan(plan)
    return Run(
        settings=settings,
        store=store,
        facts=facts,
        pack=pack,
        plan=plan,
        started=found.started,
        lease=found.lease,
    )


def _check_same_slices(store: Store, before: DataFacts, now: DataFacts) -> None:
    """Refuse to resume with other slices: epochs and data order would mean something else."""
    if before.fingerprint != now.fingerprint:
        raise DataError(
            f"the slices are not those this run began with ({before.slices} then, {now.slices} "
            f"now; {store.uri}/{run_tree.MANIFEST} lists the former): put them back, or choose "
            "another MRIGAN_OUTPUT_URI"
        )


def _log_slices(settings: Settings, pack: Pack) -> None:
    """Say what is trained on."""
    log.info(
        "slices",
        extra={
            "used": len(pack.rows),
            "refused": sum(entry.status == "refused" for entry in pack.manifest),
            "fetched": pack.fetched,
            "reused": pack.reused,
            "removed": pack.removed,
            "mib": round(pack.size_bytes / 2**20, 1),
            "uri": settings.input_uri,
        },
    )


def _log_plan(plan: Plan) -> None:
    """Say how far the run goes, and warn where that teaches little."""
    log.info(
        "plan",
        extra={
            "slices": plan.slices,
            "epochs": plan.epochs,
            "images_per_step": min(plan.step_images, plan.slices),
            "steps_per_epoch": plan.epoch_steps,
            "steps": plan.total_steps,
            "images": plan.total_images,
        },
    )
    if plan.is_starved:
        log.warning(
            "few_steps",
            extra={
                "steps": plan.total_steps,
                "enough": ENOUGH_STEPS,
                "remedy": "raise MRIGAN_EPOCHS, or lower MRIGAN_ACCUMULATION_STEPS or "
                "MRIGAN_BATCH_SIZE: so few steps teach the networks little",
            },
        )
