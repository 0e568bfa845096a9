"""How alike the slices of one set are among themselves: multi-scale structural similarity.

Wang et al. 2003 (MS-SSIM), as Odena et al. 2017 (arXiv 1610.09585) use it: its mean over random
pairs of one set is high where a generator draws much of the same.
"""

from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F

from mrigan.data.sampler import stream_seed
from mrigan.data.slices import to_unit

_WINDOW_PX, _REACH, _SIGMA = 11, 5, 1.5
_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # from the finest scale on
_STABLE = (0.01**2, 0.03**2)  # of the range of grey levels, 1
_CHUNK_PAIRS = 32


def scales(height: int, width: int) -> int:
    """How many of the five scales slices are large enough for: 4 at 200×160."""
    side = min(height, width)
    return max(1, sum(side >> level >= _WINDOW_PX for level in range(len(_WEIGHTS))))


def random_pairs(count: int, pairs: int, seed: int) -> Tensor:
    """Draw (pairs, 2) of different numbers below ``count``, 2 at least."""
    generator = torch.Generator().manual_seed(stream_seed(seed, "pairs"))
    first = torch.randint(count, (pairs,), generator=generator)
    ahead = torch.randint(1, count, (pairs,), generator=generator)
    return torch.stack([first, (first + ahead) % count], 1)


def similarities(images: Tensor, pairs: Tensor) -> Tensor:
    """MS-SSIM, (p,), of the ``pairs`` (p, 2) of slices (n, 1, H, W), uint8.

    1 for the same slices. The weights of the scales that a size allows are made to add up to 1.
    """
    found = []
    for part in pairs.split(_CHUNK_PAIRS):
        one, other = ((to_unit(images[part[:, side]]) + 1) / 2 for side in (0, 1))
        found.append(_similarity(one, other))
    return torch.cat(found)


def _similarity(one: Tensor, other: Tensor) -> Tensor:
    levels = scales(*one.shape[2:])
    weights = torch.tensor(_WEIGHTS[:levels], device=one.device)
    weights = weights / weights.sum()
    product = torch.ones(len(one), device=one.device)
    for level in range(levels):
        luminance, contrast = _luminance_and_contrast(one, other)
        is_last = level == levels - 1
        # As torchmetrics has it: edges, beyond which slices are mirrored, count in the last scale.
        inside = contrast[..., _REACH:-_REACH, _REACH:-_REACH]
        part = (luminance * contrast if is_last else inside).mean((1, 2, 3))
        product = product * part.clamp(min=0) ** weights[level]
        one, other = F.avg_pool2d(one, 2), F.avg_pool2d(other, 2)
    return product


def _luminance_and_contrast(one: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    a, b = _local_mean(one), _local_mean(other)
    variance, variance_other = _local_mean(one**2) - a**2, _local_mean(other**2) - b**2
    covariance = _local_mean(one * other) - a * b
    luminance = (2 * a * b + _STABLE[0]) / (a**2 + b**2 + _STABLE[0])
    contrast = (2 * covariance + _STABLE[1]) / (variance + variance_other + _STABLE[1])
    return luminance, contrast


def _local_mean(images: Tensor) -> Tensor:
    height, width = images.shape[2:]
    return _window(height).to(images.device) @ images @ _window(width).T.to(images.device)


@lru_cache(maxsize=32)
def _window(side: int) -> Tensor:
    """The matrix (side, side) whose product is a Gaussian mean of 11 pixels."""
    at = torch.arange(-_REACH, _REACH + 1)
    kernel = torch.exp(-(at**2) / (2 * _SIGMA**2))
    padded = F.pad(torch.eye(side)[:, None], (_REACH, _REACH), mode="reflect")
    columns = F.conv1d(padded, (kernel / kernel.sum()).view(1, 1, -1))
    return columns[:, 0].T.contiguous()
