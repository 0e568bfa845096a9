"""What computes: chosen at run time, described, and asked what its memory is at.

"bf16 where the hardware computes in it" means CUDA from compute capability 8.0 and CPUs with AMX.
AVX512-BF16 alone is slower than fp32 here (docs/decisions.md).
"""

import ctypes
import sys
from typing import NamedTuple

import torch

from mrigan.errors import SettingsError
from mrigan.runtime.host_memory import peak_resident_bytes

_MIB = 2**20
# Algorithms that cuDNN tries for each new shape, its own favourites first: all of them, for some
# hundred shapes, kept the first step waiting for half a minute.
_CUDNN_TRIALS = 3


class Hardware(NamedTuple):
    """The device of a run and the precision of its forward passes."""

    device: torch.device
    dtype: torch.dtype
    name: str

    @property
    def precision(self) -> str:
        """``bf16`` or ``fp32``."""
        return "bf16" if self.dtype is torch.bfloat16 else "fp32"

    def autocast(self) -> torch.autocast:
        """The context of a forward pass; does nothing in fp32."""
        enabled = self.dtype is torch.bfloat16
        return torch.autocast(self.device.type, torch.bfloat16, enabled=enabled)


def choose_hardware(device: str, precision: str, local_rank: int = 0) -> Hardware:
    """Turn the settings DEVICE and PRECISION into what this machine has.

    Each rank of a machine takes a GPU of its own.

    Raises:
        SettingsError: When the device asked for is absent, or can't do the precision.
    """
    chosen = available_device(device)
    if chosen.type == "cuda":
        chosen = torch.device("cuda", local_rank)
        if local_rank >= torch.cuda.device_count():
            raise SettingsError(
                f"rank {local_rank} of this machine has no GPU: there are "
                f"{torch.cuda.device_count()}; start as many ranks"
            )
        torch.cuda.set_device(chosen)
        torch.backends.cudnn.benchmark = True  # shapes are fixed
        torch.backends.cudnn.benchmark_limit = _CUDNN_TRIALS
        # Where fp32 was asked for, it means fp32. Of convolutions alone: the products are few, and
        # augmentation, BatchNorm's statistics and scores want theirs exact.
        torch.backends.cudnn.allow_tf32 = precision != "fp32"
    if precision == "bf16" and chosen.type == "mps":
        raise SettingsError("MRIGAN_PRECISION: bf16 is not available on mps; use fp32 or auto")
    bf16 = precision == "bf16" or (precision == "auto" and _computes_in_bf16(chosen))
    return Hardware(chosen, torch.bfloat16 if bf16 else torch.float32, _name(chosen))


def keep_freed_memory(device: torch.device) -> bool:
    """Make the C library reuse what training frees instead of returning it to the kernel.

    A step on a CPU frees and takes the same gigabytes over and over; each time glibc gives them
    back, every page is faulted in and zeroed again. For the training phase only: while slices are
    pulled, memory is meant to shrink. True where it took effect (glibc).
    """
    if device.type != "cpu" or sys.platform != "linux":
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    mmap_threshold, trim_threshold = -3, -1  # malloc.h
    return bool(mallopt(mmap_threshold, 2**30) and mallopt(trim_threshold, 2**31 - 1))


def available_device(device: str) -> torch.device:
    """Return the device that the setting DEVICE names, or the best one for ``auto``.

    Raises:
        SettingsError: The device asked for is absent.
    """
    if device == "cuda" and not torch.cuda.is_available():
        needed = f"CUDA {torch.version.cuda}" if torch.version.cuda else "a CUDA build of torch"
        raise SettingsError(
            f"MRIGAN_DEVICE: cuda was asked for, but torch {torch.__version__} finds no GPU; it "
            f"needs {needed} ({_driver_needed()}); a container is given the GPU by "
            "docker-compose.gpu.yml"
        )
    if device == "mps" and not torch.backends.mps.is_available():
        raise SettingsError("MRIGAN_DEVICE: mps was asked for, but this is no Mac with a Metal GPU")
    if device == "auto" and torch.cuda.is_available():
        device = "cuda"
    elif device == "auto":
        device = "mps" if torch.backends.mps.is_available() else "cpu"
    return torch.device(device)


def _driver_needed() -> str:
    """The oldest Linux driver of torch's CUDA major version (NVIDIA's compatibility table)."""
    major = (torch.version.cuda or "").partition(".")[0]
    oldest = {"11": "450", "12": "525", "13": "580"}.get(major)
    return f"driver {oldest} or newer" if oldest else "an NVIDIA driver"


def _computes_in_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type == "cpu":
        return bool(torch.cpu._is_amx_tile_supported())
    return False


def _name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{torch.get_num_threads()} CPU threads" if device.type == "cpu" else "Apple GPU"


def reset_peak(device: torch.device) -> None:
    """Begin a new peak."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def memory_facts(device: torch.device) -> dict[str, float]:
    """Peak memory since ``reset_peak``, MiB.

    On CUDA also what the allocator reserved, and the share of it that no tensor used at the peak
    (fragmentation). On a CPU the highest resident size of the process.
    """
    if device.type == "cuda":
        allocated = torch.cuda.max_memory_allocated(device)
        reserved = torch.cuda.max_memory_reserved(device)
        return {
            "peak_allocated_mib": round(allocated / _MIB, 1),
            "peak_reserved_mib": round(reserved / _MIB, 1),
            "fragmentation": round(1 - allocated / reserved, 4) if reserved else 0.0,
        }
    return {"peak_rss_mib": round(peak_resident_bytes() / _MIB, 1)}


def free_bytes(device: torch.device) -> int:
    """Free memory of a CUDA device, bytes; 0 elsewhere."""
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else 0


def allocator_in_force(device: torch.device) -> str:
    """What the CUDA allocator says of itself, since a string it was given may be ignored."""
    if device.type != "cuda":
        return "none (no CUDA)"
    torch.zeros(1, device=device)  # the allocator reads its settings on first use
    found = torch.cuda.memory._snapshot()["allocator_settings"]
    return f"expandable_segments:{found.get('expandable_segments')}"
