"""A trained generator, as a run publishes it, ready to draw slices.

Nothing in its files is executed: the weights are tensors, and the networks are built by this
version of mrigan. Everything is checked before it is believed: the config's bounds, sizes before
anything is downloaded, the checksum, and the names of the tensors.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Annotated, NamedTuple

import numpy as np
import safetensors.torch
import torch
from numpy.typing import NDArray
from PIL import Image
from pydantic import Field, TypeAdapter, ValidationError
from safetensors import SafetensorError
from torch import Tensor, nn

from mrigan.artifacts import run_tree
from mrigan.artifacts.grids import lay_out
from mrigan.data.sampler import stream_seed
from mrigan.data.slices import to_grey
from mrigan.documents import DocumentError, parse_object
from mrigan.errors import StorageError, UnreadableError
from mrigan.models.family import family_of
from mrigan.settings.models import MODELS, Which
from mrigan.storage.store import Store

MAX_SEED = 2**62
_KEYS: dict[Which, tuple[str, str]] = {
    "latest": (run_tree.GENERATOR, run_tree.GENERATOR_CONFIG),
    "best": (run_tree.BEST, run_tree.BEST_CONFIG),
}
_MAX_HEADER_BYTES = 2**20
_BATCH_IMAGES = {"cuda": 64}
_BATCH_IMAGES_ELSEWHERE = 16
Side = Annotated[int, Field(ge=32, le=2048)]
Count = Annotated[int, Field(ge=0, le=2**62)]


@dataclass(frozen=True, kw_only=True)
class GeneratorConfig:
    """What a run says of its generator.

    Attributes:
        model: As MODEL names it.
        latent_dim: Numbers in one latent vector.
        image_height: Pixels.
        image_width: Pixels.
        epoch: After which it was published.
        images_seen: By the networks until then.
        sha256: Of its file of weights.
        size_bytes: Of that file.
    """

    model: str
    latent_dim: Annotated[int, Field(ge=1, le=4096)]
    image_height: Side
    image_width: Side
    epoch: Count = 0
    images_seen: Count = 0
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    size_bytes: Count


class _Shape(NamedTuple):
    model: str
    latent_dim: int
    image_height: int
    image_width: int


class TrainedGenerator:
    """Draws synthetic slices; ``mrigan.load`` makes one.

    The slice of a seed is a function of that seed, the truncation and the weights: the same bits
    each time on the same kind of device, whatever else is drawn with it.

    Attributes:
        network: Latents (n, latent_dim) to images (n, 1, H, W), not yet clamped to [-1, 1].
        config: What the run says of it.
        device: Where it computes.
        batch_images: Images in each forward pass, however few are asked for.
    """

    def __init__(self, network: nn.Module, config: GeneratorConfig, device: torch.device) -> None:
        self.network = network.eval().requires_grad_(requires_grad=False).to(device)
        self.config = config
        self.device = device
        self.batch_images = _BATCH_IMAGES.get(device.type, _BATCH_IMAGES_ELSEWHERE)

    def __repr__(self) -> str:
        config = self.config
        return (
            f"<{config.model} generator of {config.image_height}×{config.image_width} slices after "
            f"{config.images_seen:,} images, on {self.device}>"
        )

    def sample(self, count: int, *, seed: int = 0, truncation: float = 1.0) -> NDArray[np.uint8]:
        """Draw slices (count, H, W), grey levels 0 to 255, of the seeds from ``seed`` on.

        Args:
            count: How many, from 0.
            seed: Of the first slice, from 0; the next one is of ``seed + 1``, and so on.
            truncation: Scales the latents, from 0 (all alike) to 1 (as trained).

        Raises:
            ValueError: For a number out of these ranges.
        """
        return to_grey(self.sample_floats(count, seed=seed, truncation=truncation))[:, 0].numpy()

    def sample_floats(self, count: int, *, seed: int = 0, truncation: float = 1.0) -> Tensor:
        """Draw slices as ``sample`` does, but float32 (count, 1, H, W) in [-1, 1], on the CPU."""
        if count < 0:
            raise ValueError(f"count: {count} is less than 0")
        seeds = range(seed, seed + count)
        step = self.batch_images
        parts = [
            self.draw(seeds[first : first + step], truncation=truncation)
            for first in range(0, max(count, 1), step)
        ]
        return torch.cat(parts)

    def draw(self, seeds: Sequence[int], *, truncation: float = 1.0) -> Tensor:
        """Draw the slices of at most ``batch_images`` seeds, as ``sample_floats`` does."""
        _check(seeds, truncation)
        z = torch.zeros(len(seeds), self.config.latent_dim)
        for row, seed in enumerate(seeds):
            z[row] = latent(seed, self.config.latent_dim) * truncation
        return self.draw_latents(z)

    def draw_latents(self, z: Tensor) -> Tensor:
        """Draw the slices (n, 1, H, W) of latents (n, latent_dim), at most ``batch_images``."""
        # Always a whole batch: libraries choose other algorithms, and so other last bits, for
        # another number of images.
        whole = torch.zeros(self.batch_images, self.config.latent_dim)
        whole[: len(z)] = z
        with torch.inference_mode(), _exact():
            images: Tensor = self.network(whole.to(self.device))
            return images[: len(z)].float().clamp(-1.0, 1.0).cpu()

    def grid(
        self, count: int = 32, *, columns: int = 8, seed: int = 0, truncation: float = 1.0
    ) -> Image.Image:
        """Lay ``count`` slices, drawn as by ``sample``, out row by row in one picture."""
        images = self.sample(count, seed=seed, truncation=truncation)
        return lay_out(images[:, None], columns)


def latent(seed: int, latent_dim: int) -> Tensor:
    """Return the latent vector (latent_dim,) of a seed, N(0, 1), the same on every device."""
    generator = torch.Generator().manual_seed(stream_seed(seed, "generate"))
    return torch.randn(latent_dim, generator=generator)


def read_generator(store: Store, which: Which, device: torch.device) -> TrainedGenerator:
    """Read the generator that the run in ``store`` has published.

    Raises:
        StorageError: There is none, or it can't be read.
        UnreadableError: Its files are damaged, or are not what this version of mrigan writes.
    """
    weights_key, config_key = _KEYS[which]
    config = _config(store, which, config_key)
    shape = _Shape(config.model, config.latent_dim, config.image_height, config.image_width)
    with torch.random.fork_rng(devices=[]):  # a caller's random numbers stay as they were
        network, _ = family_of(config.model).networks(shape)
    state = network.state_dict()
    _load(network, _weights(store, weights_key, config, state), f"{store.uri}/{weights_key}")
    return TrainedGenerator(network, config, device)


def _config(store: Store, which: Which, key: str) -> GeneratorConfig:
    found = run_tree.read_json(store, key)
    if found is None:
        if not run_tree.has_run(store):
            raise StorageError(f"{store.uri}: no run is there; name the OUTPUT_URI of one")
        remedy = (
            "it is published when a score is taken; take the latest one"
            if which == "best"
            else "it is published with the first checkpoint"
        )
        raise StorageError(f"{store.uri}: this run has no {which} generator yet; {remedy}")
    try:
        config = TypeAdapter(GeneratorConfig).validate_python(found)
    except ValidationError as error:
        raise UnreadableError(
            f"{store.uri}/{key}: {run_tree.what_is_wrong(error)}; it was not written by this "
            "version of mrigan"
        ) from None
    if config.model not in MODELS:
        raise UnreadableError(
            f"{store.uri}/{key}: this version of mrigan has no model {config.model!r:.40}; use the "
            "version that trained it"
        )
    return config


def _weights(
    store: Store, key: str, config: GeneratorConfig, state: dict[str, Tensor]
) -> dict[str, Tensor]:
    """The tensors of the file at ``key``, which has those of ``state`` and no others."""
    place = f"{store.uri}/{key}"
    found = store.head(key)
    if found is None:
        raise StorageError(f"{place}: is not there, though its config is; fetch the run again")
    most = sum(value.nbytes for value in state.values()) + _MAX_HEADER_BYTES
    if not found.size_bytes == config.size_bytes <= most:
        raise UnreadableError(
            f"{place}: has {found.size_bytes:,} bytes, its config says {config.size_bytes:,} and "
            f"its networks take at most {most:,}; fetch the run again, or resume it"
        )
    data = store.get(key, sha256=config.sha256)
    header_bytes = int.from_bytes(data[:8], "little")
    try:
        header = parse_object(data[8 : 8 + header_bytes], max_bytes=_MAX_HEADER_BYTES)
        if header.keys() - {"__metadata__"} != state.keys():
            raise DocumentError("names other tensors than this version's networks have")
        return safetensors.torch.load(data)
    except DocumentError as error:
        problem = f"its header {error}"
    except (SafetensorError, KeyError, RuntimeError, TypeError, ValueError) as error:
        problem = f"it can't be read ({type(error).__name__})"
    raise UnreadableError(f"{place}: {problem}; use the version of mrigan that wrote it")


def _load(network: nn.Module, weights: dict[str, Tensor], place: str) -> None:
    try:
        network.load_state_dict(weights)
    except RuntimeError:
        raise UnreadableError(
            f"{place}: its tensors have other shapes than this version's networks; use the version "
            "of mrigan that wrote it"
        ) from None
    if not all(bool(value.isfinite().all()) for value in weights.values()):
        raise UnreadableError(f"{place}: has weights that are not finite; train the run again")


def _check(seeds: Sequence[int], truncation: float) -> None:
    if seeds and not 0 <= min(seeds) <= max(seeds) < MAX_SEED:
        raise ValueError(f"seed: {seeds[0]} to {seeds[-1]} is not within 0 to 2^62")
    if not 0.0 <= truncation <= 1.0:
        raise ValueError(f"truncation: {truncation} is not within 0 to 1")


def _exact() -> AbstractContextManager[None]:
    """The same algorithms each time, in full precision; the process's own choice stays."""
    return torch.backends.cudnn.flags(
        enabled=True, benchmark=False, deterministic=True, allow_tf32=False
    )
