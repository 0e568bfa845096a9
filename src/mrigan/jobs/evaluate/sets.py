"""The slices that are compared: those of a run or of another generator's folder, and the reals."""

import io
import zipfile
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mrigan.artifacts import run_tree
from mrigan.artifacts.generator import TrainedGenerator, read_generator
from mrigan.artifacts.run_facts import RunFacts, read_run_facts
from mrigan.artifacts.run_tree import JsonObject
from mrigan.data.pack import Pack, open_pack
from mrigan.data.source import open_source
from mrigan.data.volumes import volume_ids
from mrigan.errors import DataError, SettingsError
from mrigan.jobs.build import storage_options
from mrigan.jobs.generate.record import GENERATION, PACKED
from mrigan.jobs.train.prepare import pull_slices
from mrigan.runtime.device import available_device
from mrigan.runtime.ranks import ALONE
from mrigan.settings.fields import Settings
from mrigan.settings.models import Which
from mrigan.storage.store import Store, open_store
from mrigan.training.checkpoint import REVISION

# What of a run's settings says which slices it has, and how they are cut.
_OF_DATA = (
    "input_uri",
    "include",
    "exclude",
    "max_refused",
    "image_height",
    "image_width",
    "fit",
    "holdout",
    "volume_pattern",
    "seed",
)
_MOST_PACKED_BYTES = 2**34


@dataclass(frozen=True, kw_only=True)
class Request:
    """What ``mrigan evaluate`` was asked for.

    Attributes:
        what: URI of a run, or of slices that another generator has made.
        against: URI of the real slices; None for those of the run.
        to: URI of the results; None for ``evaluation/`` in the run.
        count: Slices to draw, or to take of a folder, at most.
        which: Of the run's generators.
        features: As ``--features`` names them.
        weights: Path or URI of their weights, if they have any.
        weights_sha256: Of that file.
        settings: How slices are read; a run's own settings come before them.
    """

    what: str
    against: str | None
    to: str | None
    count: int
    which: Which
    features: str
    weights: str | None
    weights_sha256: str | None
    settings: Settings


@dataclass(frozen=True, kw_only=True)
class Sets:
    """What is compared, (n, 1, H, W) uint8 each.

    Attributes:
        fake: Generated.
        training: Real, which the generator was trained on as far as is known.
        holdout: Real, of other volumes, none where nothing was held out.
        volumes: Of each training slice, a number.
        about: What the generated slices are.
        is_other_data: Whether the reals are not those that the run was trained on.
    """

    fake: Tensor
    training: Tensor
    holdout: Tensor
    volumes: Tensor
    about: JsonObject
    is_other_data: bool


def is_run(store: Store) -> bool:
    """Whether a run, and not a folder of slices, is there."""
    return run_tree.has_run(store)


def bring(
    request: Request, advance: Callable[[int, int], None], should_stop: Callable[[], bool]
) -> Sets:
    """Read the real slices, and draw or read the generated ones.

    Args:
        request: What is compared.
        advance: Called with how many are drawn, and of how many.
        should_stop: Asked while slices are read.

    Raises:
        SettingsError: Something is missing that a folder of slices needs.
        DataError: There are no usable slices.
        StorageError: Something can't be read.
    """
    store = open_store(request.what, storage_options(request.settings))
    if not is_run(store):
        return _of_folder(request, store, should_stop)
    facts = read_run_facts(store, REVISION)
    assert facts is not None
    settings = _as_trained(request.settings, facts)
    generator = read_generator(store, request.which, available_device(request.settings.device))
    if request.against is not None:
        settings = settings.model_copy(update={"input_uri": request.against})
    pack = pull_slices(settings, ALONE, should_stop=should_stop)
    fake = _drawn(generator, request.count, advance)
    config = generator.config
    about: JsonObject = {
        "run": store.uri,
        "which": request.which,
        "model": config.model,
        "generator_sha256": config.sha256,
        "epoch": config.epoch,
        "images_seen": config.images_seen,
    }
    return _sets(settings, pack, fake, about, facts.data.fingerprint)


