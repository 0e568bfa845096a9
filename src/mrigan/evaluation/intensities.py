"""Grey levels, and how much detail of each size there is: what shifts, fog and lattices change."""

import torch
from torch import Tensor

from mrigan.data.slices import to_unit

_LEVELS = 256
_RINGS_PER_CYCLE = 80  # of spatial frequency, in cycles per pixel
_RINGS = 57  # up to a checkerboard, √½ cycles per pixel
_FLOOR = 1e-10  # of power, below that of rounding to grey levels
_CHUNK_IMAGES = 128


def histograms(images: Tensor) -> Tensor:
    """The fraction of the pixels of each slice (n, 1, H, W), uint8, at each level: (n, 256)."""
    flat = images.flatten(1).long()
    counts = torch.zeros(len(images), _LEVELS, device=images.device)
    counts.scatter_add_(1, flat, torch.ones(1, device=images.device).expand(flat.shape))
    return counts / flat.shape[1]


def histogram_distance(one: Tensor, other: Tensor) -> float:
    """Wasserstein-1 distance of the pooled grey levels of two sets of histograms, 0 to 1.

    0.01 is what a shift of all pixels by 1 % of the range makes.
    """
    apart = one.double().mean(0).cumsum(0) - other.double().mean(0).cumsum(0)
    return float(apart.abs()[:-1].sum() / (_LEVELS - 1))


def spectra(images: Tensor) -> Tensor:
    """Power of each slice (n, 1, H, W), uint8, in rings of spatial frequency: (n, rings).

    Its mean is taken away and its edges fade out (a Hann window), since they are no detail. Rings
    that no frequency of so small a slice is in are left out.
    """
    return torch.cat([_spectra(part) for part in images.split(_CHUNK_IMAGES)])


def spectrum_distance(one: Tensor, other: Tensor) -> float:
    """Root mean square, over the rings, of the ratio of mean powers of two sets, in decibels."""
    ratio = (one.double().mean(0) + _FLOOR).log10() - (other.double().mean(0) + _FLOOR).log10()
    return float((10 * ratio).square().mean().sqrt())


def _spectra(images: Tensor) -> Tensor:
    x = to_unit(images)[:, 0]
    height, width = x.shape[1:]
    fade = torch.outer(torch.hann_window(height), torch.hann_window(width)).to(x.device)
    power = torch.fft.rfft2((x - x.mean((1, 2), keepdim=True)) * fade).abs().square()
    power = power / (height * width)
    down, right = torch.fft.fftfreq(height), torch.fft.rfftfreq(width)
    radius = (down[:, None] ** 2 + right[None] ** 2).sqrt().flatten()
    ring = (radius * _RINGS_PER_CYCLE).long()
    is_inside = radius > 0
    counts = torch.bincount(ring[is_inside], minlength=_RINGS)
    sums = torch.zeros(len(x), _RINGS, device=x.device)
    sums.index_add_(1, ring[is_inside].to(x.device), power.flatten(1)[:, is_inside.to(x.device)])
    kept = counts > 0
    return sums[:, kept.to(x.device)] / counts[kept].to(x.device)
