"""Slices to train on and slices to score against."""

import tempfile
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mrigan.data.pack import open_pack
from mrigan.data.phantom import draw
from mrigan.data.source import open_source

HELD_OUT = 256
_OTHERS = 10_000  # the first phantom that is held out

Slices = tuple[npt.NDArray[np.uint8], Tensor]


def drawn(counts: tuple[int, int], size: tuple[int, int]) -> Slices:
    """Phantoms."""
    training, held_out = (
        np.stack([draw(first + index, *size)[None] for index in range(count)])
        for first, count in zip((0, _OTHERS), counts, strict=True)
    )
    return training, torch.from_numpy(held_out)


def packed(folder: str, size: tuple[int, int]) -> Slices:
    """Those in ``folder``, a fixed random tenth held out (at most ``HELD_OUT``)."""
    with tempfile.TemporaryDirectory() as cache:
        pack = open_pack(
            open_source(folder),
            height=size[0],
            width=size[1],
            cache_dir=Path(cache),
            max_refused_percent=5,
        )
        images = pack.images[pack.rows]
    order = np.random.default_rng(1).permutation(len(images))
    count = min(HELD_OUT, len(images) // 10)
    return images[order[count:]], torch.from_numpy(images[order[:count]])


def repeated(images: npt.NDArray[np.uint8], count: int) -> npt.NDArray[np.uint8]:
    """``count`` of them, over and over."""
    return images[np.arange(count) % len(images)]
