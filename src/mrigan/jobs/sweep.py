"""``mrigan gamma-sweep``: a short run for each gamma schedule, and a table of how they came out.

γ is what an ``r3`` run hangs on most, and what is right depends on the slices. Each run is a normal
one below OUTPUT_URI: the same command again resumes the sweep.
"""

import logging
import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass

from mrigan.artifacts import run_tree
from mrigan.artifacts.history import EpochRow, Score, read_history
from mrigan.artifacts.run_status import BestScore
from mrigan.data.pack import PullInterrupted
from mrigan.environment import process_rank
from mrigan.errors import DivergedError, SettingsError
from mrigan.jobs.build import storage_options
from mrigan.jobs.train.generators import read_best
from mrigan.jobs.train.prepare import pull_slices
from mrigan.jobs.train.start import INTERRUPTED, start
from mrigan.models.family import Ramp, family_of
from mrigan.runtime.ranks import ALONE
from mrigan.runtime.signals import StopRequest
from mrigan.settings.fields import Settings
from mrigan.settings.models import MODELS
from mrigan.storage.store import open_store

log = logging.getLogger(__name__)

TABLE = "sweep.md"
RESULTS = "sweep.json"

_COLUMNS = ("gamma", "schedule", "outcome", "images", "swd", "floor", "coverage", "best swd")
_READING = (
    "swd: sliced-Wasserstein distance of what the run drew at its end from real slices; the floor "
    "is that of other real slices. Lower is better. One seed each: small differences are chance."
)


@dataclass(frozen=True, kw_only=True)
class Result:
    """What came of one run."""

    gamma: str
    schedule: Ramp
    outcome: str
    last: EpochRow | None
    best: BestScore | None
    uri: str

    @property
    def score(self) -> Score | None:
        """That of the last epoch."""
        return self.last.score if self.last else None

    def rank(self) -> tuple[bool, float]:
        """What to sort by: better first."""
        return self.outcome != "completed", self.score.swd if self.score else math.inf

    def to_json(self) -> run_tree.JsonObject:
        """One object, as in sweep.json."""
        kept = ("images_seen", "swd", "swd_floor", "swd_against", "coverage", "real_sign")
        last = self.last.to_json() if self.last else {}
        best = self.best._asdict() if self.best else {}
        return {
            "gamma": self.gamma,
            "start": round(self.schedule.start, 4),
            "end": round(self.schedule.end, 4),
            "outcome": self.outcome,
            **{name: last[name] for name in (*kept, "augment_p") if name in last},
            "best": {name: best[name] for name in ("images_seen", "swd") if name in best},
            "uri": self.uri,
        }

    def cells(self) -> tuple[str, ...]:
        """Its line of the table."""
        score, best, (start, end) = self.score, self.best, self.schedule
        numbers = (score.swd, score.swd_floor, score.coverage) if score else (None,) * 3
        return (
            self.gamma,
            f"{round(start, 4):g} → {round(end, 4):g}",
            self.outcome,
            f"{self.last.images_seen if self.last else 0:,}",
            *("–" if number is None else f"{number:.4f}" for number in numbers),
            f"{best.swd:.4f} at {best.images_seen:,}" if best else "–",
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
    results = []
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
        results.append(_result(settings, name, uri, has_diverged=bool(status)))
    _publish(settings, results)
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


def _result(settings: Settings, name: str, uri: str, *, has_diverged: bool) -> Result:
    """What came of one run, from what it has published."""
    store = open_store(uri, storage_options(settings))
    rows = read_history(store)
    return Result(
        gamma=name,
        schedule=_gammas(settings)[name],
        outcome="diverged" if has_diverged else "completed",
        last=rows[-1] if rows else None,
        best=read_best(store),
        uri=uri,
    )


def _publish(settings: Settings, results: list[Result]) -> None:
    store = open_store(settings.output_uri, storage_options(settings))
    table = markdown(results)
    runs = [result.to_json() for result in results]
    about = {"settings": settings.model_dump(mode="json", exclude={"gamma"}), "runs": runs}
    run_tree.write_json(store, RESULTS, about)
    store.put(TABLE, table.encode())
    if settings.log_format == "json":
        for run in runs:
            log.info("sweep_result", extra=run)
    else:
        sys.stdout.write(table)
    log.info("published", extra={"table": f"{store.uri}/{TABLE}"})


def markdown(results: list[Result]) -> str:
    """The table of ``results``, the best score first, runs without one last."""
    ranked = sorted(results, key=Result.rank)
    lines = [_COLUMNS, ("---",) * len(_COLUMNS), *(result.cells() for result in ranked)]
    table = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
    return f"{table}\n\n{_READING}\n"
