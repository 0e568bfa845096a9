"""What the sections share: the device, the slices, the time left, and rows that may fail alone."""

import gc
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gpu_check.report import FAILED, SKIPPED, Report, Row
from mrigan.models.r3 import networks as r3

# A sentence is enough of an error.
_REASON_CHARACTERS = 300
_DRAWN = (768, 256)  # phantoms trained on, phantoms held out
_DRAWN_TINY = (32, 24)
ROOT = Path(__file__).parents[2]
TINY_PRESET = {"widths": (8, 8, 8, 8, 8, 8)}


class DeadDeviceError(Exception):
    """The device answers nothing in this process any more."""


@dataclass(kw_only=True)
class Bench:
    """One run of ``bench/gpu.py``.

    Attributes:
        device: That is measured.
        size: (H, W) of the images, pixels.
        folder: Of real slices; phantoms without.
        is_tiny: Whether networks and steps are small enough for a test on a CPU.
        ends: When the whole run should be over, as ``time.monotonic``.
        report: Takes the rows.
        arguments: For a process that measures on its own.
    """

    device: torch.device
    size: tuple[int, int]
    folder: str
    is_tiny: bool
    ends: float
    report: Report
    arguments: list[str]
    section: str = ""
    section_ends: float = 0.0
    _slices: tuple[npt.NDArray[np.uint8], Tensor] | None = field(default=None, init=False)

    @property
    def is_cuda(self) -> bool:
        """Whether the device is a GPU of NVIDIA's."""
        return self.device.type == "cuda"

    def seconds_left(self) -> float:
        """Of the section."""
        return min(self.section_ends, self.ends) - time.monotonic()

    def row(self, what: str, measure: Callable[[], Row], *, needs_seconds: float = 0.0) -> None:
        """Keep what ``measure`` finds, or why it found nothing.

        Raises:
            DeadDeviceError: When nothing after it can work either.
        """
        if self.seconds_left() < needs_seconds:
            self.report.row(self.section, {"what": what, SKIPPED: "no time left"})
            return
        try:
            found = measure()
        except Exception as error:  # noqa: BLE001 - the other rows are worth having
            found = {FAILED: reason_of(error)}
        self.report.row(self.section, {"what": what, **found})
        self.clean_up()

    def clean_up(self) -> None:
        """Give the device's memory back."""
        gc.collect()
        if self.is_cuda:
            try:
                torch.cuda.synchronize()
                torch.cuda.empty_cache()
            except RuntimeError as error:
                raise DeadDeviceError(reason_of(error)) from error

    def wait(self) -> None:
        """Return once the device has done what it was asked for."""
        if self.is_cuda:
            torch.cuda.synchronize()

    def slices(self) -> tuple[npt.NDArray[np.uint8], Tensor]:
        """Slices trained on and slices held out, uint8 (N, 1, H, W)."""
        if self._slices is None:
            from gpu_check.slices import drawn, packed

            counts = _DRAWN_TINY if self.is_tiny else _DRAWN
            self._slices = (
                packed(self.folder, self.size) if self.folder else drawn(counts, self.size)
            )
        return self._slices


def reason_of(error: Exception) -> str:
    """One line."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}"[:_REASON_CHARACTERS]


@contextmanager
def presets(changes: dict[str, dict[str, Any]]) -> Iterator[None]:
    """Change presets by name for a while."""
    from dataclasses import replace

    before = dict(r3.PRESETS)
    for name, fields in changes.items():
        r3.PRESETS[name] = replace(before[name], **fields)
    try:
        yield
    finally:
        r3.PRESETS.update(before)


@contextmanager
def switches_kept(device: torch.device) -> Iterator[None]:
    """Put back what a run sets for the whole process."""
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    names = ["benchmark", "deterministic", "allow_tf32"]
    if device.type == "cuda":
        names.append("benchmark_limit")
    before = {name: getattr(cudnn, name) for name in names}
    matmul_tf32 = matmul.allow_tf32
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(cudnn, name, value)
        matmul.allow_tf32 = matmul_tf32


def path_beside(report: Report, name: str) -> Path:
    """A file beside the report's own."""
    return report.stem.with_name(f"{report.stem.name}-{name}")
