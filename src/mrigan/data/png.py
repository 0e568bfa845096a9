"""PNGs of sixteen bits a channel with every bit kept; Pillow reduces their colours to eight."""

import numpy as np
from numpy.typing import NDArray
from PIL import ImageOps
from PIL.ImageFile import ImageFile

from mrigan.data.reader import luminance, on_black, upright


def read_deep_png(image: ImageFile, data: bytes) -> NDArray[np.generic] | None:
    """Return grey pixels (H, W), uint16, of a PNG of sixteen bits, or None for any other picture.

    Args:
        image: Opened, not yet loaded.
        data: The bytes that ``image`` was opened from.
    """
    if image.format != "PNG":
        return None
    if image.mode.startswith("I"):
        ImageOps.exif_transpose(image, in_place=True)
        values = np.asarray(image).astype(np.uint16)
        if isinstance(hidden := image.info.get("transparency"), int):
            values[values == hidden] = 0
        return values
    args = image.tile[0].args if image.tile else ""
    if ";16" not in str(args[0] if isinstance(args, tuple) and args else args):
        return None
    import imagecodecs  # for few files; its import takes a tenth of a second

    channels = imagecodecs.png_decode(data)  # with a channel of alpha for a transparent colour
    grey = luminance(channels) if channels.shape[2] > 2 else channels[..., 0]
    if channels.shape[2] in (2, 4):
        grey = on_black(grey, channels[..., -1])
    return upright(grey, image.getexif().get(0x0112, 1))
