"""One optimizer step of each network over some slices, shared by the ranks.

The host prepares the inputs of each half, and reads nothing back: whether a step is finite is
decided, and acted on, by the device.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from mrigan.errors import MriganError
from mrigan.models.augment import warp_of
from mrigan.models.batchnorm import is_synchronised
from mrigan.runtime.ranks import Ranks
from mrigan.training.accumulation import MicroBatch, Sums
from mrigan.training.family import Family, Half
from mrigan.training.graphs import Lane
from mrigan.training.guard import is_finite_step
from mrigan.training.inputs import Inputs, draw, sent
from mrigan.training.memory import is_out_of_memory, with_halving
from mrigan.training.running_statistics import RunningStatistics
from mrigan.training.schedule import Values
from mrigan.training.shares import Share, add_up, any_cut, by_groups
from mrigan.training.state import TrainingState

TakeSlices = Callable[[Tensor], Tensor]  # indices (n,) -> images (n, 1, H, W) in [-1, 1]

_NO_HALVING = (
    "out of memory, and with MRIGAN_SYNC_BATCHNORM the ranks can't repeat a step: lower "
    "MRIGAN_BATCH_SIZE and raise MRIGAN_ACCUMULATION_STEPS by as much"
)


class Shown(NamedTuple):
    """The slices behind one step, over all ranks."""

    d: Tensor  # indices (n,) of those that D is shown; they are what ``images_seen`` counts
    g: Tensor  # (n,) those that G is compared with, where its loss does so


@dataclass(frozen=True, kw_only=True)
class Step:
    """A step of D over all its slices, then one of G.

    Attributes:
        family: How both accumulate.
        state: Changed in place.
        take_slices: The reals.
        latent_dim: Width of z.
        group_images: What BatchNorm sees at a time, where there is one.
        seed: Of the run, at this attempt.
        autocast: Precision of the forward passes.
        ranks: Share each step.
        lane: Where on the device it runs.
    """

    family: Family
    state: TrainingState
    take_slices: TakeSlices
    latent_dim: int
    group_images: int
    seed: int
    autocast: torch.autocast
    ranks: Ranks
    lane: Lane

    def take(self, shown: Shown) -> tuple[Sums, Tensor]:
        """Move both networks.

        Returns:
            Sums over the step's images, and a flag on the device: whether all was finite. A
            network whose gradients are not is left as it was, and G after such a D.
        """
        with self.lane.entered():
            return self._take(shown)

    def _take(self, shown: Shown) -> tuple[Sums, Tensor]:
        state, family = self.state, self.family
        values = family.begin_step(state)
        sums: Sums = {}
        taken: Tensor | None = None
        for phase, half, learning, optim, indices in (
            ("d", family.d, state.D, state.d_optim, shown.d),
            ("g", family.g, state.G, state.g_optim, shown.g),
        ):
            totals, statistics, term = self._half(phase, half, learning, indices, values)
            is_finite = is_finite_step(learning, totals)
            taken = is_finite if taken is None else taken & is_finite
            statistics.finish(term, taken)
            optim.step(skip=(~taken).float())
            # A copy: the next replay of a graph writes over its result.
            sums |= zip(half.sums, totals.clone().unbind(), strict=True)
        assert taken is not None
        family.end_step(state, values, sums, len(shown.d), taken.float())
        return sums, taken

    def _half(
        self, phase: str, half: Half, learning: nn.Module, indices: Tensor, values: Values | None
    ) -> tuple[Tensor, RunningStatistics, Tensor]:
        """Give ``learning`` the gradients of the step, on every rank the same."""
        state, images, ranks = self.state, len(indices), self.ranks
        together = is_synchronised(state.G) and ranks.world.size > 1
        drawn = draw(
            self.family,
            phase,
            images,
            latent_dim=self.latent_dim,
            seed=self.seed,
            images_seen=state.images_seen,
        )
        some = next(state.G.parameters())

        def attempt(micro_batch: int) -> tuple[Tensor, RunningStatistics, Tensor]:
            share = self._share(images, micro_batch, together=together)
            statistics = RunningStatistics(state.G, share)
            inputs = Inputs(
                drawn=drawn.sent(share.rows, some),
                real=self.take_slices(indices[share.rows]) if half.takes_reals else None,
                p=self.family.augment_p(state, values),
                gamma=some.new_full((), values.gamma if values else 0.0),
                group_weights=sent(some.new_tensor(statistics.weights, device="cpu"), some.device),
            )

            def work(given: Inputs) -> tuple[Tensor, Tensor]:
                batches = self._batches(given, share, statistics)
                totals = half.accumulate(
                    state.G,
                    state.D,
                    batches,
                    step_images=images,
                    autocast=self.autocast,
                    gamma=given.gamma,
                )
                return totals, statistics.term(given.group_weights)

            try:
                if together:
                    totals, term = work(inputs)
                else:
                    key = (phase, images, micro_batch)
                    totals, term = self.lane.graphs.run(key, work, inputs, learning)
            except RuntimeError as error:
                if together and is_out_of_memory(error):  # the others wait inside a BatchNorm
                    raise MriganError(_NO_HALVING) from error
                raise
            return totals, statistics, term

        def forget() -> None:
            self.lane.graphs.forget()
            for network in (state.G, state.D):
                network.zero_grad(set_to_none=True)

        (totals, statistics, term), state.micro_batch = with_halving(
            attempt, state.micro_batch, forget=forget, ranks=ranks
        )
        add_up(learning, [totals, term], ranks)
        return totals, statistics, term

    def _share(self, images: int, micro_batch: int, *, together: bool) -> Share:
        if self.family.is_separable:
            return any_cut(images, micro_batch, self.ranks)
        if together:
            micro_batch = min(micro_batch, self.group_images)
        return by_groups(images, micro_batch, self.group_images, self.ranks, together=together)

    def _batches(
        self, inputs: Inputs, share: Share, statistics: RunningStatistics
    ) -> Iterator[MicroBatch]:
        statistics.clear()
        drawn, real = inputs.drawn, inputs.real
        policy, size = self.family.policy, self.family.size
        real_warp, fake_warp = (
            warp_of(policy, size, randoms, inputs.p) if policy and randoms else None
            for randoms in (drawn.real_randoms, drawn.fake_randoms)
        )
        for start, stop in share.cuts:
            rows = slice(start, stop)
            yield MicroBatch(
                z=drawn.z[rows],
                real=None if real is None else real[rows],
                real_keep=None if drawn.real_keep is None else drawn.real_keep[rows],
                fake_keep=None if drawn.fake_keep is None else drawn.fake_keep[rows],
                real_warp=real_warp.part(start, stop) if real_warp else None,
                fake_warp=fake_warp.part(start, stop) if fake_warp else None,
            )
            statistics.add()
