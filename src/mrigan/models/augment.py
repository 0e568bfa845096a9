"""Augmentation that keeps anatomy plausible: slices are moved, resized, brightened.

Mirroring and small rotations are done where the policy asks; 90° and inversions do not exist. What
a slice is moved away from is filled with its own background. Everything is linear in the pixels and
differentiable to any order; a warp drawn at p = 0 is the identity, to the bit. Randomness is drawn
for a whole step at once, so an image's warp depends on its place in the step and not on how the
step is cut. Warps are applied to what D sees, never to a sample.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from mrigan.settings.fields import Settings


@dataclass(frozen=True, kw_only=True)
class Policy:
    """What may happen to a slice, each with probability p on its own; 0 turns one off."""

    translation: float = 0.125  # of a side, uniform, either way; every other time whole pixels
    scale: float = 0.2  # standard deviation of log2 of the size, held to [3/4, 4/3]
    aspect: float = 0.1  # standard deviation of log2 of height against width, held to ±1/4
    brightness: float = 0.2  # standard deviation of what is added; black to white is 2
    contrast: float = 0.5  # standard deviation of log2 of the factor, held to [1/2, 2]
    flips: bool = False  # left and right: where the anatomy has sides, this makes new anatomy
    rotation_degrees: float = 0.0  # uniform, either way; up to 15


def policy_of(settings: Settings) -> Policy:
    """What the settings allow."""
    return Policy(flips=settings.augment_flips, rotation_degrees=settings.augment_rotation)


MOST_DEGREES = 15.0
_TRANSFORMATIONS = 7


class Warp(NamedTuple):
    """The augmentation of a step's or micro-batch's images, a row for each."""

    placement: (
        Tensor  # (N, 4): rows' and columns' factor of size, then shift down and right, pixels
    )
    grey: Tensor  # (N, 2): contrast factor about the background, brightness added
    turn: Tensor  # (N, 1): angle in radians, anticlockwise; (N, 0) where the policy has none

    def part(self, start: int, stop: int) -> "Warp":
        """The rows of a micro-batch."""
        return Warp(*(rows[start:stop] for rows in self))


class Randoms(NamedTuple):
    """The random numbers behind a step's warps, a row for each image, 7 columns each."""

    chosen: Tensor  # uniform in [0, 1): a transformation is applied where it is below p
    uniform: Tensor  # in [0, 1)
    normal: Tensor


def draw_randoms(count: int, seed: int) -> Randoms:
    """Draw for ``count`` images, on the CPU so that every device sees the same.

    Args:
        count: N, images of the whole step.
        seed: Of the step: a function of the run's seed, the phase and ``images_seen``.
    """
    generator = torch.Generator().manual_seed(seed)
    sources = (torch.rand, torch.rand, torch.randn)
    return Randoms(*(draw(count, _TRANSFORMATIONS, generator=generator) for draw in sources))


def warp_of(policy: Policy, size: tuple[int, int], randoms: Randoms, p: Tensor | float) -> Warp:
    """Turn random numbers into warps, on the device that they are on; the host reads nothing.

    Args:
        policy: What may happen.
        size: (H, W), pixels.
        randoms: Of N images.
        p: Probability of each transformation, 0 to 1.

    Raises:
        ValueError: For rotations beyond 15°, which the shears are not made for.
    """
    if not 0 <= policy.rotation_degrees <= MOST_DEGREES:
        raise ValueError(f"rotation of {policy.rotation_degrees}°: 0 to {MOST_DEGREES:.0f} allowed")
    applied = randoms.chosen < p
    return Warp(
        placement=_placement(policy, size, applied, randoms.uniform, randoms.normal),
        grey=_grey(policy, applied, randoms.normal),
        turn=_turn(policy, applied, randoms.uniform),
    )


def draw_warp(policy: Policy, count: int, size: tuple[int, int], *, p: float, seed: int) -> Warp:
    """Draw the augmentation of ``count`` images at once, on the CPU; see ``warp_of``."""
    return warp_of(policy, size, draw_randoms(count, seed), p)


def augment(images: Tensor, warp: Warp) -> Tensor:
    """Apply ``warp`` to images (N, 1, H, W), row by row; differentiable in the images.

    The background's level counts as a constant: were its gradient followed, D would push on the one
    pixel that happens to set it.
    """
    with torch.autocast(images.device.type, enabled=False):
        placement, grey, turn = (rows.to(images.dtype) for rows in warp)
        background = background_of(images)
        x = _placed(images, placement, background)
        if turn.shape[1]:
            x = _turned(x, turn, background)
        contrast, brightness = (column[:, None, None, None] for column in grey.unbind(1))
        return x * contrast + (background * (1 - contrast) + brightness)


