"""``r3`` as plainly as a paper is usually turned into code: eager, fp32, NCHW, a DataLoader.

Same widths, losses and penalties as ``mrigan.models.r3``; none of its tricks. For comparison only.
"""

import math
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from mrigan.models.r3 import BLOCKS, LATENT_DIM, Preset
from mrigan.models.r3_layers import LEAK, LEAKY_GAIN, pyramid

LEARNING_RATE, BETAS, GAMMA = 2e-4, (0.0, 0.9), 1.0


class Filter(nn.Module):
    """[1, 2, 1]² / 16 on each channel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        line = torch.tensor([1.0, 2.0, 1.0]) / 4
        self.channels = channels
        self.register_buffer("kernel", torch.outer(line, line).repeat(channels, 1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Filter (N, C, H, W), edges repeated."""
        x = F.pad(x, (1, 1, 1, 1), mode="replicate")
        return F.conv2d(x, self.kernel, groups=self.channels)


class Up(nn.Module):
    """Twice the size, cut to ``size``."""

    def __init__(self, channels: int, size: tuple[int, int]) -> None:
        super().__init__()
        self.size, self.filter = size, Filter(channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, h, w) to ``size``."""
        return self.filter(F.interpolate(x, scale_factor=2)[:, :, : self.size[0], : self.size[1]])


class Down(nn.Module):
    """Half the size, odd sides repeated first."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.filter = Filter(channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to half, rounded up."""
        x = F.pad(x, (0, x.shape[3] % 2, 0, x.shape[2] % 2), mode="replicate")
        return F.avg_pool2d(self.filter(x), 2)


class Block(nn.Module):
    """The residual block."""

    def __init__(self, width: int, group_width: int | None, gain: float) -> None:
        super().__init__()
        groups = 1 if group_width is None else 2 * width // group_width
        self.layers = nn.Sequential(
            nn.Conv2d(width, 2 * width, 1),
            nn.LeakyReLU(LEAK),
            nn.Conv2d(2 * width, 2 * width, 3, padding=1, groups=groups),
            nn.LeakyReLU(LEAK),
            nn.Conv2d(2 * width, width, 1, bias=False),
        )
        for index, factor in ((0, gain), (2, gain), (4, 0.0)):
            weight = self.layers[index].weight
            nn.init.normal_(weight, 0.0, factor / math.sqrt(weight[0].numel()))

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, w, H, W) to the same shape."""
        return x + self.layers(x)


def _blocks(width: int, preset: Preset, stages: int) -> list[nn.Module]:
    gain = LEAKY_GAIN / (stages * BLOCKS) ** 0.25
    return [Block(width, preset.group_width, gain) for _ in range(BLOCKS)]


class Generator(nn.Module):
    """Latents to images."""

    def __init__(self, preset: Preset, height: int, width: int) -> None:
        super().__init__()
        sizes = pyramid(height, width)
        widths = preset.plan(len(sizes))
        self.basis = nn.Parameter(torch.randn(widths[0], *sizes[0]))
        self.project = nn.Linear(LATENT_DIM, widths[0], bias=False)
        layers: list[nn.Module] = []
        for stage, (size, channels) in enumerate(zip(sizes, widths, strict=True)):
            if stage:
                if channels != widths[stage - 1]:
                    layers.append(nn.Conv2d(widths[stage - 1], channels, 1, bias=False))
                layers.append(Up(channels, size))
            layers += _blocks(channels, preset, len(sizes))
        self.layers = nn.Sequential(*layers, nn.Conv2d(widths[-1], 1, 1, bias=False))

    def forward(self, z: Tensor) -> Tensor:
        """Draw one image for each latent."""
        return self.layers(self.project(z)[:, :, None, None] * self.basis)


class Discriminator(nn.Module):
    """Images to logits (N,)."""

    def __init__(self, preset: Preset, height: int, width: int) -> None:
        super().__init__()
        sizes = pyramid(height, width)
        widths = preset.plan(len(sizes))
        layers: list[nn.Module] = [nn.Conv2d(1, widths[-1], 1, bias=False)]
        for stage in reversed(range(len(sizes))):
            layers += _blocks(widths[stage], preset, len(sizes))
            if stage:
                layers.append(Down(widths[stage]))
                if widths[stage] != widths[stage - 1]:
                    layers.append(nn.Conv2d(widths[stage], widths[stage - 1], 1, bias=False))
        self.layers = nn.Sequential(*layers)
        self.basis = nn.Parameter(torch.randn(widths[0], *sizes[0]) / math.sqrt(sizes[0][0]))
        self.to_logit = nn.Linear(widths[0], 1, bias=False)

    def forward(self, images: Tensor) -> Tensor:
        """Score each image."""
        return self.to_logit((self.layers(images) * self.basis).sum((2, 3))).squeeze(1)


class Slices(Dataset):
    """One float image at a time, as a DataLoader asks for them."""

    def __init__(self, images: np.ndarray) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Tensor:
        return torch.from_numpy(self.images[index].astype(np.float32) / 127.5 - 1)


def _penalty(logits: Tensor, images: Tensor) -> Tensor:
    slope = torch.autograd.grad(logits.sum(), images, create_graph=True)[0]
    return slope.square().sum((1, 2, 3))


class PlainTrainer:
    """A window of D with both penalties, its step, a window of G, its step, an average of G."""

    def __init__(
        self,
        images: np.ndarray,
        preset: Preset,
        batch_size: int,
        steps: int,
        device: torch.device,
        workers: int,
    ) -> None:
        self.batch_size, self.steps, self.device = batch_size, steps, device
        self.G, self.D, self.G_ema = (
            build(preset, *images.shape[-2:]).to(device)
            for build in (Generator, Discriminator, Generator)
        )
        self.g_optim = torch.optim.Adam(self.G.parameters(), LEARNING_RATE, BETAS)
        self.d_optim = torch.optim.Adam(self.D.parameters(), LEARNING_RATE, BETAS)
        self.loader = DataLoader(
            Slices(images), batch_size, shuffle=True, drop_last=True, num_workers=workers
        )
        self.reals = self._endless()

    def _endless(self) -> Iterator[Tensor]:
        while True:
            for real in self.loader:
                yield real.to(self.device)

    def _z(self) -> Tensor:
        return torch.randn(self.batch_size, LATENT_DIM, device=self.device)

    def step(self) -> int:
        """One optimizer step of each network; returns the reals it showed."""
        self.d_optim.zero_grad()
        for _ in range(self.steps):
            real = next(self.reals).requires_grad_()
            fake = self.G(self._z()).detach().requires_grad_()
            real_logits, fake_logits = self.D(real), self.D(fake)
            penalty = _penalty(real_logits, real) + _penalty(fake_logits, fake)
            loss = F.softplus(fake_logits - real_logits) + GAMMA / 2 * penalty
            (loss.mean() / self.steps).backward()
        self.d_optim.step()
        self.g_optim.zero_grad()
        for _ in range(self.steps):
            real_logits, fake_logits = self.D(next(self.reals)), self.D(self.G(self._z()))
            (F.softplus(real_logits - fake_logits).mean() / self.steps).backward()
        self.g_optim.step()
        with torch.no_grad():
            for average, weight in zip(self.G_ema.parameters(), self.G.parameters(), strict=True):
                average.lerp_(weight, 0.01)
        return self.batch_size * self.steps
