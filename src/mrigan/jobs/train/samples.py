"""Draws from the network that people see, and leaves all of training as it found it."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from mrigan.data.slices import to_grey
from mrigan.settings.fields import Settings
from mrigan.training.ema import recalibrate_batchnorm
from mrigan.training.loop import fixed_latents
from mrigan.training.state import TrainingState

GRID_IMAGES = 32
_RECALIBRATION_BATCHES = 16  # batches from which BatchNorm's statistics are estimated anew


class Samples:
    """Slices drawn by ``state`` between two steps.

    In fp32 and with BatchNorm's running statistics, so that the published generator gives the
    same pictures to one grey level.
    """

    def __init__(self, settings: Settings, state: TrainingState) -> None:
        self._state = state
        self._device = next(state.G.parameters()).device
        self._batch_size = settings.batch_size
        self._latent_dim = settings.latent_dim
        self._seed = settings.seed
        self._recalibrated_images: int | None = None

    def grid(self) -> np.ndarray[Any, np.dtype[np.uint8]]:
        """What the fixed latents of the sample grids become: (GRID_IMAGES, 1, H, W)."""
        return self.draw(fixed_latents(GRID_IMAGES, self._latent_dim, self._seed)).numpy()

    def draw(self, z: Tensor) -> Tensor:
        """Slices (n, 1, H, W) uint8 on the CPU, from latents (n, latent_dim)."""
        self._recalibrate()
        G = self._state.sampler
        was_training = G.training
        G.eval()
        with torch.no_grad():
            parts = [
                to_grey(G(part.to(self._device))).cpu() for part in z.split(self._state.micro_batch)
            ]
        G.train(was_training)
        return torch.cat(parts)

    def forget(self) -> None:
        """The state has been put back to where it was before."""
        self._recalibrated_images = None

    def _recalibrate(self) -> None:
        """Give G's EMA BatchNorm statistics of its own."""
        if self._state.G_ema is None or self._recalibrated_images == self._state.images_seen:
            return
        count = _RECALIBRATION_BATCHES * self._batch_size
        latents = fixed_latents(count, self._latent_dim, self._seed).split(self._batch_size)
        recalibrate_batchnorm(self._state.G_ema, (z.to(self._device) for z in latents))
        self._recalibrated_images = self._state.images_seen
