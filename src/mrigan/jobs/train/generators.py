"""Publishes generators: the one to use, and the best so far by the score."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

import safetensors.torch
from pydantic import Field, TypeAdapter
from torch import Tensor, nn

from mrigan.artifacts import run_tree
from mrigan.artifacts.publisher import Publisher
from mrigan.artifacts.run_status import BestScore, Count
from mrigan.settings.fields import Settings
from mrigan.storage.store import Store


def publish_generator(
    store: Store, settings: Settings, weights: Mapping[str, Tensor], **facts: object
) -> None:
    """Write the generator and the config that vouches for it."""
    _publish(store, (run_tree.GENERATOR, run_tree.GENERATOR_CONFIG), settings, weights, facts)


class Best:
    """The generator with the smallest distance so far; taken over from an earlier start.

    A run that resumes from a checkpoint before its best keeps that: it was this run's.
    """

    def __init__(self, store: Store, settings: Settings, publisher: Publisher) -> None:
        self._settings = settings
        self._publisher = publisher
        self.score = read_best(store)

    def offer(self, network: nn.Module, score: BestScore) -> None:
        """Publish ``network`` if it is better than all before."""
        if self.score is not None and score.swd >= self.score.swd:
            return
        self.score = score
        weights = {name: value.cpu().clone() for name, value in network.state_dict().items()}
        keys = (run_tree.BEST, run_tree.BEST_CONFIG)
        self._publisher.submit(
            "best", lambda store: _publish(store, keys, self._settings, weights, score._asdict())
        )


def read_best(store: Store) -> BestScore | None:
    """The best score that the run in ``store`` has published; None where there is none."""
    found = run_tree.read_derived(store, run_tree.BEST_CONFIG, TypeAdapter(_Best))
    return BestScore(found.epoch, found.images_seen, found.swd) if found else None


@dataclass(frozen=True, kw_only=True)
class _Best:
    """What is read of the best generator's config."""

    epoch: Count
    images_seen: Count
    swd: Annotated[float, Field(ge=0, allow_inf_nan=False)]


def _publish(
    store: Store,
    keys: tuple[str, str],
    settings: Settings,
    weights: Mapping[str, Tensor],
    facts: Mapping[str, object],
) -> None:
    data = safetensors.torch.save({name: value.contiguous() for name, value in weights.items()})
    config = {
        "model": settings.model,
        "latent_dim": settings.latent_dim,
        "image_height": settings.image_height,
        "image_width": settings.image_width,
        "output_range": [-1, 1],  # r3's may lie a little outside: clamp it
        **facts,
        "sha256": hashlib.sha256(data).hexdigest(),
        "size_bytes": len(data),
    }
    store.put(keys[0], data)
    run_tree.write_json(store, keys[1], config)
