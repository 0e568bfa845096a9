"""Which of a run's objects to download, and what their bytes must be.

Tensors come with the JSON that holds their sha256 (``checkpoints/N.json``, ``model/config.json``).
The JSON is written last, as in the run, so that its presence means that the tensors are complete.
"""

import logging
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from mrigan.artifacts import lease, run_tree
from mrigan.documents import DocumentError, parse_object
from mrigan.errors import SettingsError, StorageError
from mrigan.sagemaker.contract import PLATFORM_FOLDER
from mrigan.storage.keys import key_problem
from mrigan.storage.store import ObjectInfo, Store

log = logging.getLogger(__name__)

PARTS = ("samples", "plots", "model", "checkpoints")
_ALWAYS = {
    run_tree.STATUS,
    run_tree.RUN,
    run_tree.RUN_BEFORE,
    run_tree.METRICS,
    run_tree.REPORT,
    run_tree.PRIVACY,  # without it `mrigan generate` would not know of a flag
}
_SHOWN = 5
_SHA256 = re.compile(r"[0-9a-f]{64}")
_RECORDS = {
    run_tree.GENERATOR: run_tree.GENERATOR_CONFIG,
    run_tree.BEST: run_tree.BEST_CONFIG,
}


@dataclass(frozen=True)
class Record:
    """The JSON that holds an object's sha256."""

    key: str
    body: bytes
    sha256: str


@dataclass(frozen=True)
class Item:
    """One object to download, and its record, which is then written beside it."""

    info: ObjectInfo
    record: Record | None = None

    @property
    def sha256(self) -> str:
        """What the bytes must have; "" if only the store can verify them."""
        return self.record.sha256 if self.record else ""

    @property
    def files(self) -> int:
        """How many files it becomes."""
        return 2 if self.record else 1


@dataclass(frozen=True)
class Selection:
    """What to download, and the keys that are incomplete in the run."""

    items: tuple[Item, ...]
    skipped: tuple[str, ...]

    @property
    def size_bytes(self) -> int:
        """Of all items, without their records."""
        return sum(item.info.size_bytes for item in self.items)


def parse_parts(text: str) -> frozenset[str]:
    """Read ``samples,model``; the result of "" is empty, which means everything.

    Raises:
        SettingsError: A name that is no part of a run.
    """
    names = [name.strip() for name in text.split(",") if name.strip()]
    if unknown := [name for name in names if name not in PARTS]:
        raise SettingsError(
            f"--only: {', '.join(unknown)} is no part of a run; choose among {','.join(PARTS)}"
        )
    return frozenset(names)


def select_artifacts(store: Store, only: frozenset[str]) -> Selection:
    """List the run and choose; an empty ``only`` means everything.

    Raises:
        StorageError: There is no run.
    """
    found = store.list()
    if all(info.key != run_tree.STATUS for info in found):
        raise _no_run(store, found)
    wanted = {info.key: info for info in found if _is_wanted(info.key, only)}
    items, skipped = [], []
    for key in [key for key in wanted if key_problem(key, is_s3=False)]:
        del wanted[key]
        skipped.append(key)
        reason = key_problem(key, is_s3=False)
        log.warning("artifact_skipped", extra={"key": key, "reason": reason})
    pairs = [(key, _record_key(key)) for key in wanted if _record_key(key)]
    for key, record_key in pairs:
        info = wanted.pop(key)
        record = read_record(store, record_key) if wanted.pop(record_key, None) else None
        if record:
            items.append(Item(info, record))
        else:
            skipped.append(key)
            log.warning(
                "artifact_skipped", extra={"key": key, "reason": f"no sha256 in {record_key}"}
            )
    for key in [key for key in wanted if _is_record(key)]:
        skipped.append(key)
        del wanted[key]
        log.warning(
            "artifact_skipped", extra={"key": key, "reason": "the file it describes is missing"}
        )
    items += [Item(info) for info in wanted.values()]
    return Selection(tuple(items), tuple(skipped))


def read_record(store: Store, key: str) -> Record | None:
    """Return the record as it is now; None if it is gone or holds no sha256."""
    if store.head(key) is None:
        return None
    body = store.get(key)
    try:
        sha256 = parse_object(body).get("sha256")
    except DocumentError:
        return None
    if not isinstance(sha256, str) or not _SHA256.fullmatch(sha256):
        return None
    return Record(key, body, sha256)


def _is_wanted(key: str, only: frozenset[str]) -> bool:
    top, slash, name = key.partition("/")
    if top in (PLATFORM_FOLDER, lease.FOLDER):  # the same files again, and no file of the run
        return False
    if not slash:
        return key in _ALWAYS or (not only and not key.startswith("."))
    return bool(name) and not key.endswith("/") and (not only or top in only)


def _record_key(key: str) -> str:
    """The key of the record of ``key``; "" if there is none."""
    if key in _RECORDS:
        return _RECORDS[key]
    if key.startswith("checkpoints/") and key.endswith(".pt"):
        return f"{key.removesuffix('.pt')}.json"
    return ""


def _is_record(key: str) -> bool:
    return key in _RECORDS.values() or (key.startswith("checkpoints/") and key.endswith(".json"))


def _no_run(store: Store, found: Sequence[ObjectInfo]) -> StorageError:
    suffix = f"/{run_tree.STATUS}"
    runs = [info.key.removesuffix(suffix) for info in found if info.key.endswith(suffix)]
    if runs:
        rest = f"there are runs below it: {_some(runs)}; name one of them"
    elif found:
        keys = _some(info.key for info in found)
        rest = f"there is: {keys}; name the OUTPUT_URI of a training"
    else:
        rest = "there is nothing; name the OUTPUT_URI of a training"
    return StorageError(f"{store.uri} holds no run (no {run_tree.STATUS}): {rest}")


def _some(keys: Iterable[str]) -> str:
    names = list(keys)
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
