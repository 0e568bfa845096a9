"""TIFFs with every bit and every plane accounted for, by tifffile (TIFF 6.0, BigTIFF).

Pillow reads those of up to eight bits. This module reads the others, and says of both how many
pictures they hold.
"""

import io
import json
import logging
import re
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import NDArray

from mrigan.data.reader import Reader, luminance, on_black, spread, upright
from mrigan.data.refusal import UnusableSliceError

if TYPE_CHECKING:
    from tifffile import TiffFile, TiffPage

_MAX_PAGES = 2_000
_MAX_CHUNK_PX = 64_000_000
_MIN_IS_WHITE, _MIN_IS_BLACK, _RGB = 0, 1, 2
_COLOURS = {3: "palette", 5: "CMYK", 6: "YCbCr", 8: "CIELab", 32803: "CFA", 32844: "LogL"}
_SIDE_PAGE = 0b101  # NewSubfileType: a smaller copy, or a transparency mask
_COMPLEX = (5, 6)
# Without a limit of their own, other codecs could unpack to any size.
_PACKED = frozenset({1, 5, 8, 32773, 32946, 34925, 34926, 50000})
_IMAGEJ_PLANES = re.compile(r"^images=(\d+)", re.MULTILINE)
_STK_PLANES, _DEPTH, _ORIENTATION, _NO_DATA = 33629, 32997, 274, 42113


def tiff_reader(data: bytes) -> Reader | None:
    """Return how to read a TIFF of more than eight bits, or None for one that Pillow reads.

    Raises:
        UnusableSliceError: It holds several pictures, or pixels of a kind that is not read.
        Exception: Whatever tifffile meets in a damaged file.
    """
    from tifffile import TiffFile  # 0.15 s, and few inputs are TIFFs

    logging.getLogger("tifffile").setLevel(logging.CRITICAL)
    file = TiffFile(io.BytesIO(data), _multifile=False)
    page, is_first = _only_page(file)
    _refuse_planes(page)
    if is_first and page.bitspersample <= 8 and page.sampleformat == 1:
        return None
    _check_kind(page)
    _check_segments(page, len(data))
    return Reader(page.imagewidth, page.imagelength, lambda: _pixels(page))


def _only_page(file: "TiffFile") -> tuple["TiffPage", bool]:
    """The only page that is no thumbnail or mask of another, and whether it comes first."""
    found = []
    for number in range(_MAX_PAGES):
        try:
            # With ``aspage``, never one of tifffile's shortened pages.
            page = cast("TiffPage", file.pages.get(number, aspage=True))
        except IndexError:
            break
        kind = page.tags.valueof(254, 0)
        if number == 0 or not (isinstance(kind, int) and kind & _SIDE_PAGE):
            found.append((page, number == 0))
    first_kind = found[0][0].tags.valueof(254, 0) if found else 0
    if len(found) > 1 and isinstance(first_kind, int) and first_kind & _SIDE_PAGE:
        found = found[1:]
    if len(found) != 1:
        raise UnusableSliceError(f"holds {len(found)} frames; one slice per file is read")
    return found[0]


def _refuse_planes(page: "TiffPage") -> None:
    """Refuse a page whose own tags say that more planes follow its first."""
    text = page.description
    counts = [page.imagedepth, page.tags.valueof(_DEPTH, 1)]
    if _STK_PLANES in page.tags:  # MetaMorph's: the tag's count is the number of planes
        counts.append(page.tags[_STK_PLANES].count)
    if text.startswith("ImageJ=") and (said := _IMAGEJ_PLANES.search(text)):
        counts.append(int(said[1][:9]))
    counts.append(_said_by_tifffile(page, text))
    if page.photometric == _MIN_IS_BLACK and page.samplesperpixel > 2:
        counts.append(page.samplesperpixel)
    most = max(count for count in counts if isinstance(count, int))
    if most > 1:
        raise UnusableSliceError(f"holds {most} planes; one slice per file is read")


