"""``dcgan``: the seed's design. Latents through a wide layer to a small picture, upsampled thrice.

Widths, initialisation and optimizer values: Radford et al. 2016 (arXiv 1511.06434) as the seed had
them; parameter counts are pinned by tests. G's BatchNorm sees one micro-batch at a time, so the
numbers of a run depend on ``batch_size``; nothing in D couples the images of a batch.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

BASE_CHANNELS = 128
G_WIDTHS = (128, 64, 32)
D_WIDTHS = (32, 64, 128, 256)
LEARNING_RATE = 2e-4
BETAS = (0.5, 0.999)
_LEAK = 0.2
_DROPOUT = 0.25
_INIT_STD = 0.02


class Generator(nn.Module):
    """Latents (N, latent_dim) to images (N, 1, H, W) in [-1, 1]; 200×160 starts from 25×20."""

    def __init__(self, latent_dim: int, height: int, width: int) -> None:
        super().__init__()
        self.latent_dim = latent_dim
        self.size = (height, width)
        factor = 2 ** len(G_WIDTHS)
        self.base = (BASE_CHANNELS, math.ceil(height / factor), math.ceil(width / factor))
        self.project = nn.Linear(latent_dim, math.prod(self.base))
        blocks: list[nn.Module] = [nn.BatchNorm2d(BASE_CHANNELS)]
        channels = BASE_CHANNELS
        for out in G_WIDTHS:
            blocks += [UpsampledConv2d(channels, out), nn.BatchNorm2d(out), nn.LeakyReLU(_LEAK)]
            channels = out
        self.blocks = nn.Sequential(*blocks)
        self.to_grey = nn.Conv2d(channels, 1, kernel_size=3, padding=1)
        _initialise(self)

    def forward(self, z: Tensor) -> Tensor:
        """Draw one image for each latent."""
        height, width = self.size
        x = self.project(z).view(len(z), *self.base).contiguous(memory_format=torch.channels_last)
        image = self.to_grey(self.blocks(x))
        return torch.tanh(image[:, :, :height, :width].to(z.dtype))


class Discriminator(nn.Module):
    """Images (N, 1, H, W) to logits (N,), high = real. Dropout draws from the default RNG."""

    def __init__(self, height: int, width: int, widths: Sequence[int] = D_WIDTHS) -> None:
        super().__init__()
        blocks: list[nn.Module] = []
        channels = 1
        for out in widths:
            blocks += [
                nn.Conv2d(channels, out, kernel_size=3, stride=2, padding=1),
                nn.LeakyReLU(_LEAK),
                nn.Dropout2d(_DROPOUT),
            ]
            channels, height, width = out, strided(height), strided(width)
        self.blocks = nn.Sequential(*blocks)
        self.to_logit = nn.Linear(channels * height * width, 1)
        _initialise(self)

    def stages_from_image(self) -> list[nn.Module]:
        """What an image passes through, resolution by resolution; the logit is not among it."""
        return [self.blocks[first : first + 3] for first in range(0, len(self.blocks), 3)]

    def forward(self, images: Tensor) -> Tensor:
        """Score each image by itself."""
        x = self.blocks(images.contiguous(memory_format=torch.channels_last))
        logits: Tensor = self.to_logit(x.flatten(1))
        return logits.squeeze(1).to(images.dtype)


class UpsampledConv2d(nn.Module):
    """Nearest-neighbour doubling, then a 3×3 convolution, in one transposed convolution.

    Each output pixel of the pair reads only 2×2 distinct inputs, so the composition is a 4×4 kernel
    at stride 2: 4 multiplications where the pair does 9, and no doubled picture in memory. Equal to
    the pair up to rounding; parameters are the 3×3 kernel's.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels, 3, 3))
        self.bias = nn.Parameter(torch.zeros(out_channels))

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, out_channels, 2H, 2W)."""
        # The 3×3 kernel summed over the 2×2 copies of an input pixel, turned round as transposed
        # convolutions want it.
        summed = F.avg_pool2d(F.pad(self.weight, (1, 1, 1, 1)), 2, stride=1, divisor_override=1)
        kernel = summed.flip(2, 3).transpose(0, 1)
        return F.conv_transpose2d(x, kernel, self.bias, stride=2, padding=1)


def strided(size_px: int) -> int:
    """Pixels left of ``size_px`` after a 3×3 convolution with stride 2 and padding 1."""
    return (size_px - 1) // 2 + 1


def _initialise(network: nn.Module) -> None:
    """N(0, 0.02) for every kernel, N(1, 0.02) for BatchNorm's gain, zero for every bias."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight, 1.0, _INIT_STD)
            nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Conv2d | UpsampledConv2d):
            nn.init.normal_(module.weight, 0.0, _INIT_STD)
            assert module.bias is not None
            nn.init.zeros_(module.bias)
