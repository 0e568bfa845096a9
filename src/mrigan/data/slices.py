"""From grey levels [0, 255] to the networks' range [-1, 1] and back; nowhere else is it done.

Both directions are exact for all 256 levels, in bfloat16 and float16 too.
"""

import torch
from torch import Tensor

_HALF_RANGE = 127.5
_DEEP_HALF_RANGE = 32767.5


def to_unit(images: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Scale grey levels (N, 1, H, W) uint8 to [-1, 1], on the device they are on."""
    # Rounded once, at the end: in half precision x / 127.5 would lose the darkest levels.
    return images.to(torch.float32).div_(_HALF_RANGE).sub_(1.0).to(dtype)


def to_deep_grey(images: Tensor) -> Tensor:
    """Round images (N, 1, H, W) to the nearest of 65,536 grey levels, int32; clamped as to_grey."""
    levels = images.detach().to(torch.float64, copy=True).add_(1.0).mul_(_DEEP_HALF_RANGE)
    return levels.round_().clamp_(0.0, 65535.0).to(torch.int32)


def to_grey(images: Tensor) -> Tensor:
    """Round images (N, 1, H, W) to the nearest grey level, uint8; values beyond [-1, 1] clamp."""
    levels = images.detach().to(torch.float32, copy=True).add_(1.0).mul_(_HALF_RANGE)
    return levels.round_().clamp_(0.0, 255.0).to(torch.uint8)
