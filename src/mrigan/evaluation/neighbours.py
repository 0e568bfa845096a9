"""Precision, recall, density and coverage by nearest neighbours among features.

Precision and recall are those of Kynkäänniemi et al. 2019 (arXiv 1904.06991), density and coverage
those of Naeem et al. 2020 (arXiv 2002.09797). All need as many fakes as reals: coverage and recall
grow with the number of fakes.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from mrigan.evaluation.coverage import NEIGHBOURS


class Prdc(NamedTuple):
    """Of n reals and m fakes.

    Attributes:
        precision: Fraction of the fakes that lie in a neighbourhood of a real.
        recall: Fraction of the reals that lie in a neighbourhood of a fake.
        density: Neighbourhoods of reals that a fake lies in, over k; about 1 for fakes like reals.
        coverage: Fraction of the reals whose neighbourhood has a fake.
    """

    precision: float
    recall: float
    density: float
    coverage: float


class Neighbourhoods:
    """The four numbers of two sets of features, (n, d) and (m, d), and of any rows of them."""

    def __init__(self, real: Tensor, fake: Tensor) -> None:
        real, fake = real.double(), fake.double()
        self._real, self._fake = torch.cdist(real, real), torch.cdist(fake, fake)
        self._between = torch.cdist(real, fake)

    def __call__(self, rows: Tensor, others: Tensor, *, neighbours: int = NEIGHBOURS) -> Prdc:
        """Of ``rows`` (i,) of the reals and ``others`` (j,) of the fakes, more than ``neighbours``.

        A neighbourhood reaches to the ``neighbours``-th nearest slice of its own set.
        """
        between = self._between[rows][:, others]
        inside = between <= _radii(self._real[rows][:, rows], neighbours)[:, None]
        inside_fake = between <= _radii(self._fake[others][:, others], neighbours)[None]
        return Prdc(
            precision=float(inside.any(0).double().mean()),
            recall=float(inside_fake.any(1).double().mean()),
            density=float(inside.double().sum(0).mean() / neighbours),
            coverage=float(inside.any(1).double().mean()),
        )


def _radii(distances: Tensor, neighbours: int) -> Tensor:
    return distances.kthvalue(neighbours + 1, dim=1).values  # the nearest is the slice itself
