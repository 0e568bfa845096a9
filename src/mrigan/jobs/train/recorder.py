"""Decides what of a run is saved when, and hands it to the publisher.

Whatever reads the networks is done here, between two steps; encoding and uploading happen beside
training. Nothing about the networks changes: sampling leaves every buffer and every RNG stream as
it found them.
"""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from torch import Tensor

from mrigan.artifacts.publisher import Publisher
from mrigan.data.sampler import epoch_order
from mrigan.errors import DivergedError, LeaseError, StorageError
from mrigan.jobs.train.display import Display
from mrigan.jobs.train.generators import Best
from mrigan.jobs.train.memory import MemoryReport
from mrigan.jobs.train.metrics import Metrics
from mrigan.jobs.train.pace import Pace
from mrigan.jobs.train.prepare import Run
from mrigan.jobs.train.publications import Publications
from mrigan.jobs.train.resume import ResumePoint
from mrigan.jobs.train.samples import GRID_IMAGES, Samples
from mrigan.jobs.train.scores import Scorer
from mrigan.jobs.train.trackers.choice import open_trackers
from mrigan.jobs.train.unpublished import keep_unpublished
from mrigan.models.family import Recipe
from mrigan.runtime.device import reset_peak
from mrigan.runtime.signals import Stopped, StopRequest
from mrigan.training.guard import Verdict
from mrigan.training.loop import Tick
from mrigan.training.state import TrainingState

log = logging.getLogger(__name__)

# SageMaker and compose give 120 s from SIGTERM to SIGKILL.
_FLUSH_SECONDS_WHEN_STOPPED = 90.0
_FLUSH_SECONDS = 1800.0


class SilentRecorder:
    """The recorder of every rank but the first: it saves nothing."""

    def record(self, tick: Tick, display: Display) -> Exception | None:
        """Do nothing."""

    def finish(self) -> None:
        """Do nothing."""


