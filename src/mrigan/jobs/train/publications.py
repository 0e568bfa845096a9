"""What a run publishes, and where: each method hands one kind of artifact to the publisher."""

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import cache, cached_property
from typing import Any

import numpy as np

from mrigan.artifacts import run_tree
from mrigan.artifacts.checkpoints import (
    delete_after,
    delete_checkpoint,
    keep_newest,
    publish_checkpoint,
)
from mrigan.artifacts.figures import render_losses
from mrigan.artifacts.grids import render_grid
from mrigan.artifacts.history import EpochRow, encode_history
from mrigan.artifacts.publisher import Publisher
from mrigan.artifacts.report.card import render_card
from mrigan.artifacts.report.content import Content, Refusals, read_stored, refusals_of
from mrigan.artifacts.report.page import render_report, tell_state
from mrigan.artifacts.run_status import RunStatus, State, write_status
from mrigan.environment import fetch_command
from mrigan.errors import StorageError
from mrigan.jobs.train.generators import Best, publish_generator
from mrigan.jobs.train.metrics import Metrics, summary_of
from mrigan.jobs.train.pace import Pace
from mrigan.jobs.train.prepare import Run
from mrigan.jobs.train.samples import Samples
from mrigan.jobs.train.trackers.choice import Trackers
from mrigan.models.family import family_of
from mrigan.storage.store import Store
from mrigan.training.checkpoint import Snapshot, encode, snapshot
from mrigan.training.state import TrainingState

log = logging.getLogger(__name__)

GRID_COLUMNS = 8
Grid = np.ndarray[Any, np.dtype[np.uint8]]


