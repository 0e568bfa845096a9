"""Where training takes slices from: the accelerator's memory if they fit, else the host's."""

from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mrigan.data.slices import to_unit

# The fraction of the accelerator's free memory that slices may take; networks need the rest.
DEVICE_FRACTION = 0.3


class SliceBank(Protocol):
    """Holds N slices as uint8."""

    def take(self, indices: Tensor) -> Tensor:
        """Slices (n, 1, H, W) float in [-1, 1] on the device, for ``indices`` (n,)."""


def open_bank(
    images: npt.NDArray[np.uint8],
    device: torch.device,
    *,
    free_bytes: int,
    rows: npt.NDArray[np.int64] | None = None,
) -> SliceBank:
    """Hold ``images`` (N, 1, H, W) on the device if they fit in its fraction, else on the host.

    Args:
        images: May be memory-mapped; no copy of all is made on the host.
        device: That trains.
        free_bytes: Of its memory.
        rows: (n,), the only ones that are held; all by default.
    """
    rows = np.arange(len(images)) if rows is None else rows
    if fits_device(images[:1].nbytes * len(rows), device, free_bytes=free_bytes):
        return DeviceBank(images, device, rows)
    return HostBank(images, device, rows)


def fits_device(slices_bytes: int, device: torch.device, *, free_bytes: int) -> bool:
    """Whether slices of so many bytes are held on ``device``."""
    return device.type != "cpu" and slices_bytes <= free_bytes * DEVICE_FRACTION


class DeviceBank:
    """All slices on the device: a batch is one gather there, without a copy from the host."""

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
    """Slices stay on the host, memory-mapped or not; a batch is gathered and sent."""

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
        """Gather on the host, then copy while the device works."""
        chosen = indices.numpy() if self._rows is None else self._rows[indices.numpy()]
        batch = torch.from_numpy(self._images[chosen])
        if self._device.type == "cuda":
            batch = batch.pin_memory()
        return to_unit(batch.to(self._device, non_blocking=True))
