"""Checkpoints in a store: a file of tensors and the JSON that vouches for it.

The tensors go first and the JSON, with their sha256, last: its presence means complete. A reader
believes only a pair that verifies, newest first. One that does not, however often it is read, may
still be whole: it is set aside, never deleted.
"""

import hashlib
import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from mrigan.artifacts import run_tree
from mrigan.artifacts.run_tree import JsonObject
from mrigan.errors import (
    AlreadyExistsError,
    CheckpointError,
    DamagedError,
    LeaseError,
    UnreadableError,
)
from mrigan.storage.store import Store

log = logging.getLogger(__name__)

FOLDER = "checkpoints"


ASIDE = f"{FOLDER}/unverified"
T = TypeVar("T")


@dataclass(frozen=True)
class SavedCheckpoint(Generic[T]):
    """A pair that verified, decoded."""

    images_seen: int
    facts: JsonObject
    content: T


@dataclass(frozen=True)
class Found(Generic[T]):
    """The newest checkpoint that verified, and why each newer one did not."""

    saved: SavedCheckpoint[T] | None
    broken: Mapping[int, str]


def checkpoint_key(images_seen: int, suffix: str) -> str:
    """``checkpoints/000512000.pt`` and its ``.json``."""
    return f"{FOLDER}/{images_seen:09d}.{suffix}"


def publish_checkpoint(store: Store, images_seen: int, data: bytes, facts: JsonObject) -> None:
    """Write the pair; the same pair again is fine.

    Raises:
        LeaseError: Another job has just written other weights under this name.
        StorageError: The store failed.
    """
    sha256 = hashlib.sha256(data).hexdigest()
    facts = {"images_seen": images_seen, "sha256": sha256, "size_bytes": len(data), **facts}
    key = checkpoint_key(images_seen, "json")
    if (found := _read_facts(store, key)) is not None:
        if found.get("sha256") == sha256:
            return
        raise _taken(store, key)
    store.put(checkpoint_key(images_seen, "pt"), data)
    try:
        store.put(key, (json.dumps(facts, indent=2) + "\n").encode(), create=True)
    except AlreadyExistsError:
        # After a retry on the network it may be our own.
        if (_read_facts(store, key) or {}).get("sha256") != sha256:
            raise _taken(store, key) from None


def read_newest(store: Store, decode: Callable[[bytes], T]) -> Found[T]:
    """Read checkpoints, newest first, up to one that verifies and can be decoded; changes nothing.

    Args:
        store: The run.
        decode: From a file's bytes; raises CheckpointError where it refuses them.

    Raises:
        StorageError: The store failed, or gave other bytes each time: what is stored may well be
            whole, so no older one is taken in its place.
    """
    broken: dict[int, str] = {}
    for images_seen in reversed(list_checkpoints(store)):
        try:
            facts, data = _read_verified(store, images_seen)
            content = _decoded(store, images_seen, data, decode)
        except CheckpointError as error:
            broken[images_seen] = str(error)
            log.warning("checkpoint_unreadable", extra={"reason": str(error)})
            continue
        return Found(SavedCheckpoint(images_seen, facts, content), broken)
    lone = list_incomplete(store)
    if len(lone) > 1:  # a kill leaves one at most: somebody has removed their JSON
        uri = f"{store.uri}/{FOLDER}"
        broken |= {number: f"{uri}/{number:09d}.pt: its .json is missing" for number in lone}
    return Found(None, broken)


def _read_verified(store: Store, images_seen: int) -> tuple[JsonObject, bytes]:
    """Return the facts of a pair and the bytes that they vouch for.

    Raises:
        CheckpointError: There are no such bytes, naming the object.
    """
    key = checkpoint_key(images_seen, "json")
    facts = _read_facts(store, key) or {}
    sha256 = facts.get("sha256")
    is_this = facts.get("images_seen") == images_seen
    if not (isinstance(sha256, str) and is_this and isinstance(facts.get("settings", {}), dict)):
        raise CheckpointError(f"{store.uri}/{key}: not the JSON of a checkpoint")
    key = checkpoint_key(images_seen, "pt")
    if store.head(key) is None:
        raise CheckpointError(f"{store.uri}/{key}: is missing")
    try:
        return facts, store.get(key, sha256=sha256)
    except DamagedError as error:
        if error.is_passing:
            raise
        raise CheckpointError(str(error)) from error


def _decoded(store: Store, images_seen: int, data: bytes, decode: Callable[[bytes], T]) -> T:
    try:
        return decode(data)
    except CheckpointError as error:
        key = checkpoint_key(images_seen, "pt")
        raise CheckpointError(f"{store.uri}/{key}: {error}") from error


def set_aside(store: Store, images_seen: int) -> None:
    """Move what there is of a pair out of the way; the JSON goes first, so no half is believed.

    Raises:
        StorageError: The store failed.
    """
    for suffix in ("json", "pt"):
        key = checkpoint_key(images_seen, suffix)
        if store.head(key) is not None:
            aside = f"{ASIDE}/{key.removeprefix(f'{FOLDER}/')}"
            store.move(key, aside)
            log.warning("set_aside", extra={"key": key, "to": aside})


def list_checkpoints(store: Store) -> list[int]:
    """``images_seen`` of every checkpoint that says it is complete, oldest first."""
    return _list(store, "json")


def list_incomplete(store: Store) -> list[int]:
    """``images_seen`` of tensors without the JSON that vouches for them, oldest first."""
    return sorted({*_list(store, "pt")} - {*list_checkpoints(store)})


def delete_checkpoint(store: Store, images_seen: int) -> None:
    """Remove a pair, the JSON first: what is left at any moment is not believed."""
    store.delete(checkpoint_key(images_seen, "json"))
    store.delete(checkpoint_key(images_seen, "pt"))


def keep_newest(store: Store, keep: int) -> None:
    """Remove all but the ``keep`` newest checkpoints, and what older ones have left half done."""
    kept = list_checkpoints(store)[-keep:]
    for images_seen in _list(store, "json", "pt"):
        if images_seen not in kept and images_seen < max(kept):
            delete_checkpoint(store, images_seen)


def delete_after(store: Store, images_seen: int, *, keep: int | None = None) -> None:
    """Remove what lies beyond the point from which a run is about to be redone, or has been.

    Args:
        store: The run.
        images_seen: That point.
        keep: The ``images_seen`` of one that stays.
    """
    for later in _list(store, "json", "pt"):
        if later > images_seen and later != keep:
            delete_checkpoint(store, later)


def _list(store: Store, *suffixes: str) -> list[int]:
    """The numbers of files with one of ``suffixes``, ascending."""
    keys = [info.key.removeprefix(f"{FOLDER}/") for info in store.list(FOLDER)]
    parts = [key.rpartition(".") for key in keys]
    return sorted(
        {int(stem) for stem, _, suffix in parts if suffix in suffixes and stem.isdecimal()}
    )


def _read_facts(store: Store, key: str) -> JsonObject | None:
    try:
        return run_tree.read_json(store, key)
    except UnreadableError:
        return None


def _taken(store: Store, key: str) -> LeaseError:
    return LeaseError(
        f"{store.uri}/{key}: another run has written other weights there; two jobs share one "
        "MRIGAN_OUTPUT_URI: stop one of them"
    )
