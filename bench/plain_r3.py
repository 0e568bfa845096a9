"""``r3`` as plainly as a paper is usually turned into code: eager, fp32, NCHW, a DataLoader.

Same networks, losses and penalties as ``mrigan.models.r3``, none of its tricks: to compare.
"""

import math
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from mrigan.models.r3.layers import LEAK, LEAKY_GAIN
from mrigan.models.r3.networks import BLOCKS, Preset

BETAS, GAMMA = (0.0, 0.9), 1.0
LATENT_DIM, LEARNING_RATE = 64, 2e-4


class Blur(nn.Module):
    """[1, 2, 1]² / 16 on each channel; zeros beyond the edges."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        line = torch.tensor([1.0, 2.0, 1.0]) / 4
        self.channels = channels
        self.register_buffer("kernel", torch.outer(line, line).repeat(channels, 1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Blur (N, C, H, W)."""
        return F.conv2d(x, self.kernel, padding=1, groups=self.channels)


class Up(nn.Module):
    """Change of width, then twice the size, cut to ``size``."""

    def __init__(self, width: int, out: int, size: tuple[int, int]) -> None:
        super().__init__()
        self.size, self.conv, self.blur = size, nn.Conv2d(width, out, 1, bias=False), Blur(out)
        nn.init.normal_(self.conv.weight, 0.0, 1 / math.sqrt(width))

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, w, h, w) to (N, out, *size)."""
        x = self.blur(F.interpolate(self.conv(x), scale_factor=2))
        return x[:, :, : self.size[0], : self.size[1]]


class Down(nn.Module):
    """Half the size, rounded up, then a change of width."""

    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.blur, self.conv = Blur(width), nn.Conv2d(width, out, 1, bias=False)
        nn.init.normal_(self.conv.weight, 0.0, 1 / math.sqrt(width))

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, w, H, W) to half."""
        x = F.pad(x, (0, x.shape[3] % 2, 0, x.shape[2] % 2))
        return self.conv(F.avg_pool2d(self.blur(x), 2))


def haar(x: Tensor) -> Tensor:
    """Means and differences of 2×2 pixels: (N, C, H, W) to (N, 4C, H/2, W/2), orthonormal."""
    a, b = x[:, :, ::2, ::2], x[:, :, ::2, 1::2]
    c, d = x[:, :, 1::2, ::2], x[:, :, 1::2, 1::2]
    bands = [a + b + c + d, a - b + c - d, a + b - c - d, a - b - c + d]
    return torch.stack(bands, 2).flatten(1, 2) / 2


def inverse_haar(x: Tensor) -> Tensor:
    """The way back: (N, 4C, h, w) to (N, C, 2h, 2w)."""
    a, b, c, d = x.unflatten(1, (-1, 4)).unbind(2)
    pixels = [a + b + c + d, a - b + c - d, a + b - c - d, a - b - c + d]
    return F.pixel_shuffle(torch.stack(pixels, 2).flatten(1, 2) / 2, 2)


class FromPixels(nn.Module):
    """The Haar transform of an image, then a 1×1 convolution."""

    def __init__(self, width: int, levels: int) -> None:
        super().__init__()
        self.levels, self.conv = levels, nn.Conv2d(4**levels, width, 1, bias=False)
        nn.init.normal_(self.conv.weight, 0.0, 1 / 2**levels)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, 1, H, W) to (N, width, ...)."""
        patch = 2**self.levels
        x = F.pad(x, (0, -x.shape[3] % patch, 0, -x.shape[2] % patch))
        for _ in range(self.levels):
            x = haar(x)
        return self.conv(x)


class ToPixels(nn.Module):
    """A 1×1 convolution, then the inverse Haar transform, cut to ``size``."""

    def __init__(self, width: int, size: tuple[int, int], levels: int) -> None:
        super().__init__()
        self.size, self.levels = size, levels
        self.conv = nn.Conv2d(width, 4**levels, 1, bias=False)
        nn.init.normal_(self.conv.weight, 0.0, 1 / math.sqrt(width))

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, width, h, w) to (N, 1, *size)."""
        x = self.conv(x)
        for _ in range(self.levels):
            x = inverse_haar(x)
        return x[:, :, : self.size[0], : self.size[1]]


class Block(nn.Module):
    """The residual block."""

    def __init__(self, width: int, kernels: tuple[int, ...], gain: float) -> None:
        super().__init__()
        *first, last = kernels
        layers: list[nn.Module] = []
        for kernel in first:
            conv = nn.Conv2d(width, width, kernel, padding=kernel // 2)
            nn.init.normal_(conv.weight, 0.0, gain / math.sqrt(conv.weight[0].numel()))
            nn.init.zeros_(conv.bias)
            layers += [conv, nn.LeakyReLU(LEAK)]
        conv = nn.Conv2d(width, width, last, padding=last // 2, bias=False)
        nn.init.zeros_(conv.weight)
        self.layers = nn.Sequential(*layers, conv)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, w, H, W) to the same shape."""
        return x + self.layers(x)


def _blocks(width: int, preset: Preset, stages: int) -> list[nn.Module]:
    gain = LEAKY_GAIN / (stages * BLOCKS) ** (1 / (2 * len(preset.kernels) - 2))
    return [Block(width, preset.kernels, gain) for _ in range(BLOCKS)]


class Generator(nn.Module):
    """Latents to images."""

    def __init__(self, preset: Preset, height: int, width: int) -> None:
        super().__init__()
        sizes = preset.sizes(height, width)
        widths = preset.plan(len(sizes))
        self.project = nn.Linear(LATENT_DIM, widths[0], bias=False)
        self.basis = nn.Parameter(torch.randn(widths[0], *sizes[0]))
        nn.init.normal_(self.project.weight, 0.0, 1 / math.sqrt(LATENT_DIM))
        layers: list[nn.Module] = []
        for stage, (size, channels) in enumerate(zip(sizes, widths, strict=True)):
            if stage:
                layers.append(Up(widths[stage - 1], channels, size))
            layers += _blocks(channels, preset, len(sizes))
        self.layers = nn.Sequential(
            *layers, ToPixels(widths[-1], (height, width), preset.haar_levels)
        )

    def forward(self, z: Tensor) -> Tensor:
        """Draw one image for each latent."""
        return self.layers(self.project(z)[:, :, None, None] * self.basis)


class Discriminator(nn.Module):
    """Images to logits (N,)."""

    def __init__(self, preset: Preset, height: int, width: int) -> None:
        super().__init__()
        sizes = preset.sizes(height, width)
        widths = preset.plan(len(sizes))
        layers: list[nn.Module] = [FromPixels(widths[-1], preset.haar_levels)]
        for stage in reversed(range(len(sizes))):
            layers += _blocks(widths[stage], preset, len(sizes))
            if stage:
                layers.append(Down(widths[stage], widths[stage - 1]))
        self.layers = nn.Sequential(*layers)
        self.basis = nn.Parameter(
            torch.randn(widths[0], *sizes[0]) / math.sqrt(math.prod(sizes[0]))
        )
        self.to_logit = nn.Linear(widths[0], 1, bias=False)
        nn.init.normal_(self.to_logit.weight, 0.0, 1 / math.sqrt(widths[0]))

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
