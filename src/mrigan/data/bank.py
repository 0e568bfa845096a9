"""Where training takes slices from: the accelerator if they fit, else host memory."""

from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mrigan.data.slices import to_unit

# Of the accelerator's free memory; the rest is for the networks.
DEVICE_SHARE = 0.3


class SliceBank(Protocol):
    """Holds N slices as uint8."""

    place: str

    def take(self, indices: Tensor) -> Tensor:
        """Slices (n, 1, H, W) float in [-1, 1] on the device, for ``indices`` (n,)."""


def open_bank(images: npt.NDArray[np.uint8], device: torch.device, *, free_bytes: int) -> SliceBank:
    """Choose the place for ``images`` (N, 1, H, W): the device while they fit in its share."""
    if device.type != "cpu" and images.nbytes <= free_bytes * DEVICE_SHARE:
        return DeviceBank(images, device)
    return HostBank(images, device)


class DeviceBank:
    """All slices on the device: a batch is one gather, no copy from the host."""

    place = "device"

    def __init__(self, images: npt.NDArray[np.uint8], device: torch.device) -> None:
        self._images = torch.empty(images.shape, dtype=torch.uint8, device=device)
        rows = max(1, 2**28 // max(1, images[0].nbytes))  # 256 MiB at a time in host memory
        for first in range(0, len(images), rows):
            part = np.array(images[first : first + rows])
            self._images[first : first + len(part)].copy_(torch.from_numpy(part))

    def take(self, indices: Tensor) -> Tensor:
        """Gather on the device."""
        return to_unit(self._images[indices.to(self._images.device, non_blocking=True)])


class HostBank:
    """Slices stay where they are, memory-mapped or not; a batch is gathered and sent."""

    place = "host"

    def __init__(self, images: npt.NDArray[np.uint8], device: torch.device) -> None:
        self._images = images
        self._device = device

    def take(self, indices: Tensor) -> Tensor:
        """Gather on the host, then copy beside the device's work."""
        batch = torch.from_numpy(self._images[indices.numpy()])
        if self._device.type == "cuda":
            batch = batch.pin_memory()
        return to_unit(batch.to(self._device, non_blocking=True))
