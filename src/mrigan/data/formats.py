"""Encoded bytes to one grey slice, or the reason why there is none.

``decode`` raises nothing but ``UnusableSliceError``, whatever the bytes, and checks the size in the
header before it decodes any pixel. For eight-bit pictures it gives the same pixels as
``Image.open(...).convert("L").resize(...)``, 1.5 times as fast for JPEG.
"""

import io
import logging
import re
import threading
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Final, Literal, TypeVar, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageOps, UnidentifiedImageError
from PIL.ImageFile import ImageFile

from mrigan.data.bmp import bmp_reader
from mrigan.data.flatness import refuse_flat_grey, refuse_labels
from mrigan.data.intensity import MIN_CONTRAST, IntensityWindow, apply_window
from mrigan.data.jpeg import jpeg_reader
from mrigan.data.png import read_deep_png
from mrigan.data.refusal import UnusableSliceError
from mrigan.data.signatures import READABLE, looks_like
from mrigan.data.tiff import tiff_reader
from mrigan.errors import StorageError

Fit = Literal["stretch", "pad", "crop"]
_Picture = NDArray[np.generic] | Image.Image
_T = TypeVar("_T")

DECODE_VERSION: Final = 3
"""To be raised whenever the same bytes may give other pixels: caches are keyed by it."""

MAX_PIXELS: Final = 64_000_000
MAX_BYTES: Final = 256 * 2**20
MIN_SIDE_PX: Final = 8

_READERS = {"TIFF": tiff_reader, "JPEG": jpeg_reader, "BMP": bmp_reader}
_LARGE_PX = 4_000_000
_ONE_LARGE_PICTURE = threading.Lock()  # 64 threads with 64 Mpx each would not fit any memory
_QUIET = ("ignore", None, Warning, re.compile(r"PIL\."), 0)


def decode(
    data: bytes,
    height: int,
    width: int,
    fit: Fit = "stretch",
    window: Callable[[], IntensityWindow | None] | None = None,
) -> NDArray[np.uint8]:
    """Return one slice (height, width), uint8, from an encoded picture; thread-safe.

    Up to eight bits, grey levels are kept; beyond, they go through the intensity window. Alpha is
    composited on black, and the EXIF orientation is applied.

    Args:
        data: A PNG, JPEG, TIFF, BMP or WebP file, recognised by its content.
        height: Rows wanted, px.
        width: Columns wanted, px.
        fit: ``stretch`` changes the aspect, ``pad`` letterboxes on black, ``crop`` cuts the centre.
        window: Called for pictures of more than eight bits, of up to 4 Mpx: the window of the
            slice's series, None where it has none.

    Raises:
        UnusableSliceError: With the reason.
    """
    return _with_picture(data, lambda picture: _levels(picture, (width, height), fit, window))


def deep_pixels(data: bytes) -> NDArray[np.generic] | None:
    """Return the pixels (H, W) in the file's own numbers, None up to eight bits; thread-safe.

    Raises:
        UnusableSliceError: The picture can't be read, or is a label map.
    """

    def deep(picture: _Picture) -> NDArray[np.generic] | None:
        if isinstance(picture, Image.Image) or picture.dtype == np.uint8:
            return None
        refuse_labels(picture)
        return picture

    return _with_picture(data, deep)


def _with_picture(data: bytes, use: Callable[[_Picture], _T]) -> _T:
    """Call ``use`` with the pixels, or with the picture that Pillow has opened."""
    if not data:
        raise UnusableSliceError("zero bytes")
    _quieten_pillow()
    try:
        find = _READERS.get(looks_like(data) or "")
        with np.errstate(all="ignore"):  # floats in a file may be any bits
            if find is not None and (reader := find(data)) is not None:
                _check_size(reader.width, reader.height)
                with _room(reader.width * reader.height):
                    return use(reader.read())
            with Image.open(io.BytesIO(data), formats=READABLE) as image:
                _check_header(image)
                with _room(image.width * image.height):
                    values = read_deep_png(image, data)
                    return use(values if values is not None else _grey(image))
    except (UnusableSliceError, StorageError):  # the latter of the series' other slices
        raise
    except Exception as error:
        raise UnusableSliceError(_diagnosis(data, error)) from error


def _room(pixels: int) -> AbstractContextManager[object]:
    return _ONE_LARGE_PICTURE if pixels > _LARGE_PX else nullcontext()


def _levels(
    picture: _Picture,
    size: tuple[int, int],
    fit: Fit,
    window: Callable[[], IntensityWindow | None] | None,
) -> NDArray[np.uint8]:
    """Bring a picture of any type to grey levels; only unsigned bytes are some already."""
    if isinstance(picture, Image.Image):
        return _from_grey(picture, size, fit)
    if picture.dtype == np.uint8:
        return _from_grey(Image.fromarray(picture), size, fit)
    refuse_labels(picture)
    # Large pictures are decoded one at a time, so none may wait for others here.
    shared = window() if window is not None and picture.size <= _LARGE_PX else None
    scaled = np.asarray(_fitted(Image.fromarray(apply_window(picture, shared)), size, fit))
    return cast(NDArray[np.uint8], np.rint(scaled).clip(0, 255).astype(np.uint8))


