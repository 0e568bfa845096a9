"""``r3``: modern residual networks without normalisation, for any size from 32×32 up.

Written from Huang et al. 2024 (R3GAN, arXiv 2501.05441); layer plans, first weights and parameter
counts are pinned by tests. Nothing couples the images of a batch, in either network, so gradients
do not depend on how a batch is cut or spread over ranks. Under bf16 autocast the high resolutions
compute in bf16; the low ones, the latents and the logits stay in the parameters' own precision, and
D's second derivatives follow its forward pass.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mrigan.models.r3_layers import LEAKY_GAIN, Conv, Doubled, Halved, Residual, pyramid

LATENT_DIM = 64
BLOCKS = 2  # residual blocks at each resolution
GROUP_WIDTHS = (8, 16, 32, None)  # channels in a group of a 3×3 convolution; None: all of them

# bf16 keeps 8 bits of mantissa: coarse layouts are decided in full precision.
_HALF_PRECISION_STAGES = 4
_HALF_PRECISION_OVER_PX = 16


@dataclass(frozen=True, kw_only=True)
class Preset:
    """Sizes of both networks, and the rate they learn at.

    What a step of Adam changes in a layer's output goes with its width, so narrow networks take
    larger rates (Yang et al. 2022, arXiv 2203.03466): at 2e-4 r3-tiny hardly moves (docs/r3.md).
    """

    widths: tuple[int, ...]  # channels at each resolution, the lowest first
    group_width: int | None = 16
    learning_rate: float = 2e-4  # of both networks at the start, as published for 768 channels

    def plan(self, stages: int) -> list[int]:
        """Channels of ``stages`` resolutions, the lowest first; beyond 200×160's seven, halving."""
        plan = list(self.widths[:stages])
        while len(plan) < stages:
            width = plan[-1]
            plan.append(width // 2 if width % (self.group_width or 16) == 0 else width)
        return plan


PRESETS = {
    "r3-tiny": Preset(widths=(32, 32, 32, 32, 16, 16, 8), group_width=8, learning_rate=4e-3),
    "r3-s": Preset(widths=(192, 192, 192, 192, 96, 48, 24)),
    "r3-m": Preset(widths=(384, 384, 384, 384, 192, 96, 48)),
    "r3-l": Preset(widths=(768, 768, 768, 768, 384, 192, 96)),
}


class Generator(nn.Module):
    """Latents (N, latent_dim) to images (N, 1, H, W); about [-1, 1] once trained, never clamped."""

    def __init__(self, preset: Preset, latent_dim: int, height: int, width: int) -> None:
        super().__init__()
        self.latent_dim = latent_dim
        self.size = (height, width)
        sizes = pyramid(height, width)
        widths = preset.plan(len(sizes))
        gain = _residual_gain(len(sizes))
        self.project = nn.Linear(latent_dim, widths[0], bias=False)
        self.basis = nn.Parameter(torch.randn(widths[0], *sizes[0]))
        self.stages = nn.ModuleList(
            GeneratorStage(before, channels, size, gain, preset.group_width)
            for before, channels, size in zip(
                [widths[0], *widths], widths, [None, *sizes[1:]], strict=False
            )
        )
        self.half_precision = _half_precision(sizes)
        self.to_grey = Conv(widths[-1], 1)
        nn.init.normal_(self.project.weight, 0.0, 1 / math.sqrt(latent_dim))

    def forward(self, z: Tensor) -> Tensor:
        """Draw one image for each latent."""
        full, half = _dtypes(self.basis)
        with torch.autocast(z.device.type, enabled=False):
            x = self.project(z.to(full))[:, :, None, None] * self.basis
            x = x.contiguous(memory_format=torch.channels_last)
            for stage, is_half in zip(self.stages, self.half_precision, strict=True):
                x = stage(x.to(half if is_half else full))
            image: Tensor = self.to_grey(x)
            return image.to(full)


class Discriminator(nn.Module):
    """Images (N, 1, H, W) to logits (N,), high = real."""

    def __init__(self, preset: Preset, height: int, width: int) -> None:
        super().__init__()
        sizes = pyramid(height, width)
        widths = preset.plan(len(sizes))
        gain = _residual_gain(len(sizes))
        self.from_grey = Conv(1, widths[-1])
        self.stages = nn.ModuleList(
            DiscriminatorStage(channels, below, size, gain, preset.group_width)
            for channels, below, size in zip(
                widths[::-1], [*widths[-2::-1], None], sizes[::-1], strict=True
            )
        )
        self.half_precision = _half_precision(sizes)[::-1]
        self.basis = nn.Parameter(
            torch.randn(widths[0], *sizes[0]) / math.sqrt(math.prod(sizes[0]))
        )
        self.to_logit = nn.Linear(widths[0], 1, bias=False)
        nn.init.normal_(self.to_logit.weight, 0.0, 1 / math.sqrt(widths[0]))

    def stages_from_image(self) -> list[nn.Module]:
        """What an image passes through, resolution by resolution; the logit is not among it."""
        first, *others = self.stages
        return [nn.ModuleList([self.from_grey, first]), *others]

    def forward(self, images: Tensor) -> Tensor:
        """Score each image by itself."""
        full, half = _dtypes(self.basis)
        with torch.autocast(images.device.type, enabled=False):
            x = images.to(half if self.half_precision[0] else full)
            x = self.from_grey(x).contiguous(memory_format=torch.channels_last)
            for stage, is_half in zip(self.stages, self.half_precision, strict=True):
                x = stage(x.to(half if is_half else full))
            x = (x.to(full) * self.basis).sum((2, 3))
            logits: Tensor = self.to_logit(x)
            return logits.squeeze(1)


class GeneratorStage(nn.Module):
    """One resolution of G: change of width, upsampling to ``size`` if any, residual blocks."""

    def __init__(
        self,
        in_channels: int,
        channels: int,
        size: tuple[int, int] | None,
        gain: float,
        group_width: int | None,
    ) -> None:
        super().__init__()
        self.widen = _transition(in_channels, channels)
        self.enlarge = nn.Identity() if size is None else Doubled(size)
        self.blocks = _blocks(channels, gain, group_width)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, h, w) to (N, channels, H, W)."""
        # The change of width comes before the upsampling: a quarter of the pixels.
        out: Tensor = self.blocks(self.enlarge(self.widen(x)))
        return out


class DiscriminatorStage(nn.Module):
    """One resolution of D, ``size``: residual blocks, then, unless it is the last, the way down."""

    def __init__(
        self,
        channels: int,
        below: int | None,
        size: tuple[int, int],
        gain: float,
        group_width: int | None,
    ) -> None:
        super().__init__()
        self.blocks = _blocks(channels, gain, group_width)
        self.shrink = nn.Identity() if below is None else Halved(size)
        self.widen = _transition(channels, channels if below is None else below)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, channels, H, W) to (N, below, ⌈H/2⌉, ⌈W/2⌉); the last keeps its shape."""
        out: Tensor = self.widen(self.shrink(self.blocks(x)))
        return out