class Publications:
    """The artifacts of ``run``, from ``state`` as it is when a method is called.

    Args:
        run: Claimed.
        state: Read by each call, never changed.
        publisher: Takes what is to be written.
        metrics: The rows so far.
        samples: Of ``state``.
        best: The best generator so far.
        trackers: Of the run.
        real: Slices (n, 1, H, W), uint8, to compare samples with.

    Attributes:
        memory: What takes it, MiB; known after the first step.
        rolled_back_to: ``images_seen`` of a rollback that the store does not show yet.
    """

    def __init__(
        self,
        run: Run,
        state: TrainingState,
        publisher: Publisher,
        *,
        metrics: Metrics,
        samples: Samples,
        best: Best,
        trackers: Trackers,
        real: Grid,
    ) -> None:
        self._real = real
        self._run = run
        self._state = state
        self._publisher = publisher
        self._metrics = metrics
        self._samples = samples
        self._best = best
        self._trackers = trackers
        self._chart = family_of(run.settings.model).chart
        self.memory: Mapping[str, Any] = {}
        self.rolled_back_to: int | None = None

    @cached_property
    def _refusals(self) -> Refusals:
        return refusals_of(self._run.pack.manifest)

    @cached_property
    def _real_grid(self) -> bytes:
        return render_grid(self._real, GRID_COLUMNS)

    def publish_reals(self) -> None:
        """The grid of reals that every sample grid is to be compared with."""
        self._put(run_tree.REAL_GRID, lambda: self._real_grid)

    def publish_samples(self, epoch: int) -> None:
        """The sample grid of ``epoch``."""
        images, key = self._samples.grid(), run_tree.sample_grid(epoch)
        self._publisher.submit(
            key,
            lambda store: store.put(key, render_grid(images, GRID_COLUMNS)),
            size_bytes=images.nbytes,
        )

    def publish_rows(self, pace: Pace) -> None:
        """The rows, their plot, whose drawing ``pace`` times, and the status."""
        rows = list(self._metrics.rows)
        self._put(run_tree.METRICS, lambda: encode_history(rows))
        self._put(run_tree.LOSSES_PLOT, pace.timed(lambda: self._plot(rows)))
        self.publish_status("running")
        self._trackers.rows(rows)

    def check(self) -> None:
        """Raise what has gone wrong with the store, if anything has."""
        self._publisher.check()

    def redirect(self, store: Store) -> None:
        """Write what is not published, and what is published from now on, to ``store``."""
        self._publisher.redirect(store)

    def publish_status(
        self, state: State, *, reason: str = "", exit_status: int | None = None
    ) -> None:
        """Where the run is."""
        status = self._status(state, reason=reason, exit_status=exit_status)
        self._publisher.submit(run_tree.STATUS, lambda store: write_status(store, status))
        if state != "running":
            self._publisher.submit("state", lambda store: tell_state(store, status))

    def publish_again(self) -> None:
        """After a resume: rows, generator and report as the checkpoint has them.

        So no artifact is older or newer than the checkpoint, whatever ended the last start.
        """
        self.publish_rows(Pace())
        _, publish = self._prepared(self._drawn())
        self._publisher.submit("again", publish)

    def publish_checkpoint(self, pace: Pace, *, replacing: bool) -> None:
        """The generator, the report and, last, the checkpoint; ``pace`` times it.

        Whoever resumes from the checkpoint finds everything up to it in place.

        Args:
            pace: Of checkpoints.
            replacing: As in ``Recorder.save_checkpoint``.

        Raises:
            DivergedError: A weight is not finite.
        """
        grid = self._drawn()
        saved, publish_rest = self._prepared(grid)
        rows = list(self._metrics.rows)
        images_seen = self._state.images_seen
        epoch = self._run.plan.epoch_of(images_seen)[0]
        if replacing:
            before = self.rolled_back_to
            self.rolled_back_to = images_seen if before is None else min(images_seen, before)
        point = self.rolled_back_to

        def publish(store: Store) -> None:
            publish_rest(store)
            if point is not None:
                delete_checkpoint(store, images_seen)
            facts = self._run.facts.to_json()
            about = {"epoch": epoch, "micro_batch": saved["micro_batch"], **facts}
            publish_checkpoint(store, images_seen, encode(saved), about)
            if point is not None:
                delete_after(store, point, keep=images_seen)
                if self.rolled_back_to == point:  # else the run has rolled back once more
                    self.rolled_back_to = None
            log.info("checkpoint", extra={"images_seen": images_seen, "epoch": epoch})
            self._remove_old(store)
            self._trackers.grid(grid(), rows)

        self._publisher.submit_behind_all("checkpoint", pace.timed(publish))

    def _drawn(self) -> Callable[[], bytes]:
        """Draw the sample grid, which recalibrates BatchNorm; its PNG is made later, and once."""
        drawn = self._samples.grid()
        return cache(lambda: render_grid(drawn, GRID_COLUMNS))

    def _prepared(self, grid: Callable[[], bytes]) -> tuple[Snapshot, Callable[[Store], None]]:
        """The state after ``_drawn``, and the publication of its generator and report."""
        saved = snapshot(self._state)
        images_seen, plan = self._state.images_seen, self._run.plan
        epoch = plan.epoch_of(images_seen)[0]
        rows, best, status = list(self._metrics.rows), self._best.score, self._status("running")

        def publish(store: Store) -> None:
            settings = self._run.settings
            weights = saved["G_ema"] or saved["G"]
            publish_generator(store, settings, weights, images_seen=images_seen, epoch=epoch)
            content = Content(
                facts=self._run.facts,
                status=status,
                rows=rows,
                best=best,
                refusals=self._refusals,
                uri=store.uri,
                real_grid=self._real_grid,
                grid=grid(),
                losses=self._plot(rows),
                stored=read_stored(store, epoch),
            )
            store.put(run_tree.REPORT, render_report(content))
            store.put(run_tree.CARD, render_card(content))

        return saved, publish

    def flush(self, seconds: float) -> None:
        """Wait until everything is written.

        Raises:
            StorageError: It could not be, or not within ``seconds``.
        """
        self._publisher.flush(seconds)

    def complete(self, flush_seconds: float) -> None:
        """Say that the run is complete, and where its artifacts are."""
        epochs, uri = self._run.plan.epochs, self._run.store.uri
        self.publish_status("completed", exit_status=0)
        self._trackers.end("completed")
        self.flush(flush_seconds)
        log.info("completed", extra={"epochs": epochs, "uri": uri})
        for name, key in (
            ("samples", run_tree.sample_grid(epochs)),
            ("reals", run_tree.REAL_GRID),
            ("losses", run_tree.LOSSES_PLOT),
            ("generator", run_tree.GENERATOR),
            ("best", run_tree.BEST if self._best.score else ""),
            ("report", run_tree.REPORT),
        ):
            if key:
                log.info("published", extra={name: f"{uri}/{key}"})
        self._tell_how_to_fetch()

    def interrupt(self, signal_name: str, flush_seconds: float) -> None:
        """Say that the run was interrupted, and how to resume it."""
        self.publish_status("interrupted", reason=signal_name)
        self._trackers.end("interrupted")
        self.flush(flush_seconds)
        log.info(
            "interrupted",
            extra={
                "signal": signal_name,
                "images_seen": self._state.images_seen,
                "uri": self._run.store.uri,
                "resume": "run the same command again",
            },
        )
        self._tell_how_to_fetch()

    def _tell_how_to_fetch(self) -> None:
        """Say, last, how what is in a bucket comes to a person."""
        store = self._run.store
        if store.is_s3:
            name = store.uri.rpartition("/")[2]
            command = fetch_command() or f"mrigan fetch {store.uri} results/{name}"
            log.info("fetch_with", extra={"command": command})

    def _put(self, key: str, render: Callable[[], bytes]) -> None:
        self._publisher.submit(key, lambda store: store.put(key, render()))

    def _status(
        self, state: State, *, reason: str = "", exit_status: int | None = None
    ) -> RunStatus:
        plan, images_seen = self._run.plan, self._state.images_seen
        return RunStatus(
            state=state,
            reason=reason,
            exit_status=exit_status,
            epoch=plan.epoch_of(images_seen)[0],
            epochs=plan.epochs,
            images_seen=images_seen,
            summary=summary_of(self._metrics.rows, self._best.score),
            memory=self.memory,
            started=self._run.started,
        )

    def _plot(self, rows: Sequence[EpochRow]) -> bytes:
        is_scored = self._metrics.is_scored
        return render_losses(rows, self._run.plan.epochs, self._chart, is_scored=is_scored)

    def _remove_old(self, store: Store) -> None:
        """Keep the newest checkpoints; one that can't be deleted is no reason to end a run."""
        try:
            keep_newest(store, self._run.settings.keep_checkpoints)
        except StorageError as error:
            log.warning("old_checkpoints_stay", extra={"reason": str(error)})
