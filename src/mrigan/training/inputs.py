"""What one half of a step is a function of, beside the weights.

All random numbers of a step are drawn on the CPU, for all of its images at once, so that every
device and every rank has the same, however the step is cut and shared.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from mrigan.data.sampler import stream_seed
from mrigan.models.augment import Randoms, draw_randoms
from mrigan.models.family import Dropout, Recipe


class Drawn(NamedTuple):
    """Random numbers, a row for each image."""

    z: Tensor  # latents (n, latent_dim)
    real_keep: Tensor | None = None  # (n, dropout channels) of 0 and 1
    fake_keep: Tensor | None = None
    real_randoms: Randoms | None = None  # augmentation
    fake_randoms: Randoms | None = None

    def sent(self, rows: Tensor, like: Tensor) -> "Drawn":
        """Those of ``rows`` on the device of ``like``, latents in its precision."""

        def own(values: Tensor) -> Tensor:
            is_whole = len(rows) == len(values)  # a rank's rows are in order
            return sent(values if is_whole else values[rows], like.device)

        def own_randoms(randoms: Randoms | None) -> Randoms | None:
            return None if randoms is None else Randoms(*map(own, randoms))

        return Drawn(
            z=own(self.z).to(like.dtype),
            real_keep=None if self.real_keep is None else own(self.real_keep),
            fake_keep=None if self.fake_keep is None else own(self.fake_keep),
            real_randoms=own_randoms(self.real_randoms),
            fake_randoms=own_randoms(self.fake_randoms),
        )


class Inputs(NamedTuple):
    """Everything, on the device: what a captured half is fed."""

    drawn: Drawn
    real: Tensor | None  # (n, 1, H, W) in [-1, 1]
    p: Tensor  # of each augmentation, a scalar
    gamma: Tensor  # of the gradient penalty, a scalar
    group_weights: Tensor  # of each group in BatchNorm's running statistics


def draw(
    recipe: Recipe, phase: str, images: int, *, latent_dim: int, seed: int, images_seen: int
) -> Drawn:
    """Draw for the half ``phase``, "d" or "g", of the step of ``images`` at ``images_seen``."""

    def keep(which: str, *, is_shown: bool) -> Tensor | None:
        if not is_shown or recipe.dropout is None:
            return None
        stream = stream_seed(seed, phase, f"{which}-keep", images_seen)
        return draw_keep(images, recipe.dropout, stream)

    def randoms(which: str) -> Randoms | None:
        if recipe.augmentation is None:
            return None
        return draw_randoms(images, stream_seed(seed, phase, f"{which}-warp", images_seen))

    return Drawn(
        z=draw_latents(images, latent_dim, stream_seed(seed, phase, images_seen)),
        real_keep=keep("real", is_shown=phase == "d"),
        fake_keep=keep("fake", is_shown=True),
        real_randoms=randoms("real"),
        fake_randoms=randoms("fake"),
    )


def draw_latents(count: int, latent_dim: int, seed: int) -> Tensor:
    """Standard normal (count, latent_dim)."""
    return torch.randn(count, latent_dim, generator=torch.Generator().manual_seed(seed))


def draw_keep(count: int, dropout: Dropout, seed: int) -> Tensor:
    """Which channels ``dropout`` leaves, (count, channels) uint8 of 0 and 1."""
    generator = torch.Generator().manual_seed(seed)
    shape = (count, dropout.channels)
    drawn = torch.randint(256, shape, dtype=torch.uint8, generator=generator)
    return (drawn >= round(dropout.share * 256)).to(torch.uint8)


def sent(values: Tensor, device: torch.device) -> Tensor:
    """Copy to ``device``, beside its work on CUDA."""
    if device.type != "cuda" or not values.numel():
        return values.to(device)
    return values.pin_memory().to(device, non_blocking=True)
