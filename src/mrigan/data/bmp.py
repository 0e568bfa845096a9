"""BMPs whose bit masks Pillow does not read: 16 bits a pixel, or 32 in an unusual order."""

import struct

import numpy as np
from numpy.typing import NDArray

from mrigan.data.reader import Reader, luminance
from mrigan.data.refusal import UnusableSliceError

_BIT_FIELDS = (3, 6)
_RGB555 = (0x7C00, 0x3E0, 0x1F)
_HEADERS = (40, 52, 56, 108, 124)
_USUAL = {0xFF0000, 0xFF00, 0xFF}


def bmp_reader(data: bytes) -> Reader | None:
    """Return how to read a BMP of 16 bits or of unusual masks; None for any other, or damage."""
    if len(data) < 66:
        return None
    offset, header, width, height, _, bits, packed = struct.unpack_from("<IIiiHHI", data, 10)
    if header not in _HEADERS or width <= 0 or height == 0:
        return None
    has_masks = packed in _BIT_FIELDS
    masks = struct.unpack_from("<III", data, 54) if has_masks else _RGB555
    is_ours = (bits == 16 and (has_masks or packed == 0)) or (
        bits == 32 and has_masks and set(masks) != _USUAL
    )
    if not is_ours or not all(masks):
        return None
    stride = (width * bits + 31) // 32 * 4

    def read() -> NDArray[np.generic]:
        if len(data) < offset + stride * abs(height):
            raise UnusableSliceError("truncated BMP")
        rows = np.frombuffer(data, np.uint8, stride * abs(height), offset).reshape(-1, stride)
        pixels = np.ascontiguousarray(rows).view(f"<u{bits // 8}")[:, :width]
        grey = luminance(np.stack([_channel(pixels, mask) for mask in masks], axis=-1))
        return grey if height < 0 else grey[::-1]

    return Reader(width, abs(height), read)


def _channel(pixels: NDArray[np.generic], mask: int) -> NDArray[np.uint8]:
    """The bits of ``mask`` as 0 to 255."""
    shift = (mask & -mask).bit_length() - 1
    values = (pixels.astype(np.uint32) & np.uint32(mask)) >> np.uint32(shift)
    scaled: NDArray[np.floating] = values * (255.0 / (mask >> shift))
    levels: NDArray[np.uint8] = np.rint(scaled).astype(np.uint8)
    return levels