def _blocks(channels: int, gain: float, group_width: int | None) -> nn.Sequential:
    return nn.Sequential(*(Residual(channels, group_width, gain) for _ in range(BLOCKS)))


def _transition(in_channels: int, channels: int) -> nn.Module:
    return nn.Identity() if in_channels == channels else Conv(in_channels, channels)


def _residual_gain(stages: int) -> float:
    """First weights of a block's two non-zero convolutions, by depth.

    With L blocks of three convolutions each, L^(-1/4) keeps the first update of the whole network
    of order one (Fixup, Zhang et al. 2019, arXiv 1901.09321).
    """
    return LEAKY_GAIN / math.sqrt(math.sqrt(stages * BLOCKS))


def _half_precision(sizes: tuple[tuple[int, int], ...]) -> list[bool]:
    """Which resolutions may compute in bf16, the lowest first."""
    first = len(sizes) - _HALF_PRECISION_STAGES
    return [
        stage >= first and min(size) > _HALF_PRECISION_OVER_PX for stage, size in enumerate(sizes)
    ]


def _dtypes(weight: Tensor) -> tuple[torch.dtype, torch.dtype]:
    """The parameters' precision, and that of the high resolutions: autocast's where it is on."""
    kind = weight.device.type
    if torch.is_autocast_enabled(kind):
        return weight.dtype, torch.get_autocast_dtype(kind)
    return weight.dtype, weight.dtype
