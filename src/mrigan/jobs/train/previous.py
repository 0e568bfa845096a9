"""What stands at OUTPUT_URI already, and whether this command may go on from it."""

from typing import Any, NamedTuple

from mrigan.artifacts import run_tree
from mrigan.artifacts.checkpoints import SavedCheckpoint, delete_after, newest_checkpoint
from mrigan.errors import DataError, SettingsError
from mrigan.settings.fields import Settings
from mrigan.settings.identity import differences, identity
from mrigan.storage.store import Store
from mrigan.training.checkpoint import REVISION


class Previous(NamedTuple):
    """An earlier start of the same run."""

    facts: dict[str, Any]  # settings.json
    status: dict[str, Any]  # status.json


def find_previous(store: Store, settings: Settings) -> Previous | None:
    """The run at ``store``, or None where none has begun.

    Raises:
        SettingsError: If it was begun with other settings, naming each.
    """
    facts = run_tree.read_json(store, run_tree.SETTINGS)
    if facts is None:
        return None
    theirs = facts.get("identity")
    if not isinstance(theirs, dict):
        raise SettingsError(
            f"{store.uri}/{run_tree.SETTINGS} was not written by this version of mrigan; choose "
            "another MRIGAN_OUTPUT_URI"
        )
    if facts.get("revision") != REVISION:
        raise SettingsError(
            f"{store.uri} holds a run that another version of mrigan began, whose networks and "
            "checkpoints differ from this one's: finish it with that version, or choose another "
            "MRIGAN_OUTPUT_URI"
        )
    if changed := differences(identity(settings), theirs):
        raise SettingsError(
            f"{store.uri} holds a run with other settings: {', '.join(changed)}; use those, or "
            "another MRIGAN_OUTPUT_URI"
        )
    return Previous(facts, run_tree.read_json(store, run_tree.STATUS) or {})


def check_same_slices(store: Store, previous: Previous, data: dict[str, Any]) -> None:
    """Refuse to go on with other slices: epochs and data order would mean something else.

    Raises:
        DataError: Saying how the two sets differ.
    """
    before = previous.facts.get("data", {})
    if before.get("fingerprint") == data["fingerprint"]:
        return
    raise DataError(
        f"the slices are not those this run began with ({before.get('slices')} then, "
        f"{data['slices']} now; {store.uri}/{run_tree.MANIFEST} lists the former): put them back, "
        "or choose another MRIGAN_OUTPUT_URI"
    )


def resume_point(store: Store) -> tuple[SavedCheckpoint | None, list[dict[str, Any]]]:
    """The checkpoint to go on from and the metrics rows up to it; what lies beyond is removed."""
    saved = newest_checkpoint(store)
    images_seen = saved.images_seen if saved else 0
    delete_after(store, images_seen)
    rows = run_tree.read_rows(store, run_tree.METRICS)
    return saved, [row for row in rows if row["images_seen"] <= images_seen]
