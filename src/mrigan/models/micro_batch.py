"""The images of one forward pass."""

from typing import NamedTuple

from torch import Tensor

from mrigan.models.augment import Warp


class MicroBatch(NamedTuple):
    """One forward pass worth of a step."""

    z: Tensor  # (n, latent_dim)
    real: Tensor | None = None  # (n, 1, H, W) in [-1, 1]; G's half may need none
    real_keep: Tensor | None = None  # (n, K) of 0 and 1: channels that dropout leaves to D
    fake_keep: Tensor | None = None
    real_warp: Warp | None = None  # augmentation, a row an image
    fake_warp: Warp | None = None
