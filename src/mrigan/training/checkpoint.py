"""Training state <-> bytes: tensors only, so that loading one never executes anything."""

import io
from typing import Any

import torch

from mrigan.errors import CheckpointError, DivergedError
from mrigan.training.adaptive import AdaptiveP
from mrigan.training.state import TrainingState

Snapshot = dict[str, Any]  # tensors, numbers and text, nested as ``copied`` makes them
# Of the networks and of what a checkpoint holds: a run of another revision can't be resumed.
REVISION = 2


def is_finite(state: TrainingState) -> bool:
    """Whether every weight is a number; waits for the device."""
    norms = torch.stack(torch._foreach_norm(_weights(state)))
    return bool(torch.isfinite(norms.sum()))


def snapshot(state: TrainingState) -> Snapshot:
    """Copy ``state`` to the CPU, ready to be encoded while training goes on.

    Raises:
        DivergedError: If a weight is not finite: such a checkpoint must never be published.
    """
    check_finite(state)
    return copied(state, "cpu")


def check_finite(state: TrainingState) -> None:
    """Refuse weights that are not numbers.

    Raises:
        DivergedError: Saying so.
    """
    if not is_finite(state):
        raise DivergedError(
            f"training diverged: a weight is not finite at {state.images_seen:,} images; what "
            "was saved before is whole; lower MRIGAN_G_LR and MRIGAN_D_LR, in a new "
            "MRIGAN_OUTPUT_URI"
        )


def copied(state: TrainingState, device: torch.device | str) -> Snapshot:
    """Copy ``state`` to ``device``, for ``restore``."""
    on_device: Snapshot = _copied(_parts(state), device)
    return on_device


def _parts(state: TrainingState) -> Snapshot:
    return {
        "G": state.G.state_dict(),
        "D": state.D.state_dict(),
        "G_ema": state.G_ema.state_dict() if state.G_ema is not None else {},
        "g_optim": state.g_optim.state_dict(),
        "d_optim": state.d_optim.state_dict(),
        "epoch_sums": state.epoch_sums,
        "images_seen": state.images_seen,
        "micro_batch": state.micro_batch,
        "place": state.hardware,
        "augment": list(state.augment),
        "attempt": state.attempt,
        "skips": state.skips,
    }


def restore(state: TrainingState, saved: Snapshot) -> None:
    """Put ``state`` where ``saved`` was; it must have been built with the same settings."""
    device = next(state.G.parameters()).device
    state.G.load_state_dict(saved["G"])
    state.D.load_state_dict(saved["D"])
    if state.G_ema is not None:
        state.G_ema.load_state_dict(saved["G_ema"])
    state.g_optim.load_state_dict(saved["g_optim"])
    state.d_optim.load_state_dict(saved["d_optim"])
    state.epoch_sums = _copied(saved["epoch_sums"], device)
    state.images_seen = saved["images_seen"]
    if saved["place"] == state.hardware:  # what fitted elsewhere says nothing here
        state.micro_batch = saved["micro_batch"]
    state.augment = AdaptiveP(*_copied(saved["augment"], device))
    state.attempt = saved["attempt"]
    state.skips = _copied(saved["skips"], device)


def adopt(state: TrainingState, weights: Snapshot) -> None:
    """Give the networks of a fresh ``state`` the weights of another run's snapshot.

    Optimizers and progress stay fresh. Where the other run kept no EMA, it starts as G.
    """
    state.G.load_state_dict(weights["G"])
    state.D.load_state_dict(weights["D"])
    if state.G_ema is not None:
        state.G_ema.load_state_dict(weights["G_ema"] or weights["G"])


def encode(saved: Snapshot) -> bytes:
    """The bytes of a checkpoint file."""
    buffer = io.BytesIO()
    torch.save(saved, buffer)
    return buffer.getvalue()


def decode(data: bytes) -> Snapshot:
    """What is in a checkpoint file; nothing but tensors, numbers and text is accepted.

    Raises:
        CheckpointError: It is no such file.
    """
    try:
        saved = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:
        raise CheckpointError("holds no tensors that can be read safely") from error
    if not isinstance(saved, dict):
        raise CheckpointError("holds no snapshot of a run")
    return saved


def check_fits(saved: Snapshot, state: TrainingState) -> None:
    """Make sure that ``restore`` can put ``state`` where ``saved`` was.

    Raises:
        CheckpointError: It can't: a tensor is missing, or of another shape or type.
    """
    fixed = {name: value for name, value in _parts(state).items() if name != "epoch_sums"}
    if not (_are_alike(saved, fixed) and _are_sums(saved.get("epoch_sums"))):
        raise CheckpointError("holds other tensors than the networks of this run")


def check_weights_fit(saved: Snapshot, state: TrainingState) -> None:
    """Make sure that ``state`` can ``adopt`` the networks of ``saved``.

    Raises:
        CheckpointError: It can't.
    """
    networks = {"G": state.G.state_dict(), "D": state.D.state_dict()}
    average = {"G_ema": networks["G"]}
    if not _are_alike(saved, networks) or not (
        saved.get("G_ema") == {} or _are_alike(saved, average)
    ):
        raise CheckpointError("holds other tensors than these networks")


def _are_alike(saved: Snapshot, parts: Snapshot) -> bool:
    return bool(_outline({name: saved.get(name) for name in parts}) == _outline(parts))


def _are_sums(sums: object) -> bool:
    return isinstance(sums, dict) and all(
        isinstance(name, str) and isinstance(value, torch.Tensor) and value.shape == ()
        for name, value in sums.items()
    )


def _outline(value: Any) -> Any:  # noqa: ANN401 - dicts nest freely
    """What kind of value it is: of tensors the shape and type, of the rest the type."""
    if isinstance(value, torch.Tensor):
        return (tuple(value.shape), value.dtype)
    if isinstance(value, dict):
        return {name: _outline(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_outline(item) for item in value]
    return type(value)


def _weights(state: TrainingState) -> list[torch.Tensor]:
    weights = [*state.G.parameters(), *state.D.parameters(), *state.G.buffers()]
    return [weight for weight in weights if weight.is_floating_point()]


def _copied(value: Any, device: torch.device | str) -> Any:  # noqa: ANN401 - dicts nest freely
    if isinstance(value, torch.Tensor):
        # a copy keeps the memory format, and with it the bits of a resumed step
        return value.detach().to(device, copy=True)
    if isinstance(value, dict):
        return {name: _copied(item, device) for name, item in value.items()}
    if isinstance(value, list):
        return [_copied(item, device) for item in value]
    return value
