"""Pixels of more than eight bits to the 256 grey levels, by an intensity window.

Such files do not say which range is in use (often twelve bits of a sixteen-bit file), so the range
is taken from the pixels of the foreground: of the whole series where a slice is known to be of one,
so that a slice keeps its brightness beside its neighbours, else of the slice alone.
"""

from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mrigan.data.refusal import UnusableSliceError

PERCENTILES = (0.5, 99.5)
"""Ends of the intensity window, of the finite pixels of the foreground; those of nnU-Net."""

MAX_MISSING = 0.5
"""Fraction of NaN and infinite pixels above which a slice is refused."""

MIN_COUNTS = 32
"""Range of whole numbers below which a slice is blank: 8 grey levels of 255 are 32 of 1,023."""

MIN_CONTRAST = 8
"""Grey levels between the darkest and the brightest pixel, of 255, below which a slice is blank."""

_LEAST_SLICES = 2  # that make a series
_PIXELS_A_SLICE = 2**18  # enough for percentiles
_MIN_GROUND = 0.1  # of the pixels have one value: that is a background
_FEW_COUNTS = 512  # an eighth of 12 bits: noise alone spans no more
_ALIKE = 0.6, 0.3  # correlation of neighbours below which few counts, or fractions, are noise


class IntensityWindow(NamedTuple):
    """What becomes black and white, in the file's own numbers; ``ground`` becomes black, too."""

    low: float
    high: float
    ground: float | None


def apply_window(
    pixels: NDArray[np.generic], shared: IntensityWindow | None = None
) -> NDArray[np.float32]:
    """Scale pixels (H, W) of any range to float32 in [0, 255]; what is not finite becomes 0.

    A background of one value, as skull stripping leaves it, is no part of the window.

    Args:
        pixels: Of one slice.
        shared: The window of the slice's series; its own is taken where there is none.

    Raises:
        UnusableSliceError: Most pixels are not finite, or there is nothing but noise or one value,
            or the slice is dark throughout beside its series.
    """
    values, finite = _checked(pixels)
    usable = values[finite]
    window = shared or _window(usable, _background(values, usable))
    if window.ground is not None and window.ground < window.high:
        finite &= values != window.ground
    np.clip(values, window.low, window.high, out=values)
    values -= window.low
    values *= 255.0 / (window.high - window.low)
    values[~finite] = 0.0
    if shared and np.ptp(values) < MIN_CONTRAST:
        raise UnusableSliceError(f"blank: within {MIN_CONTRAST} grey levels in its series' window")
    return values.astype(np.float32, copy=False)


def shared_window(pictures: Iterable[NDArray[np.generic]]) -> IntensityWindow | None:
    """Return the window of the foreground of several slices (H, W) together.

    None where they are not alike in size and type, so not of one series, or fewer than two of them
    are usable. Blank slices, of which a series has some above and below the head, are passed over.
    """
    kinds, grounds, all_usable = set(), Counter[float | None](), list[NDArray[np.floating]]()
    for pixels in pictures:
        kinds.add((pixels.shape, pixels.dtype))
        with suppress(UnusableSliceError):
            values, finite = _checked(pixels)
            usable = values[finite]
            if usable.min() < usable.max():
                grounds[_background(values, usable)] += 1
                all_usable.append(usable[:: max(1, len(usable) // _PIXELS_A_SLICE)])
    if len(kinds) != 1 or len(all_usable) < _LEAST_SLICES:
        return None
    ground, slices = grounds.most_common(1)[0]
    return _window(np.concatenate(all_usable), ground if 2 * slices >= len(all_usable) else None)


def _checked(pixels: NDArray[np.generic]) -> tuple[NDArray[np.floating], NDArray[np.bool_]]:
    """Copy the pixels as floats, and say which are finite; refuse what holds no picture."""
    values: NDArray[np.floating] = (
        pixels.astype(np.float32) if pixels.dtype.itemsize <= 2 else pixels.astype(np.float64)
    )
    finite = np.isfinite(values)
    missing = 1.0 - float(finite.mean())
    if missing > MAX_MISSING:
        raise UnusableSliceError(f"{missing:.0%} of the pixels are not finite")
    _refuse_air(values, values[finite])
    return values, finite


def _window(usable: NDArray[np.floating], ground: float | None) -> IntensityWindow:
    """The percentiles, or the extremes where those are equal (a dot on a plain background)."""
    foreground = usable if ground is None else usable[usable != ground]
    if len(foreground):
        low, high = (float(end) for end in np.percentile(foreground, PERCENTILES))
        if ground is not None and low - (high - low) <= ground < low:
            low = ground  # near enough to leave the foreground most of the levels
        if low < high:
            return IntensityWindow(low, high, ground)
    low, high = float(usable.min()), float(usable.max())
    if low == high:
        raise UnusableSliceError("blank: every pixel has the same value")
    return IntensityWindow(low, high, ground)


def _background(values: NDArray[np.floating], usable: NDArray[np.floating]) -> float | None:
    """The one value that the border has, or else the smallest, where a tenth of all have it."""
    border = np.concatenate([values[0], values[-1], values[:, 0], values[:, -1]])
    border = np.sort(border[np.isfinite(border)])
    candidates = [float(usable.min())]
    if len(border):
        middle = border[len(border) // 2]
        if np.mean(border == middle) >= 0.5:
            candidates.insert(0, float(middle))
    for value in candidates:
        if np.mean(usable == value) >= _MIN_GROUND:
            return value
    return None


def _refuse_air(values: NDArray[np.floating], usable: NDArray[np.floating]) -> None:
    """Refuse a slice above or below the head, which holds nothing but a scanner's noise."""
    low, high = (float(end) for end in np.percentile(usable, (0.1, 99.9)))
    if low == high:
        return
    is_counted = bool(np.array_equal(usable, np.rint(usable)))
    if is_counted and high - low < MIN_COUNTS:
        raise UnusableSliceError(f"blank: all pixels within {high - low:.0f} counts")
    if is_counted and high - low >= _FEW_COUNTS:
        return
    if _correlation(np.clip(values, low, high)) < _ALIKE[0 if is_counted else 1]:
        raise UnusableSliceError("blank: nothing but noise")


def _correlation(values: NDArray[np.floating]) -> float:
    """Of each pixel with the one to its right, from -1 to 1; 1 where that is not defined."""
    scale = max(float(np.nanmax(np.abs(values))), 1e-300)
    centred = np.nan_to_num(values / scale - np.nanmean(values / scale))
    spread = float(np.mean(np.square(centred)))
    return float(np.mean(centred[:, 1:] * centred[:, :-1])) / spread if spread > 0 else 1.0
