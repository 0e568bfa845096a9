"""Which sets of slices are compared with which, so that each number has its floor."""

from dataclasses import dataclass

import torch
from torch import Tensor

from mrigan.data.sampler import stream_seed
from mrigan.errors import DataError
from mrigan.evaluation.comparison import FEWEST, Compared, Features
from mrigan.evaluation.sampling import Estimate
from mrigan.jobs.evaluate.sets import Sets


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


def compare(sets: Sets, features: Features, seed: int) -> list[Comparison]:
    """Compare with what was held out, where there is enough, and with what was trained on.

    Args:
        sets: Of which the generated one has ``FEWEST`` slices at least.
        features: Gives (n, d) of slices.
        seed: Chooses slices where there are more than are needed.

    Raises:
        DataError: There are too few slices.
    """
    first, second = _halves(sets, seed)
    pairs = [("holdout", sets.holdout, "training", sets.training)]
    pairs.append(("training", first, "other training slices", second))
    found = []
    for against, real, floor_of, other in pairs:
        count = min(len(real), len(other), len(sets.fake))
        if count < FEWEST:
            continue
        reference = Compared(_some(real, count, seed), features)
        found.append(
            Comparison(
                against=against,
                floor_of=floor_of,
                slices=count,
                metrics=reference.against(Compared(sets.fake[:count], features)),
                floors=reference.against(Compared(_some(other, count, seed), features)),
            )
        )
    if not found:
        raise DataError(
            f"{len(sets.fake):,} generated and {len(sets.training):,} real slices are too few to "
            f"compare; there must be {FEWEST} and {2 * FEWEST} at least"
        )
    return found


def _halves(sets: Sets, seed: int) -> tuple[Tensor, Tensor]:
    """Training slices in two halves, of different volumes, each in random order."""
    generator = torch.Generator().manual_seed(stream_seed(seed, "halves"))
    volumes = sets.volumes.unique()
    order = volumes[torch.randperm(len(volumes), generator=generator)]
    sizes = torch.bincount(sets.volumes)[order].cumsum(0)
    cut = int((sizes <= len(sets.training) / 2).sum())
    is_first = torch.isin(sets.volumes, order[:cut])
    return sets.training[is_first], sets.training[~is_first]


def _some(images: Tensor, count: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(stream_seed(seed, "some", len(images)))
    return images[torch.randperm(len(images), generator=generator)[:count]]