class Recorder(SilentRecorder):
    """The saving side of one run; told of each Tick, it acts when something is due.

    Args:
        run: Claimed.
        state: Read between steps, never changed.
        metrics: Of the same state.
        publications: Of the same run.
        device: That trains.
        stop: Of this process.
        saved_images: ``images_seen`` of the checkpoint that training resumes from, if any.
    """

    def __init__(
        self,
        run: Run,
        state: TrainingState,
        metrics: Metrics,
        publications: Publications,
        stop: StopRequest,
        *,
        saved_images: int | None,
    ) -> None:
        self._run, self._settings, self._plan = run, run.settings, run.plan
        self._state = state
        self._metrics = metrics
        self._publications = publications
        self._stop = stop
        self._device = next(state.G.parameters()).device
        self._saved_images = saved_images
        self._saved_clock = self._epoch_clock = time.monotonic()
        self._epoch_images = 0
        self._is_checkpoint_due = False
        self._last_step: Tensor | None = None  # whether it was taken, on the device
        self._rows_pace, self._checkpoint_pace = Pace(), Pace()
        self._has_unpublished_rows = False
        self._memory: MemoryReport | None = MemoryReport(run.pack, self._device)
        reset_peak(self._device)

    @property
    def _is_done(self) -> bool:
        return self._state.images_seen >= self._plan.total_images

    def record(self, tick: Tick, display: Display) -> Exception | None:
        """Save and show what is due after ``tick``.

        Returns:
            What went wrong: the caller raises it once the other ranks have heard of it.
        """
        try:
            self._record(tick, display)
            self._publications.check()  # last: all that belongs to this step is submitted
        except Exception as error:  # noqa: BLE001 - raised by the caller
            return error
        return None

    def _record(self, tick: Tick, display: Display) -> None:
        facts = {"nonfinite": 1, "images_seen": tick.images_seen, "attempt": self._state.attempt}
        self._last_step = tick.taken
        display.tick(tick)
        if tick.verdict is Verdict.ROLLED_BACK:
            log.warning("rolled_back", extra={**facts, "remedy": "half the rates, other latents"})
            self._roll_back(tick.images_seen)
            return
        if tick.verdict is Verdict.SKIPPED:
            log.warning("step_skipped", extra={**facts, "nonfinite": tick.skipped})
        self._report_memory()
        self._epoch_images += tick.step_images
        if tick.ends_epoch:
            self._end_epoch(tick, display)
        minutes = (time.monotonic() - self._saved_clock) / 60
        every = self._settings.checkpoint_every
        self._is_checkpoint_due |= tick.ends_epoch and tick.epoch % every == 0
        is_paced = self._is_checkpoint_due and self._checkpoint_pace.is_due()
        if self._is_done or is_paced or minutes >= self._settings.checkpoint_minutes:
            self.save_checkpoint()

    def finish(self) -> None:
        """Save what is left, wait until all is published, and say how the run ended."""
        self.save_checkpoint()
        is_short = self._stop or not self._is_done
        self._publications.flush(_FLUSH_SECONDS_WHEN_STOPPED if is_short else _FLUSH_SECONDS)
        if self._is_done:
            self._publications.complete(_FLUSH_SECONDS_WHEN_STOPPED)
        else:
            self._publications.interrupt(self._stop.signal_name, _FLUSH_SECONDS_WHEN_STOPPED)

    def save_checkpoint(self, *, replacing: bool = False) -> None:
        """Publish the state as it is now, the generator to use, and the report, once.

        Not right after a step that was not finite: the weights may be beyond saving, and a run
        would start from them for ever.

        Args:
            replacing: Whether it takes the place of the one of the same ``images_seen`` and of all
                later ones.
        """
        self.publish_rows()
        if self._last_step is not None and not bool(self._last_step):
            return
        self._saved_clock, self._is_checkpoint_due = time.monotonic(), False
        if self._state.images_seen == self._saved_images:
            return
        self._saved_images = self._state.images_seen
        self._publications.publish_checkpoint(self._checkpoint_pace, replacing=replacing)

    def publish_rows(self) -> None:
        """Publish the rows, the plot and the status that the pace has kept back, if any."""
        if self._has_unpublished_rows:
            self._has_unpublished_rows = False
            self._publications.publish_rows(self._rows_pace)

    def save_after(self, error: Exception) -> Exception:
        """Let what still waits reach the store or, where it can't, a local folder.

        Returns:
            ``error``; a store's, with what became of what it did not take.
        """
        if isinstance(error, StorageError):
            return self._keep(error, self.save_checkpoint)
        if isinstance(error, DivergedError):
            images_seen = self._state.images_seen
            log.warning("diverged", extra={"nonfinite": 1, "images_seen": images_seen})
        try:
            self.publish_rows()
            self._publications.flush(_FLUSH_SECONDS_WHEN_STOPPED)
        except StorageError as unpublished:
            reason = str(self._keep(unpublished, self.publish_rows))
            log.warning("not_published", extra={"reason": reason})
        return error

    def _keep(self, error: StorageError, save: Callable[[], None]) -> StorageError:
        run, publications, is_done = self._run, self._publications, self._is_done
        return keep_unpublished(run, publications, error, save=save, is_done=is_done)

    def _roll_back(self, images_seen: int) -> None:
        """Replace the checkpoints after the point of the rollback by one of the new attempt."""
        self._last_step = None
        self._metrics.forget_after(images_seen)
        self._epoch_images, self._epoch_clock = 0, time.monotonic()
        self._saved_images = None
        self._has_unpublished_rows = True
        self.save_checkpoint(replacing=True)

    def _end_epoch(self, tick: Tick, display: Display) -> None:
        seconds = time.monotonic() - self._epoch_clock
        row = self._metrics.add(tick, seconds=seconds, images=self._epoch_images)
        if row is None:
            return
        self._has_unpublished_rows = True
        if self._rows_pace.is_due():
            self.publish_rows()
        if tick.epoch % self._settings.sample_every == 0 or tick.epoch == self._plan.epochs:
            self._publications.publish_samples(tick.epoch)
        reset_peak(self._device)
        self._epoch_images = 0
        self._epoch_clock = time.monotonic()
        display.epoch(row)

    def _report_memory(self) -> None:
        """Say once, after the first step, what takes the memory; status.json keeps it."""
        if self._memory is not None:
            found, self._memory = self._memory.after_step(self._state), None
            log.info("memory", extra=found)
            self._publications.memory = found


@contextmanager
def recording(
    run: Run | None,
    state: TrainingState,
    recipe: Recipe,
    resumed: ResumePoint | None,
    stop: StopRequest,
) -> Iterator[SilentRecorder]:
    """The recorder of ``run``; if training fails, what waits is saved.

    Args:
        run: None gives a silent recorder, on every rank but the first.
        state: Read between steps.
        recipe: Of the run.
        resumed: None exactly where ``run`` is.
        stop: Of this process.
    """
    if run is None or resumed is None:
        yield SilentRecorder()
        return
    publisher = Publisher(run.store, should_stop=lambda: bool(stop), before_each=run.lease.verify)
    settings = run.settings
    samples, best = Samples(settings, state), Best(run.store, settings, publisher)
    scorer = Scorer(settings, run.pack, next(state.G.parameters()).device)
    metrics = Metrics(
        state, run.plan, recipe, scorer=scorer, samples=samples, best=best, rows=resumed.rows
    )
    trackers = open_trackers(run, publisher, resumed.rows)
    shown = epoch_order(run.plan.slices, settings.seed, 0)[:GRID_IMAGES].sort().values
    publications = Publications(
        run,
        state,
        publisher,
        metrics=metrics,
        samples=samples,
        best=best,
        trackers=trackers,
        real=run.pack.images[run.pack.training[shown.numpy()]],
    )
    recorder = Recorder(run, state, metrics, publications, stop, saved_images=resumed.images_seen)
    publications.publish_reals()
    if resumed.images_seen is not None:
        publications.publish_again()
    try:
        yield recorder
    except Exception as error:
        told = recorder.save_after(error)
        if not isinstance(error, LeaseError):  # else the run is another job's now
            trackers.end("interrupted" if isinstance(error, Stopped) else "failed")
        if told is error:
            raise
        raise told from error
    finally:
        publisher.close()
