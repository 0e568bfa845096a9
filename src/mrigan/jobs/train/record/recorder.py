"""Decides what of a run is saved when, and hands it to the publisher.

Whatever reads the networks is done here, between two steps; encoding and uploading happen beside
training. Nothing about the networks changes: sampling leaves every buffer and every RNG stream as
it found them.
"""

import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from mrigan.artifacts import run_tree
from mrigan.artifacts.checkpoints import (
    delete_after,
    delete_checkpoint,
    keep_newest,
    publish_checkpoint,
)
from mrigan.artifacts.figures import render_losses
from mrigan.artifacts.grids import render_grid
from mrigan.artifacts.publisher import Publisher
from mrigan.artifacts.report import render_report
from mrigan.errors import StorageError
from mrigan.jobs.model import is_r3, known
from mrigan.jobs.train.memory import MemoryReport
from mrigan.jobs.train.prepare import Prepared
from mrigan.jobs.train.record import watch
from mrigan.jobs.train.record.drawing import Drawing
from mrigan.jobs.train.record.history import History
from mrigan.jobs.train.record.pace import Pace
from mrigan.jobs.train.record.weights import Best, publish_generator
from mrigan.jobs.train.status import status_facts
from mrigan.runtime.device import reset_peak
from mrigan.training.checkpoint import encode, snapshot
from mrigan.training.guard import Verdict
from mrigan.training.loop import Tick, fixed_latents
from mrigan.training.state import TrainingState

log = logging.getLogger(__name__)

GRID_COLUMNS = 8
GRID_IMAGES = 32


