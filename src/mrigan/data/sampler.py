"""The order of the slices, and every other stream of random numbers, as functions of the seed.

Nothing here uses a global generator, so a resumed run draws what an uninterrupted one would have.
"""

import hashlib

import torch
from torch import Tensor


def stream_seed(seed: int, *path: int | str) -> int:
    """Return 63 bits that name one stream of random numbers, unrelated to any other path's.

    Args:
        seed: The run's.
        path: The purpose of the stream, such as ``"latents", images_seen``; 1 and "1" differ.
    """
    digest = hashlib.blake2b(repr((seed, *path)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def epoch_order(count: int, seed: int, epoch: int) -> Tensor:
    """Return the permutation (count,), int64, in which an epoch shows the rows of the pack.

    The same on every device and rank; drawn on the CPU.
    """
    generator = torch.Generator().manual_seed(stream_seed(seed, "order", epoch))
    return torch.randperm(count, generator=generator)
