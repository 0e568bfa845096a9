"""What a run could not publish: kept in a local folder, published from there later.

The folder holds the artifacts by the keys that they have in the run, and a record that names the
run; the record is written last.
"""

import re
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from mrigan.artifacts import run_tree
from mrigan.artifacts.checkpoints import (
    FOLDER,
    checkpoint_key,
    delete_after,
    keep_newest,
    list_checkpoints,
    publish_checkpoint,
)
from mrigan.artifacts.run_status import now
from mrigan.errors import StorageError
from mrigan.storage.store import Store

RECORD = "unpublished.json"


@dataclass(frozen=True, kw_only=True)
class Unpublished:
    """Of which run a folder keeps what.

    Attributes:
        uri: The run's.
        identity: Of the run, as run.json has it.
        reason: Why it could not be published.
        rolled_back_to: ``images_seen`` beyond which the run's own checkpoints are of a rolled-back
            attempt; None without a rollback.
        keep_checkpoints: How many the run keeps.
        since: When it was kept; ISO 8601.
    """

    uri: str
    identity: run_tree.JsonObject
    reason: str
    rolled_back_to: int | None
    keep_checkpoints: int
    since: str


_ADAPTER = TypeAdapter(Unpublished)


def new_folder(parent: Path, uri: str) -> Path:
    """Name a folder that is not there yet, below ``parent``, after the run at ``uri``."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", uri.rstrip("/").rpartition("/")[2]).strip("-.") or "run"
    stamp = now().replace(":", "")
    tried = [f"{name}-{stamp}", *(f"{name}-{stamp}-{number}" for number in range(2, 1000))]
    return next(parent / each for each in tried if not (parent / each).exists())


def write_record(kept: Store, record: Unpublished) -> None:
    """Say whose artifacts ``kept`` holds: it is complete."""
    run_tree.write_json(kept, RECORD, asdict(record))


def read_record(kept: Store) -> Unpublished:
    """Whose artifacts ``kept`` holds.

    Raises:
        StorageError: It holds none.
    """
    found = run_tree.read_json(kept, RECORD)
    if found is None:
        raise StorageError(
            f"{kept.uri}: keeps nothing to publish (it has no {RECORD}); give the folder that the "
            "job named when it ended"
        )
    try:
        return _ADAPTER.validate_python(found)
    except ValidationError:
        raise StorageError(
            f"{kept.uri}/{RECORD}: not what mrigan writes there; give the folder that the job "
            "named when it ended"
        ) from None


def publish_kept(kept: Store, run: Store, record: Unpublished) -> int:
    """Write what ``kept`` holds to the run; may be repeated after an interruption.

    Returns:
        How many objects.

    Raises:
        StorageError: The run has gone on meanwhile, or is another one, or a store failed.
    """
    _check_same_run(run, record)
    _check_not_behind(kept, run, record)
    keys = [info.key for info in kept.list() if info.key not in (RECORD, run_tree.STATUS)]
    others = [key for key in keys if not key.startswith(f"{FOLDER}/")]
    # What vouches for another object comes after it.
    for key in sorted(others, key=lambda key: (key.endswith(".json"), key)):
        run.put(key, kept.get(key))
    numbers = list_checkpoints(kept)
    for number in numbers:
        data = kept.get(checkpoint_key(number, "pt"))
        facts = run_tree.read_json(kept, checkpoint_key(number, "json")) or {}
        publish_checkpoint(run, number, data, facts)
    if numbers:
        if record.rolled_back_to is not None:
            delete_after(run, record.rolled_back_to, keep=numbers[-1])
        keep_newest(run, record.keep_checkpoints)
    run.put(run_tree.STATUS, kept.get(run_tree.STATUS))
    return len(others) + 2 * len(numbers) + 1


def remove_kept(folder: Path) -> None:
    """Remove what is published now, the record first: half a folder is none."""
    (folder / RECORD).unlink()
    shutil.rmtree(folder)


def _check_same_run(run: Store, record: Unpublished) -> None:
    found = run_tree.read_json(run, run_tree.RUN)
    if found is not None and found.get("identity") != record.identity:
        raise StorageError(
            f"{run.uri}: another run is there now; nothing was published: choose the run's own "
            "place with --to"
        )


def _check_not_behind(kept: Store, run: Store, record: Unpublished) -> None:
    """Refuse to put an older state in the place of a newer one."""
    point = record.rolled_back_to
    theirs = [each for each in list_checkpoints(run) if point is None or each <= point]
    ours = list_checkpoints(kept)
    if theirs and theirs[-1] > (ours[-1] if ours else -1):
        raise StorageError(
            f"{run.uri}: the run has gone on to {theirs[-1]:,} images meanwhile, beyond what "
            f"{kept.uri} keeps; nothing was published"
        )
