"""Where a run's weights come from: its own newest checkpoint, another run's, or its seed."""

import logging
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from mrigan.artifacts import run_tree
from mrigan.artifacts.checkpoints import newest_checkpoint
from mrigan.data.manifest import ManifestEntry
from mrigan.errors import SettingsError
from mrigan.jobs.model import d_resolutions
from mrigan.jobs.storage_options import storage_options
from mrigan.runtime.ranks import Ranks
from mrigan.settings.fields import Settings
from mrigan.settings.identity import differences
from mrigan.storage.store import Store, open_store
from mrigan.training.checkpoint import REVISION, adopt, decode, encode, restore
from mrigan.training.state import TrainingState

log = logging.getLogger(__name__)

_MUST_AGREE = ("model", "image_height", "image_width", "latent_dim")
_WEIGHTS = ("G", "D", "G_ema")


class Initial(NamedTuple):
    """The weights of another run."""

    facts: dict[str, Any]  # which checkpoint they are of; ``initial`` in settings.json
    data: bytes  # an encoded snapshot's networks
    trained_on: frozenset[str]  # sha256 of each slice's pixels


def check_holdout(initial: Initial, manifest: Iterable[ManifestEntry]) -> None:
    """Refuse to hold out slices that the weights have been trained on: scores would flatter.

    Raises:
        SettingsError: There are such slices in ``manifest``.
    """
    held = [entry.sha256 for entry in manifest if entry.side == "holdout"]
    seen = sum(sha256 in initial.trained_on for sha256 in held)
    if seen:
        raise SettingsError(
            f"MRIGAN_INIT_FROM: {initial.facts['uri']} was trained on {seen:,} of the "
            f"{len(held):,} slices that this run holds out; use its MRIGAN_SEED, MRIGAN_HOLDOUT "
            "and MRIGAN_VOLUME_PATTERN, or set MRIGAN_HOLDOUT=0"
        )


def find_initial(settings: Settings) -> Initial:
    """Read the newest weights of the run at INIT_FROM.

    Args:
        settings: With defaults filled in, and INIT_FROM set.

    Raises:
        SettingsError: There are none, or they are of other networks, or FREEZE_D is too much.
        StorageError: They can't be read.
    """
    if (settings.freeze_d or 0) > d_resolutions(settings):
        raise SettingsError(
            f"MRIGAN_FREEZE_D: {settings.freeze_d} of D's resolutions can't be frozen, at this "
            f"size it has {d_resolutions(settings)}"
        )
    store = open_store(str(settings.init_from), storage_options(settings))
    saved = newest_checkpoint(store)
    if saved is None:
        raise SettingsError(
            f"MRIGAN_INIT_FROM: no whole checkpoint under {store.uri}; name the MRIGAN_OUTPUT_URI "
            "of a run that has one"
        )
    if saved.facts.get("revision") != REVISION:
        raise SettingsError(
            f"MRIGAN_INIT_FROM: {store.uri} has weights that another version of mrigan trained, "
            "whose networks differ; use a run of this version"
        )
    ours, theirs = settings.model_dump(mode="json"), saved.facts.get("settings", {})
    changed = differences(
        *({name: each.get(name) for name in _MUST_AGREE} for each in (ours, theirs))
    )
    if changed:
        raise SettingsError(
            f"MRIGAN_INIT_FROM: {store.uri} has weights of other networks: {', '.join(changed)}; "
            "use those, or another run"
        )
    facts = {"uri": store.uri, "images_seen": saved.images_seen, "sha256": saved.facts["sha256"]}
    snapshot = decode(saved.data)
    weights = encode({name: snapshot[name] for name in _WEIGHTS})
    return Initial(facts, weights, frozenset(_trained_on(store)))


def _trained_on(store: Store) -> Iterator[str]:
    for row in run_tree.read_rows(store, run_tree.MANIFEST):
        if row.get("status") == "used" and row.get("side", "training") == "training":
            yield row["sha256"]


def _nothing() -> bytes:
    return b""


def begin(
    state: TrainingState,
    settings: Settings,
    ranks: Ranks,
    find_checkpoint: Callable[[], bytes] = _nothing,
    find_weights: Callable[[], bytes] = _nothing,
) -> bool:
    """Put a fresh ``state`` where its run is; every rank calls this, rank 0 with ways to find out.

    Args:
        state: Changed in place.
        settings: With defaults filled in.
        ranks: Of the run.
        find_checkpoint: The run's own newest; nothing if it has none.
        find_weights: Those of the run at INIT_FROM, for a run that begins.

    Returns:
        Whether the run goes on.
    """
    if data := ranks.from_main(find_checkpoint):
        micro_batch = state.micro_batch
        restore(state, decode(data))
        if settings.micro_batch != "auto":  # else what was found to fit
            state.micro_batch = micro_batch
        return True
    if settings.init_from:
        adopt(state, decode(ranks.from_main(find_weights)))
    return False
