"""What differs between the families of networks while they train; the loop is the same for all."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor, nn

from mrigan.models import dcgan
from mrigan.models.augment import Policy
from mrigan.training import accumulation, relativistic_steps
from mrigan.training.accumulation import MicroBatch, Sums
from mrigan.training.ema import decay_of, update_average
from mrigan.training.schedule import Schedule, Values
from mrigan.training.state import TrainingState

AugmentBy = Literal["adaptive", "schedule", "none"]


class Accumulate(Protocol):
    """Sets one network's gradients to those of a step, and returns what came of its images."""

    def __call__(
        self,
        G: nn.Module,
        D: nn.Module,
        batches: Iterable[MicroBatch],
        *,
        step_images: int,
        autocast: torch.autocast,
        gamma: Tensor,
    ) -> Tensor:
        """Sums over the images of ``batches``, one for each name of the half."""


@dataclass(frozen=True, kw_only=True)
class Half:
    """One network's half of a step: how its gradients are set, and what its sums are called."""

    accumulate: Accumulate
    sums: tuple[str, ...]
    takes_reals: bool = True


@dataclass(frozen=True, kw_only=True)
class Family:
    """How one family takes a step.

    Attributes:
        d: D's half.
        g: G's half.
        is_separable: Whether nothing couples the images of a micro-batch: it may be cut at will.
        dropout_channels: Channels of an image that D may drop.
        schedule: What changes with ``images_seen``; None where nothing does.
        policy: What augmentation may do.
        size: (H, W) of the images that are augmented, pixels.
        augment_by: What decides how often it does.
        ema_half_life_images: Of G's EMA where no schedule says; 0 for none.
    """

    d: Half
    g: Half
    is_separable: bool = False
    dropout_channels: int = 0
    schedule: Schedule | None = None
    policy: Policy | None = None
    size: tuple[int, int] = (0, 0)
    augment_by: AugmentBy = "none"
    ema_half_life_images: float = 0.0

    @property
    def augments(self) -> bool:
        """Whether D sees augmented images."""
        return self.policy is not None and self.augment_by != "none"

    def begin_step(self, state: TrainingState) -> Values | None:
        """Put the schedule's values in force for the next step."""
        values = self.schedule.at(state.images_seen) if self.schedule else None
        for optim in (state.g_optim, state.d_optim):
            optim.lr = optim.initial_lr * state.rate_factor * (values.lr_factor if values else 1.0)
            if values:
                optim.betas = (optim.betas[0], values.beta2)
        return values

    def end_step(
        self, state: TrainingState, values: Values | None, sums: Sums, images: int, taken: Tensor
    ) -> None:
        """Move G's EMA and the probability of augmentation, unless ``taken``, 0 or 1, is 0."""
        if state.G_ema is not None:
            half_life = values.ema_half_life_images if values else self.ema_half_life_images
            update_average(state.G_ema, state.G, decay_of(images, half_life), taken)
        if values and self.augments and self.augment_by == "adaptive":
            signs = torch.where(taken > 0, sums["real_sign"], 0.0)
            state.augment = state.augment.after(signs, images * taken, target=values.augment_target)

    def augment_p(self, state: TrainingState, values: Values | None) -> Tensor:
        """The probability of each transformation in the next step, a scalar on the device."""
        if values is None or self.augment_by == "none":
            return torch.zeros_like(state.augment.p)
        if self.augment_by == "adaptive":
            return state.augment.p
        return torch.full_like(state.augment.p, values.augment_p)


DCGAN = Family(
    d=Half(accumulate=accumulation.accumulate_d, sums=accumulation.D_SUMS),
    g=Half(accumulate=accumulation.accumulate_g, sums=accumulation.G_SUMS, takes_reals=False),
    dropout_channels=sum(dcgan.D_WIDTHS),
)


def r3(
    schedule: Schedule, *, policy: Policy, size: tuple[int, int], augment_by: AugmentBy
) -> Family:
    """The family of the ``r3`` presets."""
    return Family(
        d=Half(accumulate=relativistic_steps.accumulate_d, sums=relativistic_steps.D_SUMS),
        g=Half(accumulate=relativistic_steps.accumulate_g, sums=relativistic_steps.G_SUMS),
        is_separable=True,
        schedule=schedule,
        policy=policy,
        size=size,
        augment_by=augment_by,
    )
