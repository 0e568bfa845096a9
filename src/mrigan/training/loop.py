"""The training loop: a generator that yields a Tick after each optimizer step of both networks.

Data order, latents, dropout and augmentation are functions of (seed, images_seen), so a run
continued from a checkpoint takes the very steps it would have taken. The caller decides what is
logged and saved.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from mrigan.data.sampler import epoch_order, stream_seed
from mrigan.models.family import Recipe
from mrigan.runtime.ranks import ALONE, Ranks
from mrigan.training.graphs import Lane
from mrigan.training.guard import Guard, Verdict
from mrigan.training.inputs import draw_latents
from mrigan.training.plan import Plan
from mrigan.training.state import TrainingState
from mrigan.training.step import Shown, Step, Sums, TakeSlices

COUNTED = "images"  # in the sums of an epoch: the images they are over


@dataclass(frozen=True, kw_only=True)
class Tick:
    """Where training is, one optimizer step later."""

    epoch: int  # the one this step belongs to, from 1
    images_seen: int
    step_images: int
    sums: Sums  # over this step's images, scalars still on the device
    ends_epoch: bool
    micro_batch: int
    taken: Tensor  # a flag on the device: false where this step was skipped
    verdict: Verdict = Verdict.TAKEN  # on the steps since the last one that was read
    skipped: int = 0  # of those


def train(
    state: TrainingState,
    take_slices: TakeSlices,
    plan: Plan,
    *,
    latent_dim: int,
    seed: int,
    autocast: torch.autocast,
    recipe: Recipe,
    ranks: Ranks = ALONE,
    graphs: bool = False,
) -> Iterator[Tick]:
    """Advance ``state`` to the end of ``plan``, yielding after every step.

    A step that is not finite is skipped, and after some in a row the run rolls back to the
    beginning of an epoch: then ``images_seen`` of the Tick is smaller than before.

    Args:
        state: Changed in place; fresh or restored.
        take_slices: The reals; on the device of ``state``.
        plan: How far, and in what steps.
        latent_dim: Width of z.
        seed: Of the run.
        autocast: Precision of the forward passes.
        recipe: How the networks of ``state`` are trained.
        ranks: Share each step; all of them run this, and see the same Ticks.
        graphs: Whether steps are captured as CUDA graphs, on CUDA.

    Raises:
        DivergedError: When rolling back has not helped.
    """
    guard = Guard(state)
    lane = Lane(next(state.G.parameters()).device, graphs=graphs)
    while state.images_seen < plan.total_images:
        epoch, offset = plan.epoch_of(state.images_seen)
        if offset == 0:
            state.epoch_sums = {}
        guard.at_epoch()
        attempt_seed = _attempt_seed(seed, state.attempt)
        step = Step(
            recipe=recipe,
            state=state,
            take_slices=take_slices,
            latent_dim=latent_dim,
            group_images=plan.batch_size,
            seed=attempt_seed,
            autocast=autocast,
            ranks=ranks,
            lane=lane,
        )
        for shown, ends_epoch in _steps(plan, attempt_seed, epoch, offset):
            sums, taken = step.take(shown)
            images = len(shown.d)
            state.epoch_sums = _added(state.epoch_sums, sums, images, taken)
            state.images_seen += images
            is_last = state.images_seen >= plan.total_images
            number = math.ceil((state.images_seen - epoch * plan.slices) / plan.step_images)
            verdict = guard.note(taken, number, ends_epoch=ends_epoch, is_last=is_last)
            yield Tick(
                epoch=epoch + 1,
                images_seen=state.images_seen,
                step_images=images,
                sums=sums,
                ends_epoch=ends_epoch and verdict is not Verdict.ROLLED_BACK,
                micro_batch=state.micro_batch,
                taken=taken,
                verdict=verdict,
                skipped=guard.skipped if verdict is Verdict.SKIPPED else 0,
            )
            if verdict is Verdict.ROLLED_BACK:
                break


def _steps(plan: Plan, seed: int, epoch: int, offset: int) -> Iterator[tuple[Shown, bool]]:
    """The rest of an epoch, step by step, and whether each is its last."""
    d_order = epoch_order(plan.slices, seed, epoch)
    g_order = epoch_order(plan.slices, stream_seed(seed, "g"), epoch)
    for start, stop in plan.steps(offset):
        yield Shown(d_order[start:stop], g_order[start:stop]), stop == plan.slices


def _attempt_seed(seed: int, attempt: int) -> int:
    """The run's seed, and another one after each time it went back."""
    return stream_seed(seed, "attempt", attempt) if attempt else seed


def fixed_latents(count: int, latent_dim: int, seed: int) -> Tensor:
    """The latents of the sample grids: the same (count, latent_dim) for the whole run."""
    return draw_latents(count, latent_dim, stream_seed(seed, "samples"))


def _added(total: Sums, sums: Sums, images: int, taken: Tensor) -> Sums:
    """The epoch's sums and one step's, if it was ``taken``; nothing is read by the host."""
    names = [*sums, COUNTED]
    values = torch.stack([*sums.values(), torch.full_like(next(iter(sums.values())), images)])
    values = torch.where(taken, values, 0.0)
    if total:
        values = values + torch.stack([total[name] for name in names])
    return dict(zip(names, values.unbind(), strict=True))
