"""Tells masks and label maps from pictures: few levels, in areas of one level each."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mrigan.data.refusal import UnusableSliceError

MASK = "a mask or label map"
"""How the reason of such a refusal begins."""

_MOST_LABELS = 256
_MOST_COMMON = 32  # levels that must cover nearly all of the foreground
_COVERED = 0.95
_FEW = 4
_FLAT, _FLAT_OF_FEW = 0.75, 0.55  # foreground pixels whose right neighbour is equal
_LEAST_PX = 16
_SAMPLED_PX = 65_536
_LEAST_SIDE_PX = 32  # of a picture smaller than any slice, nothing can be said


def refuse_flat_grey(grey: Image.Image) -> None:
    """Refuse grey levels (mode L) that are a few flat ones; as ``refuse_labels``, but faster."""
    counts = np.array(grey.histogram())
    if min(grey.size) >= _LEAST_SIDE_PX and _are_few(counts):
        _refuse_flat(np.asarray(grey), counts.argmax(), counts)


def refuse_labels(pixels: NDArray[np.generic]) -> None:
    """Refuse pixels (H, W) of any type that are a few flat levels on a ground.

    Raises:
        UnusableSliceError: They are a mask or a label map.
    """
    step = max(pixels.size // _SAMPLED_PX, 1)
    if min(pixels.shape) < _LEAST_SIDE_PX:
        return
    if len(np.unique(pixels.ravel()[::step])) > _MOST_LABELS:
        return
    levels, counts = np.unique(pixels, return_counts=True)
    if len(levels) <= _MOST_LABELS and _are_few(counts):
        _refuse_flat(pixels, levels[counts.argmax()], counts)


def _are_few(counts: NDArray[np.integer]) -> bool:
    """Whether a few levels have nearly all of the pixels that are not of the most common one."""
    return _share(counts, _MOST_COMMON) >= _COVERED and counts.sum() - counts.max() >= _LEAST_PX


def _share(counts: NDArray[np.integer], number: int) -> float:
    """What share of the foreground the ``number`` most common levels have."""
    ordered = np.sort(counts)[::-1][1:]
    return float(ordered[:number].sum()) / max(int(ordered.sum()), 1)


def _refuse_flat(
    pixels: NDArray[np.generic], ground: np.generic, counts: NDArray[np.integer]
) -> None:
    inside = pixels[:, :-1] != ground
    equal = (pixels[:, :-1] == pixels[:, 1:]) & inside
    flat = float(equal.sum()) / max(int(inside.sum()), 1)
    if flat >= (_FLAT_OF_FEW if _share(counts, _FEW) >= _COVERED else _FLAT):
        raise UnusableSliceError(f"{MASK}, of few flat levels")
