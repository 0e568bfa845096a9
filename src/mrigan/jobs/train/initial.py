"""The weights of another run, the one at INIT_FROM, for a run that begins."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from mrigan.artifacts import run_tree
from mrigan.artifacts.checkpoints import read_newest
from mrigan.artifacts.run_facts import InitialFacts
from mrigan.data.manifest import ManifestEntry
from mrigan.errors import CheckpointError, SettingsError, StorageError
from mrigan.jobs.build import storage_options
from mrigan.models.family import d_resolutions
from mrigan.settings.fields import Settings
from mrigan.settings.identity import differences
from mrigan.storage.store import Store, open_store
from mrigan.training.checkpoint import REVISION, Snapshot, check_weights_fit, decode
from mrigan.training.state import TrainingState

_MUST_AGREE = ("model", "image_height", "image_width", "latent_dim")
_WEIGHTS = ("G", "D", "G_ema")


@dataclass(frozen=True, kw_only=True)
class Initial:
    """Where a run's first weights are from."""

    facts: InitialFacts
    trained_on: frozenset[str]  # sha256 of the pixels of each slice


def check_holdout(initial: Initial, manifest: Iterable[ManifestEntry]) -> None:
    """Refuse to hold out slices that the weights have been trained on: scores would flatter.

    Raises:
        SettingsError: There are such slices in ``manifest``.
    """
    held = [entry.sha256 for entry in manifest if entry.side == "holdout"]
    seen = sum(sha256 in initial.trained_on for sha256 in held)
    if seen:
        raise SettingsError(
            f"MRIGAN_INIT_FROM: {initial.facts.uri} was trained on {seen:,} of the "
            f"{len(held):,} slices that this run holds out; use its MRIGAN_SEED, MRIGAN_HOLDOUT "
            "and MRIGAN_VOLUME_PATTERN, or set MRIGAN_HOLDOUT=0"
        )


def read_initial(settings: Settings, state: TrainingState) -> tuple[Initial, Snapshot]:
    """Read the newest weights of the run at INIT_FROM.

    Args:
        settings: INIT_FROM is set.
        state: Of the run that begins; it is to adopt them.

    Returns:
        Where they are from, and the networks of that checkpoint's snapshot.

    Raises:
        SettingsError: There are none, or they are of other networks, or FREEZE_D is too much.
        StorageError: They can't be read.
    """
    if settings.freeze_d > d_resolutions(settings):
        raise SettingsError(
            f"MRIGAN_FREEZE_D: {settings.freeze_d} of D's resolutions can't be frozen, at this "
            f"size it has {d_resolutions(settings)}"
        )
    store = open_store(str(settings.init_from), storage_options(settings))
    found = read_newest(store, decode)
    saved = found.saved
    if saved is None:
        if found.broken:
            raise StorageError(
                f"MRIGAN_INIT_FROM: no checkpoint there can be read: "
                f"{'; '.join(found.broken.values())}; use another run"
            )
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
    facts = InitialFacts(
        uri=store.uri, images_seen=saved.images_seen, sha256=str(saved.facts["sha256"])
    )
    try:
        check_weights_fit(saved.content, state)
    except CheckpointError as error:
        raise SettingsError(f"MRIGAN_INIT_FROM: {store.uri} {error}; use another run") from error
    weights = {name: saved.content[name] for name in _WEIGHTS}
    return Initial(facts=facts, trained_on=frozenset(_trained_on(store))), weights


def _trained_on(store: Store) -> Iterator[str]:
    for row in run_tree.read_rows(store, run_tree.MANIFEST):
        if row.get("status") == "used" and row.get("side", "training") == "training":
            yield str(row.get("sha256"))
