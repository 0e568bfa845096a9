"""One optimizer step of each network over a window of slices, shared by the ranks."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from mrigan.data.sampler import stream_seed
from mrigan.errors import MriganError
from mrigan.models.augment import Warp
from mrigan.models.sync_batchnorm import is_synchronised
from mrigan.runtime.ranks import Ranks
from mrigan.training.accumulation import MicroBatch, Sums
from mrigan.training.family import Accumulate, Family
from mrigan.training.guard import are_finite
from mrigan.training.memory import is_out_of_memory, with_halving
from mrigan.training.running_statistics import RunningStatistics
from mrigan.training.schedule import Values
from mrigan.training.shares import Deal, add_up
from mrigan.training.state import TrainingState

TakeSlices = Callable[[Tensor], Tensor]  # indices (n,) -> images (n, 1, H, W) in [-1, 1]

_NO_HALVING = (
    "out of memory, and with MRIGAN_SYNC_BATCHNORM the ranks can't repeat a step: lower "
    "MRIGAN_BATCH_SIZE and raise MRIGAN_ACCUMULATION_STEPS by as much"
)


class Window(NamedTuple):
    """The slices behind one step, over all ranks."""

    d: Tensor  # indices (n,) of those that D is shown; they are what ``images_seen`` counts
    g: Tensor  # (n,) those that G is compared with, where its loss does so


@dataclass(frozen=True, kw_only=True)
class Step:
    """A step of D over the whole window, then one of G.

    Attributes:
        family: How both accumulate.
        state: Changed in place.
        take_slices: The reals.
        latent_dim: Width of z.
        seed: Of the run, at this attempt.
        autocast: Precision of the forward passes.
        ranks: Share each window.
    """

    family: Family
    state: TrainingState
    take_slices: TakeSlices
    latent_dim: int
    seed: int
    autocast: torch.autocast
    ranks: Ranks

    def take(self, window: Window) -> tuple[Sums, bool]:
        """Move both networks.

        Returns:
            Sums over the window's images, and whether all was finite. A network whose gradients
            are not is left as it was, and G after such a D.
        """
        values = self.family.begin_step(self.state)
        gamma = values.gamma if values else 0.0
        sums: Sums = {}
        for phase, learning, optim, accumulate, indices in (
            ("d", self.state.D, self.state.d_optim, self.family.accumulate_d, window.d),
            ("g", self.state.G, self.state.g_optim, self.family.accumulate_g, window.g),
        ):
            fill = partial(accumulate, gamma=gamma) if values else accumulate
            half, statistics = self._half(phase, fill, learning, indices, values)
            sums |= half
            if not are_finite(learning, half):
                statistics.abandon()
                return sums, False
            statistics.finish()
            optim.step()
        self.family.end_step(self.state, values, sums, len(window.d))
        return sums, True

    def _half(
        self,
        phase: str,
        accumulate: Accumulate,
        learning: nn.Module,
        indices: Tensor,
        values: Values | None,
    ) -> tuple[Sums, RunningStatistics]:
        """Give ``learning`` the gradients of the window, on every rank the same."""
        state, images, ranks = self.state, len(indices), self.ranks
        together = is_synchronised(state.G) and ranks.world.size > 1
        warps = self.family.warps(state, values, phase, self.seed, images)

        def window(size: int) -> tuple[Sums, RunningStatistics]:
            if self.family.is_separable:  # else a rank might be left without work
                size = min(size, math.ceil(images / ranks.world.size))
            deal = Deal(images, size, ranks, together=together)
            try:
                with RunningStatistics(state.G, deal.count) as statistics:
                    sums = accumulate(
                        state.G,
                        state.D,
                        self._batches(phase, indices, warps, deal, statistics),
                        window_images=images,
                        autocast=self.autocast,
                    )
            except RuntimeError as error:
                if together and is_out_of_memory(error):  # the others wait inside a BatchNorm
                    raise MriganError(_NO_HALVING) from error
                raise
            return sums, statistics

        networks = (state.G, state.D)
        (sums, statistics), state.micro_batch = with_halving(
            window, state.micro_batch, networks, ranks
        )
        add_up(learning, [*sums.values(), *statistics.terms], ranks)
        return sums, statistics

    def _batches(
        self,
        phase: str,
        indices: Tensor,
        warps: tuple[Warp, Warp] | None,
        deal: Deal,
        statistics: RunningStatistics,
    ) -> Iterator[MicroBatch]:
        images_seen = self.state.images_seen
        device = next(self.state.G.parameters()).device
        needs_reals = phase == "d" or self.family.g_takes_reals
        drawn = stream_seed(self.seed, phase, images_seen)
        z = draw_latents(len(indices), self.latent_dim, drawn)
        for number, first, stop in deal.mine():
            part = slice(first, stop)
            real_warp, fake_warp = (
                (each.part(first, stop).to(device) for each in warps) if warps else (None, None)
            )
            yield MicroBatch(
                z=z[part].to(device, non_blocking=True),
                real=self.take_slices(indices[part]) if needs_reals else None,
                seed=stream_seed(self.seed, phase, images_seen, first),
                real_warp=real_warp,
                fake_warp=fake_warp,
            )
            statistics.add(number, deal.weight)


def draw_latents(count: int, latent_dim: int, seed: int) -> Tensor:
    """Standard normal (count, latent_dim), drawn on the CPU so that every device sees the same."""
    return torch.randn(count, latent_dim, generator=torch.Generator().manual_seed(seed))
