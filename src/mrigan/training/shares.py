"""How ranks share a step: groups of images are dealt out, what came of them is added up.

A group is the same whichever rank it falls to, so the numbers of a step do not depend on how many
ranks there are; nor, since BatchNorm sees group by group, on how many make a micro-batch.
"""

import itertools
import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mrigan.runtime.ranks import Ranks


@dataclass(frozen=True, kw_only=True)
class Share:
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


def any_cut(images: int, micro_batch: int, ranks: Ranks) -> Share:
    """The share of a family that nothing couples: an equal part of the step, cut at will."""
    part = math.ceil(images / ranks.world.size)
    first = min(ranks.place.rank * part, images)
    stop = min(first + part, images)
    return Share(rows=torch.arange(first, stop), cuts=_cuts(stop - first, micro_batch))


def by_groups(
    images: int, micro_batch: int, group_images: int, ranks: Ranks, *, together: bool
) -> Share:
    """The share of a family with BatchNorm: every n-th group of the step.

    Args:
        images: Of the step.
        micro_batch: Images of one pass: as many groups as fit; a group is cut only where even one
            does not.
        group_images: What BatchNorm sees together.
        ranks: All of them.
        together: Ranks take each group at the same moment, for BatchNorm to see them as one; a
            rank that has no group left takes an empty one.
    """
    size = min(group_images, micro_batch)
    rank, count = ranks.place.rank, ranks.world.size
    parts = math.ceil(images / size)
    own = list(range(rank, parts, count))
    if together:
        rounds = math.ceil(parts / count)
        bounds = [(part * size, min((part + 1) * size, images)) for part in own]
        bounds += [(images, images)] * (rounds - len(own))
        ends = torch.tensor([0, *(stop - first for first, stop in bounds)]).cumsum(0).tolist()
        return Share(
            rows=_joined(bounds),
            cuts=tuple(itertools.pairwise(ends)),
            groups=tuple(range(rounds)),
            group_count=rounds,
            group_images=size,
            weight=1 / count,
        )
    rows = _joined([(part * size, min((part + 1) * size, images)) for part in own])
    return Share(
        rows=rows,
        cuts=_cuts(len(rows), micro_batch // size * size),
        groups=tuple(own),
        group_count=parts,
        group_images=size,
    )


def add_up(network: nn.Module, others: Iterable[Tensor], ranks: Ranks) -> None:
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
