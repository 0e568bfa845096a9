"""run.json: what a run is, written when its output is claimed and at each later start."""

import platform
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import Any

import torch
from pydantic import TypeAdapter, ValidationError

from mrigan.artifacts import run_tree
from mrigan.errors import SettingsError
from mrigan.runtime.device import Hardware
from mrigan.storage.store import Store

# Settings that earlier versions left open where the model decides.
_SETTINGS_BEFORE = {"beta2": "schedule", "ema_images": "schedule", "freeze_d": 0}


@dataclass(frozen=True, kw_only=True)
class DataFacts:
    """The slices of a run."""

    slices: int
    training: int
    holdout: int
    fingerprint: str  # of keys, pixels, H, W and fit


@dataclass(frozen=True, kw_only=True)
class MachineFacts:
    """What computes, as people name it."""

    device: str
    device_name: str
    precision: str
    platform: str
    ranks: int


@dataclass(frozen=True, kw_only=True)
class InitialFacts:
    """The checkpoint of another run that this one started from."""

    uri: str
    images_seen: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class RunFacts:
    """What a run is.

    Attributes:
        settings: Every resolved setting; never a credential.
        identity: Those on which a resume must agree.
        revision: Of the networks and of what a checkpoint holds.
        data: Its slices.
        machine: Of the last start.
        versions: Of the packages that can change a number, at the last start.
        initial: Where its first weights are from; None where they are from its seed.
    """

    settings: Mapping[str, Any]  # as JSON, of whatever version wrote it
    identity: Mapping[str, Any]
    revision: int
    data: DataFacts
    machine: MachineFacts
    versions: Mapping[str, str]
    initial: InitialFacts | None = None

    def to_json(self) -> run_tree.JsonObject:
        """One object, nested as here."""
        facts = asdict(self)
        if self.initial is None:
            del facts["initial"]
        return facts


_ADAPTER = TypeAdapter(RunFacts)


def read_run_facts(store: Store, revision: int) -> RunFacts | None:
    """What is known of the run in ``store``; None where none has begun.

    Raises:
        SettingsError: The run is of another version, whose ``revision`` differs.
    """
    found = run_tree.read_json(store, run_tree.RUN)
    name = run_tree.RUN
    if found is None:
        found, name = run_tree.read_json(store, run_tree.RUN_BEFORE), run_tree.RUN_BEFORE
    if found is None:
        return None
    if not isinstance(found.get("identity"), dict):
        raise SettingsError(
            f"{store.uri}/{name} was not written by this version of mrigan; choose another "
            "MRIGAN_OUTPUT_URI"
        )
    if found.get("revision") != revision:
        raise SettingsError(
            f"{store.uri} holds a run that another version of mrigan began, whose networks and "
            "checkpoints differ from this one's: finish it with that version, or choose another "
            "MRIGAN_OUTPUT_URI"
        )
    try:
        facts = _ADAPTER.validate_python({**found, "identity": _completed(found["identity"])})
    except ValidationError as error:
        place = ".".join(str(part) for part in error.errors()[0]["loc"])
        raise SettingsError(
            f"{store.uri}/{name}: {place} is not what this version of mrigan writes there; choose "
            "another MRIGAN_OUTPUT_URI"
        ) from None
    return facts


def _completed(identity: Mapping[str, Any]) -> run_tree.JsonObject:
    """The identity with what earlier versions left open."""
    return {
        name: _SETTINGS_BEFORE[name] if value is None and name in _SETTINGS_BEFORE else value
        for name, value in identity.items()
    }


def versions() -> dict[str, str]:
    """The versions that can change a number."""
    ours = {name: version(name) for name in ("mrigan", "numpy", "pillow", "obstore")}
    return {**ours, "torch": torch.__version__, "python": platform.python_version()}


def machine_facts(hardware: Hardware, ranks: int) -> MachineFacts:
    """Device and precision, as people name them."""
    return MachineFacts(
        device=hardware.device.type,
        device_name=hardware.name,
        precision=hardware.precision,
        platform=f"{sys.platform} {platform.machine()}",
        ranks=ranks,
    )
