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
from mrigan.models.augment import Randoms, Warp, warp_of
from mrigan.models.batchnorm import is_synchronised
from mrigan.models.family import Half, MicroBatch, Recipe, Values
from mrigan.runtime.ranks import Ranks
from mrigan.training.ema import decay_of, update_average
from mrigan.training.graphs import Lane
from mrigan.training.guard import is_finite_step
from mrigan.training.inputs import Inputs, draw, sent
from mrigan.training.micro_batches import (
    StepPart,
    all_reduce_gradients,
    fill_gradients,
    is_out_of_memory,
    split_by_groups,
    split_freely,
    with_halving,
)
from mrigan.training.running_statistics import RunningStatistics
from mrigan.training.state import TrainingState

Sums = dict[str, Tensor]  # of one metric over images, a scalar on the device each
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
        recipe: How both networks are trained.
        state: Changed in place.
        take_slices: The reals.
        latent_dim: Width of z.
        group_images: What BatchNorm sees at a time, where there is one.
        seed: Of the run, at this attempt.
        autocast: Precision of the forward passes.
        ranks: Share each step.
        lane: Where on the device it runs.
    """

    recipe: Recipe
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
        state, recipe = self.state, self.recipe
        values = recipe.values(state.images_seen)
        for optim in (state.g_optim, state.d_optim):
            optim.lr = optim.initial_lr * state.rate_factor * values.lr_factor
            optim.betas = (optim.betas[0], values.beta2)
        sums: Sums = {}
        taken: Tensor | None = None
        for phase, half, learning, optim, indices in (
            ("d", recipe.d, state.D, state.d_optim, shown.d),
            ("g", recipe.g, state.G, state.g_optim, shown.g),
        ):
            totals, statistics, term = self._half(phase, half, learning, indices, values)
            is_finite = is_finite_step(learning, totals)
            taken = is_finite if taken is None else taken & is_finite
            statistics.finish(term, taken)
            optim.step(skip=(~taken).float())
            # A copy: the next replay of a graph writes over its result.
            sums |= zip(half.sums, totals.clone().unbind(), strict=True)
        assert taken is not None
        self._after(values, sums, len(shown.d), taken.float())
        return sums, taken

    def _after(self, values: Values, sums: Sums, images: int, taken: Tensor) -> None:
        """Move G's EMA and the probability of augmentation, unless ``taken``, 0 or 1, is 0."""
        state = self.state
        if state.G_ema is not None:
            decay = decay_of(images, values.ema_half_life_images)
            update_average(state.G_ema, state.G, decay, taken)
        if self.recipe.augmentation is not None and self.recipe.augmentation.by == "adaptive":
            signs = torch.where(taken > 0, sums["real_sign"], 0.0)
            state.augment = state.augment.after(signs, images * taken, target=values.augment_target)

    def _half(
        self, phase: str, half: Half, learning: nn.Module, indices: Tensor, values: Values
    ) -> tuple[Tensor, RunningStatistics, Tensor]:
        """Give ``learning`` the gradients of the step, on every rank the same."""
        state, images, ranks = self.state, len(indices), self.ranks
        together = is_synchronised(state.G) and ranks.world.size > 1
        drawn = draw(
            self.recipe,
            phase,
            images,
            latent_dim=self.latent_dim,
            seed=self.seed,
            images_seen=state.images_seen,
        )
        some = next(state.G.parameters())

        def attempt(micro_batch: int) -> tuple[Tensor, RunningStatistics, Tensor]:
            part = self._part(images, micro_batch, together=together)
            statistics = RunningStatistics(state.G, part)
            inputs = Inputs(
                drawn=drawn.sent(part.rows, some),
                real=self.take_slices(indices[part.rows]) if half.takes_reals else None,
                p=augment_p(state, self.recipe, values),
                gamma=some.new_full((), values.gamma),
                group_weights=sent(some.new_tensor(statistics.weights, device="cpu"), some.device),
            )

            def work(given: Inputs) -> tuple[Tensor, Tensor]:
                batches = self._batches(given, part, statistics)
                totals = fill_gradients(
                    half,
                    (state.G, state.D),
                    batches,
                    step_images=images,
                    autocast=self.autocast,
                    gamma=given.gamma,
                    learning=learning,
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
        all_reduce_gradients(learning, [totals, term], ranks)
        return totals, statistics, term

    def _part(self, images: int, micro_batch: int, *, together: bool) -> StepPart:
        if not self.recipe.couples_images:
            return split_freely(images, micro_batch, self.ranks)
        if together:
            micro_batch = min(micro_batch, self.group_images)
        return split_by_groups(
            images, micro_batch, self.group_images, self.ranks, together=together
        )

    def _batches(
        self, inputs: Inputs, part: StepPart, statistics: RunningStatistics
    ) -> Iterator[MicroBatch]:
        statistics.clear()
        drawn, real = inputs.drawn, inputs.real
        real_warp, fake_warp = (
            self._warp(randoms, inputs.p) for randoms in (drawn.real_randoms, drawn.fake_randoms)
        )
        for start, stop in part.cuts:
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

    def _warp(self, randoms: Randoms | None, p: Tensor) -> Warp | None:
        if self.recipe.augmentation is None or randoms is None:
            return None
        return warp_of(self.recipe.augmentation.policy, self.recipe.augmentation.size, randoms, p)


def augment_p(state: TrainingState, recipe: Recipe, values: Values) -> Tensor:
    """The probability of each transformation in the next step, a scalar on the device."""
    if recipe.augmentation is None:
        return torch.zeros_like(state.augment.p)
    if recipe.augmentation.by == "adaptive":
        return state.augment.p
    return torch.full_like(state.augment.p, values.augment_p)
