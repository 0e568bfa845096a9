"""Adam (Kingma & Ba 2015, arXiv 1412.6980) whose steps the device itself can skip.

The arithmetic is torch's functional Adam, fused where the device has it. ``torch.optim.Adam``
around it would import ``torch._dynamo``, which costs each start seconds, and the host would have to
read whether a step is skipped.
"""

from typing import TypedDict

import torch
from torch import Tensor, nn
from torch.optim.adam import adam

EPS = 1e-8
_FUSED_ON = ("cuda", "cpu")


class AdamState(TypedDict):
    """What is saved of an optimizer."""

    steps: Tensor
    first: list[Tensor]
    second: list[Tensor]


class Adam:
    """The moments of a network's weights that learn.

    Args:
        network: Weights that take no gradient now never will.
        lr: Learning rate at the start.
        beta1: Decay of the first moments.
        beta2: Decay of the second moments; a schedule may change it from step to step.
    """

    def __init__(self, network: nn.Module, lr: float, beta1: float, beta2: float = 0.999) -> None:
        self.params: list[Tensor] = [each for each in network.parameters() if each.requires_grad]
        self.initial_lr = self.lr = lr
        self.betas = (beta1, beta2)
        device = next(network.parameters()).device
        self.steps = torch.zeros(len(self.params), device=device)
        self.moments = [
            [torch.zeros_like(weight) for weight in self.params] for _ in ("first", "second")
        ]
        self._is_fused = device.type in _FUSED_ON

    @torch.no_grad()
    def step(self, skip: Tensor | None = None) -> None:
        """Move every weight by its gradient.

        Args:
            skip: A float scalar on the device, 1 where this step is to leave everything as it is;
                None never skips. Without a fused Adam the host reads it.
        """
        if not self._is_fused and skip is not None and bool(skip):
            return
        first, second = self.moments
        adam(
            self.params,
            [_filled(weight) for weight in self.params],
            first,
            second,
            [],
            list(self.steps.unbind()),
            fused=self._is_fused,
            foreach=not self._is_fused,
            found_inf=skip if self._is_fused else None,
            amsgrad=False,
            beta1=self.betas[0],
            beta2=self.betas[1],
            lr=self.lr,
            weight_decay=0.0,
            eps=EPS,
            maximize=False,
        )

    def state_dict(self) -> AdamState:
        """The moments and counts, as they are, not copies."""
        return {"steps": self.steps, "first": self.moments[0], "second": self.moments[1]}

    @torch.no_grad()
    def load_state_dict(self, saved: AdamState) -> None:
        """Copy what ``state_dict`` gave, from any device."""
        self.steps.copy_(saved["steps"])
        for ours, theirs in zip(self.moments, (saved["first"], saved["second"]), strict=True):
            for moment, value in zip(ours, theirs, strict=True):
                moment.copy_(value)


def _filled(weight: Tensor) -> Tensor:
    assert weight.grad is not None, "a step fills the gradient of all that learns"
    return weight.grad
