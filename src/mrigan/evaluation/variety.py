"""Whether fakes differ from each other as real slices do: what is lost when a generator collapses.

Fakes are compared with fakes only, so these numbers find a generator whose slices are convincing
and all the same.
"""

import torch
from torch import Tensor

from mrigan.data.slices import to_unit
from mrigan.evaluation.coverage import nearest_distances, thumbnails

# Duplicates are nearer than half the distance that only 1 % of the reals stay below. Half, because
# the nearest two of few slices are often nearer than that quantile of others, but rarely that much.
_NEAR_QUANTILE, _NEAR_FRACTION = 0.01, 0.5


def spread_ratio(real: Tensor, fake: Tensor) -> float:
    """Return how much pixels vary from fake to fake, relative to real to real.

    Args:
        real: (N, 1, H, W) uint8.
        fake: (M, 1, H, W) uint8.

    Returns:
        The ratio of standard deviations across each set, root mean square over pixels: about 1 for
        fakes like the reals, 0 for one fake over and over.
    """
    return float(_spread(fake) / _spread(real).clamp(min=1e-6))


def duplicate_fraction(real: Tensor, fake: Tensor) -> float:
    """Return the fraction of the fakes that nearly duplicate another fake, 0 to 1.

    Nearly means within half the 1st percentile of the reals' distances to their nearest neighbour.
    For fakes like the reals it is 0 or little more.

    Args:
        real: (N, 1, H, W) uint8, two at least.
        fake: (M, 1, H, W) uint8, two at least.
    """
    distances = nearest_distances(thumbnails(real))
    apart = distances[distances > 0]  # identical reals do not make the others near
    near = _NEAR_FRACTION * apart.quantile(_NEAR_QUANTILE) if len(apart) else 0.0
    return float((nearest_distances(thumbnails(fake)) <= near).double().mean())


def _spread(images: Tensor) -> Tensor:
    return to_unit(images).var(dim=0, correction=0).mean().sqrt().to(torch.float64)
