"""What ``r3``'s two networks are made of: sizes, convolutions, resampling, Haar, residual blocks.

Every layer of D can also return its transpose: the linear map from the slope of the logit at its
output back to that at its input. A leaky ReLU is linear wherever its masks do not change, so D's
input gradient is a second pass through the same kernels, and training needs first derivatives only
(docs/decisions.md). Only stock operators whose gradients have the same bits each time on CUDA.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

LEAK = 0.2
# Keeps the variance of what goes through a leaky ReLU (He et al. 2015, arXiv 1502.01852).
LEAKY_GAIN = math.sqrt(2 / (1 + LEAK**2))
_SMALLEST_SIDE_PX = 4

Transpose = Callable[[Tensor], Tensor]  # slope at a layer's output -> slope at its input


def pyramid(height: int, width: int) -> tuple[tuple[int, int], ...]:
    """List the sizes (H, W) from the lowest resolution up; each is half the next, rounded up."""
    sizes = [(height, width)]
    while min(sizes[0]) > _SMALLEST_SIDE_PX:
        sizes.insert(0, ((sizes[0][0] + 1) // 2, (sizes[0][1] + 1) // 2))
    return tuple(sizes)


class Conv(nn.Module):
    """A convolution, and a leaky ReLU where it has a bias; computes in its input's dtype."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int = 1,
        *,
        gain: float = 1.0,
        leaky: bool = False,
    ) -> None:
        super().__init__()
        self.padding = kernel // 2
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(out_channels)) if leaky else None
        nn.init.normal_(self.weight, 0.0, gain / math.sqrt(self.weight[0].numel()))

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, H, W) to (N, out_channels, H, W)."""
        return self._convolved(x, self.weight.to(x.dtype))

    def with_transpose(self, x: Tensor) -> tuple[Tensor, Transpose]:
        """The same, and the map of slopes back."""
        weight = self.weight.to(x.dtype)
        out = self._convolved(x, weight)
        signs = out.detach()

        def transpose(slope: Tensor) -> Tensor:
            if self.bias is not None:
                slope = torch.ops.aten.leaky_relu_backward(slope, signs, LEAK, True)
            return F.conv_transpose2d(slope, weight, padding=self.padding)

        return out, transpose

    def _convolved(self, x: Tensor, weight: Tensor) -> Tensor:
        bias = None if self.bias is None else self.bias.to(x.dtype)
        out = F.conv2d(x, weight, bias, padding=self.padding)
        # In place: a convolution keeps its input for the gradient, not its output.
        return out if bias is None else F.leaky_relu(out, LEAK, inplace=True)


class Doubled(nn.Module):
    """Change of width and smooth upsampling to ``size``, at most twice the input's; no bias.

    A 1×1 convolution, nearest ×2 and [1, 2, 1]²/16 are one transposed convolution with
    [1, 3, 3, 1]²/16 in each kernel; beyond the edges there are zeros. What is over is cut off.
    """

    taps: Tensor

    def __init__(self, in_channels: int, out_channels: int, size: tuple[int, int]) -> None:
        super().__init__()
        self.size = size
        self.weight = nn.Parameter(torch.empty(in_channels, out_channels, 1, 1))
        nn.init.normal_(self.weight, 0.0, 1 / math.sqrt(in_channels))
        self.register_buffer("taps", _taps(2.0), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, h, w) to (N, out_channels, H, W)."""
        height, width = self.size
        kernel = (self.weight * self.taps).to(x.dtype)
        out = F.conv_transpose2d(x, kernel, stride=2, padding=1)
        return _cropped(out, height, width)


