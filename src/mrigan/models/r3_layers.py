"""What ``r3``'s two networks are made of: sizes, filters, convolutions and the residual block.

Only stock operators whose derivatives of any order exist and, on CUDA, come out the same bits each
time: no bilinear interpolation, no ``grid_sample``, no reflection.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.grad import conv2d_weight

LEAK = 0.2
# Keeps the variance of what goes through a leaky ReLU (He et al. 2015, arXiv 1502.01852).
LEAKY_GAIN = math.sqrt(2 / (1 + LEAK**2))
_SMALLEST_SIDE_PX = 4


def pyramid(height: int, width: int) -> tuple[tuple[int, int], ...]:
    """List the sizes (H, W) from the lowest resolution up; each is half the next, rounded up."""
    sizes = [(height, width)]
    while min(sizes[0]) > _SMALLEST_SIDE_PX:
        sizes.insert(0, ((sizes[0][0] + 1) // 2, (sizes[0][1] + 1) // 2))
    return tuple(sizes)


class Smooth(nn.Module):
    """Convolve each channel with the outer square of ``taps``, made to add up to 1.

    At an edge the taps that fall inside are made to add up to 1. Repeating the edge pixels first
    would copy the picture, and Inductor (torch 2.14) gets the layout of that copy's gradient wrong.
    The numbers are buffers: made anew in each pass, each would wait for the GPU.
    """

    kernel: Tensor
    inside: Tensor

    def __init__(self, size: tuple[int, int], taps: tuple[int, ...], stride: int) -> None:
        super().__init__()
        self.size, self.stride = size, stride
        line = torch.tensor(taps, dtype=torch.float32) / sum(taps)
        inside = [_inside(side, line, stride) for side in size]
        self.register_buffer("kernel", torch.outer(line, line)[None, None], persistent=False)
        self.register_buffer("inside", torch.outer(*inside), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, C, ⌈H/stride⌉, ⌈W/stride⌉)."""
        channels, (height, width), stride = x.shape[1], self.size, self.stride
        if height % stride or width % stride:
            x = F.pad(x, (0, width % stride, 0, height % stride))
        kernel = self.kernel.to(x.dtype).expand(channels, -1, -1, -1)
        smooth = F.conv2d(x, kernel, stride=stride, padding=1, groups=channels)
        return smooth / self.inside.to(x.dtype)


class Doubled(Smooth):
    """Smoothly upsample to ``size``, at most twice the input's; what is over is cut off.

    Nearest ×2, then [1, 2, 1]²/16; a flat picture stays flat up to its edges.
    """

    def __init__(self, size: tuple[int, int]) -> None:
        super().__init__(size, (1, 2, 1), stride=1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, h, w) to (N, C, H, W)."""
        height, width = self.size
        return super().forward(F.interpolate(x, scale_factor=2.0)[:, :, :height, :width])


class Halved(Smooth):
    """Smoothly downsample from ``size`` to half, rounded up; a flat picture stays flat.

    [1, 3, 3, 1]²/64 at stride 2, which is [1, 2, 1]²/16 followed by 2×2 means.
    """

    def __init__(self, size: tuple[int, int]) -> None:
        super().__init__(size, (1, 3, 3, 1), stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, C, ⌈H/2⌉, ⌈W/2⌉)."""
        dtype = x.dtype
        if x.device.type == "cpu" and dtype is torch.bfloat16:
            x = x.float()  # a depthwise convolution in bf16 takes five times as long on a CPU
        return super().forward(x).to(dtype)


def _inside(size: int, line: Tensor, stride: int) -> Tensor:
    """What the taps on pixels of a side add up to, for each output pixel."""
    pixels = F.pad(torch.ones(1, 1, size), (0, size % stride))
    return F.conv1d(pixels, line[None, None], stride=stride, padding=1).flatten()


class Conv(nn.Module):
    """A convolution, and a leaky ReLU where it has a bias; computes in its input's dtype."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int = 1,
        *,
        groups: int = 1,
        gain: float = 1.0,
        leaky: bool = False,
    ) -> None:
        super().__init__()
        self.groups = groups
        self.padding = kernel // 2
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels // groups, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(out_channels)) if leaky else None
        nn.init.normal_(self.weight, 0.0, gain / math.sqrt(self.weight[0].numel()))

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, H, W) to (N, out_channels, H, W)."""
        weight = self.weight.to(x.dtype)
        bias = None if self.bias is None else self.bias.to(x.dtype)
        if torch.compiler.is_compiling():
            # Inside torch.func.grad, Dynamo (torch 2.14) drops a Function's gradient in silence.
            return _convolved(x, weight, bias, self.padding, self.groups)
        out: Tensor = _Convolution.apply(x, weight, bias, self.padding, self.groups)
        return out


def _convolved(x: Tensor, weight: Tensor, bias: Tensor | None, padding: int, groups: int) -> Tensor:
    out = F.conv2d(x, weight, bias, padding=padding, groups=groups)
    # In place: a convolution keeps its input for the gradient, not its output.
    return out if bias is None else F.leaky_relu(out, LEAK, inplace=True)


class _Convolution(torch.autograd.Function):
    """A convolution, leaky where biased, whose gradient has a fast gradient itself.

    torch's own second derivative swaps images and channels in memory and goes through the groups
    one by one; this gradient is made of convolutions, whose gradients are convolutions. Nor does it
    add up the zeros that a leaky ReLU's second derivative consists of.
    """

    @staticmethod
    def forward(
        x: Tensor, weight: Tensor, bias: Tensor | None, padding: int, groups: int
    ) -> Tensor:
        return _convolved(x, weight, bias, padding, groups)

    @staticmethod
    def setup_context(
        ctx: Any,  # noqa: ANN401 - torch gives its context no type
        inputs: tuple[Tensor, Tensor, Tensor | None, int, int],
        output: Tensor,
    ) -> None:
        x, weight, bias, ctx.padding, ctx.groups = inputs
        ctx.is_leaky = bias is not None
        ctx.save_for_backward(x, weight, *([output] if ctx.is_leaky else []))

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401 - as above
        x, weight, *output = ctx.saved_tensors
        if ctx.is_leaky:
            is_result = True
            slope = torch.ops.aten.leaky_relu_backward(slope, output[0].detach(), LEAK, is_result)
        how = {"padding": ctx.padding, "groups": ctx.groups}
        needs = ctx.needs_input_grad
        return (
            F.conv_transpose2d(slope, weight, **how) if needs[0] else None,
            conv2d_weight(x, weight.shape, slope, **how) if needs[1] else None,
            slope.sum((0, 2, 3)) if needs[2] else None,
            None,
            None,
        )


class Residual(nn.Module):
    """Widths w, 2w, 2w, w and a way around them; starts as the identity; no normalisation."""

    def __init__(self, width: int, group_width: int | None, gain: float) -> None:
        super().__init__()
        inner = 2 * width
        groups = 1 if group_width is None else max(1, inner // group_width)
        self.expand = Conv(width, inner, gain=gain, leaky=True)
        self.mix = Conv(inner, inner, 3, groups=groups, gain=gain, leaky=True)
        self.reduce = Conv(inner, width, gain=0.0)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, w, H, W) to the same shape."""
        out: Tensor = x + self.reduce(self.mix(self.expand(x)))
        return out
