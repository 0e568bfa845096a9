"""Slices without their brightness, contrast and grain: what is left is compared for likeness.

A difference of two Gaussian blurs keeps details of a few pixels. Its values, of mean 0 and length
1, are the same for a slice that is brighter or of more contrast, and nearly so with some noise.
"""

from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F


def band(images: Tensor, step: int, fine: float, coarse: float) -> Tensor:
    """Shrink slices (n, 1, H, W) in [-1, 1], and keep details between two sizes: (n, h, w).

    Args:
        images: Of sides from ``step``.
        step: Pixels of a side that become one.
        fine: Standard deviation, in shrunk pixels, of the blur that removes grain; 0 for none.
        coarse: Of the blur that is taken away.
    """
    height, width = images.shape[2:]
    kept, taken = (
        _blur(height, step, sigma).to(images.device)
        @ images[:, 0]
        @ _blur(width, step, sigma).T.to(images.device)
        for sigma in (fine, coarse)
    )
    details: Tensor = kept - taken
    return details


def blurred(images: Tensor, sigma: float) -> Tensor:
    """Blur images (n, 1, H, W), of any range, with a Gaussian of ``sigma`` pixels; edges repeat."""
    height, width = images.shape[2:]
    return (
        _blur(height, 1, sigma).to(images.device)
        @ images
        @ _blur(width, 1, sigma).T.to(images.device)
    )


@lru_cache(maxsize=64)
def _blur(side: int, step: int, sigma: float) -> Tensor:
    """The matrix (side // step, side) that shrinks one side and blurs it; edges repeat.

    Products with two of them are many times as fast as convolutions of one channel on a CPU.
    """
    rows = F.avg_pool1d(torch.eye(side)[:, None], step)[:, 0].T  # (side // step, side)
    if not sigma:
        return rows.contiguous()
    radius = int(3 * sigma) + 1
    kernel = torch.exp(-(torch.arange(-radius, radius + 1) ** 2) / (2 * sigma**2))
    padded = F.pad(rows.T[:, None], (radius, radius), mode="replicate")
    blurred: Tensor = F.conv1d(padded, (kernel / kernel.sum()).view(1, 1, -1))
    return blurred[:, 0].T.contiguous()


def unit(rows: Tensor) -> Tensor:
    """Give rows (..., d) mean 0 and length 1; one that is constant becomes 0."""
    rows = rows - rows.mean(-1, keepdim=True)
    length: Tensor = rows.norm(dim=-1, keepdim=True)
    return rows / length.clamp(min=1e-6)


def shifted(images: Tensor, down: int, right: int) -> Tensor:
    """Move (..., h, w) by whole pixels, less than a side; 0 comes in."""
    height, width = images.shape[-2:]
    moved = torch.zeros_like(images)
    rows = slice(max(down, 0), height + min(down, 0)), slice(max(-down, 0), height - max(down, 0))
    columns = (
        slice(max(right, 0), width + min(right, 0)),
        slice(max(-right, 0), width - max(right, 0)),
    )
    moved[..., rows[0], columns[0]] = images[..., rows[1], columns[1]]
    return moved


def aligned(fixed: Tensor, moving: Tensor, reach: int) -> Tensor:
    """Move each of ``moving`` to where it is most like its ``fixed``; as rows of length 1.

    Args:
        fixed: (n, h, w).
        moving: (n, k, h, w), k for each of ``fixed``.
        reach: The farthest move, pixels; less than the sides.

    Returns:
        (n, k, h · w).
    """
    height, width = fixed.shape[-2:]
    # What leaves on one side does not come back on the other.
    size = (_fast_side(height + reach), _fast_side(width + reach))
    one = unit(fixed.flatten(1)).view_as(fixed)
    other = unit(moving.flatten(2)).view_as(moving)
    spectrum = torch.fft.rfft2(one, size)[:, None] * torch.fft.rfft2(other, size).conj()
    likeness = torch.fft.irfft2(spectrum, size)
    near = torch.arange(-reach, reach + 1, device=fixed.device)
    best = likeness[..., near, :][..., near].flatten(2).argmax(2)
    down, right = best // len(near) - reach, best % len(near) - reach
    rows = torch.arange(height, device=fixed.device) - down[..., None]
    columns = torch.arange(width, device=fixed.device) - right[..., None]
    is_inside = ((rows >= 0) & (rows < height))[..., None] & ((columns >= 0) & (columns < width))[
        ..., None, :
    ]
    at = rows.clamp(0, height - 1)[..., None] * width + columns.clamp(0, width - 1)[..., None, :]
    moved = other.flatten(2).gather(2, at.flatten(2)) * is_inside.flatten(2)
    return unit(moved)


def _fast_side(least: int) -> int:
    """The next number without a prime factor above 5; transforms of 106 take longer than of 108."""
    side = least
    while True:
        rest = side
        for factor in (2, 3, 5):
            while rest % factor == 0:
                rest //= factor
        if rest == 1:
            return side
        side += 1
