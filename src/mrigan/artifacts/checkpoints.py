"""Checkpoints in a store: a file of tensors and the JSON that vouches for it.

The tensors go first and the JSON, with their sha256, last: its presence means complete. A reader
believes only a pair that verifies, newest first, and falls back past the others.
"""

import hashlib
import json
import logging
from typing import NamedTuple

from mrigan.artifacts.run_tree import JsonObject
from mrigan.errors import AlreadyExistsError, LeaseError
from mrigan.storage.store import Store

log = logging.getLogger(__name__)

FOLDER = "checkpoints"


class SavedCheckpoint(NamedTuple):
    """A pair that verified."""

    images_seen: int
    facts: JsonObject
    data: bytes


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


def newest_checkpoint(store: Store) -> SavedCheckpoint | None:
    """The newest pair that verifies; broken ones are warned of and passed over."""
    for images_seen in reversed(list_checkpoints(store)):
        facts = _read_facts(store, checkpoint_key(images_seen, "json"))
        key = checkpoint_key(images_seen, "pt")
        if facts is None or store.head(key) is None:
            log.warning("checkpoint_incomplete", extra={"key": key})
            continue
        data = store.get(key)
        if hashlib.sha256(data).hexdigest() == facts.get("sha256"):
            return SavedCheckpoint(images_seen, facts, data)
        log.warning("checkpoint_broken", extra={"key": key, "reason": "its sha256 differs"})
    return None


def list_checkpoints(store: Store) -> list[int]:
    """``images_seen`` of every checkpoint that says it is complete, oldest first."""
    return _list(store, "json")


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


def delete_after(store: Store, images_seen: int) -> None:
    """Remove what lies beyond the checkpoint that a run resumes from: it is about to be redone."""
    for later in _list(store, "json", "pt"):
        if later > images_seen:
            delete_checkpoint(store, later)


def _list(store: Store, *suffixes: str) -> list[int]:
    """The numbers of files with one of ``suffixes``, ascending."""
    keys = [info.key.removeprefix(f"{FOLDER}/") for info in store.list(FOLDER)]
    parts = [key.rpartition(".") for key in keys]
    return sorted(
        {int(stem) for stem, _, suffix in parts if suffix in suffixes and stem.isdecimal()}
    )


def _read_facts(store: Store, key: str) -> JsonObject | None:
    if store.head(key) is None:
        return None
    try:
        facts = json.loads(store.get(key))
    except ValueError:
        return None
    return facts if isinstance(facts, dict) else None


def _taken(store: Store, key: str) -> LeaseError:
    return LeaseError(
        f"{store.uri}/{key}: another run has written other weights there; two jobs share one "
        "MRIGAN_OUTPUT_URI: stop one of them"
    )
