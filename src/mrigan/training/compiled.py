"""The networks' passes through ``torch.compile``, which fuses what lies between convolutions.

Only first derivatives are taken of them, so nothing that they compute can lose its gradient in
silence. Where compiling fails or takes too long, the eager pass takes over, with the same
numbers to rounding; the log says so.
"""

import logging
from collections.abc import Callable
from typing import Any

import torch
import torch._functorch.config
from torch import nn

from mrigan.runtime.time_limit import time_limit
from mrigan.training.micro_batches import is_out_of_memory
from mrigan.training.state import TrainingState

log = logging.getLogger(__name__)

LIMIT_SECONDS = 120.0
_PASSES = ("forward", "with_slope")

Pass = Callable[..., Any]


def compile_networks(state: TrainingState, *, backend: str = "inductor") -> None:
    """Let the passes of G and D be compiled when they are first taken; EMAs stay eager."""
    for network in (state.G, state.D):
        for name in _PASSES:
            if hasattr(network, name):
                setattr(network, name, CompiledPass(network, name, backend))


class CompiledPass:
    """One pass of a network: compiled, or eager once compiling has failed.

    Args:
        network: Whose.
        name: Of its method.
        backend: Of ``torch.compile``.
        limit_seconds: That the first call for a new shape may take.
    """

    def __init__(
        self, network: nn.Module, name: str, backend: str, limit_seconds: float = LIMIT_SECONDS
    ) -> None:
        self._network = network
        self._name = f"{type(network).__name__}.{name}"
        self._eager: Pass = getattr(network, name)
        # Or the backward pass is compiled later, where no limit and no fallback can reach it.
        torch._functorch.config.force_non_lazy_backward_lowering = True
        self._compiled: Pass = torch.compile(
            self._eager, fullgraph=True, dynamic=False, backend=backend
        )
        self._is_off = False  # what was compiled is kept: a captured graph may use it
        self._limit_seconds = limit_seconds
        self._seen: set[object] = set()

    def __call__(self, *tensors: torch.Tensor | None) -> Any:  # noqa: ANN401 - as the method's
        """Take the pass."""
        if self._is_off or not self._network.training:  # drawing is rare: not worth compiling for
            return self._eager(*tensors)
        is_grad, is_cast = torch.is_grad_enabled(), torch.is_autocast_enabled("cuda")
        shapes = tuple(None if each is None else each.shape for each in tensors)
        learns = any(weight.requires_grad for weight in self._network.parameters())
        key = (shapes, is_grad, learns, is_cast, torch.is_autocast_enabled("cpu"))
        if key in self._seen:
            return self._compiled(*tensors)
        try:
            with time_limit(self._limit_seconds):
                result = self._compiled(*tensors)
        except Exception as error:
            if isinstance(error, RuntimeError) and is_out_of_memory(error):
                raise
            self._is_off = True
            reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
            log.warning("compile_off", extra={"pass": self._name, "reason": reason})
            return self._eager(*tensors)
        self._seen.add(key)
        return result
