"""Pixels of more than eight bits, with every bit kept.

Pillow alone reduces sixteen-bit colour to its high bytes, leaves MinIsWhite TIFFs inverted, reads
large unsigned values as negative ones, and saturates the others when it converts them to grey.
"""

import io
import struct
import sys
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, TiffImagePlugin
from PIL.ImageFile import ImageFile

from mrigan.data.refusal import UnusableSliceError

_BITS, _PHOTOMETRIC, _SAMPLES, _SAMPLE_FORMAT = 258, 262, 277, 339
_MIN_IS_WHITE, _MIN_IS_BLACK = 0, 1
_UNSIGNED, _SIGNED = 1, 2
_SHORT = 3
_LUMINANCE = (0.299, 0.587, 0.114)  # ITU-R 601-2, which Pillow's convert("L") uses


class Labels(NamedTuple):
    """What a TIFF's tags said of its pixels before they were changed."""

    is_inverted: bool = False
    is_unsigned: bool = False


def relabel_tiff(data: bytes) -> tuple[bytes, Labels]:
    """Tag a grey TIFF of more than 8 bits MinIsBlack, and its 32-bit integers signed.

    No pixel is changed. Pillow reads MinIsWhite at 16 bits, and unsigned 32 bits, in one byte
    order only. Any other file is returned as it was.
    """
    tags = _short_tags(data) if data[:2] in (b"II", b"MM") else {}
    bits = tags.get(_BITS, (0, 1))[1]
    if bits <= 8 or tags.get(_SAMPLES, (0, 1))[1] != 1:
        return data, Labels()
    white_at, photometric = tags.get(_PHOTOMETRIC, (0, _MIN_IS_BLACK))
    format_at, sample_format = tags.get(_SAMPLE_FORMAT, (0, _UNSIGNED))
    labels = Labels(photometric == _MIN_IS_WHITE, bits == 32 and sample_format == _UNSIGNED)
    if not any(labels):
        return data, labels
    patched = bytearray(data)
    order = _byte_order(data)
    if labels.is_inverted:
        struct.pack_into(order + "H", patched, white_at, _MIN_IS_BLACK)
    if labels.is_unsigned and format_at:
        struct.pack_into(order + "H", patched, format_at, _SIGNED)
    return bytes(patched), labels


def _byte_order(data: bytes) -> str:
    return ">" if data[:2] == b"MM" else "<"


def _short_tags(data: bytes) -> dict[int, tuple[int, int]]:
    """The single SHORT tags of a TIFF's first directory: tag to (position, value)."""
    order = _byte_order(data)
    is_big = 43 in data[2:4]
    count_at, offset_at, entry_at = ("Q", "Q", "HHQ") if is_big else ("H", "I", "HHI")
    stride = 20 if is_big else 12
    tags = {}
    try:
        (start,) = struct.unpack_from(order + offset_at, data, 8 if is_big else 4)
        (count,) = struct.unpack_from(order + count_at, data, start)
        first = start + struct.calcsize(order + count_at)
        for position in range(first, first + stride * min(count, 4096), stride):
            tag, kind, length = struct.unpack_from(order + entry_at, data, position)
            if kind == _SHORT and length == 1:
                value_at = position + struct.calcsize(order + entry_at)
                tags[tag] = (value_at, struct.unpack_from(order + "H", data, value_at)[0])
    except struct.error:
        return {}  # damaged: Pillow will say how
    return tags


def read_high_depth(image: ImageFile, data: bytes, labels: Labels) -> NDArray[np.floating] | None:
    """Return the pixels (H, W) of a picture of more than eight bits, or None for any other.

    Args:
        image: Opened, not yet loaded.
        data: The bytes that ``image`` was opened from.
        labels: What ``relabel_tiff`` found in them.

    Raises:
        UnusableSliceError: Sixteen-bit colour in a layout that is not supported.
    """
    values: NDArray[np.floating]
    if image.mode.startswith("I;16"):
        values = _upright(image).astype(np.float32)
        if isinstance(hidden := image.info.get("transparency"), int):
            values[values == hidden] = 0.0
    elif image.mode == "I":
        pixels = _upright(image)
        values = (pixels.view(np.uint32) if labels.is_unsigned else pixels).astype(np.float64)
    elif image.mode == "F":
        values = _upright(image).astype(np.float64)
    elif _is_signed_byte(image):
        values = _upright(image).view(np.int8).astype(np.float32)
    elif _stored_bits(image) > 8:
        values = _colour(image, data)
    else:
        return None
    return -values if labels.is_inverted else values


def _upright(image: ImageFile) -> NDArray[np.generic]:
    ImageOps.exif_transpose(image, in_place=True)
    return np.asarray(image)


def _is_signed_byte(image: ImageFile) -> bool:
    return (
        isinstance(image, TiffImagePlugin.TiffImageFile)
        and image.mode == "L"
        and image.tag_v2.get(_SAMPLE_FORMAT) == (_SIGNED,)
    )


def _stored_bits(image: ImageFile) -> int:
    """Bits per channel in the file; Pillow's modes for colour do not tell."""
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        return int(max(image.tag_v2.get(_BITS, (1,))))
    return 16 if ";16" in _rawmode(image) else 8


def _rawmode(image: ImageFile) -> str:
    args = image.tile[0].args if image.tile else ""
    return str(args[0] if isinstance(args, tuple) and args else args)


def _colour(image: ImageFile, data: bytes) -> NDArray[np.floating]:
    """Grey of sixteen-bit colour, or of grey with alpha, composited on black; 0 to 65,535."""
    rawmode = _rawmode(image)
    if image.mode not in ("RGB", "RGBA"):
        raise UnusableSliceError(f"16-bit {image.mode} picture; not read in this version")
    if rawmode == "LA;16B":
        # Both have four bytes a pixel, so read as RGBA the bytes come out unchanged.
        quads = _unpacked(image, "RGBA").astype(np.uint16)
        channels = quads[..., 0::2] << 8 | quads[..., 1::2]
        grey = channels[..., 0].astype(np.float32)
    else:
        with Image.open(io.BytesIO(data), formats=[str(image.format)]) as again:
            low = _unpacked(again, _other_byte(rawmode)).astype(np.uint16)
        channels = _unpacked(image, rawmode).astype(np.uint16) << 8 | low
        grey = channels[..., :3].astype(np.float32) @ np.array(_LUMINANCE, np.float32)
    if image.mode == "RGBA":
        return grey * (channels[..., -1] / np.float32(65535.0))
    hidden = image.info.get("transparency")
    return grey if hidden is None else grey * (channels != np.array(hidden)).any(axis=-1)


def _other_byte(rawmode: str) -> str:
    """The raw mode that reads, of each two bytes, the one that ``rawmode`` leaves out."""
    kind, _, layout = rawmode.partition(";")
    native = "16L" if sys.byteorder == "little" else "16B"
    other = {"16B": "16L", "16L": "16B"}.get(native if layout == "16N" else layout)
    if other is None:
        raise UnusableSliceError("16-bit colour in separate planes; not read in this version")
    return f"{kind};{other}"


def _unpacked(image: ImageFile, rawmode: str) -> NDArray[np.generic]:
    """The channels (H, W, C) of ``image``, its bytes read as ``rawmode`` says."""
    image.tile = [
        tile._replace(args=(rawmode, *tile.args[1:]) if isinstance(tile.args, tuple) else rawmode)
        for tile in image.tile
    ]
    return _upright(image)
