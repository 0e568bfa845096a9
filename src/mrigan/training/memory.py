"""What a step does when the accelerator's memory runs out: the same images in smaller cuts."""

from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

import torch

from mrigan.errors import MriganError
from mrigan.runtime.ranks import ALONE, Ranks

T = TypeVar("T")

# What libraries below torch say when they get no memory; torch passes it on as it is.
_WITHOUT_MEMORY = (
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED",
    "CUDA error: out of memory",
    "DefaultCPUAllocator: can't allocate memory",
)


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether ``error`` says that the accelerator's memory ran out."""
    if isinstance(error, torch.OutOfMemoryError):
        return True
    return any(phrase in str(error) for phrase in _WITHOUT_MEMORY)


def with_halving(
    attempt: Callable[[int], T],
    micro_batch: int,
    *,
    forget: Callable[[], None],
    ranks: Ranks = ALONE,
) -> tuple[T, int]:
    """Run ``attempt(micro_batch)``, halving on ``OutOfMemoryError`` until it fits every rank.

    Half of a step is repeated whole: gradients restart inside it.

    Args:
        attempt: Does all the work with micro-batches of at most so many images.
        micro_batch: To begin with.
        forget: Lets go of what a failed attempt has left in memory.
        ranks: All of them do the same.

    Returns:
        What ``attempt`` returned and the micro-batch that fitted, to start from next time.

    Raises:
        MriganError: When not even one image fits.
    """
    while True:
        result: list[T] = []
        try:
            result.append(attempt(micro_batch))
        except RuntimeError as error:  # left at once: its traceback holds the tensors
            if not is_out_of_memory(error):
                raise
        told = ranks.world.gather([len(result)])
        if all(fits for (fits,) in told):
            return result[0], micro_batch
        if micro_batch == 1:
            raise MriganError(
                "out of memory with a single image: the networks do not fit this device at this "
                "size; lower MRIGAN_IMAGE_HEIGHT and MRIGAN_IMAGE_WIDTH, or take a larger device"
            )
        micro_batch = (micro_batch + 1) // 2
        forget()
        if torch.cuda.is_available():
            with suppress(RuntimeError):  # after a capture that failed it may not be possible
                torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()  # that of the attempt that failed
