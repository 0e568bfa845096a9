"""How often D sees augmented images: raised while D knows its reals too well, lowered otherwise.

Karras et al. 2020 (arXiv 2006.06676) steer by the sign of D's logits of reals. A relativistic
loss leaves the level of logits free, so here it is the sign of D(real) − D(fake). All of it stays
on the device: the host need not wait for a step to plan the next one.
"""

from typing import NamedTuple

import torch
from torch import Tensor

MOST = 0.8
# Images in which p would go from 0 to 1.
SPEED_IMAGES = 200_000.0
# Pairs that make a mean worth acting on.
EVERY_IMAGES = 256


class AdaptiveP(NamedTuple):
    """The probability and what has been counted since it last moved; float scalars on the device.

    All of it is to be saved.
    """

    p: Tensor
    sign_sum: Tensor
    pairs: Tensor

    @classmethod
    def of(
        cls,
        p: float = 0.0,
        sign_sum: float = 0.0,
        pairs: float = 0.0,
        *,
        device: torch.device | str = "cpu",
    ) -> "AdaptiveP":
        """From numbers."""
        return cls(*torch.tensor([p, sign_sum, pairs], device=device).unbind())

    def after(
        self,
        sign_sum: Tensor,
        pairs: Tensor | float,
        *,
        target: float,
        speed_images: float = SPEED_IMAGES,
        most: float = MOST,
        every_images: int = EVERY_IMAGES,
    ) -> "AdaptiveP":
        """Count one D step and move p if enough was counted.

        Args:
            sign_sum: Sum of sign(D(real) − D(fake)) over the step's pairs, all ranks.
            pairs: How many those were; 0 for a step that was skipped.
            target: Mean sign at which p stays, 0 to 1; above it D overfits.
            speed_images: Images in which p would go from 0 to 1.
            most: Where p stops: at 1, G could learn the augmentation itself.
            every_images: Pairs that make a mean worth acting on.
        """
        counted = torch.stack([self.sign_sum + sign_sum, self.pairs + pairs])
        sign_sum, pairs = counted.unbind()
        direction = (sign_sum - target * pairs).sign()
        moved = (self.p + direction * pairs / speed_images).clamp(0.0, most)
        is_due = pairs >= every_images
        p = torch.where(is_due, moved, self.p)
        return AdaptiveP(p, *torch.where(is_due, 0.0, counted).unbind())
