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
# Over the whole slice at three sizes of detail, and over its quarters at the largest.
_CHANNELS = (16, 64, 112, 80)
_OF_BRIGHTNESS = 4  # of the first filters; the others see edges alone
_LEAST, _USUAL = 0.01, 0.4  # answer of a filter: about a grey level's, and a head's
_GAIN = 2.0  # so that features of slices vary about as much as those that KID is used with
_CHUNK_IMAGES = 8  # whose maps stay in a CPU's cache


def random_features(images: Tensor) -> Tensor:
    """Describe slices (n, 1, H, W), uint8, of sides from 32 pixels: (n, 512) float32.

    How much each filter answers, as a logarithm: half of a texture counts as much as twice of it.
    They are not divided by the spread of a set, so those of a slice depend on no other slice.
    """
    if not len(images):
        return torch.zeros(0, FEATURES)
    return torch.cat([_features(to_unit(part)) for part in images.split(_CHUNK_IMAGES)])


def _features(x: Tensor) -> Tensor:
    found = []
    weights = [weight.to(x.device, memory_format=torch.channels_last) for weight in _weights()]
    x = x.to(memory_format=torch.channels_last)
    for weight in weights:
        stride = 1 if weight is weights[0] else 2  # blur is seen at the finest alone
        x = F.conv2d(x, weight, stride=stride, padding=1)
        is_last = weight is weights[-1]
        found.append(F.adaptive_avg_pool2d(x.abs(), 2 if is_last else 1).flatten(1))
        x = F.leaky_relu(x, 0.2, inplace=True)
    return _GAIN * ((torch.cat(found, 1) + _LEAST) / _USUAL).log()


@lru_cache(maxsize=1)
def _weights() -> list[Tensor]:
    """Weights that keep the variance of what goes through them (He et al. 2015)."""
    generator = torch.Generator().manual_seed(_SEED)
    gain = math.sqrt(2 / (1 + 0.2**2))
    weights = [
        torch.randn(after, before, 3, 3, generator=generator) * gain / math.sqrt(9 * before)
        for before, after in zip((1, *_CHANNELS), _CHANNELS, strict=False)
    ]
    edges = weights[0][_OF_BRIGHTNESS:]
    edges -= edges.mean((1, 2, 3), keepdim=True)
    return weights