def _as_trained(settings: Settings, facts: RunFacts) -> Settings:
    known = {name: facts.settings[name] for name in _OF_DATA if name in facts.settings}
    return settings.model_copy(update=known)


def _of_folder(request: Request, store: Store, should_stop: Callable[[], bool]) -> Sets:
    problems = []
    if request.against is None:
        problems.append("--against: say where the real slices are, as in --against slices/")
    if request.to is None:
        problems.append("--to: say where the results go, as in --to results")
    if problems:
        raise SettingsError(f"{request.what}: is no run", *problems)
    settings = request.settings.model_copy(update={"input_uri": request.against})
    generation = run_tree.read_json(store, GENERATION) or {}
    if generation.get("kind") == "npz":
        fake = _packed(store, request.count)
        size = {"image_height": fake.shape[2], "image_width": fake.shape[3]}
        settings = settings.model_copy(update=size)
    else:
        fake = _read(request, store, bool(generation), should_stop)
    pack = pull_slices(settings, ALONE, should_stop=should_stop)
    return _sets(settings, pack, fake, {"slices": store.uri}, "")


def _read(request: Request, store: Store, is_ours: bool, should_stop: Callable[[], bool]) -> Tensor:
    settings = request.settings
    uri = f"{store.uri}/slices" if is_ours else request.what
    pack = open_pack(
        open_source(uri, storage_options(settings)),
        height=settings.image_height,
        width=settings.image_width,
        fit=settings.fit,
        cache_dir=settings.cache_dir,
        concurrency=settings.download_concurrency,
        max_refused_percent=settings.max_refused,
        should_stop=should_stop,
    )
    generator = torch.Generator().manual_seed(settings.seed)
    rows = torch.randperm(len(pack.rows), generator=generator)[: request.count].sort().values
    return torch.from_numpy(pack.images[pack.rows[rows.numpy()]])


def _packed(store: Store, count: int) -> Tensor:
    """The first slices of a packed file that ``mrigan generate`` has written."""
    place = f"{store.uri}/{PACKED}"
    found = store.head(PACKED)
    if found is None or found.size_bytes > _MOST_PACKED_BYTES:
        raise DataError(f"{place}: is not there, or too large; run `mrigan generate` again")
    try:
        with np.load(io.BytesIO(store.get(PACKED)), allow_pickle=False) as packed:
            images: NDArray[np.generic] = packed["images"]
    except (ValueError, KeyError, OSError, zipfile.BadZipFile):
        raise DataError(f"{place}: can't be read; run `mrigan generate` again") from None
    if images.dtype != np.uint8 or images.ndim != 3 or min(images.shape[1:]) < 32:
        raise DataError(f"{place}: holds no slices; run `mrigan generate` again")
    return torch.from_numpy(images[:count, None].astype(np.uint8))


def _drawn(generator: TrainedGenerator, count: int, advance: Callable[[int, int], None]) -> Tensor:
    parts = []
    for first in range(0, count, generator.batch_images):
        drawn = generator.sample(min(generator.batch_images, count - first), seed=first)
        parts.append(torch.from_numpy(drawn)[:, None])
        advance(min(first + generator.batch_images, count), count)
    return torch.cat(parts)


def _sets(
    settings: Settings, pack: Pack, fake: Tensor, about: JsonObject, fingerprint: str
) -> Sets:
    names = volume_ids(
        [entry.key for entry in pack.manifest if entry.row is not None], settings.volume_pattern
    )
    numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
    volumes = dict(zip(pack.rows.tolist(), (numbers[name] for name in names), strict=True))
    return Sets(
        fake=fake,
        training=torch.from_numpy(pack.images[pack.training]),
        holdout=torch.from_numpy(pack.images[pack.holdout]),
        volumes=torch.tensor([volumes[row] for row in pack.training.tolist()]),
        about=about,
        is_other_data=bool(fingerprint) and pack.fingerprint != fingerprint,
    )
