"""G goes from latents through a wide layer to a small picture, doubled thrice; D halves it again.

Widths and initialisation: Radford et al. 2016 (arXiv 1511.06434) as the notebook had them;
parameter counts are pinned by tests. G's BatchNorm sees ``batch_size`` images at a time, so the
numbers of a run depend on ``batch_size``; nothing in D couples the images of a batch.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mrigan.models.batchnorm import BatchNorm2d

BASE_CHANNELS = 128
G_WIDTHS = (128, 64, 32)
D_WIDTHS = (32, 64, 128, 256)
_LEAK = 0.2
DROPOUT = 0.25
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
        blocks: list[nn.Module] = [BatchNorm2d(BASE_CHANNELS)]
        channels = BASE_CHANNELS
        for out in G_WIDTHS:
            blocks += [UpsampledConv2d(channels, out), BatchNorm2d(out), nn.LeakyReLU(_LEAK)]
            channels = out
        self.blocks = nn.Sequential(*blocks)
        self.to_grey = nn.Conv2d(channels, 1, kernel_size=3, padding=1)
        _initialise(self)

    def forward(self, z: Tensor) -> Tensor:
        """Draw one image for each latent."""
        height, width = self.size
        x = self.project(z).view(-1, *self.base).contiguous(memory_format=torch.channels_last)
        image = self.to_grey(self.blocks(x))
        return torch.tanh(image[:, :, :height, :width].to(z.dtype))


class Discriminator(nn.Module):
    """Images (N, 1, H, W) to logits (N,), high = real; whole channels are dropped as it is told."""

    def __init__(self, height: int, width: int, widths: Sequence[int] = D_WIDTHS) -> None:
        super().__init__()
        self.widths = tuple(widths)
        layers: list[nn.Module] = []
        channels = 1
        for out in widths:
            layers.append(nn.Conv2d(channels, out, kernel_size=3, stride=2, padding=1))
            channels, height, width = out, strided(height), strided(width)
        self.layers = nn.ModuleList(layers)
        self.to_logit = nn.Linear(channels * height * width, 1)
        _initialise(self)

    def stages_from_image(self) -> list[nn.Module]:
        """What an image passes through, resolution by resolution; the logit is not among it."""
        return list(self.layers)

    def forward(self, images: Tensor, keep: Tensor | None = None) -> Tensor:
        """Score each image by itself.

        Args:
            images: (N, 1, H, W).
            keep: (N, sum of the widths), 1 where a channel of an image is kept and 0 where it is
                dropped (Tompson et al. 2015, arXiv 1411.4280); None, or evaluation, keeps all.
        """
        x = images.contiguous(memory_format=torch.channels_last)
        masks = self._masks(keep)
        for layer, mask in zip(self.layers, masks, strict=True):
            x = F.leaky_relu(layer(x), _LEAK, inplace=True)
            if mask is not None:
                x = x * mask.to(x.dtype)
        logits: Tensor = self.to_logit(x.flatten(1))
        return logits.squeeze(1).to(images.dtype)

    def _masks(self, keep: Tensor | None) -> Sequence[Tensor | None]:
        if keep is None or not self.training:
            return [None] * len(self.widths)
        scaled = keep.to(self.to_logit.weight.dtype) / (1 - DROPOUT)
        masks: Sequence[Tensor] = scaled[:, :, None, None].split(self.widths, dim=1)
        return masks


class UpsampledConv2d(nn.Module):
    """Nearest-neighbour doubling, then a 3×3 convolution, in one transposed convolution.

    Each output pixel of the pair reads only 2×2 distinct inputs, so the composition is a 4×4 kernel
    at stride 2: 4 multiplications where the pair does 9, and no doubled picture in memory. Equal to
    the pair up to rounding; parameters are the 3×3 kernel's.
    """

    merge: Tensor

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels, 3, 3))
        self.bias = nn.Parameter(torch.zeros(out_channels))
        self.register_buffer("merge", _merged_taps(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, out_channels, 2H, 2W)."""
        kernel = torch.tensordot(self.weight, self.merge, dims=2).transpose(0, 1)
        return F.conv_transpose2d(x, kernel, self.bias, stride=2, padding=1)


def _merged_taps() -> Tensor:
    """Which taps of a 3×3 kernel each tap of the 4×4 one adds up, (3, 3, 4, 4).

    The 3×3 kernel summed over the 2×2 copies of an input pixel, turned round as transposed
    convolutions want it.
    """
    ones = torch.eye(9).view(9, 1, 3, 3)
    summed = F.avg_pool2d(F.pad(ones, (1, 1, 1, 1)), 2, stride=1, divisor_override=1)
    return summed.flip(2, 3).view(3, 3, 4, 4)


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
