"""JPEGs that Pillow does not read: 12 bits, lossless, and JPEG-LS (ITU-T T.81 and T.87)."""

import struct

import numpy as np
from numpy.typing import NDArray

from mrigan.data.reader import Reader, luminance, spread
from mrigan.data.refusal import UnusableSliceError

_LOSSLESS, _JPEG_LS = 0xC3, 0xF7
_FRAMES = frozenset({*range(0xC0, 0xD0), _JPEG_LS}) - {0xC4, 0xC8, 0xCC}
_BARE = frozenset({0x01, *range(0xD0, 0xD9)})  # markers without a length
_MOST_PX_A_BYTE = 256  # a slice is never packed so well; only what is blank, or damaged
_MAX_MARKERS = 10_000


def jpeg_reader(data: bytes) -> Reader | None:
    """Return how to read a JPEG of a rare kind; None for one that Pillow reads, or a damaged one.

    Raises:
        UnusableSliceError: A number of channels other than 1 and 3, or few bytes for its size.
    """
    frame = _frame(data)
    if frame is None:
        return None
    marker, bits, height, width, channels = frame
    if bits == 8 and marker not in (_LOSSLESS, _JPEG_LS):
        return None
    if channels not in (1, 3):
        raise UnusableSliceError(f"{bits}-bit JPEG of {channels} channels; 1 and 3 are read")

    is_cut = marker == _JPEG_LS and b"\xff\xd9" not in data[-64:]
    if is_cut or height * width > _MOST_PX_A_BYTE * len(data):
        raise UnusableSliceError("truncated JPEG")  # it would be decoded for many seconds

    def read() -> NDArray[np.generic]:
        import imagecodecs  # for few files; its import takes a tenth of a second

        is_ls = marker == _JPEG_LS
        pixels: NDArray[np.generic] = (
            imagecodecs.jpegls_decode(data) if is_ls else imagecodecs.jpeg8_decode(data)
        )
        if pixels.shape[:2] != (height, width):
            raise UnusableSliceError("damaged JPEG: two sizes")
        grey = luminance(pixels) if pixels.ndim == 3 else pixels
        if bits < 8:
            return spread(grey, bits)
        return grey

    return Reader(width, height, read)


def _frame(data: bytes) -> tuple[int, int, int, int, int] | None:
    """The first frame header: its marker, bits, height, width, channels."""
    at = 2
    for _ in range(_MAX_MARKERS):
        while data[at : at + 2] == b"\xff\xff":  # fill bytes
            at += 1
        if len(data) < at + 10 or data[at] != 0xFF:
            return None
        marker = data[at + 1]
        if marker in _FRAMES:
            bits, height, width, channels = struct.unpack_from(">BHHB", data, at + 4)
            return marker, bits, height, width, channels
        if marker in (0xD9, 0xDA):
            return None
        at += 2 if marker in _BARE else 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return None
