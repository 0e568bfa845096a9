"""Which sets of slices are compared with which, so that each number has its floor."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from mrigan.data.sampler import stream_seed
from mrigan.errors import DataError
from mrigan.evaluation.comparison import FEWEST, Compared
from mrigan.evaluation.sampling import Estimate
from mrigan.jobs.evaluate.sets import Sets


class SetFeatures(NamedTuple):
    """Features of each of the three sets, (n, d) each."""

    fake: Tensor
    training: Tensor
    holdout: Tensor


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Generated slices against some real ones, and other real ones against the same.

    Attributes:
        against: What the reals are: ``holdout`` or ``training``.
        floor_of: What the other reals are.
        slices: Of each set.
        metrics: Of the generated slices.
        floors: Of the other reals: what a perfect generator would reach.
    """

    against: str
    floor_of: str
    slices: int
    metrics: dict[str, Estimate]
    floors: dict[str, Estimate]


def compare(sets: Sets, features: SetFeatures, seed: int) -> list[Comparison]:
    """Compare with what was held out, where there is enough, and with what was trained on.

    Args:
        sets: Of which the generated one has ``FEWEST`` slices at least.
        features: Of these sets.
        seed: Chooses slices where there are more than are needed.

    Raises:
        DataError: There are too few slices.
    """
    fake = _Slices(sets.fake, features.fake)
    training = _Slices(sets.training, features.training)
    held = _Slices(sets.holdout, features.holdout).shuffled(seed)
    first, second = _halves(sets.volumes, seed)
    found = []
    for against, real, floor_of, other in (
        ("holdout", held, "training", training.shuffled(seed)),
        ("training", training.of(first), "other training slices", training.of(second)),
    ):
        count = min(len(real.images), len(other.images), len(fake.images))
        if count < FEWEST:
            continue
        reference = real.first(count)
        found.append(
            Comparison(
                against=against,
                floor_of=floor_of,
                slices=count,
                metrics=reference.against(fake.first(count)),
                floors=reference.against(other.first(count)),
            )
        )
    if not found:
        raise DataError(
            f"{len(sets.fake):,} generated and {len(sets.training):,} real slices are too few to "
            f"compare; there must be {FEWEST} and {2 * FEWEST} at least"
        )
    return found


class _Slices(NamedTuple):
    """Slices with their features."""

    images: Tensor
    features: Tensor

    def of(self, rows: Tensor) -> "_Slices":
        return _Slices(self.images[rows], self.features[rows])

    def shuffled(self, seed: int) -> "_Slices":
        generator = torch.Generator().manual_seed(stream_seed(seed, "some", len(self.images)))
        return self.of(torch.randperm(len(self.images), generator=generator))

    def first(self, count: int) -> Compared:
        return Compared(self.images[:count], self.features[:count])


def _halves(volumes: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """Slices in two halves, of different volumes, each in random order."""
    generator = torch.Generator().manual_seed(stream_seed(seed, "halves"))
    distinct = volumes.unique()
    order = distinct[torch.randperm(len(distinct), generator=generator)]
    sizes = torch.bincount(volumes)[order].cumsum(0)
    cut = int((sizes <= len(volumes) / 2).sum())
    is_first = torch.isin(volumes, order[:cut])
    rows = torch.randperm(len(volumes), generator=generator)
    return rows[is_first[rows]], rows[~is_first[rows]]
