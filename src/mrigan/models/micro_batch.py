"""What a family's gradients are filled from: micro-batches of a step, one after the other.

Sums for logging stay on the device, since reading one here would stall it once a micro-batch.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn

from mrigan.models.augment import Warp


class MicroBatch(NamedTuple):
    """One forward pass worth of a step."""

    z: Tensor  # (n, latent_dim)
    real: Tensor | None = None  # (n, 1, H, W) in [-1, 1]; G's half may need none
    real_keep: Tensor | None = None  # (n, K) of 0 and 1: channels that dropout leaves to D
    fake_keep: Tensor | None = None
    real_warp: Warp | None = None  # augmentation, a row an image
    fake_warp: Warp | None = None


@contextmanager
def without_gradients(network: nn.Module) -> Iterator[None]:
    """Let no weight of ``network`` take a gradient; those that are frozen stay so afterwards."""
    learning = [weight for weight in network.parameters() if weight.requires_grad]
    for weight in learning:
        weight.requires_grad = False
    try:
        yield
    finally:
        for weight in learning:
            weight.requires_grad = True


def summed(rows: list[Tensor], count: int, network: nn.Module) -> Tensor:
    """The sum over micro-batches of ``rows``, ``count`` numbers each; zeros where there are none.

    The numbers of one micro-batch may come in several rows.
    """
    if not rows:
        return next(network.parameters()).new_zeros(count)
    joined = torch.cat(rows) if len(rows) > 1 else rows[0]
    return joined if len(joined) == count else joined.view(-1, count).sum(0)
