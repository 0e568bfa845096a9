"""What happens to a step whose numbers are not finite: skipped; three in a row: the run rolls back.

A run rolls back to its last good copy with slices in another order, other latents and half the
rates, three times; the fourth time it ends. The device skips a step by itself; the host hears of it
at fixed steps, so that it never waits in between. Every rank sees the same sums and gradients and
so does the same.
"""

from enum import Enum

import torch
from torch import Tensor, nn

from mrigan.errors import DivergedError
from mrigan.training.checkpoint import Snapshot, copied, is_finite, restore
from mrigan.training.state import TrainingState

SKIPS = 3
ATTEMPTS = 3
# Of an epoch; its end reads, too. Where an epoch is resumed does not matter: it is the same steps.
STEPS_BETWEEN_READS = 32
# Copying the state costs as much as a few steps.
_STEPS_BETWEEN_COPIES = 50


class Verdict(Enum):
    """What is known of the steps up to one."""

    TAKEN = "taken"  # or not read yet
    SKIPPED = "skipped"
    ROLLED_BACK = "rolled back"


class Guard:
    """Checks the steps of ``state`` and keeps a copy to roll back to."""

    def __init__(self, state: TrainingState) -> None:
        self._state = state
        self._copy: Snapshot | None = None
        self._steps = 0
        self._bad = int(state.skips[0])  # steps in a row, up to the last that was read
        self.skipped = 0  # steps, at the last read

    def at_epoch(self) -> None:
        """Copy the state, if the last copy is far enough behind."""
        is_far = self._copy is None or self._steps >= _STEPS_BETWEEN_COPIES
        if is_far and self._bad == 0 and is_finite(self._state):
            device = next(self._state.G.parameters()).device
            self._copy, self._steps = copied(self._state, device), 0

    def note(
        self, taken: Tensor, number: int, *, ends_epoch: bool, is_last: bool = False
    ) -> Verdict:
        """Count a step, and read what became of it and those before it if that is due.

        Args:
            taken: The step's flag, on the device.
            number: Of the step in its epoch, from 1.
            ends_epoch: Whether it is the epoch's last.
            is_last: Whether it is the run's: that one is not skipped, or nobody would learn
                whether it matters.

        Raises:
            DivergedError: After too many attempts, or where there is nothing to roll back to.
        """
        self._steps += 1
        bad, longest, skipped = self._state.skips.unbind()
        miss = (~taken).float()
        bad = (bad + 1) * miss
        self._state.skips = torch.stack([bad, torch.maximum(longest, bad), skipped + miss])
        if not ends_epoch and number % STEPS_BETWEEN_READS:
            return Verdict.TAKEN
        self._bad, most, self.skipped = (int(each) for each in self._state.skips.tolist())
        self._state.skips = self._state.skips * self._state.skips.new_tensor([1.0, 0.0, 0.0])
        if most >= SKIPS or (is_last and self._bad):
            self._roll_back()
            return Verdict.ROLLED_BACK
        return Verdict.SKIPPED if self.skipped else Verdict.TAKEN

    def _roll_back(self) -> None:
        attempt = self._state.attempt + 1
        if self._copy is None or attempt > ATTEMPTS:
            raise DivergedError(
                f"training diverged: losses are not finite at {self._state.images_seen:,} images, "
                f"after {self._state.attempt} attempts with lower rates; what was saved before is "
                "whole; lower MRIGAN_G_LR and MRIGAN_D_LR, in a new MRIGAN_OUTPUT_URI"
            )
        fitted = self._state.micro_batch
        restore(self._state, self._copy)
        self._state.micro_batch = min(fitted, self._state.micro_batch)
        self._state.attempt = attempt
        self._state.skips = torch.zeros_like(self._state.skips)
        self._bad = self._steps = 0


def is_finite_step(network: nn.Module, totals: Tensor) -> Tensor:
    """Whether the gradients of ``network`` and all sums are numbers: a flag on the device."""
    gradients = [weight.grad for weight in network.parameters() if weight.grad is not None]
    found = totals.sum()
    if gradients:
        found = found + torch.stack(torch._foreach_norm(gradients)).sum()
    return torch.isfinite(found)