class Recorder:
    """The saving side of one run; told of each Tick, it acts when something is due.

    Args:
        prepared: The run.
        publisher: Takes what is to be written.
        state: Read between steps, never changed.
        rows: Of metrics.jsonl, up to where training starts; grows by one an epoch.
        saved_images: ``images_seen`` of the checkpoint that training starts from, if any.
    """

    def __init__(
        self,
        prepared: Prepared,
        publisher: Publisher,
        state: TrainingState,
        *,
        rows: list[dict[str, Any]],
        saved_images: int | None,
    ) -> None:
        self._run = prepared
        self._store = prepared.store
        self._publisher = publisher
        self._state = state
        self._saved_images = saved_images
        self._saved_clock = self._epoch_clock = time.monotonic()
        self._epoch_images = 0
        self._is_due = False
        self._last_step: Tensor | None = None  # its flag
        settings = prepared.settings
        self._z = fixed_latents(GRID_IMAGES, known(settings.latent_dim), settings.seed)
        self._real_grid = b""
        self._drawing = Drawing(prepared, state)
        self._best = Best(prepared, publisher)
        self._history = History(prepared, state, self._drawing, self._best, rows)
        self._history_pace, self._checkpoint_pace = Pace(), Pace()
        self._has_unpublished_rows = False
        self._memory: MemoryReport | None = MemoryReport(prepared)
        reset_peak(prepared.hardware.device)

    @property
    def images_seen(self) -> int:
        """Progress of the run."""
        return self._state.images_seen

    @property
    def is_done(self) -> bool:
        """Whether the plan is fulfilled."""
        return self.images_seen >= self._run.plan.total_images

    def start(self, real: np.ndarray[Any, np.dtype[np.uint8]]) -> None:
        """Publish the reals that every sample grid is to be compared with."""
        self._real_grid = render_grid(real, GRID_COLUMNS)
        grid = self._real_grid
        self._publisher.submit(
            run_tree.REAL_GRID, lambda: self._store.put(run_tree.REAL_GRID, grid)
        )

    def record(self, tick: Tick) -> Mapping[str, float] | None:
        """Save what is due after ``tick``; return the epoch's row if it ended one."""
        facts = {"nonfinite": 1, "images_seen": tick.images_seen, "attempt": self._state.attempt}
        self._last_step = tick.taken
        if tick.verdict is Verdict.ROLLED_BACK:
            log.warning("rolled_back", extra={**facts, "remedy": "half the rates, other latents"})
            self._roll_back(tick.images_seen)
            return None
        if tick.verdict is Verdict.SKIPPED:
            log.warning("step_skipped", extra={**facts, "nonfinite": tick.skipped})
        self._tell_memory()
        self._epoch_images += tick.step_images
        row = self._end_epoch(tick) if tick.ends_epoch else None
        every = self._run.settings.checkpoint_every
        minutes = (time.monotonic() - self._saved_clock) / 60
        self._is_due |= tick.ends_epoch and tick.epoch % every == 0
        is_paced = self._is_due and self._checkpoint_pace.is_due()
        if self.is_done or is_paced or minutes >= self._run.settings.checkpoint_minutes:
            self.save_checkpoint()
        return row

    def _roll_back(self, images_seen: int) -> None:
        """Replace the checkpoints after the rollback's point by one of its state and attempt."""
        self._last_step = None
        self._history.forget_after(images_seen)
        self._epoch_images, self._epoch_clock = 0, time.monotonic()
        self._saved_images = None
        self._has_unpublished_rows = True
        self.save_checkpoint(instead=True)

    def save_checkpoint(self, *, instead: bool = False) -> None:
        """Publish the state as it is now, the generator to use, and the report, once.

        Not right after a step that was not finite: the weights may be beyond saving, and a run
        would start from them for ever.

        Args:
            instead: Of the one of the same ``images_seen`` and all later ones.
        """
        self.publish_rows()
        if self._last_step is not None and not bool(self._last_step):
            return
        self._saved_clock, self._is_due = time.monotonic(), False
        if self._state.images_seen == self._saved_images:
            return
        drawn = self.sample()  # first: it recalibrates the EMA's BatchNorm
        saved = snapshot(self._state)
        images_seen = self._saved_images = self._state.images_seen
        epoch = self._run.plan.epoch_of(images_seen)[0]
        rows, best = list(self._history.rows), self._best.facts

        def publish() -> None:
            weights = saved["G_ema"] or saved["G"]
            publish_generator(
                self._store, self._run.settings, weights, images_seen=images_seen, epoch=epoch
            )
            report = render_report(
                rows=rows,
                facts=self._run.facts,
                epochs=self._run.plan.epochs,
                images_seen=images_seen,
                real_grid=self._real_grid,
                grid=render_grid(drawn, GRID_COLUMNS),
                losses=self._plot(rows),
                events=[span._asdict() for span in watch.spans(rows)],
                best=best,
            )
            self._store.put(run_tree.REPORT, report)
            # Last: whoever goes on from it finds everything up to it in place.
            facts = {"epoch": epoch, "micro_batch": saved["micro_batch"], **self._run.facts}
            if instead:
                delete_checkpoint(self._store, images_seen)
            publish_checkpoint(self._store, images_seen, encode(saved), facts)
            if instead:
                delete_after(self._store, images_seen)
            log.info("checkpoint", extra={"images_seen": images_seen, "epoch": epoch})
            self._remove_old()

        self._publisher.submit_behind_all("checkpoint", self._checkpoint_pace.timed(publish))

    def _remove_old(self) -> None:
        """Keep the newest checkpoints; one that can't be deleted is no reason to end a run."""
        try:
            keep_newest(self._store, self._run.settings.keep_checkpoints)
        except StorageError as error:
            log.warning("old_checkpoints_stay", extra={"reason": str(error)})

    def publish_rows(self) -> None:
        """Publish the rows, the plot and the status that the pace has kept back, if any."""
        if self._has_unpublished_rows:
            self._publish_history()

    def write_status(self, state: str, *, reason: str = "", exit_status: int | None = None) -> None:
        """Write status.json now; for when nothing is left in the publisher's hands."""
        status = self._status(state, reason=reason, exit_status=exit_status)
        run_tree.write_json(self._store, run_tree.STATUS, status)

    def _status(
        self, state: str, *, reason: str = "", exit_status: int | None = None
    ) -> dict[str, Any]:
        plan = self._run.plan
        return status_facts(
            state,
            started=self._run.started,
            epoch=plan.epoch_of(self.images_seen)[0],
            epochs=plan.epochs,
            images_seen=self.images_seen,
            reason=reason,
            exit_status=exit_status,
            summary=self._history.summary(),
        )

    def _end_epoch(self, tick: Tick) -> Mapping[str, float] | None:
        seconds = time.monotonic() - self._epoch_clock
        row = self._history.add(tick, seconds=seconds, images=self._epoch_images)
        if row is None:
            return None
        self._has_unpublished_rows = True
        if self._history_pace.is_due():
            self._publish_history()
        if tick.epoch % self._run.settings.sample_every == 0 or tick.epoch == self._run.plan.epochs:
            self._publish_samples(tick.epoch)
        reset_peak(self._run.hardware.device)
        self._epoch_images = 0
        self._epoch_clock = time.monotonic()
        return row

    def _tell_memory(self) -> None:
        """Say once, after the first step, what takes the memory; settings.json keeps it."""
        if self._memory is None:
            return
        found = self._memory.after_step(self._state)
        self._memory = None
        log.info("memory", extra=found)
        self._run.facts["memory"] = found
        facts = dict(self._run.facts)
        self._publisher.submit(
            run_tree.SETTINGS, lambda: run_tree.write_json(self._store, run_tree.SETTINGS, facts)
        )

    def _publish_history(self) -> None:
        self._has_unpublished_rows = False
        rows = list(self._history.rows)
        status = self._status("running")
        put = self._store.put
        self._publisher.submit(
            run_tree.METRICS, lambda: put(run_tree.METRICS, run_tree.encode_rows(rows))
        )
        self._publisher.submit(
            run_tree.LOSSES_PLOT,
            self._history_pace.timed(lambda: put(run_tree.LOSSES_PLOT, self._plot(rows))),
        )
        self._publisher.submit(
            run_tree.STATUS, lambda: run_tree.write_json(self._store, run_tree.STATUS, status)
        )

    def _plot(self, rows: Sequence[Mapping[str, Any]]) -> bytes:
        return render_losses(
            rows,
            self._run.plan.epochs,
            is_relativistic=is_r3(self._run.settings),
            is_scored=self._history.is_scored,
        )

    def _publish_samples(self, epoch: int) -> None:
        images, key = self.sample(), run_tree.sample_grid(epoch)
        self._publisher.submit(key, lambda: self._store.put(key, render_grid(images, GRID_COLUMNS)))

    def sample(self) -> np.ndarray[Any, np.dtype[np.uint8]]:
        """Draw the fixed latents: (GRID_IMAGES, 1, H, W), as anyone with the weights would."""
        return self._drawing.draw(self._z).numpy()
