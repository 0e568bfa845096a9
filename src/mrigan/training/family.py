"""What differs between the families of networks while they train; the loop is the same for all."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from mrigan.data.sampler import stream_seed
from mrigan.models.augment import Policy, Warp, draw_warp
from mrigan.training import accumulation, relativistic_steps
from mrigan.training.accumulation import Sums
from mrigan.training.ema import decay_of, update_average
from mrigan.training.schedule import Schedule, Values, set_adam
from mrigan.training.state import TrainingState

Accumulate = Callable[..., Sums]
AugmentBy = Literal["adaptive", "schedule", "none"]
# Images in which an adaptive p would go from 0 to 1.
AUGMENT_SPEED_IMAGES = 200_000.0


@dataclass(frozen=True, kw_only=True)
class Family:
    """How one family takes a step.

    Attributes:
        accumulate_d: Fills D's gradients from a window's micro-batches.
        accumulate_g: The same for G.
        g_takes_reals: Whether G's loss compares with reals.
        is_separable: Whether nothing couples the images of a micro-batch: it may be cut at will.
        schedule: What changes with ``images_seen``; None where nothing does.
        rates: Factors of the schedule's learning rate for G and D.
        policy: What augmentation may do.
        size: (H, W) of the images that are augmented, pixels.
        augment_by: What decides how often it does.
        ema_half_life_images: Of G's average where no schedule says; 0 for no average.
    """

    accumulate_d: Accumulate
    accumulate_g: Accumulate
    g_takes_reals: bool = False
    is_separable: bool = False
    schedule: Schedule | None = None
    rates: tuple[float, float] = (1.0, 1.0)
    policy: Policy | None = None
    size: tuple[int, int] = (0, 0)
    augment_by: AugmentBy = "none"
    ema_half_life_images: float = 0.0

    def begin_step(self, state: TrainingState) -> Values | None:
        """Put the schedule's values in force for the next step."""
        if self.schedule is None:
            return None
        values = self.schedule.at(state.images_seen)
        for optim, rate in ((state.g_optim, self.rates[0]), (state.d_optim, self.rates[1])):
            set_adam(optim, values._replace(lr=values.lr * rate * state.rate_factor))
        return values

    def end_step(
        self, state: TrainingState, values: Values | None, sums: Sums, images: int
    ) -> None:
        """Move G's average and the probability of augmentation."""
        if state.G_ema is not None:
            half_life = values.ema_half_life_images if values else self.ema_half_life_images
            update_average(state.G_ema, state.G, decay_of(images, half_life))
        if values and self.augment_by == "adaptive":
            state.augment = state.augment.after(
                float(sums["real_sign"]),
                images,
                target=values.augment_target,
                speed_images=AUGMENT_SPEED_IMAGES,
            )

    def warps(
        self, state: TrainingState, values: Values | None, phase: str, seed: int, images: int
    ) -> tuple[Warp, Warp] | None:
        """The augmentation of a window's reals and fakes; None if there is none."""
        p = self.augment_p(state, values)
        if self.policy is None or p == 0:
            return None
        first, second = (
            draw_warp(
                self.policy,
                images,
                self.size,
                p=p,
                seed=stream_seed(seed, phase, which, state.images_seen),
            )
            for which in ("real-warp", "fake-warp")
        )
        return first, second

    def augment_p(self, state: TrainingState, values: Values | None) -> float:
        """The probability of each transformation in the next step."""
        if values is None or self.augment_by == "none":
            return 0.0
        return state.augment.p if self.augment_by == "adaptive" else values.augment_p


DCGAN = Family(accumulate_d=accumulation.accumulate_d, accumulate_g=accumulation.accumulate_g)


def r3(
    schedule: Schedule,
    *,
    policy: Policy,
    size: tuple[int, int],
    augment_by: AugmentBy,
    rates: tuple[float, float] = (1.0, 1.0),
) -> Family:
    """The family of the ``r3`` presets."""
    return Family(
        accumulate_d=relativistic_steps.accumulate_d,
        accumulate_g=relativistic_steps.accumulate_g,
        g_takes_reals=True,
        is_separable=True,
        schedule=schedule,
        rates=rates,
        policy=policy,
        size=size,
        augment_by=augment_by,
    )
