"""What takes a run's memory, known once its first step has shown it."""

import torch
from torch import Tensor, nn

from mrigan.data.bank import fits_device
from mrigan.data.pack import Pack
from mrigan.runtime.device import free_bytes
from mrigan.runtime.host_memory import peak_resident_bytes, resident_bytes
from mrigan.training.adam import Adam
from mrigan.training.state import TrainingState

_MIB = 2**20


class MemoryReport:
    """Begun before the first step and read after it, on one rank.

    On CUDA the activations are what the allocator's peak holds beyond the rest. On a CPU they are
    told from the process's largest size, where the step has raised it: a pull may have been larger.
    """

    def __init__(self, pack: Pack, device: torch.device) -> None:
        self._device = device
        self._slices_bytes = pack.images[:1].nbytes * len(pack.training)
        free = free_bytes(self._device)
        self._is_on_device = fits_device(self._slices_bytes, self._device, free_bytes=free)
        self._resident_bytes = resident_bytes()
        self._peak_before = peak_resident_bytes()

    def after_step(self, state: TrainingState) -> dict[str, float | str]:
        """MiB of each part, and where the slices are."""
        networks = [state.G, state.D, *([state.G_ema] if state.G_ema is not None else [])]
        weights = sum(_bytes(_tensors(network)) for network in networks)
        gradients = sum(
            _bytes([weight.grad for weight in network.parameters() if weight.grad is not None])
            for network in networks
        )
        optimizers = sum(_optimizer_bytes(optim) for optim in (state.g_optim, state.d_optim))
        found: dict[str, float | str] = {
            "weights_mib": _mib(weights),
            "gradients_mib": _mib(gradients),
            "optimizer_mib": _mib(optimizers),
            "slices_mib": _mib(self._slices_bytes),
            "slices_on": "device" if self._is_on_device else "host",
            "micro_batch": state.micro_batch,
        }
        if self._device.type == "cuda":
            peak = torch.cuda.max_memory_allocated(self._device)
            held = weights + gradients + optimizers + self._slices_bytes * self._is_on_device
            found |= {"activations_mib": _mib(max(0, peak - held)), "peak_mib": _mib(peak)}
        elif (peak := peak_resident_bytes()) > self._peak_before:
            grown = peak - self._resident_bytes - gradients - optimizers
            found |= {"activations_mib": _mib(max(0, grown)), "peak_mib": _mib(peak)}
        return found


def _tensors(network: nn.Module) -> list[Tensor]:
    return [*network.parameters(), *network.buffers()]


def _optimizer_bytes(optim: Adam) -> int:
    return _bytes([moment for moments in optim.moments for moment in moments])


def _bytes(tensors: list[Tensor]) -> int:
    return sum(tensor.nbytes for tensor in tensors)


def _mib(size_bytes: float) -> float:
    return round(size_bytes / _MIB, 1)
