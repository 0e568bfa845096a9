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


def open_bank(
    images: npt.NDArray[np.uint8],
    device: torch.device,
    *,
    free_bytes: int,
    rows: npt.NDArray[np.int64] | None = None,
) -> SliceBank:
    """Choose the place for ``images`` (N, 1, H, W): the device while they fit in its share.

    Given ``rows`` (n,), it holds those of the images and no others.
    """
    rows = np.arange(len(images)) if rows is None else rows
    if fits_device(images[:1].nbytes * len(rows), device, free_bytes=free_bytes):
        return DeviceBank(images, device, rows)
    return HostBank(images, device, rows)


def fits_device(slices_bytes: int, device: torch.device, *, free_bytes: int) -> bool:
    """Whether slices of so many bytes are held on ``device``."""
    return device.type != "cpu" and slices_bytes <= free_bytes * DEVICE_SHARE


class DeviceBank:
    """All slices on the device: a batch is one gather, no copy from the host."""

    place = "device"

    def __init__(
        self, images: npt.NDArray[np.uint8], device: torch.device, rows: npt.NDArray[np.int64]
    ) -> None:
        shape = (len(rows), *images.shape[1:])
        self._images = torch.empty(shape, dtype=torch.uint8, device=device)
        count = max(1, 2**28 // max(1, images[0].nbytes))  # 256 MiB at a time in host memory
        for first in range(0, len(rows), count):
            part = images[rows[first : first + count]]
            self._images[first : first + len(part)].copy_(torch.from_numpy(part))

    def take(self, indices: Tensor) -> Tensor:
        """Gather on the device."""
        device = self._images.device
        if device.type == "cuda":
            indices = indices.pin_memory()
        return to_unit(self._images[indices.to(device, non_blocking=True)])


class HostBank:
    """Slices stay where they are, memory-mapped or not; a batch is gathered and sent."""

    place = "host"

    def __init__(
        self,
        images: npt.NDArray[np.uint8],
        device: torch.device,
        rows: npt.NDArray[np.int64] | None = None,
    ) -> None:
        self._images = images
        self._device = device
        self._rows = rows

    def take(self, indices: Tensor) -> Tensor:
        """Gather on the host, then copy beside the device's work."""
        chosen = indices.numpy() if self._rows is None else self._rows[indices.numpy()]
        batch = torch.from_numpy(self._images[chosen])
        if self._device.type == "cuda":
            batch = batch.pin_memory()
        return to_unit(batch.to(self._device, non_blocking=True))
