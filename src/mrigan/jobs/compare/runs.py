"""What is compared of a run, read from what it has published."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mrigan.artifacts import run_tree
from mrigan.artifacts.history import EpochRow, read_rows
from mrigan.artifacts.run_facts import RunFacts, read_run_facts
from mrigan.artifacts.run_status import RunStatus, read_status
from mrigan.errors import StorageError
from mrigan.storage.store import Store, StoreOptions, open_store
from mrigan.training.checkpoint import REVISION


@dataclass(frozen=True, kw_only=True)
class ComparedRun:
    """One run.

    Attributes:
        name: The shortest end of its URI that no other run has.
        store: That it is in.
        facts: Of run.json.
        status: Of status.json.
        rows: Of metrics.jsonl, one at least.
        evaluation: evaluation/metrics.json, or nothing.
        privacy: evaluation/privacy.json, or nothing.
    """

    name: str
    store: Store
    facts: RunFacts
    status: RunStatus
    rows: Sequence[EpochRow]
    evaluation: Mapping[str, Any]
    privacy: Mapping[str, Any]

    @property
    def images_seen(self) -> int:
        """At its last row."""
        return self.rows[-1].images_seen

    @property
    def seconds(self) -> float:
        """That its epochs took."""
        return sum(row.seconds for row in self.rows)


def read_runs(uris: Sequence[str], options: StoreOptions) -> list[ComparedRun]:
    """Read the runs at ``uris``; changes nothing there.

    Raises:
        StorageError: There is no run at one of them, or it has not finished an epoch.
        SettingsError: A run is of another version.
    """
    return [
        _read(open_store(uri, options), name)
        for uri, name in zip(uris, short_names(uris), strict=True)
    ]


def short_names(uris: Sequence[str]) -> list[str]:
    """The shortest ends of URIs by which they differ, by whole parts of a path."""
    parts = [uri.rstrip("/").split("/") for uri in uris]
    for count in range(1, max(map(len, parts)) + 1):
        names = ["/".join(each[-count:]) for each in parts]
        if len(set(names)) == len(names):
            return names
    return list(uris)


def _read(store: Store, name: str) -> ComparedRun:
    facts, status = read_run_facts(store, REVISION), read_status(store)
    if facts is None or status is None:
        raise StorageError(f"{store.uri}: no run is there; name the OUTPUT_URI of one")
    rows = read_rows(store)
    if not rows:
        raise StorageError(f"{store.uri}: this run has not finished an epoch yet; wait for it")
    return ComparedRun(
        name=name,
        store=store,
        facts=facts,
        status=status,
        rows=rows,
        evaluation=run_tree.read_json(store, run_tree.EVALUATION) or {},
        privacy=run_tree.read_json(store, run_tree.PRIVACY) or {},
    )
