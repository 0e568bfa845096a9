"""Brings a training job to the point where nothing but training is left."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from mrigan.artifacts import run_tree
from mrigan.data.holdout import split_holdout
from mrigan.data.manifest import encode_manifest
from mrigan.data.pack import Pack, RefusedError, open_pack
from mrigan.data.source import open_source
from mrigan.jobs.facts import machine, versions
from mrigan.jobs.model import known
from mrigan.jobs.storage_options import storage_options
from mrigan.jobs.train.previous import Previous, check_same_slices
from mrigan.jobs.train.status import now, status_facts
from mrigan.runtime.device import Hardware, allocator_in_force
from mrigan.runtime.ranks import Ranks
from mrigan.settings.fields import Settings
from mrigan.settings.identity import identity
from mrigan.settings.sources import default_cache_dir
from mrigan.storage.store import Store
from mrigan.training.checkpoint import REVISION
from mrigan.training.plan import ENOUGH_STEPS, Plan

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A claimed run: what trains, on what, into which store."""

    settings: Settings
    store: Store
    hardware: Hardware
    pack: Pack
    plan: Plan
    facts: dict[str, Any]  # settings.json
    started: str


def prepare(
    settings: Settings,
    hardware: Hardware,
    store: Store,
    previous: Previous | None,
    *,
    ranks: Ranks,
    on_progress: Callable[[int, int], None],
    should_stop: Callable[[], bool],
    check: Callable[[Pack], None],
) -> Prepared:
    """Pull the slices and claim the output; on rank 0, while the others ``pull``.

    Args:
        settings: With defaults filled in.
        hardware: What will train.
        store: The output.
        previous: The run to go on with, if any.
        ranks: Of the run.
        on_progress: Told how many slices of how many are decoded.
        should_stop: Asked while pulling.
        check: May refuse the slices, before the output is claimed.

    Raises:
        DataError: The slices are unusable, or not those of ``previous``.
        StorageError: Reading the input or writing the output failed.
        PullInterrupted: ``should_stop`` said so.
    """
    started = now()
    about = {**machine(hardware), "ranks": ranks.world.size}
    log.info("machine", extra={**about, "allocator": allocator_in_force(hardware.device)})
    try:
        pack = pull(settings, ranks, on_progress=on_progress, should_stop=should_stop)
    except RefusedError as error:
        if previous is None:  # else it is the list of what that run was trained on
            store.put(run_tree.MANIFEST, encode_manifest(error.manifest))
        raise
    log.info("slices", extra=_slice_facts(settings, pack))
    facts: dict[str, Any] = {
        "settings": settings.model_dump(mode="json"),
        "identity": identity(settings),
        "revision": REVISION,
        "data": {
            "slices": len(pack.rows),
            "training": len(pack.training),
            "holdout": len(pack.holdout),
            "fingerprint": pack.fingerprint,
        },
        "machine": about,
        "versions": versions(),
    }

    def claim() -> bytes:
        check(pack)
        if previous:
            check_same_slices(store, previous, facts["data"])
        _claim(store, pack, facts, previous, started)
        return b""

    ranks.from_main(claim)
    plan = plan_of(settings, pack)
    _print_plan(plan)
    return Prepared(
        settings=settings,
        store=store,
        hardware=hardware,
        pack=pack,
        plan=plan,
        facts=facts,
        started=started,
    )


def pull(
    settings: Settings,
    ranks: Ranks,
    *,
    on_progress: Callable[[int, int], None] | None = None,
    should_stop: Callable[[], bool],
) -> Pack:
    """Bring the slices here and hold some out of training; every rank calls this.

    Raises:
        DataError, StorageError, PullInterrupted: As ``open_pack``.
        SettingsError: MRIGAN_VOLUME_PATTERN does not fit the keys.
    """
    pack = open_pack(
        open_source(settings.input_uri, storage_options(settings)),
        height=settings.image_height,
        width=settings.image_width,
        fit=settings.fit,
        cache_dir=settings.cache_dir or default_cache_dir(),
        concurrency=settings.download_concurrency,
        max_refused_percent=settings.max_refused,
        on_progress=on_progress,
        should_stop=should_stop,
        ranks=ranks,
    )
    return split_holdout(
        pack,
        percent=known(settings.holdout),
        pattern=settings.volume_pattern,
        seed=settings.seed,
    )


def plan_of(settings: Settings, pack: Pack) -> Plan:
    """The arithmetic of the run over the slices of ``pack`` that are trained on."""
    return Plan(
        slices=len(pack.training),
        epochs=settings.epochs,
        batch_size=settings.batch_size,
        accumulation_steps=known(settings.accumulation_steps),
    )


def _slice_facts(settings: Settings, pack: Pack) -> dict[str, Any]:
    return {
        "used": len(pack.rows),
        "refused": sum(entry.status == "refused" for entry in pack.manifest),
        "fetched": pack.fetched,
        "reused": pack.reused,
        "removed": pack.removed,
        "mib": round(pack.size_bytes / 2**20, 1),
        "uri": settings.input_uri,
    }


def _claim(
    store: Store, pack: Pack, facts: dict[str, Any], previous: Previous | None, started: str
) -> None:
    """Write what the run is before its first step; an output that can't be written fails here."""
    before = previous.status if previous else {}
    progress = {name: before.get(name, 0) for name in ("epoch", "images_seen")}
    status = status_facts(
        "running",
        started=started,
        epochs=facts["settings"]["epochs"],
        summary=before.get("summary"),
        **progress,
    )
    store.put(run_tree.MANIFEST, encode_manifest(pack.manifest))
    run_tree.write_json(store, run_tree.SETTINGS, facts)
    run_tree.write_json(store, run_tree.STATUS, status)


def _print_plan(plan: Plan) -> None:
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
