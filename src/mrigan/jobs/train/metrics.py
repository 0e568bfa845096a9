"""The rows of metrics.jsonl: what each epoch came to, how its fakes score, and its alarms."""

import logging
from collections.abc import Sequence
from dataclasses import asdict, replace

import torch

from mrigan.artifacts.history import EpochRow, scored
from mrigan.artifacts.run_status import BestScore
from mrigan.artifacts.run_tree import JsonObject
from mrigan.jobs.train import alarms
from mrigan.jobs.train.generators import Best
from mrigan.jobs.train.samples import Samples
from mrigan.jobs.train.scores import Scorer, score_share
from mrigan.models.family import Recipe
from mrigan.runtime.device import memory_facts
from mrigan.training.adaptive import MOST
from mrigan.training.loop import COUNTED, Tick
from mrigan.training.plan import Plan
from mrigan.training.state import TrainingState
from mrigan.training.step import augment_p

log = logging.getLogger(__name__)


class Metrics:
    """The rows of one run, from its first epoch on.

    Args:
        state: Read between steps, never changed.
        plan: Of the run.
        recipe: Of the run.
        scorer: Says when fakes are scored.
        samples: Of the same state.
        best: Offered each network that is scored.
        rows: Up to where training starts; grows by one an epoch.
    """

    def __init__(
        self,
        state: TrainingState,
        plan: Plan,
        recipe: Recipe,
        *,
        scorer: Scorer,
        samples: Samples,
        best: Best,
        rows: list[EpochRow],
    ) -> None:
        self.rows = rows
        self._state = state
        self._recipe = recipe
        self._scorer = scorer
        self._samples = samples
        self._best = best
        self._device = next(state.G.parameters()).device
        is_adaptive = recipe.augmentation is not None and recipe.augmentation.by == "adaptive"
        self._limits = alarms.Limits(
            epoch_steps=plan.epoch_steps,
            total_images=plan.total_images,
            augment_cap=MOST if is_adaptive else 0.0,
        )

    @property
    def is_scored(self) -> bool:
        """Whether there are reals to score against."""
        return self._scorer.is_able

    def add(self, tick: Tick, *, seconds: float, images: int) -> EpochRow | None:
        """Make the row of the epoch that ``tick`` ends; None if every step of it was skipped.

        Args:
            tick: The epoch's last.
            seconds: That the epoch took here.
            images: Of them, trained on here: fewer where the epoch was resumed.
        """
        names = list(self._state.epoch_sums)
        values = torch.stack(list(self._state.epoch_sums.values())).tolist()  # one read
        sums = dict(zip(names, values, strict=True))
        counted = sums.pop(COUNTED)
        if not counted:
            return None
        row = EpochRow(
            epoch=tick.epoch,
            images_seen=tick.images_seen,
            means={name: round(value / counted, 6) for name, value in sums.items()},
            augment_p=self._augment_p(),
            seconds=round(seconds, 3),
            images_per_second=round(images / max(seconds, 1e-9), 2),
            memory=memory_facts(self._device),
        )
        if self._scorer.is_due(tick.epoch, tick.images_seen, self.rows):
            score = self._scorer.score(self._samples.draw)
            self._best.offer(
                self._state.sampler, BestScore(tick.epoch, tick.images_seen, score.swd)
            )
            row = replace(row, score=score)
        return self._with_alarms(row)

    def forget_after(self, images_seen: int) -> None:
        """Drop the rows after ``images_seen``, to which the run has rolled back."""
        self.rows[:] = [row for row in self.rows if row.images_seen <= images_seen]
        self._samples.forget()

    def _augment_p(self) -> float | None:
        """How often D sees augmented slices from here on, where a family augments at all."""
        if self._recipe.augmentation is None:
            return None
        values = self._recipe.values(self._state.images_seen)
        return round(float(augment_p(self._state, self._recipe, values)), 6)

    def _with_alarms(self, row: EpochRow) -> EpochRow:
        """Append ``row`` with its alarms; log which ones have begun and which have ended."""
        before = set(self.rows[-1].alarms) if self.rows else set()
        found = alarms.alarms_of([*self.rows, row], self._limits)
        row = replace(row, alarms=tuple(found))
        self.rows.append(row)
        for alarm in found.keys() - before:
            facts = {"epoch": row.epoch, "why": found[alarm], "remedy": alarms.REMEDIES[alarm]}
            log.warning(alarm, extra=facts)
        for alarm in before - found.keys():
            log.info("alarm_ended", extra={"alarm": alarm, "epoch": row.epoch})
        return row


def summary_of(rows: Sequence[EpochRow], best: BestScore | None) -> JsonObject:
    """How training goes, for status.json: the last score, the best one, the alarms."""
    names = ("swd", "swd_floor", "swd_against", "kid", "kid_floor", "coverage")
    last = asdict(found[-1].score) if (found := scored(rows)) else {}
    return {
        **{name: last[name] for name in names if last.get(name) is not None},
        "best": best._asdict() if best else {},
        "alarms": [span._asdict() for span in alarms.spans(rows)],
        "score_share": round(score_share(rows), 4),
    }
