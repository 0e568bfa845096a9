"""Many slices in one picture."""

import io

import numpy as np
import numpy.typing as npt
from PIL import Image

GAP_PX = 2
GAP_GREY = 64  # neither MRI background nor tissue, so that the edge of a slice is seen


def render_grid(images: npt.NDArray[np.uint8], columns: int) -> bytes:
    """Lay ``images`` (N, 1, H, W) out row by row as a PNG, every pixel as it is."""
    count, _, height, width = images.shape
    rows = -(-count // columns)
    grid = np.full(
        (rows * (height + GAP_PX) + GAP_PX, columns * (width + GAP_PX) + GAP_PX), GAP_GREY, np.uint8
    )
    for index, image in enumerate(images):
        top = GAP_PX + index // columns * (height + GAP_PX)
        left = GAP_PX + index % columns * (width + GAP_PX)
        grid[top : top + height, left : left + width] = image[0]
    buffer = io.BytesIO()
    Image.fromarray(grid).save(buffer, "PNG", compress_level=4)
    return buffer.getvalue()
