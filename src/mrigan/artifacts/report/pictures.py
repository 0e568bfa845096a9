"""Pictures for the report: as they are where that is promised, small enough for one page."""

import base64
import io

from PIL import Image

from mrigan.artifacts.grids import GAP_PX

_LOSSLESS_BYTES = 900_000
_FRAME_BYTES = 100_000
_QUALITY = 75


class Picture:
    """One picture for the page.

    Args:
        data: Of its file.
        kind: Of that: ``png`` or ``webp``.
        size: Pixels, (width, height).
    """

    def __init__(self, data: bytes, kind: str, size: tuple[int, int]) -> None:
        self.data = data
        self.width, self.height = size
        self.source = f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def exact(png: bytes, rows: int = 1, *, most_bytes: int = _LOSSLESS_BYTES) -> Picture:
    """A picture whose pixels are all as they were; its last rows are cut off if it is too large.

    Args:
        png: A grid of slices.
        rows: Of slices in it.
        most_bytes: What it may take; one row is kept in any case.
    """
    image = _opened(png)
    while True:
        data = _webp(image, lossless=True)
        if len(data) <= most_bytes or rows <= 1:
            return Picture(data, "webp", image.size)
        image, rows = _without_last_row(image, rows), rows - 1


def frame(png: bytes, rows: int) -> Picture:
    """The first rows of a grid, compressed."""
    image = _opened(png)
    while rows > 2:
        image, rows = _without_last_row(image, rows), rows - 1
    data = _webp(image, lossless=False)
    if len(data) > _FRAME_BYTES:
        small = image.resize((image.width // 2, image.height // 2), Image.Resampling.LANCZOS)
        data = _webp(small, lossless=False)
    return Picture(data, "webp", image.size)


def as_png(png: bytes) -> Picture:
    """A PNG as it is."""
    return Picture(png, "png", _opened(png).size)


def rows_of(png: bytes, height: int) -> int:
    """How many rows of slices, each ``height`` pixels, a grid has."""
    return max(1, (_opened(png).height - GAP_PX) // (height + GAP_PX))


def _opened(png: bytes) -> Image.Image:
    return Image.open(io.BytesIO(png))


def _without_last_row(image: Image.Image, rows: int) -> Image.Image:
    height = (image.height - GAP_PX) // rows * (rows - 1) + GAP_PX
    return image.crop((0, 0, image.width, height))


def _webp(image: Image.Image, *, lossless: bool) -> bytes:
    buffer = io.BytesIO()
    image.convert("RGB").save(buffer, "WEBP", lossless=lossless, quality=_QUALITY, method=2)
    return buffer.getvalue()
