"""Alarms: what a run's rows say goes wrong. Pure, so that a resumed run raises the same ones.

The thresholds are rules of thumb from published runs, not calibrated on ours; the raw signals are
in every row, to be judged anew.
"""

import statistics
from collections.abc import Sequence
from itertools import takewhile
from typing import NamedTuple

from mrigan.artifacts.history import EpochRow, Score, scored
from mrigan.artifacts.run_status import AlarmSpan
from mrigan.training.adaptive import MOST

D_OVERPOWERS, COLLAPSE, SPIKE = "d_overpowers", "collapse", "penalty_spike"

REMEDIES = {
    D_OVERPOWERS: "D tells every slice: more slices, another MRIGAN_GAMMA (r3) or a lower "
    "MRIGAN_D_LR (dcgan), or end here and take model/best.safetensors",
    COLLAPSE: "the generator draws too much of the same: take model/best.safetensors, or start "
    "anew with another MRIGAN_SEED or lower rates",
    SPIKE: "D has become steep: if it does not pass, MRIGAN_GAMMA=paper or lower rates",
}

_SIGN, _SIGN_IMAGES = 0.85, 10_000  # with augmentation at its cap
_SURE, _SURE_IMAGES = 0.98, 30_000  # whatever augmentation does: it may need longer than the run
_D_LOSS, _D_LOSS_STEPS = 0.05, 200
_SPREAD, _DUPLICATES = 0.6, 0.05
_COLLAPSE_SCORES = 2
_COVERAGE_SHARE, _COVERAGE_SURE = 0.5, 0.2  # of the best; below that, coverage is mostly chance
_SPIKE, _SPIKE_ROWS, _SPIKE_FEWEST = 10.0, 50, 5
# Every run begins with blobs that are all the same and a D without gradients.
_BEGINNING_COLLAPSE, _BEGINNING_SPIKE = 0.5, 0.1
_BEGINNING_IMAGES = 10_000


class Limits(NamedTuple):
    """What the rows don't say of their run."""

    epoch_steps: int
    total_images: int
    augment_cap: float = MOST  # where p can't rise further; 0 where nothing lets it


def alarms_of(rows: Sequence[EpochRow], limits: Limits) -> dict[str, str]:
    """The alarms after the last of ``rows``, each with the signal that raises it."""
    if not rows:
        return {}
    found = {
        D_OVERPOWERS: _overpowering(rows, limits),
        COLLAPSE: _collapse(rows, limits),
        SPIKE: _spike(rows, limits),
    }
    return {alarm: why for alarm, why in found.items() if why}


def spans(rows: Sequence[EpochRow]) -> list[AlarmSpan]:
    """The alarms of a whole run, by their beginnings."""
    found: list[AlarmSpan] = []
    lasting: dict[str, AlarmSpan] = {}
    for row in rows:
        found += [span for alarm, span in lasting.items() if alarm not in row.alarms]
        begun = {alarm: AlarmSpan(alarm, row.epoch, row.epoch) for alarm in row.alarms}
        lasting = {
            alarm: lasting.get(alarm, span)._replace(last_epoch=row.epoch)
            for alarm, span in begun.items()
        }
    return sorted([*found, *lasting.values()], key=lambda span: span.first_epoch)


def _overpowering(rows: Sequence[EpochRow], limits: Limits) -> str:
    if "real_sign" not in rows[-1].means:  # of a family whose loss says nothing of single pairs
        low = list(takewhile(lambda row: row.means["d_loss"] < _D_LOSS, reversed(rows)))
        steps = len(low) * limits.epoch_steps
        return f"d_loss below {_D_LOSS} for {steps} steps" if steps >= _D_LOSS_STEPS else ""
    if _mean_sign(rows, _SURE_IMAGES) > _SURE:
        return f"real_sign above {_SURE} for {_SURE_IMAGES:,} images"
    sign = _mean_sign(rows, _SIGN_IMAGES)
    if sign <= _SIGN or (rows[-1].augment_p or 0.0) < limits.augment_cap:
        return ""
    return f"real_sign {sign:.2f}, above {_SIGN}, with augment_p at its cap"


def _mean_sign(rows: Sequence[EpochRow], images: int) -> float:
    """Of the last rows that make up ``images``; 0 if they are too few."""
    recent = _over_images(rows, images)
    total = sum(count for _, count in recent)
    return sum(row.means["real_sign"] * count for row, count in recent) / total if recent else 0.0


def _over_images(rows: Sequence[EpochRow], images: int) -> list[tuple[EpochRow, int]]:
    """The last rows that make up ``images``, with how many each has; none if they are too few."""
    end, found = rows[-1].images_seen, []
    starts = [0, *(row.images_seen for row in rows[:-1])]
    for row, start in zip(reversed(rows), reversed(starts), strict=True):
        found.append((row, row.images_seen - start))
        if end - start >= images:
            return found
    return []


def _collapse(rows: Sequence[EpochRow], limits: Limits) -> str:
    """By the last two scores: one may be chance, and what they say stands until the next."""
    found = scored(rows)
    if len(found) < _COLLAPSE_SCORES:
        return ""
    best = max(each.score.coverage or 0.0 for each in found)
    # A generator that has yet to come near the reals has nothing to lose.
    has_learned = best >= _COVERAGE_SURE
    beginning = max(_BEGINNING_IMAGES, _BEGINNING_COLLAPSE * limits.total_images)
    if not has_learned and found[-1].row.images_seen < beginning:
        return ""
    lost = [_lost(each.score, best if has_learned else 0.0) for each in found[-_COLLAPSE_SCORES:]]
    return ", ".join(lost[-1].values()) if all(lost) else ""


def _lost(score: Score, best_coverage: float) -> dict[str, str]:
    """What one score says of variety: nothing, where there is enough."""
    coverage = 1.0 if score.coverage is None else score.coverage
    signals = {
        "spread": (score.spread < _SPREAD, f"spread {score.spread:.2f} of the reals'"),
        "duplicates": (
            score.duplicates > _DUPLICATES,
            f"{score.duplicates:.0%} of the fakes are near copies of others",
        ),
        "coverage": (
            coverage < _COVERAGE_SHARE * best_coverage,
            f"coverage {coverage:.2f}, the best was {best_coverage:.2f}",
        ),
    }
    return {name: why for name, (is_so, why) in signals.items() if is_so}


def _spike(rows: Sequence[EpochRow], limits: Limits) -> str:
    last = rows[-1]
    if "r1" not in last.means or last.images_seen < _BEGINNING_SPIKE * limits.total_images:
        return ""
    before = [_penalty(row) for row in rows[-1 - _SPIKE_ROWS : -1]]
    if len(before) < _SPIKE_FEWEST:
        return ""
    median, now = statistics.median(before), _penalty(last)
    return f"r1 + r2 {now:.3g}, median {median:.3g}" if now > _SPIKE * median else ""


def _penalty(row: EpochRow) -> float:
    return row.means["r1"] + row.means["r2"]
