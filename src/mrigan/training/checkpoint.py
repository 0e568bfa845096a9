"""Training state <-> bytes: tensors only, so that loading one never executes anything."""

import io
from typing import Any

import torch

from mrigan.errors import DivergedError
from mrigan.training.adaptive import AdaptiveP
from mrigan.training.state import TrainingState


def is_finite(state: TrainingState) -> bool:
    """Whether every weight is a number."""
    return all(bool(torch.isfinite(weight).all()) for weight in _weights(state))


def snapshot(state: TrainingState) -> dict[str, Any]:
    """Copy ``state`` to the CPU, ready to be encoded while training goes on.

    Raises:
        DivergedError: If a weight is not finite: such a checkpoint must never be published.
    """
    if not is_finite(state):
        raise DivergedError(
            f"training diverged: a weight is not finite at {state.images_seen:,} images; what "
            "was saved before is whole; lower MRIGAN_G_LR and MRIGAN_D_LR, in a new "
            "MRIGAN_OUTPUT_URI"
        )
    parts = {
        "G": state.G.state_dict(),
        "D": state.D.state_dict(),
        "G_ema": state.G_ema.state_dict() if state.G_ema is not None else {},
        "g_optim": state.g_optim.state_dict(),
        "d_optim": state.d_optim.state_dict(),
        "epoch_sums": state.epoch_sums,
        "images_seen": state.images_seen,
        "micro_batch": state.micro_batch,
        "place": state.place,
        "augment": list(state.augment),
        "attempt": state.attempt,
    }
    copied: dict[str, Any] = _to_cpu(parts)
    return copied


def restore(state: TrainingState, saved: dict[str, Any]) -> None:
    """Put ``state`` where ``saved`` was; it must have been built with the same settings."""
    device = next(state.G.parameters()).device
    state.G.load_state_dict(saved["G"])
    state.D.load_state_dict(saved["D"])
    if state.G_ema is not None:
        state.G_ema.load_state_dict(saved["G_ema"])
    for optim, values in ((state.g_optim, saved["g_optim"]), (state.d_optim, saved["d_optim"])):
        fused = optim.param_groups[0]["fused"]
        optim.load_state_dict(_to_cpu(values))  # on a CPU it would take them over as they are
        for group in optim.param_groups:
            group["fused"] = fused  # a matter of this device, not of the one that saved
    state.epoch_sums = {name: value.to(device) for name, value in saved["epoch_sums"].items()}
    state.images_seen = saved["images_seen"]
    if saved["place"] == state.place:  # what fitted elsewhere says nothing here
        state.micro_batch = saved["micro_batch"]
    state.augment = AdaptiveP(*saved["augment"])
    state.attempt = saved["attempt"]


def adopt(state: TrainingState, weights: dict[str, Any]) -> None:
    """Give the networks of a fresh ``state`` the weights of another run's snapshot.

    Optimizers and progress stay fresh. Where the other run kept no average, it starts as G.
    """
    state.G.load_state_dict(weights["G"])
    state.D.load_state_dict(weights["D"])
    if state.G_ema is not None:
        state.G_ema.load_state_dict(weights["G_ema"] or weights["G"])


def encode(saved: dict[str, Any]) -> bytes:
    """The bytes of a checkpoint file."""
    buffer = io.BytesIO()
    torch.save(saved, buffer)
    return buffer.getvalue()


def decode(data: bytes) -> dict[str, Any]:
    """The snapshot in ``data``; nothing but tensors, numbers and strings is accepted."""
    saved: dict[str, Any] = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    return saved


def _weights(state: TrainingState) -> list[torch.Tensor]:
    return [*state.G.parameters(), *state.D.parameters(), *state.G.buffers()]


def _to_cpu(value: Any) -> Any:  # noqa: ANN401 - a state dict nests freely
    if isinstance(value, torch.Tensor):
        # clone keeps the memory format, and with it the bits of a resumed step
        return value.detach().to("cpu", copy=True)
    if isinstance(value, dict):
        return {name: _to_cpu(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_to_cpu(item) for item in value)
    return value
