"""One optimizer step of each network over some slices, shared by the ranks.

The host prepares the inputs of each half, and reads nothing back: whether a step is finite is
decided, and acted on, by the device.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from mrigan.data.sampler import stream_seed
from mrigan.errors import MriganError
from mrigan.models.augment import Randoms, draw_randoms, warp_of
from mrigan.models.batchnorm import is_synchronised
from mrigan.models.dcgan import DROPOUT
from mrigan.runtime.ranks import Ranks
from mrigan.training.accumulation import MicroBatch, Sums
from mrigan.training.family import Family, Half
from mrigan.training.graphs import Lane
from mrigan.training.guard import is_finite_step
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
# Dropout compares random bytes with this.
_DROPPED_OF_256 = round(DROPOUT * 256)


class Shown(NamedTuple):
    """The slices behind one step, over all ranks."""

    d: Tensor  # indices (n,) of those that D is shown; they are what ``images_seen`` counts
    g: Tensor  # (n,) those that G is compared with, where its loss does so


class Inputs(NamedTuple):
    """All that one half of a step is a function of, beside the weights; on the device.

    A row for each image of this rank, in its order.
    """

    z: Tensor  # (n, latent_dim)
    real: Tensor | None  # (n, 1, H, W) in [-1, 1]
    real_keep: Tensor | None  # (n, dropout channels) of 0 and 1
    fake_keep: Tensor | None
    real_randoms: Randoms | None  # augmentation
    fake_randoms: Randoms | None
    p: Tensor  # of each augmentation
    gamma: Tensor  # of the gradient penalty
    group_weights: Tensor  # of each group in BatchNorm's running statistics


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
        drawn = self._drawn(phase, images)

        def attempt(micro_batch: int) -> tuple[Tensor, RunningStatistics, Tensor]:
            share = self._share(images, micro_batch, together=together)
            statistics = RunningStatistics(state.G, share)
            inputs = self._inputs(half, indices, drawn, share, statistics, values)

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

    def _drawn(self, phase: str, images: int) -> Inputs:
        """The random numbers of the whole step, a row an image; on the CPU for every device."""
        seed, images_seen = self.seed, self.state.images_seen
        keeps: dict[str, Tensor | None] = {"real": None, "fake": None}
        randoms: dict[str, Randoms | None] = {"real": None, "fake": None}
        for which in ("real", "fake"):
            if self.family.dropout_channels and (which == "fake" or phase == "d"):
                keeps[which] = draw_keep(
                    images,
                    self.family.dropout_channels,
                    stream_seed(seed, phase, f"{which}-keep", images_seen),
                )
            if self.family.augments:
                warp_seed = stream_seed(seed, phase, f"{which}-warp", images_seen)
                randoms[which] = draw_randoms(images, warp_seed)
        nothing = torch.empty(0)
        return Inputs(
            z=draw_latents(images, self.latent_dim, stream_seed(seed, phase, images_seen)),
            real=None,
            real_keep=keeps["real"],
            fake_keep=keeps["fake"],
            real_randoms=randoms["real"],
            fake_randoms=randoms["fake"],
            p=nothing,
            gamma=nothing,
            group_weights=nothing,
        )

    def _inputs(
        self,
        half: Half,
        indices: Tensor,
        drawn: Inputs,
        share: Share,
        statistics: RunningStatistics,
        values: Values | None,
    ) -> Inputs:
        """This rank's rows, on the device."""
        state, rows = self.state, share.rows
        is_whole = len(rows) == len(indices)
        device = next(state.G.parameters()).device

        def own(whole: Tensor | None) -> Tensor | None:
            return None if whole is None else sent(whole if is_whole else whole[rows], device)

        def own_randoms(whole: Randoms | None) -> Randoms | None:
            return None if whole is None else Randoms(*(_known(own(each)) for each in whole))

        dtype = next(state.G.parameters()).dtype
        return Inputs(
            z=_known(own(drawn.z)).to(dtype),
            real=self.take_slices(indices[rows]) if half.takes_reals else None,
            real_keep=own(drawn.real_keep),
            fake_keep=own(drawn.fake_keep),
            real_randoms=own_randoms(drawn.real_randoms),
            fake_randoms=own_randoms(drawn.fake_randoms),
            p=self.family.augment_p(state, values),
            gamma=torch.full((), values.gamma if values else 0.0, device=device),
            group_weights=sent(torch.tensor(statistics.weights, dtype=dtype), device),
        )

    def _batches(
        self, inputs: Inputs, share: Share, statistics: RunningStatistics
    ) -> Iterator[MicroBatch]:
        statistics.clear()
        policy, size = self.family.policy, self.family.size
        real_warp, fake_warp = (
            warp_of(policy, size, randoms, inputs.p) if policy and randoms else None
            for randoms in (inputs.real_randoms, inputs.fake_randoms)
        )
        for start, stop in share.cuts:
            rows = slice(start, stop)
            yield MicroBatch(
                z=inputs.z[rows],
                real=None if inputs.real is None else inputs.real[rows],
                real_keep=None if inputs.real_keep is None else inputs.real_keep[rows],
                fake_keep=None if inputs.fake_keep is None else inputs.fake_keep[rows],
                real_warp=real_warp.part(start, stop) if real_warp else None,
                fake_warp=fake_warp.part(start, stop) if fake_warp else None,
            )
            statistics.add()


def draw_latents(count: int, latent_dim: int, seed: int) -> Tensor:
    """Standard normal (count, latent_dim), drawn on the CPU so that every device sees the same."""
    return torch.randn(count, latent_dim, generator=torch.Generator().manual_seed(seed))


def draw_keep(count: int, channels: int, seed: int) -> Tensor:
    """Which channels dropout leaves, (count, channels) uint8 of 0 and 1; drawn on the CPU."""
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randint(256, (count, channels), dtype=torch.uint8, generator=generator)
    return (drawn >= _DROPPED_OF_256).to(torch.uint8)


def sent(values: Tensor, device: torch.device) -> Tensor:
    """Copy to ``device`` beside its work."""
    if device.type != "cuda":
        return values.to(device)
    return values.pin_memory().to(device, non_blocking=True)


def _known(value: Tensor | None) -> Tensor:
    assert value is not None
    return value