def background_of(images: Tensor) -> Tensor:
    """The level of air in each slice, (N, 1, 1, 1): the lower quartile of its outermost pixels.

    Never grey while a quarter of the border is air, and not the darkest speck of the noise either.
    """
    images = images.detach()
    border = torch.cat(
        [
            images[:, :, 0],
            images[:, :, -1],
            images[:, :, 1:-1, 0],
            images[:, :, 1:-1, -1],
        ],
        2,
    )
    levels = border.flatten(1).sort(dim=1).values
    return levels[:, levels.shape[1] // 4][:, None, None, None]


def _placed(images: Tensor, placement: Tensor, background: Tensor) -> Tensor:
    """Resize about the centre and shift, by one small matrix product for each axis.

    Equal to bilinear sampling, but deterministic on CUDA, and exact for whole pixels.
    """
    height, width = images.shape[2:]
    down = _resampling(height, placement[:, 0], placement[:, 2])
    across = _resampling(width, placement[:, 1], placement[:, 3])
    inside = down.sum(2)[:, None, :, None] * across.sum(2)[:, None, None, :]
    moved = down[:, None] @ images @ across[:, None].transpose(2, 3)
    # Not "subtract the background, add it again": that would round where nothing moves.
    return moved + background * (1 - inside)


def _resampling(size: int, factor: Tensor, shift: Tensor) -> Tensor:
    """Linear interpolation as matrices (N, size, size); a negative factor mirrors."""
    pixels = torch.arange(size, dtype=factor.dtype, device=factor.device)
    centre = (size - 1) / 2
    source = (pixels - centre - shift[:, None]) / factor[:, None] + centre
    return (1 - (source[:, :, None] - pixels).abs()).clamp(min=0)


def _turned(images: Tensor, turn: Tensor, background: Tensor) -> Tensor:
    """Rotate anticlockwise by ``turn`` (N, 1), radians, as three shears (Paeth 1986).

    A shear takes each pixel at most once from each place, so its gradient too has the same bits
    every time, which that of ``grid_sample`` has not.
    """
    width = images.shape[3]
    # Room for what the first shear moves out sideways and the third moves back: at most
    # tan(15°/2) sin(15°) of the half width.
    room = math.ceil(0.035 * width / 2) + 1
    x = F.pad(images - background, (room, room, 0, 0))
    across, down = (turn / 2).tan(), -turn.sin()
    x = _sheared(x, across)
    x = _sheared(x.transpose(2, 3), down).transpose(2, 3)
    x = _sheared(x, across)[:, :, :, room : room + width]
    return torch.where(turn[:, :, None, None] == 0, images, x + background)


def _sheared(x: Tensor, slope: Tensor) -> Tensor:
    """Shift each row of (N, 1, H, W) right by ``slope`` (N, 1) × its distance below the middle."""
    height, width = x.shape[2:]
    rows = torch.arange(height, dtype=x.dtype, device=x.device) - (height - 1) / 2
    columns = torch.arange(width, dtype=x.dtype, device=x.device)
    source = columns - (slope * rows)[:, None, :, None]
    low = source.floor()
    share = source - low
    return _taken(x, low) * (1 - share) + _taken(x, low + 1) * share


def _taken(x: Tensor, columns: Tensor) -> Tensor:
    """The pixels of each row at ``columns`` (N, 1, H, W); 0 where there is none."""
    last = x.shape[3] - 1
    inside = (columns >= 0) & (columns <= last)
    return x.gather(3, columns.clamp(0, last).long()) * inside


def _placement(
    policy: Policy, size: tuple[int, int], applied: Tensor, uniform: Tensor, normal: Tensor
) -> Tensor:
    scale = (normal[:, 0] * policy.scale).exp2().clamp(3 / 4, 4 / 3).where(applied[:, 0], 1.0)
    aspect = (normal[:, 1] * policy.aspect).clamp(-1 / 4, 1 / 4).exp2().where(applied[:, 1], 1.0)
    shifts = [
        (uniform[:, column] * 2 - 1) * policy.translation * side
        for column, side in zip((3, 4), size, strict=True)
    ]
    shift = torch.stack(shifts, 1)
    # Interpolation blurs; were every moved slice blurred, sharpness would mark the unmoved ones.
    shift = shift.round().where(uniform[:, 5:6] < 0.5, shift)
    shift = shift.where(applied[:, 3:4], 0.0)
    columns = scale / aspect
    if policy.flips:
        columns = columns.where(~(applied[:, 2] & (uniform[:, 2] < 0.5)), -columns)
    return torch.cat([torch.stack([scale * aspect, columns], 1), shift], 1)


def _grey(policy: Policy, applied: Tensor, normal: Tensor) -> Tensor:
    contrast = (normal[:, 4] * policy.contrast).clamp(-1, 1).exp2()
    brightness = normal[:, 5] * policy.brightness
    return torch.stack(
        [contrast.where(applied[:, 4], 1.0), brightness.where(applied[:, 5], 0.0)], 1
    )


def _turn(policy: Policy, applied: Tensor, uniform: Tensor) -> Tensor:
    if policy.rotation_degrees == 0:
        return uniform[:, :0]
    angle = (uniform[:, 6:7] * 2 - 1) * math.radians(policy.rotation_degrees)
    return angle.where(applied[:, 6:7], 0.0)
