"""How much of the real variety the fakes reach: k-nearest-neighbour coverage and density.

Naeem et al. 2020 (arXiv 2002.09797). A real slice is covered when a fake lies nearer to it than its
k-th nearest real neighbour. Thumbnails are compared, so it measures layout and contrast and not
grain. Take as many fakes as reals: coverage grows with the number of fakes.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from mrigan.data.slices import to_unit

NEIGHBOURS = 5
_SHORT_SIDE_PX = 16


class Coverage(NamedTuple):
    """Both of N reals and M fakes."""

    coverage: float  # fraction of the reals with a fake in their neighbourhood, 0 to 1
    density: float  # neighbourhoods that a fake lies in, over k; about 1 for fakes like the reals


def coverage(real: Tensor, fake: Tensor, *, neighbours: int = NEIGHBOURS) -> Coverage:
    """Compare sets of slices (N, 1, H, W) and (M, 1, H, W), uint8.

    Raises:
        ValueError: With no fakes, or not more reals than ``neighbours``.
    """
    return feature_coverage(thumbnails(real), thumbnails(fake), neighbours=neighbours)


def feature_coverage(real: Tensor, fake: Tensor, *, neighbours: int = NEIGHBOURS) -> Coverage:
    """Compare any features, (N, d) and (M, d), by Euclidean distance; raises as ``coverage``."""
    if len(real) <= neighbours or not len(fake):
        raise ValueError(
            f"{len(real)} reals and {len(fake)} fakes: coverage with {neighbours} neighbours needs "
            f"at least {neighbours + 1} reals and 1 fake"
        )
    # The nearest of a real among the reals is itself.
    radii = _distances(real, real).kthvalue(neighbours + 1, dim=1).values
    inside = _distances(real, fake) <= radii[:, None]
    return Coverage(
        coverage=float(inside.any(1).double().mean()),
        density=float(inside.double().sum(0).mean() / neighbours),
    )


def expected_coverage(reals: int, fakes: int, *, neighbours: int = NEIGHBOURS) -> float:
    """Return the coverage to expect of fakes that have the distribution of the reals.

    In closed form from Naeem et al. 2020; near 1 − 2^(−k) for as many fakes as reals.
    """
    ratios = ((reals - 1 - i) / (reals + fakes - 1 - i) for i in range(neighbours))
    return 1 - math.prod(ratios)


def thumbnails(images: Tensor) -> Tensor:
    """Shrink (N, 1, H, W) uint8 to 16 to 31 px on the short side, as rows (N, d) float."""
    step = max(1, min(images.shape[2:]) // _SHORT_SIDE_PX)
    return F.avg_pool2d(to_unit(images), step, ceil_mode=True, count_include_pad=False).flatten(1)


def nearest_distances(features: Tensor) -> Tensor:
    """Return how far each row of (N, d), N at least 2, is from the nearest other row: (N,)."""
    return _distances(features, features).fill_diagonal_(torch.inf).min(dim=1).values


def _distances(one: Tensor, other: Tensor) -> Tensor:
    # Through inner products it would be faster, with errors larger than a near copy's distance.
    return torch.cdist(one, other, compute_mode="donot_use_mm_for_euclid_dist")
