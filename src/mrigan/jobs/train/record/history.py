"""The rows of metrics.jsonl: what each epoch came to, how its fakes score, and what is wrong."""

import logging
from collections.abc import Mapping
from typing import Any

import torch

from mrigan.jobs.model import family_of
from mrigan.jobs.train.prepare import Prepared
from mrigan.jobs.train.record import watch
from mrigan.jobs.train.record.drawing import Drawing
from mrigan.jobs.train.record.score import Scorer, score_share
from mrigan.jobs.train.record.weights import Best
from mrigan.runtime.device import memory_facts
from mrigan.training.adaptive import MOST
from mrigan.training.loop import COUNTED, Tick
from mrigan.training.state import TrainingState

log = logging.getLogger(__name__)


class History:
    """The rows of one run, from its first epoch on.

    Args:
        prepared: The run.
        state: Read between steps, never changed.
        drawing: Of the same state.
        best: Offered each network that is scored.
        rows: Up to where training starts; grows by one an epoch.
    """

    def __init__(
        self,
        prepared: Prepared,
        state: TrainingState,
        drawing: Drawing,
        best: Best,
        rows: list[dict[str, Any]],
    ) -> None:
        self.rows = rows
        self._state = state
        self._drawing = drawing
        self._best = best
        self._device = prepared.hardware.device
        self._scorer = Scorer(prepared)
        self._family = family_of(prepared.settings, prepared.plan)
        self._course = watch.Course(
            epoch_steps=prepared.plan.epoch_steps,
            total_images=prepared.plan.total_images,
            augment_cap=MOST if self._family.augment_by == "adaptive" else 0.0,
        )

    @property
    def is_scored(self) -> bool:
        """Whether there are reals to score against."""
        return self._scorer.is_able

    def add(self, tick: Tick, *, seconds: float, images: int) -> Mapping[str, Any] | None:
        """Make the row of the epoch that ``tick`` ends; None if every step of it was skipped.

        Args:
            tick: The epoch's last.
            seconds: That the epoch took here.
            images: Of them, trained on here: fewer where it was continued.
        """
        names = list(self._state.epoch_sums)
        values = torch.stack(list(self._state.epoch_sums.values())).tolist()  # one read
        sums = dict(zip(names, values, strict=True))
        counted = sums.pop(COUNTED)
        if not counted:
            return None
        row: dict[str, Any] = {
            "epoch": tick.epoch,
            "images_seen": tick.images_seen,
            **{name: round(value / counted, 6) for name, value in sums.items()},
            **self._augmentation(),
            "seconds": round(seconds, 3),
            "images_per_second": round(images / max(seconds, 1e-9), 2),
            **memory_facts(self._device),
        }
        if self._scorer.is_due(tick.epoch, tick.images_seen, self.rows):
            row |= self._scorer.score(self._drawing.draw)
            score = {name: row[name] for name in ("epoch", "images_seen", "swd")}
            self._best.offer(self._state.sampler, **score)
        self.rows.append(row)
        self._note_events()
        return row

    def forget_after(self, images_seen: int) -> None:
        """Drop the rows of a way that was given up."""
        self.rows[:] = [row for row in self.rows if row["images_seen"] <= images_seen]
        self._drawing.forget()

    def summary(self) -> dict[str, Any]:
        """How training goes, for status.json."""
        share = round(score_share(self.rows), 4)
        return {**watch.summary(self.rows, self._best.facts), "score_share": share}

    def _augmentation(self) -> dict[str, float]:
        """How often D sees augmented slices from here on, where a schedule says so."""
        if self._family.schedule is None:
            return {}
        values = self._family.schedule.at(self._state.images_seen)
        return {"augment_p": round(float(self._family.augment_p(self._state, values)), 6)}

    def _note_events(self) -> None:
        """Put into the newest row what is wrong with it; say what has begun and what has ended."""
        row = self.rows[-1]
        before = set(self.rows[-2].get("events", ())) if len(self.rows) > 1 else set()
        found = watch.events_of(self.rows, self._course)
        if found:
            row["events"] = list(found)
        for event in found.keys() - before:
            facts = {"epoch": row["epoch"], "why": found[event], "remedy": watch.REMEDIES[event]}
            log.warning(event, extra=facts)
        for event in before - found.keys():
            log.info("over", extra={"event": event, "epoch": row["epoch"]})
