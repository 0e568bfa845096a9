"""Tells from a run's rows that training goes wrong: pure, so that a restart sees the same.

The thresholds are rules of thumb from published runs, not calibrated on ours; the raw signals are
in every row, to be judged anew.
"""

import statistics
from collections.abc import Mapping, Sequence
from itertools import takewhile
from typing import Any, NamedTuple

from mrigan.training.adaptive import MOST

Row = Mapping[str, Any]

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


class Course(NamedTuple):
    """What the rows don't say of their run."""

    epoch_steps: int
    total_images: int
    augment_cap: float = MOST  # where p can't rise further; 0 where nothing lets it


def events_of(rows: Sequence[Row], course: Course) -> dict[str, str]:
    """What is wrong after the last of ``rows``, each with the signal that says so."""
    if not rows:
        return {}
    found = {
        D_OVERPOWERS: _overpowering(rows, course),
        COLLAPSE: _collapse(rows, course),
        SPIKE: _spike(rows, course),
    }
    return {event: why for event, why in found.items() if why}


class Span(NamedTuple):
    """An event from its first epoch to its last."""

    event: str
    first_epoch: int
    last_epoch: int


def spans(rows: Sequence[Row]) -> list[Span]:
    """The events of a whole run, by their beginnings."""
    found: list[Span] = []
    lasting: dict[str, Span] = {}
    for row in rows:
        epoch, events = row["epoch"], row.get("events", ())
        found += [span for event, span in lasting.items() if event not in events]
        lasting = {
            event: lasting.get(event, Span(event, epoch, epoch))._replace(last_epoch=epoch)
            for event in events
        }
    return sorted([*found, *lasting.values()], key=lambda span: span.first_epoch)


def summary(rows: Sequence[Row], best: Mapping[str, Any]) -> dict[str, Any]:
    """What status.json tells of the training so far: the last score, the best, the events."""
    scored = [row for row in rows if "swd" in row]
    last = scored[-1] if scored else {}
    names = ("swd", "swd_floor", "swd_against", "coverage")
    return {
        **{name: last[name] for name in names if name in last},
        "best": dict(best),
        "events": [span._asdict() for span in spans(rows)],
    }


def _overpowering(rows: Sequence[Row], course: Course) -> str:
    if "real_sign" not in rows[-1]:
        low = list(takewhile(lambda row: row["d_loss"] < _D_LOSS, reversed(rows)))
        steps = len(low) * course.epoch_steps
        return f"d_loss below {_D_LOSS} for {steps} steps" if steps >= _D_LOSS_STEPS else ""
    if _mean_sign(rows, _SURE_IMAGES) > _SURE:
        return f"real_sign above {_SURE} for {_SURE_IMAGES:,} images"
    sign = _mean_sign(rows, _SIGN_IMAGES)
    if sign <= _SIGN or rows[-1].get("augment_p", 0.0) < course.augment_cap:
        return ""
    return f"real_sign {sign:.2f}, above {_SIGN}, with augment_p at its cap"


def _mean_sign(rows: Sequence[Row], images: int) -> float:
    """Of the last rows that make up ``images``; 0 if they are too few."""
    recent = _over_images(rows, images)
    total = sum(count for _, count in recent)
    return sum(row["real_sign"] * count for row, count in recent) / total if recent else 0.0


def _over_images(rows: Sequence[Row], images: int) -> list[tuple[Row, int]]:
    """The last rows that make up ``images``, with how many each has; none if they are too few."""
    end, found = rows[-1]["images_seen"], []
    starts = [0, *(row["images_seen"] for row in rows[:-1])]
    for row, start in zip(reversed(rows), reversed(starts), strict=True):
        found.append((row, row["images_seen"] - start))
        if end - start >= images:
            return found
    return []


def _collapse(rows: Sequence[Row], course: Course) -> str:
    """By the last two scores: one may be chance, and what they say stands until the next."""
    scored = [row for row in rows if "swd" in row]
    if len(scored) < _COLLAPSE_SCORES:
        return ""
    best = max(row.get("coverage", 0.0) for row in scored)
    # A generator that has yet to come near the reals has nothing to lose.
    has_learned = best >= _COVERAGE_SURE
    beginning = max(_BEGINNING_IMAGES, _BEGINNING_COLLAPSE * course.total_images)
    if not has_learned and scored[-1]["images_seen"] < beginning:
        return ""
    each = [_lost(row, best if has_learned else 0.0) for row in scored[-_COLLAPSE_SCORES:]]
    return ", ".join(each[-1].values()) if all(each) else ""


def _lost(row: Row, best_coverage: float) -> dict[str, str]:
    """What one score says of variety: nothing, where there is enough."""
    coverage = row.get("coverage", 1.0)
    signals = {
        "spread": (row["spread"] < _SPREAD, f"spread {row['spread']:.2f} of the reals'"),
        "duplicates": (
            row["duplicates"] > _DUPLICATES,
            f"{row['duplicates']:.0%} of the fakes are near copies of others",
        ),
        "coverage": (
            coverage < _COVERAGE_SHARE * best_coverage,
            f"coverage {coverage:.2f}, the best was {best_coverage:.2f}",
        ),
    }
    return {name: why for name, (is_so, why) in signals.items() if is_so}


def _spike(rows: Sequence[Row], course: Course) -> str:
    last = rows[-1]
    if "r1" not in last or last["images_seen"] < _BEGINNING_SPIKE * course.total_images:
        return ""
    before = [row["r1"] + row["r2"] for row in rows[-1 - _SPIKE_ROWS : -1]]
    if len(before) < _SPIKE_FEWEST:
        return ""
    median, now = statistics.median(before), last["r1"] + last["r2"]
    return f"r1 + r2 {now:.3g}, median {median:.3g}" if now > _SPIKE * median else ""