def _said_by_tifffile(page: "TiffPage", text: str) -> int:
    """How many planes a description like {"shape": [5, 64, 48]} speaks of."""
    if not text.startswith('{"shape":'):
        return 1
    try:
        shape = json.loads(text)["shape"]
        pixels = page.imagewidth * page.imagelength * page.samplesperpixel
        return int(np.prod([int(side) for side in shape], dtype=np.float64) // pixels)
    except (ValueError, TypeError, KeyError, OverflowError, ZeroDivisionError, RecursionError):
        return 1


def _check_kind(page: "TiffPage") -> None:
    if page.sampleformat in _COMPLEX:
        raise UnusableSliceError("TIFF of complex numbers; not read in this version")
    if page.photometric not in (_MIN_IS_WHITE, _MIN_IS_BLACK, _RGB):
        colour = _COLOURS.get(page.photometric, f"photometric {int(page.photometric)}")
        raise UnusableSliceError(f"{page.bitspersample}-bit {colour} TIFF; not read")
    if page.compression not in _PACKED:
        name = getattr(page.compression, "name", str(page.compression))
        raise UnusableSliceError(f"{page.bitspersample}-bit TIFF packed with {name}; not read")
    if page.dtype is None:
        bits = page.bitspersample
        raise UnusableSliceError(
            f"TIFF of {bits}-bit samples, format {page.sampleformat}; not read"
        )


def _check_segments(page: "TiffPage", size_bytes: int) -> None:
    """Refuse a page whose strips or tiles are missing, or larger than a slice may be."""
    # One sample beyond the limit of the whole picture is left to the caller, who names it.
    if int(np.prod(page.chunks, dtype=np.float64)) > 4 * _MAX_CHUNK_PX:
        raise UnusableSliceError("TIFF with strips or tiles of more than the limit of 64 Mpx")
    wanted = int(np.prod(page.chunked, dtype=np.float64))
    spans = list(zip(page.dataoffsets, page.databytecounts, strict=False))
    if len(spans) < wanted or any(
        not count or not start or start + count > size_bytes for start, count in spans[:wanted]
    ):
        raise UnusableSliceError("truncated TIFF")
    bits = page.imagewidth * page.imagelength * page.samplesperpixel * page.bitspersample
    if page.compression == 1 and sum(count for _, count in spans) * 8 < bits:
        raise UnusableSliceError("truncated TIFF")


def _pixels(page: "TiffPage") -> NDArray[np.generic]:
    """Grey (H, W), upright, dark to bright; unsigned bytes where there are at most eight bits."""
    pixels = page.asarray(maxworkers=1).reshape(page.shaped)[:, 0]  # (S, H, W, S'), one S is 1
    samples = pixels[0] if pixels.shape[0] == 1 else np.moveaxis(pixels[..., 0], 0, -1)
    grey = luminance(samples) if page.photometric == _RGB else samples[..., 0]
    if page.photometric == _MIN_IS_WHITE:
        grey = np.negative(grey) if grey.dtype.kind == "f" else np.invert(grey)
    alpha = 3 if page.photometric == _RGB else 1
    if page.extrasamples[:1] == (2,) and grey.dtype.kind == "u":
        grey = on_black(grey, samples[..., alpha])
    grey = _without_no_data(page, samples, grey)
    if grey.dtype == np.uint8 and page.bitspersample < 8:
        grey = spread(grey, page.bitspersample)
    return upright(grey, page.tags.valueof(_ORIENTATION, 1))


def _without_no_data(
    page: "TiffPage", samples: NDArray[np.generic], grey: NDArray[np.generic]
) -> NDArray[np.generic]:
    """Make what GDAL's tag calls "no data" NaN, which the intensity window leaves black."""
    said = page.tags.valueof(_NO_DATA, "")
    try:
        value = float(said)
    except (TypeError, ValueError):
        return grey
    hidden = samples[..., 0] == value
    if not hidden.any() or hidden.all():
        return grey
    return np.where(hidden, np.nan, grey.astype(np.float64))
