"""BatchNorm's running mean and variance over a window, as one rank would have them.

Each micro-batch moves them by ``r ← (1−m)·r + m·s``. Over a window of n that is
``(1−m)ⁿ·r + Σ m(1−m)ⁿ⁻¹⁻ⁱ·sᵢ``, a sum whose terms ranks can add up wherever the micro-batches were.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


class _Kept(NamedTuple):
    """One running statistic of one BatchNorm."""

    live: Tensor  # the network's buffer
    before: Tensor  # what it held before the window
    term: Tensor  # this rank's part of the sum
    momentum: float


class RunningStatistics:
    """The statistics of ``network`` over one window of ``count`` micro-batches.

    While the window runs, each BatchNorm keeps what it saw last (momentum 1) and nothing older. A
    network without BatchNorm has no statistics and costs nothing.
    """

    def __init__(self, network: nn.Module, count: int) -> None:
        self._norms = [norm for norm in network.modules() if isinstance(norm, _BatchNorm)]
        self._count = count
        self._momenta = [norm.momentum or 0.0 for norm in self._norms]
        self._tracked = [_known(norm.num_batches_tracked).clone() for norm in self._norms]
        self._kept = [
            _Kept(live, live.clone(), torch.zeros_like(live), momentum)
            for norm, momentum in zip(self._norms, self._momenta, strict=True)
            for live in (_known(norm.running_mean), _known(norm.running_var))
        ]

    def __enter__(self) -> "RunningStatistics":
        for norm in self._norms:
            norm.momentum = 1.0
        return self

    def __exit__(self, *_: object) -> None:
        for norm, momentum in zip(self._norms, self._momenta, strict=True):
            norm.momentum = momentum

    def add(self, number: int, share: float) -> None:
        """Take over what micro-batch ``number`` has left in the network.

        Args:
            number: From 0, in the window.
            share: Of the term that is this rank's to add: 1, or less where others add it, too.
        """
        later = self._count - 1 - number
        for live, _, term, momentum in self._kept:
            term.add_(live, alpha=share * momentum * (1 - momentum) ** later)

    @property
    def terms(self) -> list[Tensor]:
        """This rank's parts, to be added up over ranks in place."""
        return [kept.term for kept in self._kept]

    def abandon(self) -> None:
        """Put back what was there before the window."""
        for live, before, _, _ in self._kept:
            live.copy_(before)
        for norm, tracked in zip(self._norms, self._tracked, strict=True):
            _known(norm.num_batches_tracked).copy_(tracked)

    def finish(self) -> None:
        """Give the network the statistics after the window."""
        for live, before, term, momentum in self._kept:
            live.copy_(before.mul_((1 - momentum) ** self._count).add_(term))
        for norm, tracked in zip(self._norms, self._tracked, strict=True):
            _known(norm.num_batches_tracked).copy_(tracked + self._count)


def _known(buffer: Tensor | None) -> Tensor:
    assert buffer is not None, "our BatchNorms track"
    return buffer
