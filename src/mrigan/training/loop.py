"""The training loop: a generator that yields a Tick after each optimizer step of both networks.

Data order, latents and dropout are functions of (seed, images_seen), so a run continued from a
checkpoint takes the very steps it would have taken. The caller decides what is logged and saved.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mrigan.data.sampler import epoch_order, stream_seed
from mrigan.errors import DivergedError, MriganError
from mrigan.models.sync_batchnorm import is_synchronised
from mrigan.runtime.ranks import ALONE, Ranks
from mrigan.training.accumulation import MicroBatch, Sums, accumulate_d, accumulate_g
from mrigan.training.memory import with_halving
from mrigan.training.plan import Plan
from mrigan.training.running_statistics import RunningStatistics
from mrigan.training.shares import Deal, add_up
from mrigan.training.state import TrainingState

Accumulate = Callable[..., Sums]  # accumulate_d or accumulate_g
TakeSlices = Callable[[Tensor], Tensor]  # indices (n,) -> images (n, 1, H, W) in [-1, 1]

_NO_HALVING = (
    "out of memory, and with MRIGAN_SYNC_BATCHNORM the ranks can't repeat a step: lower "
    "MRIGAN_BATCH_SIZE and raise MRIGAN_ACCUMULATION_STEPS by as much"
)


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
    ranks: Ranks = ALONE,
) -> Iterator[Tick]:
    """Advance ``state`` to the end of ``plan``, yielding after every step.

    Args:
        state: Changed in place; fresh or restored.
        take_slices: The reals; on the device of ``state``.
        plan: How far, and in what steps.
        latent_dim: Width of z.
        seed: Of the run.
        autocast: Precision of the forward passes.
        ranks: Share each window; all of them run this, and see the same Ticks.

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
            step = _Step(state, take_slices, indices, latent_dim, seed, autocast, ranks)
            sums = step.take()
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


@dataclass(frozen=True)
class _Step:
    """One step of D over the whole window, then one of G."""

    state: TrainingState
    take_slices: TakeSlices
    indices: Tensor  # the window's, over all ranks
    latent_dim: int
    seed: int
    autocast: torch.autocast
    ranks: Ranks

    def take(self) -> Sums:
        """Move both networks; return the sums over the window's images."""
        d_sums = self._half("d", accumulate_d, self.state.D)
        self.state.d_optim.step()
        g_sums = self._half("g", accumulate_g, self.state.G)
        self.state.g_optim.step()
        return d_sums | g_sums

    def _half(self, phase: str, accumulate: Accumulate, learning: nn.Module) -> Sums:
        """Give ``learning`` the gradients of the window, on every rank the same."""
        state, images = self.state, len(self.indices)
        together = is_synchronised(state.G) and self.ranks.world.size > 1

        def window(size: int) -> tuple[Sums, RunningStatistics]:
            deal = Deal(images, size, self.ranks, together=together)
            try:
                with RunningStatistics(state.G, deal.count) as statistics:
                    sums = accumulate(
                        state.G,
                        state.D,
                        self._batches(phase, deal, statistics),
                        window_images=images,
                        autocast=self.autocast,
                    )
            except torch.OutOfMemoryError as error:
                if together:  # the others are waiting inside a BatchNorm
                    raise MriganError(_NO_HALVING) from error
                raise
            return sums, statistics

        networks = (state.G, state.D)
        (sums, statistics), state.micro_batch = with_halving(
            window, state.micro_batch, networks, self.ranks
        )
        add_up(learning, [*sums.values(), *statistics.terms], self.ranks)
        statistics.finish()
        return sums

    def _batches(
        self, phase: str, deal: Deal, statistics: RunningStatistics
    ) -> Iterator[MicroBatch]:
        images_seen = self.state.images_seen
        device = next(self.state.G.parameters()).device
        drawn = stream_seed(self.seed, phase, images_seen)
        z = _latents(len(self.indices), self.latent_dim, drawn)
        for number, first, stop in deal.mine():
            part = slice(first, stop)
            yield MicroBatch(
                z=z[part].to(device, non_blocking=True),
                real=self.take_slices(self.indices[part]) if phase == "d" else None,
                seed=stream_seed(self.seed, phase, images_seen, first),
            )
            statistics.add(number, deal.weight)


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
