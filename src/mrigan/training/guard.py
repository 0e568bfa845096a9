"""What happens to a step whose numbers are not finite: skipped; three in a row: gone back on.

A run goes back to its last good place with slices in another order, other latents and half the
rates, three times; the fourth time it ends. Every rank sees the same sums and gradients and so
does the same.
"""

from enum import Enum
from typing import Any

import torch
from torch import Tensor, nn

from mrigan.errors import DivergedError
from mrigan.training.checkpoint import is_finite, restore, snapshot
from mrigan.training.state import TrainingState

SKIPS = 3
ATTEMPTS = 3
# Copying the state costs as much as a few steps.
_STEPS_BETWEEN_COPIES = 50


class Verdict(Enum):
    """What became of a step."""

    TAKEN = "taken"
    SKIPPED = "skipped"
    GONE_BACK = "gone back"


class Guard:
    """Watches the steps of ``state`` and keeps the place to go back to."""

    def __init__(self, state: TrainingState) -> None:
        self._state = state
        self._kept: dict[str, Any] | None = None
        self._steps = 0
        self._bad = 0

    def at_epoch(self) -> None:
        """Keep this place, if the last one is far enough behind."""
        is_far = self._kept is None or self._steps >= _STEPS_BETWEEN_COPIES
        if is_far and self._bad == 0 and is_finite(self._state):
            self._kept, self._steps = snapshot(self._state), 0

    def note(self, *, taken: bool, is_last: bool = False) -> Verdict:
        """Count a step; the last one of a run is not skipped, or nobody would learn if it matters.

        Raises:
            DivergedError: After too many attempts, or where there is nothing to go back to.
        """
        self._steps += 1
        self._bad = 0 if taken else self._bad + 1
        if taken:
            return Verdict.TAKEN
        if self._bad < SKIPS and not is_last:
            return Verdict.SKIPPED
        self._go_back()
        return Verdict.GONE_BACK

    def _go_back(self) -> None:
        attempt = self._state.attempt + 1
        if self._kept is None or attempt > ATTEMPTS:
            raise DivergedError(
                f"training diverged: losses are not finite at {self._state.images_seen:,} images, "
                f"after {self._state.attempt} attempts with lower rates; what was saved before is "
                "whole; lower MRIGAN_G_LR and MRIGAN_D_LR, in a new MRIGAN_OUTPUT_URI"
            )
        fitted = self._state.micro_batch
        restore(self._state, self._kept)
        self._state.micro_batch = min(fitted, self._state.micro_batch)
        self._state.attempt = attempt
        for optim in (self._state.g_optim, self._state.d_optim):
            for group in optim.param_groups:
                group["lr"] *= 0.5 ** (attempt - self._kept["attempt"])
        self._bad = self._steps = 0


def are_finite(network: nn.Module, sums: dict[str, Tensor]) -> bool:
    """Whether the gradients of ``network`` and all sums are numbers; waits for the device."""
    gradients = [weight.grad for weight in network.parameters() if weight.grad is not None]
    norms = torch.stack(torch._foreach_norm(gradients)) if gradients else torch.zeros(1)
    total = norms.sum() + torch.stack(list(sums.values())).sum().to(norms.device)
    return bool(torch.isfinite(total))
