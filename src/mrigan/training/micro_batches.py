"""How a step is cut into micro-batches, shared by the ranks, and cut smaller when memory runs out.

A group of images is the same whichever rank it falls to, so the numbers of a step do not depend on
how many ranks there are; nor, since BatchNorm sees group by group, on how many make a micro-batch.
"""

import itertools
import math
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, nn

from mrigan.errors import MriganError
from mrigan.models.family import Half, MicroBatch
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


@dataclass(frozen=True, kw_only=True)
class StepPart:
    """What of a step falls to this rank.

    Attributes:
        rows: Its images of the step, (n,).
        cuts: Where in ``rows`` each micro-batch begins and ends.
        groups: The number, in the step, of each group of images that it has.
        group_count: How many groups there are over all ranks: how often BatchNorm's statistics
            move.
        group_images: Images that BatchNorm sees together; 0 where nothing couples images.
        weight: Of this rank's terms in BatchNorm's statistics.
    """

    rows: Tensor
    cuts: tuple[tuple[int, int], ...]
    groups: tuple[int, ...] = ()
    group_count: int = 0
    group_images: int = 0
    weight: float = 1.0


def split_freely(images: int, micro_batch: int, ranks: Ranks) -> StepPart:
    """Give each rank an equal part of a step whose images nothing couples, and cut it at will."""
    part = math.ceil(images / ranks.world.size)
    first = min(ranks.rank * part, images)
    stop = min(first + part, images)
    return StepPart(rows=torch.arange(first, stop), cuts=_cuts(stop - first, micro_batch))


def split_by_groups(
    images: int, micro_batch: int, group_images: int, ranks: Ranks, *, together: bool
) -> StepPart:
    """Give each rank every n-th group of a step whose images BatchNorm sees group by group.

    Args:
        images: Of the step.
        micro_batch: Images of one pass: as many groups as fit; a group is cut only where even one
            does not.
        group_images: What BatchNorm sees together.
        ranks: All of them.
        together: Whether BatchNorm sees a group of every rank at once: all ranks make equally many
            passes then, some of them over an empty group.
    """
    size = min(group_images, micro_batch)
    rank, count = ranks.rank, ranks.world.size
    parts = math.ceil(images / size)
    own = list(range(rank, parts, count))
    if together:
        rounds = math.ceil(parts / count)
        bounds = [(part * size, min((part + 1) * size, images)) for part in own]
        bounds += [(images, images)] * (rounds - len(own))
        ends = torch.tensor([0, *(stop - first for first, stop in bounds)]).cumsum(0).tolist()
        return StepPart(
            rows=_joined(bounds),
            cuts=tuple(itertools.pairwise(ends)),
            groups=tuple(range(rounds)),
            group_count=rounds,
            group_images=size,
            weight=1 / count,
        )
    rows = _joined([(part * size, min((part + 1) * size, images)) for part in own])
    return StepPart(
        rows=rows,
        cuts=_cuts(len(rows), micro_batch // size * size),
        groups=tuple(own),
        group_count=parts,
        group_images=size,
    )


def all_reduce_gradients(network: nn.Module, others: Iterable[Tensor], ranks: Ranks) -> None:
    """Sum the gradients of ``network``, and ``others``, over the ranks: one flat all-reduce."""
    if ranks.world.size == 1:
        return
    learning = [weight for weight in network.parameters() if weight.requires_grad]
    for weight in learning:
        if weight.grad is None:  # a short step had nothing for this rank
            weight.grad = torch.zeros_like(weight)
    tensors = [weight.grad for weight in learning if weight.grad is not None]
    tensors += others
    flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
    ranks.add_up(flat)
    for tensor, total in zip(tensors, flat.split([each.numel() for each in tensors]), strict=True):
        tensor.copy_(total.view(tensor.shape))


def _cuts(images: int, micro_batch: int) -> tuple[tuple[int, int], ...]:
    starts = range(0, images, micro_batch)
    return tuple((start, min(start + micro_batch, images)) for start in starts)


def _joined(bounds: list[tuple[int, int]]) -> Tensor:
    return torch.cat([torch.arange(0), *(torch.arange(*bound) for bound in bounds)])


def fill_gradients(
    half: Half,
    networks: tuple[nn.Module, nn.Module],
    batches: Iterable[MicroBatch],
    *,
    step_images: int,
    autocast: torch.autocast,
    gamma: Tensor,
    learning: nn.Module,
) -> Tensor:
    """Set the gradients of ``learning`` to those of a step, and leave the other network's alone.

    The loss of a step is the mean over its images, each weighted alike however the step is cut.

    Args:
        half: Whose losses these are.
        networks: G and D, one of which is ``learning``.
        batches: This rank's part of the step; each is used up before the next is made.
        step_images: Of the step over all ranks.
        autocast: Precision of the forward passes.
        gamma: Of a gradient penalty, a scalar on the device.
        learning: Its gradients are replaced.

    Returns:
        The half's sums over the images of ``batches``, on the device: reading them here would stall
        it once a micro-batch.
    """
    learning.zero_grad(set_to_none=True)
    (other,) = (network for network in networks if network is not learning)
    resting = [weight for weight in other.parameters() if weight.requires_grad]
    rows: list[Tensor] = []
    try:
        for weight in resting:
            weight.requires_grad = False
        for batch in batches:
            loss, sums = half.losses(*networks, batch, autocast, gamma)
            (loss / step_images).backward()
            rows += sums
    finally:
        for weight in resting:
            weight.requires_grad = True
    if not rows:
        return next(learning.parameters()).new_zeros(len(half.sums))
    joined = torch.cat(rows) if len(rows) > 1 else rows[0]
    return joined if len(joined) == len(half.sums) else joined.view(-1, len(half.sums)).sum(0)


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
