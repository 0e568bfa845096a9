"""Whether fakes are nearer to slices that were trained on than to slices that were not."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from mrigan.data.sampler import stream_seed
from mrigan.evaluation.sampling import Estimate

FEWEST_HELD_OUT = 50
_SETS = 8  # of training slices, at most, each as many as are held out
# Student's t by the number of sets, with one degree of freedom less: of an interval of 95 %, and of
# what happens by chance in one case in 400.
_T = {5: (2.78, 5.60), 6: (2.57, 4.77), 7: (2.45, 4.32), 8: (2.36, 4.03)}


class Nearness(NamedTuple):
    """A share, and whether chance explains that it is above 0.5."""

    share: Estimate
    is_chance: bool


def share_nearer(training: Tensor, holdout: Tensor, seed: int) -> Nearness | None:
    """The share of fakes nearer to training slices than to held-out ones.

    Sets of as many training slices as are held out take turns; how their own shares among each
    other vary says how much this one does.

    Args:
        training: Likeness (n, N) of fakes to training slices.
        holdout: Likeness (n, m) to held-out ones.
        seed: Shuffles the training slices.
    """
    size = holdout.shape[1]
    count = min(_SETS, training.shape[1] // size)
    if size < FEWEST_HELD_OUT or count not in _T:
        return None
    generator = torch.Generator().manual_seed(stream_seed(seed, "nearer"))
    rows = torch.randperm(training.shape[1], generator=generator)[: count * size].view(count, size)
    best = torch.stack([training[:, each].amax(1) for each in rows])
    held = holdout.amax(1)
    share = float(torch.stack([_wins(each, held) for each in best]).mean())
    # The share of set i over set j is 0.5 + a_i - a_j: each set has its a, the holdout, too.
    among = torch.stack([torch.stack([_wins(one, other) for other in best]) for one in best])
    spread = float((among - 0.5).square().sum() / (count * (count - 1)) / 2) ** 0.5
    reach = spread * math.sqrt(1 + 1 / count)
    interval, rare = (t * reach for t in _T[count])
    return Nearness(Estimate(share, share - interval, share + interval), share - 0.5 <= rare)


def _wins(one: Tensor, other: Tensor) -> Tensor:
    return (one > other).double().mean() + (one == other).double().mean() / 2


def c_t(fakes: Tensor, held: Tensor) -> float:
    """Mann and Whitney's z of likeness (n,) of fakes and (m,) of held-out slices.

    As Meehan et al. 2020 (arXiv 2004.05675) have it: below 0 where the fakes are more alike.
    """
    n, m = len(fakes), len(held)
    wins = sum(float(_wins(held, fake)) for fake in fakes)  # of each fake, among the m
    return m * (wins - n / 2) / math.sqrt(n * m * (n + m + 1) / 12)
