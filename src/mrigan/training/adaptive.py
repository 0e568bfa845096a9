"""How often D sees augmented images: raised while D knows its reals too well, lowered otherwise.

Karras et al. 2020 (arXiv 2006.06676) steer by the sign of D's logits of reals. A relativistic
loss leaves the level of logits free, so here it is the sign of D(real) − D(fake).
"""

from typing import NamedTuple

MOST = 0.8


class AdaptiveP(NamedTuple):
    """The probability and what has been counted since it last moved; all of it is to be saved."""

    p: float = 0.0
    sign_sum: float = 0.0
    pairs: int = 0

    def after(
        self,
        sign_sum: float,
        pairs: int,
        *,
        target: float,
        speed_images: float,
        most: float = MOST,
        every_images: int = 256,
    ) -> "AdaptiveP":
        """Count one D step and move p if enough was counted.

        Args:
            sign_sum: Sum of sign(D(real) − D(fake)) over the step's pairs, all ranks.
            pairs: How many those were.
            target: Mean sign at which p stays, 0 to 1; above it D overfits.
            speed_images: Images in which p would go from 0 to 1.
            most: Where p stops: at 1, G could learn the augmentation itself.
            every_images: Pairs that make a mean worth acting on.
        """
        sign_sum, pairs = self.sign_sum + sign_sum, self.pairs + pairs
        if pairs < every_images:
            return AdaptiveP(self.p, sign_sum, pairs)
        mean = sign_sum / pairs
        direction = (mean > target) - (mean < target)
        return AdaptiveP(min(max(self.p + direction * pairs / speed_images, 0.0), most))
