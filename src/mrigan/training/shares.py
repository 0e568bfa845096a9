"""How ranks share a window: whole micro-batches are dealt out, what came of them is added up.

A micro-batch is the same whichever rank it falls to, so the numbers of a step do not depend on how
many ranks there are.
"""

import math
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn

from mrigan.runtime.ranks import Ranks


class Dealt(NamedTuple):
    """A micro-batch that falls to this rank."""

    number: int  # of what BatchNorm sees at a time, in the window
    first: int  # image of the window; the micro-batch ends before ``stop``
    stop: int


class Deal:
    """The micro-batches of ``images`` images, ``size`` at a time.

    Args:
        together: Ranks take each micro-batch at the same moment, for BatchNorm to see them as one;
            who has none left takes an empty one.
    """

    def __init__(self, images: int, size: int, ranks: Ranks, *, together: bool) -> None:
        self._images, self._size = images, size
        self._rank, self._ranks = ranks.place.rank, ranks.world.size
        self._together = together
        self._parts = math.ceil(images / size)
        self._rounds = math.ceil(self._parts / self._ranks)

    @property
    def count(self) -> int:
        """How often BatchNorm's statistics move, over all ranks."""
        return self._rounds if self._together else self._parts

    @property
    def weight(self) -> float:
        """Of this rank's term in BatchNorm's statistics."""
        return 1 / self._ranks if self._together else 1.0

    def mine(self) -> Iterator[Dealt]:
        """Yield this rank's micro-batches, every n-th of all."""
        for turn in range(self._rounds):
            part = turn * self._ranks + self._rank
            if part >= self._parts and not self._together:
                return
            first = min(part * self._size, self._images)
            stop = min(first + self._size, self._images)
            yield Dealt(turn if self._together else part, first, stop)


def add_up(network: nn.Module, others: Iterable[Tensor], ranks: Ranks) -> None:
    """Sum the gradients of ``network``, and ``others``, over the ranks: one flat all-reduce."""
    if ranks.world.size == 1:
        return
    learning = [weight for weight in network.parameters() if weight.requires_grad]
    for weight in learning:
        if weight.grad is None:  # a short window had nothing for this rank
            weight.grad = torch.zeros_like(weight)
    tensors = [weight.grad for weight in learning if weight.grad is not None]
    tensors += others
    flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
    ranks.add_up(flat)
    for tensor, total in zip(tensors, flat.split([each.numel() for each in tensors]), strict=True):
        tensor.copy_(total.view(tensor.shape))
