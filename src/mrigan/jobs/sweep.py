"""``mrigan gamma-sweep``: a short run for each gamma schedule, and a table of how they came out.

γ is what an ``r3`` run hangs on most, and what is right depends on the slices. Each run is a normal
one below OUTPUT_URI: the same command again resumes the sweep.
"""

import json
import logging
import math
import sys
from collections.abc import Mapping
from typing import Any

from mrigan.artifacts import run_tree
from mrigan.data.pack import PullInterrupted
from mrigan.environment import process_rank
from mrigan.errors import DivergedError, SettingsError
from mrigan.jobs.build import storage_options
from mrigan.jobs.train.prepare import pull_slices
from mrigan.jobs.train.start import INTERRUPTED, start
from mrigan.models.family import Ramp, family_of
from mrigan.runtime.ranks import ALONE
from mrigan.runtime.signals import StopRequest
from mrigan.settings.fields import Settings
from mrigan.settings.models import MODELS
from mrigan.storage.store import Store, open_store

log = logging.getLogger(__name__)

TABLE = "sweep.md"
RESULTS = "sweep.json"

_COLUMNS = ("gamma", "schedule", "outcome", "images", "swd", "floor", "coverage", "best swd")
_READING = (
    "swd: sliced-Wasserstein distance of what the run drew at its end from real slices; the floor "
    "is that of other real slices. Lower is better. One seed each: small differences are chance."
)


def sweep(settings: Settings, options: Mapping[str, str], stop: StopRequest, *, images: int) -> int:
    """Make the runs, then the table; return the exit status of what kept it from being made.

    Args:
        settings: Of each run, but for GAMMA and OUTPUT_URI.
        options: Those of the command line, which the ranks of a run are given.
        stop: Ends the run under way.
        images: Reals that each run shows D, about, unless EPOCHS was set.

    Raises:
        SettingsError: The settings have no γ to try.
        MriganError: A run failed, other than by diverging.
    """
    _check(settings, images)
    if "epochs" not in settings.model_fields_set:
        try:
            pack = pull_slices(settings, ALONE, should_stop=lambda: bool(stop))
        except PullInterrupted:
            return INTERRUPTED
        epochs = math.ceil(images / len(pack.training))
        settings = settings.model_copy(update={"epochs": epochs})
    rows = []
    for name in _gammas(settings):
        uri = f"{settings.output_uri.rstrip('/')}/{name}"
        chosen = {"gamma": name, "output_uri": uri, "epochs": settings.epochs}
        log.info("sweep", extra=chosen)
        given = {**options, **{field: str(value) for field, value in chosen.items()}}
        arguments = [f"--{field.replace('_', '-')}={value}" for field, value in given.items()]
        try:
            status = start(settings.model_copy(update=chosen), ["train", *arguments], stop)
        except DivergedError as error:
            log.warning("sweep_run_diverged", extra={"gamma": name, "reason": str(error)})
            status = DivergedError.exit_status
        if stop:
            return INTERRUPTED
        if status not in {0, DivergedError.exit_status}:
            return status
        rows.append(_result(settings, name, uri, has_diverged=bool(status)))
    _publish(settings, rows)
    return 0


def _check(settings: Settings, images: int) -> None:
    problems = []
    if images < 1:
        problems.append("--images: must be at least 1")
    if not _gammas(settings):
        models = [name for name in MODELS if _gammas(settings.model_copy(update={"model": name}))]
        problems.append(
            f"MRIGAN_MODEL: {settings.model} has no gamma to sweep; use {', '.join(models)}"
        )
    if settings.gamma != "auto":
        problems.append("MRIGAN_GAMMA: gamma-sweep tries each; leave it out")
    if process_rank() is not None:
        problems.append(
            "gamma-sweep starts the processes of each run itself; run it without torchrun"
        )
    if problems:
        raise SettingsError(*problems)


def _gammas(settings: Settings) -> Mapping[str, Ramp]:
    return family_of(settings.model).gammas(settings.image_height, settings.image_width)


def _result(settings: Settings, name: str, uri: str, *, has_diverged: bool) -> dict[str, Any]:
    """What came of one run, from what it has published."""
    store = open_store(uri, storage_options(settings))
    rows = run_tree.read_rows(store, run_tree.METRICS)
    last = rows[-1] if rows else {}
    ramp = _gammas(settings)[name]
    kept = ("images_seen", "swd", "swd_floor", "swd_against", "coverage", "real_sign", "augment_p")
    best = run_tree.read_json(store, run_tree.BEST_CONFIG) or {}
    return {
        "gamma": name,
        "start": round(ramp.start, 4),
        "end": round(ramp.end, 4),
        "outcome": "diverged" if has_diverged else "completed",
        **{field: last[field] for field in kept if field in last},
        "best": {field: best[field] for field in ("images_seen", "swd") if field in best},
        "uri": uri,
    }


def _publish(settings: Settings, rows: list[dict[str, Any]]) -> None:
    store: Store = open_store(settings.output_uri, storage_options(settings))
    table = markdown(rows)
    results = {"settings": settings.model_dump(mode="json", exclude={"gamma"}), "runs": rows}
    store.put(RESULTS, (json.dumps(results, indent=2) + "\n").encode())
    store.put(TABLE, table.encode())
    if settings.log_format == "json":
        for row in rows:
            log.info("sweep_result", extra=row)
    else:
        sys.stdout.write(table)
    log.info("published", extra={"table": f"{store.uri}/{TABLE}"})


def markdown(rows: list[dict[str, Any]]) -> str:
    """The table of ``rows``, the best score first, runs without one last."""
    ranked = sorted(rows, key=lambda row: (row["outcome"] != "completed", row.get("swd", math.inf)))
    lines = [_COLUMNS, ("---",) * len(_COLUMNS), *(_cells(row) for row in ranked)]
    table = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
    return f"{table}\n\n{_READING}\n"


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    best = row["best"]
    return (
        row["gamma"],
        f"{row['start']:g} → {row['end']:g}",
        row["outcome"],
        f"{row.get('images_seen', 0):,}",
        _number(row, "swd"),
        _number(row, "swd_floor"),
        _number(row, "coverage"),
        f"{best['swd']:.4f} at {best['images_seen']:,}" if "swd" in best else "–",
    )


def _number(row: dict[str, Any], name: str) -> str:
    return f"{row[name]:.4f}" if name in row else "–"
