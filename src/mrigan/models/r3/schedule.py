"""What changes while ``r3`` trains, as functions of ``images_seen`` and of nothing else.

Everything follows one half cosine through the burn-in and is constant after it, as in R3GAN's
published runs, so a continued run needs no memory of where the values were.
"""

import math
from dataclasses import dataclass

from mrigan.models.family import Ramp, Values

_REFERENCE_PX = 200 * 160


LR_FACTOR = Ramp(1.0, 0.25)
BETA2 = Ramp(0.9, 0.99)
EMA_HALF_LIFE_IMAGES = 100_000.0
# The EMA's memory is this share of the images seen, so that it is never left behind (docs/r3.md).
EMA_SHARE = 0.05
AUGMENT_P = Ramp(0.0, 0.3)
AUGMENT_TARGET = Ramp(0.6, 0.6)


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """One ramp for each value; rates are the same for any number of images in a step.

    The EMA's half-life is a share of the images seen, where there is one, and at most
    ``ema_half_life_images``.
    """

    burn_in_images: float
    gamma: Ramp
    ema_half_life_images: float
    ema_share: float | None = EMA_SHARE
    lr_factor: Ramp = LR_FACTOR
    beta2: Ramp = BETA2
    augment_p: Ramp = AUGMENT_P
    augment_target: Ramp = AUGMENT_TARGET

    def at(self, images_seen: int) -> Values:
        """The values of the step that begins at ``images_seen``."""
        progress = images_seen / self.burn_in_images if self.burn_in_images > 0 else 1.0
        return Values(
            lr_factor=self.lr_factor.at(progress),
            beta2=self.beta2.at(progress),
            gamma=self.gamma.at(progress),
            ema_half_life_images=self._ema_half_life(images_seen),
            augment_p=self.augment_p.at(progress),
            augment_target=self.augment_target.at(progress),
        )

    def _ema_half_life(self, images_seen: int) -> float:
        most = self.ema_half_life_images
        return most if self.ema_share is None else min(most, self.ema_share * images_seen)


# For 200×160. Larger is steadier and less varied; few slices want it low and rising (arXiv
# 2510.26828), many falling, as published for the 70,000 images of FFHQ.
GAMMAS = {
    "small": Ramp(2.5, 20.0),
    "constant": Ramp(10.0, 10.0),
    "paper": Ramp(75.0, 7.5),
}
_FEW_SLICES, _MANY_SLICES = 1_000, 70_000


def gammas(height: int, width: int) -> dict[str, Ramp]:
    """The gamma schedules for images of (height, width): γ goes with the number of pixels.

    R3GAN's presets grow faster, 75-fold for 16-fold pixels; that was tried (docs/decisions.md).
    """
    return {name: ramp.scaled(height * width / _REFERENCE_PX) for name, ramp in GAMMAS.items()}


def gamma_for(slices: int, height: int, width: int) -> Ramp:
    """The penalty weight for a set of ``slices``: between ``small`` and ``paper``, by its log."""
    share = math.log(max(slices, 1) / _FEW_SLICES) / math.log(_MANY_SLICES / _FEW_SLICES)
    share = min(max(share, 0.0), 1.0)
    few, many = GAMMAS["small"], GAMMAS["paper"]
    between = Ramp(*(a ** (1 - share) * b**share for a, b in zip(few, many, strict=True)))
    return between.scaled(height * width / _REFERENCE_PX)


def r3_schedule(*, total_images: int, gamma: Ramp) -> Schedule:
    """The schedule of a run of ``total_images``: burn-in through its first 40 %."""
    return Schedule(
        burn_in_images=0.4 * total_images,
        gamma=gamma,
        ema_half_life_images=EMA_HALF_LIFE_IMAGES,
    )


def constant(value: float) -> Ramp:
    """No change at all."""
    return Ramp(value, value)
