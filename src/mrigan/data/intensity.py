"""Pixels of more than eight bits to the 256 grey levels, by an intensity window for each slice.

Such files do not say which range is in use (often twelve bits of a sixteen-bit file), so the range
is taken from the pixels.
"""

import numpy as np
from numpy.typing import NDArray

from mrigan.data.refusal import UnusableSliceError

PERCENTILES = (0.5, 99.5)
"""Ends of the intensity window, of the finite pixels; those of nnU-Net."""

MAX_MISSING = 0.5
"""Fraction of NaN and infinite pixels above which a slice is refused."""


def apply_window(values: NDArray[np.floating]) -> NDArray[np.float32]:
    """Scale pixels (H, W) of any range to float32 in [0, 255]; pixels that are not finite become 0.

    Overwrites ``values``.

    Raises:
        UnusableSliceError: Most pixels are not finite, or all that are have one value.
    """
    finite = np.isfinite(values)
    missing = 1.0 - float(finite.mean())
    if missing > MAX_MISSING:
        raise UnusableSliceError(f"{missing:.0%} of the pixels are not finite")
    low, high = _ends(values if missing == 0 else values[finite])
    np.clip(values, low, high, out=values)
    values -= low
    values *= 255.0 / (high - low)
    values[~finite] = 0.0
    return values.astype(np.float32, copy=False)


def _ends(usable: NDArray[np.floating]) -> tuple[float, float]:
    """The percentiles, or the extremes where those are equal (a dot on a plain background)."""
    low, high = (float(end) for end in np.percentile(usable, PERCENTILES))
    if low == high:
        low, high = float(usable.min()), float(usable.max())
    if low == high:
        raise UnusableSliceError("blank: every pixel has the same value")
    return low, high
