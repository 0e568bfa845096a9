"""Sliced-Wasserstein distance between two sets of slices, from coarse layout to fine grain.

After Karras et al. 2018 (PGGAN, arXiv 1710.10196 §5): 7×7 patches of each level of a Laplacian
pyramid, projected on random directions; the distance is the mean distance between the sorted
projections. A number by itself means little: compare it with the distance between two halves of
the reals. Positions and directions are fixed, so the same sets give the same number, whatever the
order of their slices.
"""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from mrigan.data.slices import to_unit

PATCH_PX = 7
_SMALLEST_SIDE_PX = 16
_PATCHES = 64  # from each slice and level
_DIRECTIONS = 128
_QUANTILES = 4096
_SEED = 0x5D57


def sliced_wasserstein(real: Tensor, fake: Tensor) -> list[float]:
    """Measure each level of the pyramid, the finest first; 0 for the same set.

    A patch's values are in units of the real patches' standard deviation at that level. So fakes
    that are too bright or too flat are further off, and each level counts alike.

    Args:
        real: The reference, (N, 1, H, W) uint8, of sides from 16 pixels.
        fake: What is compared with it, (M, 1, H, W) uint8. Small sets are further apart than
            large ones, so compare only numbers of equal N and M.

    Raises:
        ValueError: If the sets are empty or differ in H×W.
    """
    return [_distance(*pair) for pair in _levels(real, fake, _DIRECTIONS)]


class PartDistances:
    """The distance of each level between parts of two sets, by ``directions`` of the directions.

    Few directions vary with the slices as all do, and cost a fraction; real and fake are as in
    ``sliced_wasserstein``, in any order of the pair.
    """

    def __init__(self, real: Tensor, fake: Tensor, *, directions: int = 8) -> None:
        self._levels = list(_levels(real, fake, directions))

    def __call__(self, rows: Tensor, others: Tensor) -> list[float]:
        """The distances between ``rows`` (i,) of the reals and ``others`` (j,) of the fakes."""
        return [_distance(real[rows], fake[others]) for real, fake in self._levels]


def laplacian_levels(height: int, width: int) -> int:
    """Return how many levels the pyramid has; for 200×160 it is four, down to 25×20."""
    levels = 1
    while min(height, width) // 2 >= _SMALLEST_SIDE_PX:
        height, width, levels = height // 2, width // 2, levels + 1
    return levels


def laplacian(images: Tensor) -> list[Tensor]:
    """Return the details of each level (N, h, w), the finest first, and then what remains."""
    x = to_unit(images)
    pyramid = []
    for _ in range(laplacian_levels(*images.shape[2:]) - 1):
        small = F.avg_pool2d(x, 2)
        pyramid.append((x - _enlarged(small, x.shape[2:]))[:, 0])
        x = small
    return [*pyramid, x[:, 0]]


def _enlarged(small: Tensor, size: tuple[int, ...]) -> Tensor:
    """Repeat each pixel 2×2; the last row or column of an odd side repeats its neighbour.

    ``F.interpolate`` to an odd size would stretch, so that a mean is not over its own pixels.
    """
    rows, columns = (
        (torch.arange(side, device=small.device) // 2).clamp(max=side // 2 - 1) for side in size
    )
    return small[:, :, rows[:, None], columns]


def _levels(real: Tensor, fake: Tensor, count: int) -> Iterator[tuple[Tensor, Tensor]]:
    """The projections of the patches of both sets, (n, P, directions) each, level by level."""
    _check(real, fake)
    generator = torch.Generator().manual_seed(_SEED)
    for one, other in zip(laplacian(real), laplacian(fake), strict=True):
        rows, columns = (
            torch.randint(side - PATCH_PX + 1, (_PATCHES,), generator=generator)
            for side in one.shape[1:]
        )
        directions = torch.randn(PATCH_PX**2, _DIRECTIONS, generator=generator)
        directions = (directions / directions.norm(dim=0)).to(real.device)[:, :count]
        sets = [_patches(images, rows, columns) for images in (one, other)]
        spread = sets[0].std(correction=0).clamp(min=1e-6)
        first, second = ((patches / spread) @ directions for patches in sets)
        yield first.view(-1, _PATCHES, count), second.view(-1, _PATCHES, count)


def _distance(real: Tensor, fake: Tensor) -> float:
    return float((_quantiles(real.flatten(0, 1)) - _quantiles(fake.flatten(0, 1))).abs().mean())


def _patches(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """The 7×7 patches (N · P, 49) whose upper left corners are at the same P positions in all."""
    reach = torch.arange(PATCH_PX)
    down = (rows[:, None] + reach)[:, :, None].to(images.device)
    across = (columns[:, None] + reach)[:, None, :].to(images.device)
    return images[:, down, across].reshape(-1, PATCH_PX**2)


def _quantiles(projected: Tensor) -> Tensor:
    """Sort each column of (n, directions) and read it at evenly spaced ranks, for sets of any n."""
    columns = projected.T.contiguous()
    if columns.device.type == "cpu":
        # numpy sorts in place and vectorised: 20 times as fast as torch on a core with AVX512.
        ranked = columns
        np.ndarray.sort(ranked.numpy(), axis=1)
    else:
        ranked = columns.sort(dim=1).values
    size = ranked.shape[1]
    middles = 2 * torch.arange(_QUANTILES, device=ranked.device) + 1
    return ranked[:, middles * size // (2 * _QUANTILES)]


def _check(real: Tensor, fake: Tensor) -> None:
    if not len(real) or not len(fake):
        raise ValueError(f"{len(real)} real and {len(fake)} fake slices: both sets need some")
    if real.shape[1:] != fake.shape[1:]:
        raise ValueError(
            f"real slices are {tuple(real.shape[1:])}, fake ones {tuple(fake.shape[1:])}"
        )
    if min(real.shape[2:]) < _SMALLEST_SIDE_PX:
        raise ValueError(f"slices of {tuple(real.shape[2:])}: sides start at {_SMALLEST_SIDE_PX}")
