"""A run's files by name, over any store: what each key holds and how it is read back.

Names never change and zero-padded numbers keep lexical order the order of time.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from mrigan.errors import StorageError
from mrigan.storage.store import Store

STATUS = "status.json"
RUN = "run.json"
RUN_BEFORE = "settings.json"  # its name in earlier versions
MANIFEST = "data/manifest.jsonl"
METRICS = "metrics.jsonl"
REAL_GRID = "samples/real.png"
LOSSES_PLOT = "plots/losses.png"
REPORT = "report.html"
GENERATOR = "model/generator.safetensors"
GENERATOR_CONFIG = "model/config.json"
BEST = "model/best.safetensors"
BEST_CONFIG = "model/best.json"


JsonObject = dict[str, Any]  # as the json module has it; structs read their own from it


def sample_grid(epoch: int) -> str:
    """The key of the grid drawn after ``epoch``, from 1."""
    return f"samples/epoch-{epoch:04d}.png"


def has_run(store: Store) -> bool:
    """Whether a run was begun in ``store``."""
    return any(store.head(key) is not None for key in (RUN, RUN_BEFORE))


def read_json(store: Store, key: str) -> JsonObject | None:
    """The object at ``key``; None if there is none.

    Raises:
        StorageError: If what is there is not a JSON object.
    """
    if store.head(key) is None:
        return None
    try:
        value = json.loads(store.get(key))
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise StorageError(
            f"{store.uri}/{key}: not the JSON that a run writes there; choose another "
            "MRIGAN_OUTPUT_URI, or remove the file"
        )
    return value


def write_json(store: Store, key: str, value: Mapping[str, object]) -> None:
    """Put ``value`` at ``key``, for people and programs alike."""
    store.put(key, (json.dumps(value, indent=2) + "\n").encode())


def read_rows(store: Store, key: str) -> list[JsonObject]:
    """The JSON lines at ``key``, none if it is absent; a torn last line is left out."""
    if store.head(key) is None:
        return []
    rows = []
    for line in store.get(key).decode(errors="replace").splitlines():
        try:
            rows.append(json.loads(line))
        except ValueError:
            break
    return rows


def encode_rows(rows: Sequence[Mapping[str, object]]) -> bytes:
    """JSON lines."""
    return "".join(json.dumps(row) + "\n" for row in rows).encode()