class Halved(nn.Module):
    """Change of width and smooth downsampling from ``size`` to half, rounded up; no bias.

    [1, 2, 1]²/16, 2×2 means and a 1×1 convolution are one convolution at stride 2 with
    [1, 3, 3, 1]²/64 in each kernel; beyond the edges there are zeros.
    """

    taps: Tensor

    def __init__(self, in_channels: int, out_channels: int, size: tuple[int, int]) -> None:
        super().__init__()
        self.size = size
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels, 1, 1))
        nn.init.normal_(self.weight, 0.0, 1 / math.sqrt(in_channels))
        self.register_buffer("taps", _taps(1.0), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, H, W) to (N, out_channels, ⌈H/2⌉, ⌈W/2⌉)."""
        return self.with_transpose(x)[0]

    def with_transpose(self, x: Tensor) -> tuple[Tensor, Transpose]:
        """The same, and the map of slopes back."""
        height, width = self.size
        kernel = (self.weight * self.taps).to(x.dtype)
        out = F.conv2d(_padded(x, height % 2, width % 2), kernel, stride=2, padding=1)

        def transpose(slope: Tensor) -> Tensor:
            back = F.conv_transpose2d(slope, kernel, stride=2, padding=1)
            return _cropped(back, height, width)

        return out, transpose


class FromPixels(nn.Module):
    """Images to features: an orthonormal Haar transform and a 1×1 convolution as one kernel.

    With one level, a 2×2 block of pixels becomes its mean and three differences (SWAGAN, Gal et
    al. 2021, arXiv 2102.06108), so no features exist at full resolution; with none, it is a 1×1
    convolution. The transform is orthonormal: a penalty on slopes is that of the pixels.
    """

    haar: Tensor

    def __init__(self, channels: int, size: tuple[int, int], levels: int) -> None:
        super().__init__()
        self.size = size
        self.register_buffer("haar", haar_basis(levels), persistent=False)
        count, self.patch = len(self.haar), self.haar.shape[-1]
        self.weight = nn.Parameter(torch.empty(channels, count))
        nn.init.normal_(self.weight, 0.0, 1 / math.sqrt(count))

    def forward(self, images: Tensor) -> Tensor:
        """Map (N, 1, H, W) to (N, channels, ⌈H/patch⌉, ⌈W/patch⌉)."""
        return self.with_transpose(images)[0]

    def with_transpose(self, images: Tensor) -> tuple[Tensor, Transpose]:
        """The same, and the map of slopes back."""
        (height, width), patch = self.size, self.patch
        kernel = torch.einsum("oc,chw->ohw", self.weight, self.haar)[:, None].to(images.dtype)
        padded = _padded(images, -height % patch, -width % patch)
        # One channel looks like either memory format; what follows wants this one.
        out = F.conv2d(padded, kernel, stride=patch).contiguous(memory_format=torch.channels_last)

        def transpose(slope: Tensor) -> Tensor:
            return _cropped(F.conv_transpose2d(slope, kernel, stride=patch), height, width)

        return out, transpose


class ToPixels(nn.Module):
    """Features to images: a 1×1 convolution and the inverse Haar transform as one kernel."""

    haar: Tensor

    def __init__(self, channels: int, size: tuple[int, int], levels: int) -> None:
        super().__init__()
        self.size = size
        self.register_buffer("haar", haar_basis(levels), persistent=False)
        self.weight = nn.Parameter(torch.empty(channels, len(self.haar)))
        nn.init.normal_(self.weight, 0.0, 1 / math.sqrt(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, channels, h, w) to (N, 1, H, W)."""
        kernel = torch.einsum("ic,chw->ihw", self.weight, self.haar)[:, None].to(x.dtype)
        out = F.conv_transpose2d(x, kernel, stride=self.haar.shape[-1])
        return _cropped(out, *self.size)


class Residual(nn.Module):
    """Convolutions with a skip connection around them; the identity at first; no normalisation."""

    def __init__(self, width: int, kernels: tuple[int, ...], gain: float) -> None:
        super().__init__()
        *first, last = kernels
        self.layers = nn.ModuleList(
            [
                *(Conv(width, width, kernel, gain=gain, leaky=True) for kernel in first),
                Conv(width, width, last, gain=0.0),
            ]
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, width, H, W) to the same shape."""
        out = x
        for layer in self.layers:
            out = layer(out)
        return x + out

    def with_transpose(self, x: Tensor) -> tuple[Tensor, Transpose]:
        """The same, and the map of slopes back."""
        out, transposes = through(self.layers, x)
        return x + out, lambda slope: slope + back_through(transposes, slope)


def through(layers: nn.ModuleList, x: Tensor) -> tuple[Tensor, list[Transpose]]:
    """Pass ``x`` through ``layers`` in turn and collect their transposes."""
    transposes = []
    for layer in layers:
        assert isinstance(layer, Conv | Halved | FromPixels | Residual)
        x, transpose = layer.with_transpose(x)
        transposes.append(transpose)
    return x, transposes


def back_through(transposes: list[Transpose], slope: Tensor) -> Tensor:
    """Take ``slope`` at the output of the last layer back to the input of the first."""
    for transpose in reversed(transposes):
        slope = transpose(slope)
    return slope


def haar_basis(levels: int) -> Tensor:
    """Orthonormal Haar wavelets (4^levels, 2^levels, 2^levels) of one block of pixels."""
    low, high = torch.tensor([1.0, 1.0]) / math.sqrt(2), torch.tensor([1.0, -1.0]) / math.sqrt(2)
    step = torch.stack(
        [torch.outer(down, across) for down in (low, high) for across in (low, high)]
    )
    basis = torch.ones(1, 1, 1)
    for _ in range(levels):
        basis = torch.stack([torch.kron(outer, inner) for inner in step for outer in basis])
    return basis


def _taps(total: float) -> Tensor:
    """[1, 3, 3, 1] down and across, each adding up to ``total``."""
    line = torch.tensor([1.0, 3.0, 3.0, 1.0]) * (total / 8)
    return torch.outer(line, line)


def _padded(x: Tensor, down: int, across: int) -> Tensor:
    return F.pad(x, (0, across, 0, down)) if down or across else x


def _cropped(x: Tensor, height: int, width: int) -> Tensor:
    return x[:, :, :height, :width] if x.shape[2:] != (height, width) else x
