"""Publishes generators: the one to use, and the best so far by the score."""

import hashlib
import math
from collections.abc import Mapping
from typing import Any

import safetensors.torch
from torch import Tensor, nn

from mrigan.artifacts import run_tree
from mrigan.artifacts.publisher import Publisher
from mrigan.jobs.train.prepare import Prepared
from mrigan.settings.fields import Settings
from mrigan.storage.store import Store


def publish_generator(
    store: Store, settings: Settings, weights: Mapping[str, Tensor], **facts: object
) -> None:
    """Write the generator and the config that vouches for it."""
    _publish(store, (run_tree.GENERATOR, run_tree.GENERATOR_CONFIG), settings, weights, facts)


class Best:
    """The generator with the smallest distance so far; goes on from what an earlier start left.

    A run that goes on from a checkpoint before its best keeps that: it was this run's.
    """

    def __init__(self, prepared: Prepared, publisher: Publisher) -> None:
        self._store = prepared.store
        self._settings = prepared.settings
        self._publisher = publisher
        found = run_tree.read_json(prepared.store, run_tree.BEST_CONFIG) or {}
        names = ("epoch", "images_seen", "swd")
        self._facts = {name: found[name] for name in names if name in found}

    @property
    def facts(self) -> dict[str, Any]:
        """``epoch``, ``images_seen`` and ``swd`` of the best; empty before the first score."""
        return dict(self._facts)

    def offer(self, network: nn.Module, *, epoch: int, images_seen: int, swd: float) -> None:
        """Publish ``network`` if it is better than all before."""
        if swd >= self._facts.get("swd", math.inf):
            return
        self._facts = facts = {"epoch": epoch, "images_seen": images_seen, "swd": swd}
        weights = {name: value.cpu().clone() for name, value in network.state_dict().items()}
        keys = (run_tree.BEST, run_tree.BEST_CONFIG)
        self._publisher.submit(
            "best", lambda: _publish(self._store, keys, self._settings, weights, facts)
        )


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
