"""How sure a number is that was measured on two sets of slices.

It is measured again on random halves of both sets. Numbers of halves drawn without putting back
vary about their mean as the number itself would if other slices were collected (the delete-half
jackknife, Shao & Wu 1989); that the number depends on the size of a set only moves that mean.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from mrigan.data.sampler import stream_seed

HALVES = 40
LEVEL = 0.95

Measure = Callable[[Tensor, Tensor], Sequence[float]]


class Estimate(NamedTuple):
    """A number, and between what it would lie 95 times in 100 if it were measured anew."""

    value: float
    low: float
    high: float


def estimates(
    measure: Measure, n: int, m: int, *, halves: int = HALVES, of_halves: Measure | None = None
) -> list[Estimate]:
    """Measure some numbers on two sets, and say how sure each is.

    Args:
        measure: Called with rows (i,) and (j,) of the two sets.
        n: Rows of one.
        m: Rows of the other.
        halves: How many times halves are measured.
        of_halves: Measures them instead, where a cheaper way varies alike.
    """
    values = measure(torch.arange(n), torch.arange(m))
    again = of_halves or measure
    draws = [again(_half(n, k, "one"), _half(m, k, "other")) for k in range(halves)]
    columns = torch.tensor(draws, dtype=torch.float64).T
    return [_around(value, draws) for value, draws in zip(values, columns, strict=True)]


def _around(value: float, draws: Tensor) -> Estimate:
    away = draws - draws.mean()
    outside = (1 - LEVEL) / 2
    low, high = (float(away.quantile(q)) for q in (outside, 1 - outside))
    return Estimate(value, value + low, value + high)


def _half(count: int, number: int, side: str) -> Tensor:
    generator = torch.Generator().manual_seed(stream_seed(number, "halves", side))
    return torch.randperm(count, generator=generator)[: (count + 1) // 2].sort().values
