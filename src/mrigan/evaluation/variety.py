"""Whether fakes differ among themselves as real slices do: what is lost when a generator collapses.

Of either set only its own slices are compared with each other, so a generator of convincing slices
that are all the same scores badly here and nowhere else.
"""

import torch
from torch import Tensor

from mrigan.data.slices import to_unit
from mrigan.evaluation.coverage import nearest_distances, thumbnails

# Of how near reals are to each other. Half of it: the nearest of few fresh slices are often nearer
# than the nearest of few others, but hardly ever by as much.
_NEAR_QUANTILE, _NEAR_SHARE = 0.01, 0.5


def spread_ratio(real: Tensor, fake: Tensor) -> float:
    """How much pixels vary from fake to fake, over how much they do from real to real.

    Args:
        real: (N, 1, H, W) uint8.
        fake: (M, 1, H, W) uint8.

    Returns:
        The ratio of standard deviations across each set, root mean square over pixels: about 1 for
        fakes like the reals, 0 for one fake over and over.
    """
    return float(_spread(fake) / _spread(real).clamp(min=1e-6))


def duplicate_fraction(real: Tensor, fake: Tensor) -> float:
    """Share of the fakes with another within half of what all but 1 % of reals have, 0 to 1.

    0, or next to it, for fakes like the reals.

    Args:
        real: (N, 1, H, W) uint8, two at least.
        fake: (M, 1, H, W) uint8, two at least.
    """
    distances = nearest_distances(thumbnails(real))
    apart = distances[distances > 0]  # a slice that is there twice says nothing of the others
    near = _NEAR_SHARE * apart.quantile(_NEAR_QUANTILE) if len(apart) else 0.0
    return float((nearest_distances(thumbnails(fake)) <= near).double().mean())


def _spread(images: Tensor) -> Tensor:
    return to_unit(images).var(dim=0, correction=0).mean().sqrt().to(torch.float64)
