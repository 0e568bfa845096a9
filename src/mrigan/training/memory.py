"""What a window does when the accelerator's memory runs out: the same images in smaller cuts."""

from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

import torch
from torch import nn

from mrigan.errors import MriganError
from mrigan.runtime.ranks import ALONE, Ranks

T = TypeVar("T")


def with_halving(
    window: Callable[[int], T],
    micro_batch: int,
    networks: tuple[nn.Module, ...],
    ranks: Ranks = ALONE,
) -> tuple[T, int]:
    """Run ``window(micro_batch)``, halving on ``OutOfMemoryError`` until it fits every rank.

    The window is repeated whole: gradients restart inside it, and the buffers of ``networks``
    (BatchNorm's running statistics) are put back first.

    Returns:
        The window's result and the micro-batch that fitted, to start from next time.

    Raises:
        MriganError: When not even one image fits.
    """
    kept = [(buffer, buffer.clone()) for network in networks for buffer in network.buffers()]
    while True:
        result: list[T] = []
        with suppress(torch.OutOfMemoryError):  # left at once: its traceback holds the tensors
            result.append(window(micro_batch))
        told = ranks.world.gather([len(result)])
        if all(fits for (fits,) in told):
            return result[0], micro_batch
        if micro_batch == 1:
            raise MriganError(
                "out of memory with a single image: the networks do not fit this device at this "
                "size; lower MRIGAN_IMAGE_HEIGHT and MRIGAN_IMAGE_WIDTH, or take a larger device"
            )
        micro_batch = (micro_batch + 1) // 2
        for buffer, value in kept:
            buffer.copy_(value)
        for network in networks:
            network.zero_grad(set_to_none=True)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
