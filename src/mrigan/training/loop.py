"""The training loop: a generator that yields a Tick after each optimizer step of both networks.

Data order, latents and dropout are functions of (seed, images_seen), so a run continued from a
checkpoint takes the very steps it would have taken. The caller decides what is logged and saved.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from mrigan.data.sampler import epoch_order, stream_seed
from mrigan.errors import DivergedError
from mrigan.training.accumulation import MicroBatch, Sums, accumulate_d, accumulate_g
from mrigan.training.memory import with_halving
from mrigan.training.plan import Plan
from mrigan.training.state import TrainingState

TakeSlices = Callable[[Tensor], Tensor]  # indices (n,) -> images (n, 1, H, W) in [-1, 1]


@dataclass(frozen=True, kw_only=True)
class Tick:
    """Where training is, one optimizer step later."""

    epoch: int  # the one this step belongs to, from 1
    images_seen: int
    step_images: int
    sums: Sums  # over this step's images, scalars still on the device
    ends_epoch: bool
    micro_batch: int


def train(
    state: TrainingState,
    take_slices: TakeSlices,
    plan: Plan,
    *,
    latent_dim: int,
    seed: int,
    autocast: torch.autocast,
) -> Iterator[Tick]:
    """Advance ``state`` to the end of ``plan``, yielding after every step.

    Args:
        state: Changed in place; fresh or restored.
        take_slices: The reals; on the device of ``state``.
        plan: How far, and in what steps.
        latent_dim: Width of z.
        seed: Of the run.
        autocast: Precision of the forward passes.

    Raises:
        DivergedError: After a step whose losses are not finite.
    """
    while state.images_seen < plan.total_images:
        epoch, offset = plan.epoch_of(state.images_seen)
        if offset == 0:
            state.epoch_sums = {}
        order = epoch_order(plan.slices, seed, epoch)
        for start, stop in plan.windows(offset):
            indices = order[start:stop]
            sums = _step(state, take_slices, indices, latent_dim, seed, autocast)
            state.images_seen += len(indices)
            _add(state.epoch_sums, sums)
            _check_finite(sums, state.images_seen)
            yield Tick(
                epoch=epoch + 1,
                images_seen=state.images_seen,
                step_images=len(indices),
                sums=sums,
                ends_epoch=stop == plan.slices,
                micro_batch=state.micro_batch,
            )


def _step(
    state: TrainingState,
    take_slices: TakeSlices,
    indices: Tensor,
    latent_dim: int,
    seed: int,
    autocast: torch.autocast,
) -> Sums:
    """One step of D over the whole window, then one of G."""
    device = next(state.G.parameters()).device

    def batches(phase: str, size: int) -> Iterator[MicroBatch]:
        z = _latents(len(indices), latent_dim, stream_seed(seed, phase, state.images_seen))
        for first in range(0, len(indices), size):
            part = slice(first, first + size)
            yield MicroBatch(
                z=z[part].to(device, non_blocking=True),
                real=take_slices(indices[part]) if phase == "d" else None,
                seed=stream_seed(seed, phase, state.images_seen, first),
            )

    networks = (state.G, state.D)
    d_sums, state.micro_batch = with_halving(
        lambda size: accumulate_d(
            *networks, batches("d", size), window_images=len(indices), autocast=autocast
        ),
        state.micro_batch,
        networks,
    )
    state.d_optim.step()
    g_sums, state.micro_batch = with_halving(
        lambda size: accumulate_g(
            *networks, batches("g", size), window_images=len(indices), autocast=autocast
        ),
        state.micro_batch,
        networks,
    )
    state.g_optim.step()
    return d_sums | g_sums


def _latents(count: int, latent_dim: int, seed: int) -> Tensor:
    """Standard normal (count, latent_dim), drawn on the CPU so that every device sees the same."""
    return torch.randn(count, latent_dim, generator=torch.Generator().manual_seed(seed))


def fixed_latents(count: int, latent_dim: int, seed: int) -> Tensor:
    """The latents of the sample grids: the same (count, latent_dim) for the whole run."""
    return _latents(count, latent_dim, stream_seed(seed, "samples"))


def _add(total: Sums, sums: Sums) -> None:
    for name, value in sums.items():
        total[name] = total[name] + value if name in total else value


def _check_finite(sums: Sums, images_seen: int) -> None:
    d_loss, g_loss = torch.stack([sums["d_loss"], sums["g_loss"]]).tolist()
    if not (math.isfinite(d_loss) and math.isfinite(g_loss)):
        raise DivergedError(
            f"training diverged: the losses are not finite at {images_seen:,} images; what "
            "was saved before is whole; lower MRIGAN_G_LR and MRIGAN_D_LR, in a new "
            "MRIGAN_OUTPUT_URI"
        )
