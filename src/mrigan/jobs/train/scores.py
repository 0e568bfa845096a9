"""Scores fakes against real slices, now and then, at a small share of the training time.

When is a function of the images seen and of nothing else: whatever ends a run's starts, and
however busy its machine is, it is scored at the same epochs. Scores become rarer as a run goes on.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mrigan.artifacts.history import EpochRow, Score, scored
from mrigan.data.pack import Pack
from mrigan.data.sampler import stream_seed
from mrigan.evaluation.coverage import NEIGHBOURS, coverage
from mrigan.evaluation.features import random_features
from mrigan.evaluation.kernel import KernelDistance
from mrigan.evaluation.sliced_wasserstein import sliced_wasserstein
from mrigan.evaluation.variety import duplicate_fraction, spread_ratio
from mrigan.settings.fields import Settings
from mrigan.training.inputs import draw_latents

_MOST_IMAGES = 256
_FEWEST_IMAGES = 2
# Images trained on for each image scored: a score takes as long as training on a tenth of that.
_IMAGES_BETWEEN = 16
# And at least this part of all images seen: of 1.3 million images scores then take about 1 %.
_PART_BETWEEN = 1 / 8
# But early no more than this part: whenever a run stops, its last score is not far behind.
_MOST_PART_BETWEEN = 1 / 4


class Reference(NamedTuple):
    """Two equal sets of reals, each (n, 1, H, W) uint8."""

    real: Tensor  # what fakes are measured against
    other: Tensor  # whose distance to them is the floor
    against: str  # the side ``real`` is from: holdout, or training where there is none


def reference_of(pack: Pack, seed: int) -> Reference | None:
    """Choose the reals, the same for the whole run; None where there are too few."""
    training = _shuffled(pack.training, seed, "training")
    if len(pack.holdout):
        real, other, against = _shuffled(pack.holdout, seed, "holdout"), training, "holdout"
    else:
        middle = len(training) // 2
        real, other, against = training[:middle], training[middle:], "training"
    count = min(len(real), len(other), _MOST_IMAGES)
    if count < _FEWEST_IMAGES:
        return None
    sets = [torch.from_numpy(pack.images[rows[:count].numpy()]) for rows in (real, other)]
    return Reference(sets[0], sets[1], against)


class _Floors(NamedTuple):
    """What is the same at every score."""

    features: Tensor  # of the reals
    swd: float  # from other reals to them
    kid: float


class Scorer:
    """Measures what a run draws, from the same latents each time."""

    def __init__(self, settings: Settings, pack: Pack, device: torch.device) -> None:
        self._reference = reference_of(pack, settings.seed)
        self._device = torch.device("cuda" if device.type == "cuda" else "cpu")
        self._latent_dim, self._seed = settings.latent_dim, settings.seed
        self._sample_every, self._epochs = settings.sample_every, settings.epochs
        self._floors: _Floors | None = None

    @property
    def is_able(self) -> bool:
        """Whether there are reals to score against."""
        return self._reference is not None

    def is_due(self, epoch: int, images_seen: int, rows: Sequence[EpochRow]) -> bool:
        """Whether the epoch that has just ended is to be scored, after those of ``rows``."""
        if self._reference is None or (epoch % self._sample_every and epoch != self._epochs):
            return False
        last = next((each.row.images_seen for each in reversed(scored(rows))), None)
        if last is None or epoch == self._epochs:
            return True
        between = max(_IMAGES_BETWEEN * len(self._reference.real), last * _PART_BETWEEN)
        return images_seen - last >= min(between, last * _MOST_PART_BETWEEN)

    def score(self, draw: Callable[[Tensor], Tensor]) -> Score:
        """Measure what ``draw`` makes of latents (n, latent_dim): (n, 1, H, W) uint8."""
        assert self._reference is not None
        began = time.monotonic()
        real, other = (each.to(self._device) for each in self._reference[:2])
        z = draw_latents(len(real), self._latent_dim, stream_seed(self._seed, "scores"))
        fake = draw(z).to(self._device)
        features = random_features(fake)
        if self._floors is None:
            reals = random_features(real)
            kid = _kernel_distance(reals, random_features(other))
            self._floors = _Floors(reals, _distance(real, other), kid)
        has_enough = len(real) > NEIGHBOURS
        score = Score(
            swd=round(_distance(real, fake), 6),
            swd_floor=round(self._floors.swd, 6),
            swd_against=self._reference.against,
            kid=round(_kernel_distance(self._floors.features, features), 6),
            kid_floor=round(self._floors.kid, 6),
            coverage=round(coverage(real, fake).coverage, 4) if has_enough else None,
            spread=round(spread_ratio(real, fake), 4),
            duplicates=round(duplicate_fraction(real, fake), 4),
            score_seconds=0.0,
        )
        return replace(score, score_seconds=round(time.monotonic() - began, 3))


def score_share(rows: Sequence[EpochRow]) -> float:
    """The share of a run's time that its scores took, 0 to 1."""
    scoring = sum(each.score.score_seconds for each in scored(rows))
    return float(scoring / max(scoring + sum(row.seconds for row in rows), 1e-9))


def _shuffled(rows: NDArray[np.int64], seed: int, side: str) -> Tensor:
    generator = torch.Generator().manual_seed(stream_seed(seed, "reference", side))
    return torch.from_numpy(rows)[torch.randperm(len(rows), generator=generator)]


def _kernel_distance(real: Tensor, fake: Tensor) -> float:
    every = torch.arange(len(real))
    return KernelDistance(real.cpu(), fake.cpu())(every, every)


def _distance(real: Tensor, fake: Tensor) -> float:
    levels = sliced_wasserstein(real, fake)
    return sum(levels) / len(levels)
