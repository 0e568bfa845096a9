"""A picture whose size is known and whose pixels are not decoded yet."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

_LUMINANCE = (0.299, 0.587, 0.114)  # ITU-R 601-2, which Pillow's convert("L") uses


class Reader(NamedTuple):
    """One picture that Pillow does not read, or not with all its bits.

    Attributes:
        width: Columns, px.
        height: Rows, px.
        read: Returns grey pixels (H, W) in the file's own numbers, upright. Unsigned bytes are grey
            levels already; any other type is to go through the intensity window.
    """

    width: int
    height: int
    read: Callable[[], NDArray[np.generic]]


def luminance(channels: NDArray[np.generic]) -> NDArray[np.generic]:
    """Grey (H, W), in the numbers of ``channels`` (H, W, 3 or more), rounded for integers."""
    grey = channels[..., :3].astype(np.float32) @ np.array(_LUMINANCE, np.float32)
    if channels.dtype.kind in "ui":
        return np.rint(grey).astype(channels.dtype)
    return grey


def on_black(grey: NDArray[np.generic], alpha: NDArray[np.generic]) -> NDArray[np.generic]:
    """``grey`` (H, W), unsigned, composited on black by ``alpha`` (H, W) of the same type."""
    opaque = 2.0 ** (8 * alpha.dtype.itemsize) - 1
    weighed = grey.astype(np.float64) * (alpha.astype(np.float64) / opaque)
    composited: NDArray[np.generic] = np.rint(weighed).astype(grey.dtype)
    return composited


def spread(values: NDArray[np.generic], bits: int) -> NDArray[np.uint8]:
    """Grey levels 0 to 255 of ``values``, unsigned, of fewer than eight bits."""
    levels: NDArray[np.uint8] = (values.astype(np.float32) * (255 / (2**bits - 1))).astype(np.uint8)
    return levels


def upright(pixels: NDArray[np.generic], orientation: object) -> NDArray[np.generic]:
    """Undo TIFF's or EXIF's Orientation: 1 is upright, 5 to 8 have rows for columns."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.T
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return np.ascontiguousarray(pixels)
