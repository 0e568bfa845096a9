"""Many slices in one picture."""

import io

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

GAP_PX = 2
GAP_GREY = 64  # neither MRI background nor tissue, so that the edge of a slice is seen


def render_grid(images: npt.NDArray[np.uint8], columns: int) -> bytes:
    """Lay ``images`` (N, 1, H, W) out row by row as a PNG, every pixel as it is."""
    buffer = io.BytesIO()
    lay_out(images, columns).save(buffer, "PNG", compress_level=4)
    return buffer.getvalue()


def lay_out(images: npt.NDArray[np.uint8], columns: int) -> Image.Image:
    """Lay ``images`` (N, 1, H, W) out row by row in one picture, every pixel as it is."""
    from torchvision.utils import make_grid  # takes seconds, since it imports torch._dynamo

    # make_grid draws fewer columns for few images, and no gap around a single one: so cells of the
    # gap's grey fill the last row and one row more, which is cut off again.
    empty = columns + -len(images) % columns
    cells = np.pad(images, ((0, empty), (0, 0), (0, 0), (0, 0)), constant_values=GAP_GREY)
    grid = make_grid(torch.from_numpy(cells), columns, GAP_PX, pad_value=GAP_GREY)
    return Image.fromarray(grid[0, : -(images.shape[2] + GAP_PX)].numpy())
