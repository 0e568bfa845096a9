"""How a run's epochs and optimizer steps add up, known before the first of them."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from mrigan.errors import SettingsError

# Below this many steps dcgan's networks have not left their first blobs.
ENOUGH_STEPS = 5000


def check_groups_divide(accumulation_steps: int, ranks: int) -> None:
    """Refuse a step whose groups of images ranks can't share evenly.

    Raises:
        SettingsError: Naming the nearest counts that can.
    """
    over = accumulation_steps % ranks
    if not over:
        return
    below, above = accumulation_steps - over, accumulation_steps - over + ranks
    nearest = f"{below} or {above}" if below else str(above)
    raise SettingsError(
        f"MRIGAN_ACCUMULATION_STEPS: {accumulation_steps} groups can't be shared evenly by "
        f"{ranks} ranks; use {nearest}, or another number of GPUs"
    )


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The arithmetic of a run; every count is of the whole run unless it says otherwise."""

    slices: int
    epochs: int
    batch_size: int
    accumulation_steps: int

    @property
    def step_images(self) -> int:
        """Real slices behind one optimizer step of each network; an epoch's last has the rest."""
        return self.batch_size * self.accumulation_steps

    @property
    def epoch_steps(self) -> int:
        """Optimizer steps of one epoch."""
        return math.ceil(self.slices / self.step_images)

    @property
    def total_steps(self) -> int:
        """Optimizer steps of D, and as many of G."""
        return self.epochs * self.epoch_steps

    @property
    def total_images(self) -> int:
        """``images_seen`` at the end."""
        return self.epochs * self.slices

    @property
    def is_starved(self) -> bool:
        """Whether the run is too short to learn much."""
        return self.total_steps < ENOUGH_STEPS

    def epoch_of(self, images_seen: int) -> tuple[int, int]:
        """Split progress into (epochs finished, images of the current one)."""
        return divmod(images_seen, self.slices)

    def steps(self, offset: int) -> Iterator[tuple[int, int]]:
        """Yield [start, stop) of each step of an epoch from ``offset`` on, the short last too."""
        for start in range(offset, self.slices, self.step_images):
            yield start, min(start + self.step_images, self.slices)
