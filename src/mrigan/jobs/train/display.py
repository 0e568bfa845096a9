"""What a person sees while a run trains: a live line on a terminal, else one log line an epoch."""

import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console

from mrigan.artifacts.history import EpochRow
from mrigan.jobs.bars import Bars
from mrigan.training.loop import Tick
from mrigan.training.plan import Plan

log = logging.getLogger(__name__)

_HEARTBEAT_SECONDS = 60.0
_REFRESH_SECONDS = 1.0


class Display:
    """Told of everything as it happens; this one shows nothing."""

    def pulling(self, done: int, total: int) -> None:
        """So many slices of so many are decoded."""

    def training(self, plan: Plan, images_seen: int) -> None:
        """Training starts, or resumes, at ``images_seen``."""

    def tick(self, tick: Tick) -> None:
        """One optimizer step is done."""

    def epoch(self, row: EpochRow) -> None:
        """An epoch has ended."""


@contextmanager
def open_display(log_format: str, *, is_main: bool) -> Iterator[Display]:
    """Live on a terminal, unless lines were asked for; silent on every rank but the first."""
    if not is_main:
        yield Display()
    elif log_format == "auto" and sys.stdout.isatty():
        with LiveDisplay() as display:
            yield display
    else:
        yield LineDisplay()


def step_facts(tick: Tick) -> dict[str, float]:
    """D's and G's mean loss over the step; reading them waits for the device."""
    return {name: float(tick.sums[name]) / tick.step_images for name in ("d_loss", "g_loss")}


class LineDisplay(Display):
    """One parsable line an epoch, and one a minute where epochs are longer."""

    def __init__(self) -> None:
        self._last = time.monotonic()

    def pulling(self, done: int, total: int) -> None:
        """Say how far the pull is, now and then."""
        if self._due() and done < total:
            log.info("pulling", extra={"done": done, "of": total})

    def training(self, plan: Plan, images_seen: int) -> None:
        """Nothing beyond the plan's own line."""
        self._last = time.monotonic()

    def tick(self, tick: Tick) -> None:
        """Say that training lives, now and then."""
        if not tick.ends_epoch and self._due():
            facts = {"epoch": tick.epoch, "images_seen": tick.images_seen, **step_facts(tick)}
            log.info("progress", extra=facts)

    def epoch(self, row: EpochRow) -> None:
        """Log the row."""
        self._last = time.monotonic()
        log.info("epoch", extra=row.to_json())

    def _due(self) -> bool:
        if time.monotonic() - self._last < _HEARTBEAT_SECONDS:
            return False
        self._last = time.monotonic()
        return True


class LiveDisplay(Bars, Display):
    """A bar for the pull, then one for the run: speed, losses, memory, time left; 80 columns do.

    Each epoch leaves a line above it.
    """

    def __init__(self, console: Console | None = None) -> None:
        super().__init__(console)
        self._pull = self._progress.add_task("slices", total=None, visible=False, facts="")
        self._train = self._progress.add_task("epoch", total=None, visible=False, facts="")
        self._epochs = 0
        self._shown = 0.0
        self._tail = ""
        self._started = (0.0, 0)  # clock and images_seen when this process began to train

    def pulling(self, done: int, total: int) -> None:
        """Move the pull's bar."""
        facts = f"{done:,} of {total:,}"
        self._progress.update(self._pull, completed=done, total=total, visible=True, facts=facts)

    def training(self, plan: Plan, images_seen: int) -> None:
        """Put the run's bar in its place."""
        self._epochs = plan.epochs
        self._started = (time.monotonic(), images_seen)
        self._progress.update(self._pull, visible=False)
        self._progress.reset(self._train, total=plan.total_images, completed=images_seen)
        epoch = min(plan.epoch_of(images_seen)[0] + 1, plan.epochs)
        self._progress.update(
            self._train,
            visible=True,
            description=f"epoch {epoch}/{plan.epochs}",
            facts="preparing the first step",
        )

    def tick(self, tick: Tick) -> None:
        """Move the run's bar; the losses are read once a second, not to stall the device."""
        if time.monotonic() - self._shown < _REFRESH_SECONDS and not tick.ends_epoch:
            return
        self._shown = time.monotonic()
        began, first = self._started
        speed = (tick.images_seen - first) / max(self._shown - began, 1e-9)
        digits = 1 if speed < 100 else 0
        d_loss, g_loss = step_facts(tick).values()
        self._progress.update(
            self._train,
            completed=tick.images_seen,
            description=f"epoch {tick.epoch}/{self._epochs}",
            facts=f"{speed:,.{digits}f} images/s  D {d_loss:.3f}  G {g_loss:.3f}{self._tail}",
        )

    def epoch(self, row: EpochRow) -> None:
        """Leave a line, and keep the memory figure for the bar."""
        self._progress.console.print(_epoch_line(row, self._epochs), highlight=False)
        peak = row.memory.get("peak_allocated_mib", row.memory.get("peak_rss_mib", 0.0))
        self._tail = f"  {peak / 1024:.1f} GiB"


def _epoch_line(row: EpochRow, epochs: int) -> str:
    """What an epoch came to, and its score if it has one, for people."""
    losses = [
        f"{name} {row.means[key]:.3f}"
        for name, key in (("D", "d_loss"), ("G", "g_loss"))
        if key in row.means
    ]
    parts = [f"epoch {row.epoch}/{epochs}", *losses]
    if row.score is not None:
        parts.append(f"distance {row.score.swd:.3f} (reals {row.score.swd_floor:.3f})")
        if row.score.coverage is not None:
            parts.append(f"covered {row.score.coverage:.0%}")
    return "  ".join(parts)
