"""Residual networks without normalisation, for any size from 32×32 up.

Objective and block from Huang et al. 2024 (R3GAN, arXiv 2501.05441), layer plans made for the
memory traffic of GPUs (docs/r3.md): dense convolutions and no features at full resolution.
Parameter counts are pinned by tests. Nothing couples the images of a batch, in either network, so
gradients do not depend on how a batch is cut or spread over ranks. Under bf16 autocast all
convolutions compute in bf16; latents and logits stay in the parameters' own precision.
"""

import itertools
import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mrigan.models.r3.layers import (
    LEAKY_GAIN,
    Doubled,
    FromPixels,
    Halved,
    Residual,
    ToPixels,
    back_through,
    pyramid,
    through,
)

BLOCKS = 2  # residual blocks at each resolution


@dataclass(frozen=True, kw_only=True)
class Preset:
    """Sizes of both networks."""

    widths: tuple[int, ...]  # channels at each resolution, the lowest first
    kernels: tuple[int, ...] = (3, 1)  # of the convolutions of a residual block
    haar_levels: int = 1  # how often a Haar transform halves the image before the first features

    def sizes(self, height: int, width: int) -> tuple[tuple[int, int], ...]:
        """Sizes (H, W) of the features of an image, pixels, the lowest resolution first."""
        patch = 2**self.haar_levels
        return pyramid(math.ceil(height / patch), math.ceil(width / patch))

    def plan(self, stages: int) -> list[int]:
        """Channels of ``stages`` resolutions, the lowest first; beyond the given ones, halving."""
        plan = list(self.widths[:stages])
        while len(plan) < stages:
            plan.append(plan[-1] // 2 if plan[-1] % 16 == 0 else plan[-1])
        return plan


PRESETS = {
    "r3-tiny": Preset(widths=(32, 32, 32, 32, 16, 16)),
    "r3-s": Preset(widths=(144, 144, 144, 144, 96, 48)),
    "r3-m": Preset(widths=(256, 256, 256, 256, 128, 64)),
    "r3-l": Preset(widths=(512, 512, 512, 512, 256, 128)),
}


class Generator(nn.Module):
    """Latents (N, latent_dim) to images (N, 1, H, W); about [-1, 1] once trained, never clamped."""

    def __init__(self, preset: Preset, latent_dim: int, height: int, width: int) -> None:
        super().__init__()
        self.latent_dim = latent_dim
        self.size = (height, width)
        sizes = preset.sizes(height, width)
        widths = preset.plan(len(sizes))
        gain = _residual_gain(preset, len(sizes))
        self.project = nn.Linear(latent_dim, widths[0], bias=False)
        self.basis = nn.Parameter(torch.randn(widths[0], *sizes[0]))
        layers: list[nn.Module] = _blocks(preset, widths[0], gain)
        for below, channels, size in zip(widths, widths[1:], sizes[1:], strict=False):
            layers += [Doubled(below, channels, size), *_blocks(preset, channels, gain)]
        self.layers = nn.ModuleList(layers)
        self.to_pixels = ToPixels(widths[-1], self.size, preset.haar_levels)
        nn.init.normal_(self.project.weight, 0.0, 1 / math.sqrt(latent_dim))

    def forward(self, z: Tensor) -> Tensor:
        """Draw one image for each latent."""
        full, compute = _dtypes(self.basis)
        with torch.autocast(z.device.type, enabled=False):
            x = self.project(z.to(full))[:, :, None, None] * self.basis
            x = x.to(compute, memory_format=torch.channels_last)
            for layer in self.layers:
                x = layer(x)
            image: Tensor = self.to_pixels(x)
            return image.to(full)


class Discriminator(nn.Module):
    """Images (N, 1, H, W) to logits (N,), high = real."""

    def __init__(self, preset: Preset, height: int, width: int) -> None:
        super().__init__()
        sizes = preset.sizes(height, width)
        widths = preset.plan(len(sizes))
        gain = _residual_gain(preset, len(sizes))
        layers: list[nn.Module] = [FromPixels(widths[-1], (height, width), preset.haar_levels)]
        self.stage_ends = [0]
        for stage in reversed(range(len(sizes))):
            layers += _blocks(preset, widths[stage], gain)
            if stage:
                layers.append(Halved(widths[stage], widths[stage - 1], sizes[stage]))
            self.stage_ends.append(len(layers))
        self.layers = nn.ModuleList(layers)
        self.basis = nn.Parameter(
            torch.randn(widths[0], *sizes[0]) / math.sqrt(math.prod(sizes[0]))
        )
        self.to_logit = nn.Linear(widths[0], 1, bias=False)
        nn.init.normal_(self.to_logit.weight, 0.0, 1 / math.sqrt(widths[0]))

    def stages_from_image(self) -> list[nn.Module]:
        """What an image passes through, resolution by resolution; the logit is not among it."""
        ends = self.stage_ends
        return [self.layers[start:stop] for start, stop in itertools.pairwise(ends)]

    def forward(self, images: Tensor) -> Tensor:
        """Score each image by itself."""
        full, compute = _dtypes(self.basis)
        with torch.autocast(images.device.type, enabled=False):
            x = images.to(compute, memory_format=torch.channels_last)
            for layer in self.layers:
                x = layer(x)
            return self._logits(x.to(full))

    def with_slope(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Score each image, and return the gradient of its logit with respect to its pixels.

        Both have a graph to D's parameters, of first derivatives only; none to ``images``.

        Args:
            images: (N, 1, H, W).

        Returns:
            Logits (N,) and slopes (N, 1, H, W), both in the parameters' precision.
        """
        full, compute = _dtypes(self.basis)
        with torch.autocast(images.device.type, enabled=False):
            x = images.detach().to(compute, memory_format=torch.channels_last)
            x, transposes = through(self.layers, x)
            slope = self.to_logit.weight[0][:, None, None] * self.basis
            slope = slope.to(compute).expand_as(x).contiguous(memory_format=torch.channels_last)
            return self._logits(x.to(full)), back_through(transposes, slope).to(full)

    def _logits(self, x: Tensor) -> Tensor:
        logits: Tensor = self.to_logit((x * self.basis).sum((2, 3)))
        return logits.squeeze(1)


def _blocks(preset: Preset, channels: int, gain: float) -> list[nn.Module]:
    return [Residual(channels, preset.kernels, gain) for _ in range(BLOCKS)]


def _residual_gain(preset: Preset, stages: int) -> float:
    """First weights of a block's non-zero convolutions, by depth.

    With L blocks of m convolutions each, L^(-1/(2m-2)) keeps the first update of the whole network
    of order one (Fixup, Zhang et al. 2019, arXiv 1901.09321).
    """
    blocks, convolutions = stages * BLOCKS, len(preset.kernels)
    return float(LEAKY_GAIN * blocks ** (-1 / (2 * convolutions - 2)))


def _dtypes(weight: Tensor) -> tuple[torch.dtype, torch.dtype]:
    """The parameters' precision, and that of the convolutions: autocast's where it is on."""
    kind = weight.device.type
    if torch.is_autocast_enabled(kind):
        return weight.dtype, torch.get_autocast_dtype(kind)
    return weight.dtype, weight.dtype
