"""Features of a fixed random network: always there, the same everywhere, of no other data.

Random convolutions separate sets of pictures well (Naeem et al. 2020, arXiv 2002.09797, advise them
for data far from ImageNet) and can't favour a generator that was trained with the same network.
"""

import math
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F

from mrigan.data.slices import to_unit

NAME = "random-512"
FEATURES = 512
_SEED = 0x51C5
# Means over the whole slice at three sizes of detail, and over its quarters at the largest.
_CHANNELS = (32, 64, 96, 80)
_GAIN = 4.0  # so that features of slices vary about as much as those that KID is used with
_CHUNK_IMAGES = 64


def random_features(images: Tensor) -> Tensor:
    """Describe slices (n, 1, H, W), uint8, of sides from 32 pixels: (n, 512) float32.

    Grain, texture and layout each have their part. They are not divided by the spread of a set, so
    a feature of a slice does not depend on those beside it.
    """
    return torch.cat([_features(to_unit(part)) for part in images.split(_CHUNK_IMAGES)])


def _features(x: Tensor) -> Tensor:
    found = []
    for weight in _weights():
        x = F.leaky_relu(F.conv2d(x, weight.to(x.device), stride=2, padding=1), 0.2)
        found.append(x.mean((2, 3)))
    return _GAIN * torch.cat([*found[:-1], F.adaptive_avg_pool2d(x, 2).flatten(1)], 1)


@lru_cache(maxsize=1)
def _weights() -> list[Tensor]:
    """Weights that keep the variance of what goes through them (He et al. 2015)."""
    generator = torch.Generator().manual_seed(_SEED)
    gain = math.sqrt(2 / (1 + 0.2**2))
    return [
        torch.randn(after, before, 3, 3, generator=generator) * gain / math.sqrt(9 * before)
        for before, after in zip((1, *_CHANNELS), _CHANNELS, strict=False)
    ]
