"""A run's files by name, over any store: what each key holds and how it is read back.

Names never change and zero-padded numbers keep lexical order the order of time.
"""

import json
import logging
import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from mrigan.documents import MAX_BYTES, MAX_ROWS_BYTES, DocumentError, parse_object
from mrigan.errors import UnreadableError
from mrigan.storage.store import Store

log = logging.getLogger(__name__)

T = TypeVar("T")

STATUS = "status.json"
RUN = "run.json"
RUN_BEFORE = "settings.json"  # its name in earlier versions
MANIFEST = "data/manifest.jsonl"
METRICS = "metrics.jsonl"
REAL_GRID = "samples/real.png"
LOSSES_PLOT = "plots/losses.png"
REPORT = "report.html"
CARD = "model/README.md"
GENERATOR = "model/generator.safetensors"
GENERATOR_CONFIG = "model/config.json"
BEST = "model/best.safetensors"
BEST_CONFIG = "model/best.json"
EVALUATION = "evaluation/metrics.json"
PRIVACY = "evaluation/privacy.json"
EVALUATION_TABLE = "evaluation/evaluation.md"
CLOSEST = "evaluation/closest.png"
TENSORBOARD = "tensorboard"  # a folder of event files
TRACKERS = "trackers.json"  # what each tracker calls the run


JsonObject = dict[str, Any]  # as the json module has it; structs read their own from it


_ARTIFACT = re.compile(
    r"(status|run|trackers)\.json|metrics\.jsonl|report\.html|data/manifest\.jsonl|plots/losses\.png"
    r"|samples/(real|epoch-\d+)\.png|model/[a-z]+\.(safetensors|json)|model/README\.md"
    r"|checkpoints/(unverified/)?\d+\.(pt|json)|lease/\d+\.json"
    r"|tensorboard/events\.out\.tfevents\.[\w.]+"
    r"|evaluation/(metrics|privacy)\.json|evaluation/(evaluation\.md|closest\.png)"
)


def is_artifact(key: str) -> bool:
    """Whether a run writes an object of this key."""
    return _ARTIFACT.fullmatch(key) is not None


def sample_grid(epoch: int) -> str:
    """The key of the grid drawn after ``epoch``, from 1."""
    return f"samples/epoch-{epoch:04d}.png"


def has_run(store: Store) -> bool:
    """Whether a run was begun in ``store``."""
    return any(store.head(key) is not None for key in (RUN, RUN_BEFORE))


def read_json(store: Store, key: str) -> JsonObject | None:
    """The object at ``key``; None if there is none.

    Raises:
        UnreadableError: What is there is not a JSON object, or not one of ours.
    """
    found = store.head(key)
    if found is None:
        return None
    try:
        if found.size_bytes > MAX_BYTES:
            raise DocumentError(f"has {found.size_bytes:,} bytes; {MAX_BYTES:,} is the limit")
        return parse_object(store.get(key))
    except DocumentError as error:
        raise UnreadableError(
            f"{store.uri}/{key}: not the JSON that a run writes there: it {error}; choose another "
            "MRIGAN_OUTPUT_URI, or remove the file"
        ) from None


def read_derived(store: Store, key: str, adapter: TypeAdapter[T]) -> T | None:
    """What is at ``key``, of the kind of ``adapter``; None if there is none, or nothing readable.

    For what a run writes again anyway: then a warning says that it is not used.
    """
    try:
        found = read_json(store, key)
        return None if found is None else adapter.validate_python(found)
    except UnreadableError as error:
        reason = str(error).split(": ", 1)[-1].split(";")[0]
    except ValidationError as error:
        reason = what_is_wrong(error)
    log.warning("unreadable", extra={"key": key, "reason": reason, "effect": "written again"})
    return None


def what_is_wrong(error: ValidationError) -> str:
    """The first thing that a validation has found, in a few words."""
    first = error.errors(include_url=False, include_input=False)[0]
    place = ".".join(str(part) for part in first["loc"])[:100]
    return f"{place}: {first['msg']}" if place else str(first["msg"])


def write_json(store: Store, key: str, value: Mapping[str, object]) -> None:
    """Put ``value`` at ``key``, for people and programs alike."""
    store.put(key, (json.dumps(value, indent=2) + "\n").encode())


def read_rows(store: Store, key: str) -> list[JsonObject]:
    """The JSON lines at ``key``, as ``read_rows_and_flaw`` gives them."""
    return read_rows_and_flaw(store, key)[0]


def read_rows_and_flaw(store: Store, key: str) -> tuple[list[JsonObject], str]:
    """The JSON lines at ``key`` up to a bad one, none if it is absent, and what is wrong with that.

    A bad line at the very end is torn and no flaw.

    Raises:
        StorageError: It can't be read, or is larger than 1 GiB.
    """
    found = store.head(key)
    if found is None:
        return [], ""
    if found.size_bytes > MAX_ROWS_BYTES:
        raise UnreadableError(
            f"{store.uri}/{key}: has {found.size_bytes:,} bytes, more than a run writes; choose "
            "another MRIGAN_OUTPUT_URI, or remove the file"
        )
    rows: list[JsonObject] = []
    lines = store.get(key).splitlines()
    for number, line in enumerate(lines, 1):
        try:
            rows.append(parse_object(line))
        except DocumentError as error:
            return rows, f"line {number} {error}" if number < len(lines) else ""
    return rows, ""


def encode_rows(rows: Sequence[Mapping[str, object]]) -> bytes:
    """JSON lines."""
    return "".join(json.dumps(row) + "\n" for row in rows).encode()
