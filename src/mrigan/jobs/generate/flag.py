"""Keeps slices from being drawn unnoticed that may repeat slices of a patient."""

from mrigan.artifacts import run_tree
from mrigan.errors import SettingsError
from mrigan.jobs.drawing import Drawing
from mrigan.storage.store import open_store


def check_flag(drawing: Drawing) -> None:
    """Refuse a run that `mrigan evaluate` has flagged.

    Of whichever generator of the run: the others learned from the same slices.

    Raises:
        SettingsError: It is flagged; names the first reason.
        StorageError: The run can't be read.
    """
    store = open_store(drawing.run, drawing.options)
    found = run_tree.read_json(store, run_tree.PRIVACY)
    if found is None or found.get("verdict") != "FLAG":
        return
    reasons = found.get("reasons")
    reason = reasons[0] if isinstance(reasons, list) and reasons else "it gives no reason"
    raise SettingsError(
        f"{store.uri}: the privacy check has flagged this run ({reason!s:.200}); look at "
        f"{run_tree.CLOSEST} there, and add --yes to draw all the same"
    )