def _from_grey(grey: Image.Image, size: tuple[int, int], fit: Fit) -> NDArray[np.uint8]:
    levels = np.asarray(_fitted(grey, size, fit))
    # Bilinear scaling never widens the range, so the whole picture is examined only in doubt.
    if (fit == "pad" or np.ptp(levels) < MIN_CONTRAST) and _contrast(grey) < MIN_CONTRAST:
        raise UnusableSliceError(f"blank: all pixels within {MIN_CONTRAST} grey levels")
    refuse_flat_grey(grey)
    return levels


def _contrast(grey: Image.Image) -> int:
    low, high = cast(tuple[int, int], grey.getextrema())
    return high - low


def _check_size(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise UnusableSliceError(f"{width}x{height} px; {MAX_PIXELS / 1e6:.0f} Mpx is the limit")
    if min(width, height) < MIN_SIDE_PX:
        raise UnusableSliceError(f"{width}x{height} px; {MIN_SIDE_PX} px a side is the least")


def _check_header(image: ImageFile) -> None:
    width, height = image.size
    _check_size(width, height)
    # An MPO is a JPEG followed by a preview; the JPEG is the slice. TIFFs were counted before.
    if getattr(image, "is_animated", False) and image.format not in ("MPO", "TIFF"):
        count = getattr(image, "n_frames", "several")
        raise UnusableSliceError(f"holds {count} frames; one slice per file is read")
    if image.format == "TIFF" and _covered(image) < width * height:
        raise UnusableSliceError("truncated TIFF")  # Pillow would leave the missing part black


def _covered(image: ImageFile) -> int:
    """The pixels that the file's tiles or strips claim to hold."""
    boxes = [tile.extents or (0, 0, 0, 0) for tile in image.tile]
    return sum((right - left) * (lower - upper) for left, upper, right, lower in boxes)


def _grey(image: ImageFile) -> Image.Image:
    """One band of eight bits, upright, on black."""
    image.draft("L", image.size)  # JPEG: skips the colours; exact, unlike scaling in the DCT
    ImageOps.exif_transpose(image, in_place=True)
    if image.mode == "CMYK" and image.format == "JPEG" and "adobe" not in image.info:
        return ImageChops.invert(image).convert("L")  # Pillow assumes Adobe's inverted CMYK
    if image.has_transparency_data and not _has_unused_alpha(image):
        rgba = image.convert("RGBA")
        return ImageChops.multiply(rgba.convert("L"), rgba.getchannel("A"))
    if image.mode == "RGBA":
        return image.convert("RGB").convert("L")
    return image.convert("L")


def _has_unused_alpha(image: ImageFile) -> bool:
    """Whether a BMP's fourth byte is 0 throughout: its writer meant none of it."""
    return (
        image.format == "BMP"
        and image.mode == "RGBA"
        and image.getchannel("A").getextrema() == (0, 0)
    )


def _fitted(image: Image.Image, size: tuple[int, int], fit: Fit) -> Image.Image:
    """Scale a picture to ``size`` (width, height), bilinear, in its own bit depth."""
    bilinear = Image.Resampling.BILINEAR
    width, height = size
    if fit == "stretch":
        return image.resize(size, bilinear)
    if fit == "crop":
        scale = max(width / image.width, height / image.height)
        left = (image.width - width / scale) / 2
        top = (image.height - height / scale) / 2
        box = (max(left, 0.0), max(top, 0.0), image.width - left, image.height - top)
        return image.resize(size, bilinear, box=box)
    scale = min(width / image.width, height / image.height)
    inner = (max(round(image.width * scale), 1), max(round(image.height * scale), 1))
    canvas = Image.new(image.mode, size, 0)
    canvas.paste(image.resize(inner, bilinear), ((width - inner[0]) // 2, (height - inner[1]) // 2))
    return canvas


def _diagnosis(data: bytes, error: Exception) -> str:
    kind = looks_like(data)
    if isinstance(error, Image.DecompressionBombError):
        return f"more than the limit of {MAX_PIXELS / 1e6:.0f} Mpx"
    if isinstance(error, UnidentifiedImageError):
        if kind in READABLE:
            return f"{kind} with a damaged header, or of a kind that is not read"
        return f"{kind}; not read in this version" if kind else "not an image"
    if isinstance(error, MemoryError):
        return f"{kind} that asks for more memory than there is"
    if "truncated" in str(error).lower():
        return f"truncated {kind}"
    detail = str(error).partition(" (")[0]  # brackets quote bytes of the file
    printable = "".join(filter(str.isprintable, detail))[:80]
    return f"damaged {kind or 'picture'}: {printable or type(error).__name__}"


def _quieten_pillow() -> None:
    """Keep Pillow's warnings about metadata out of the job's output, on every thread.

    ``warnings.catch_warnings`` replaces the process's list of filters, so threads would race;
    adding one filter to the list is safe.
    """
    if _QUIET not in warnings.filters:
        warnings.filterwarnings("ignore", category=Warning, module=r"PIL\.")
        logging.getLogger("PIL").setLevel(logging.CRITICAL)
