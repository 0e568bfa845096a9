"""The rows of metrics.jsonl: one for each epoch, with a score where its fakes were scored."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from functools import cache
from typing import Annotated, Any, NamedTuple, Self, cast

from pydantic import Field, TypeAdapter, ValidationError

from mrigan.artifacts import run_tree
from mrigan.storage.store import Store

log = logging.getLogger(__name__)

UNREADABLE = "metrics.unreadable.jsonl"
_ALARMS_BEFORE = "events"  # what rows of earlier versions call their alarms


@dataclass(frozen=True, kw_only=True)
class Score:
    """How fakes compare with real slices."""

    swd: float  # sliced-Wasserstein distance, averaged over the levels of a pyramid
    swd_floor: float  # that of other real slices
    swd_against: str  # side the reals are of: holdout, or training where nothing is held out
    kid: float | None = None  # kernel distance of features; None in runs of earlier versions
    kid_floor: float | None = None  # that of other real slices
    coverage: float | None = None  # share of reals near a fake; None where there are too few reals
    spread: float  # of the fakes, as a share of the reals'
    duplicates: float  # share of the fakes that are near copies of others
    score_seconds: float


@dataclass(frozen=True, kw_only=True)
class EpochRow:
    """What one epoch came to."""

    epoch: Annotated[int, Field(ge=1, lt=2**63)]  # from 1
    images_seen: Annotated[int, Field(ge=0, lt=2**63)]  # at its end
    means: Mapping[str, float]  # losses and scores of D, over the epoch's images
    augment_p: float | None = None  # probability of each augmentation from here on
    seconds: float
    images_per_second: float
    memory: Mapping[str, float] = field(default_factory=dict)
    score: Score | None = None
    alarms: tuple[str, ...] = ()

    def value(self, key: str) -> float | None:
        """A mean, or ``augment_p``, by its name in the JSON."""
        return self.augment_p if key == "augment_p" else self.means.get(key)

    def to_json(self) -> run_tree.JsonObject:
        """One flat object."""
        score = asdict(self.score) if self.score else {}
        return {
            "epoch": self.epoch,
            "images_seen": self.images_seen,
            **self.means,
            **({} if self.augment_p is None else {"augment_p": self.augment_p}),
            "seconds": self.seconds,
            "images_per_second": self.images_per_second,
            **self.memory,
            **{name: value for name, value in score.items() if value is not None},
            **({"alarms": list(self.alarms)} if self.alarms else {}),
        }

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Self:
        """Read what ``to_json`` wrote, also in earlier versions."""
        left = dict(row)
        alarms = left.pop("alarms", left.pop(_ALARMS_BEFORE, ()))
        score = {each.name: left.pop(each.name) for each in fields(Score) if each.name in left}
        memory = {name: left.pop(name) for name in list(left) if name in _MEMORY}
        own = {name: left.pop(name) for name in _OWN if name in left}
        row = {**own, "means": left, "memory": memory, "alarms": alarms}
        whole = {**row, "score": score if "swd" in score else None}
        return cast("Self", _adapter().validate_python(whole))


@cache
def _adapter() -> TypeAdapter[EpochRow]:
    return TypeAdapter(EpochRow)


_OWN = ("epoch", "images_seen", "augment_p", "seconds", "images_per_second")
_MEMORY = ("peak_allocated_mib", "peak_reserved_mib", "fragmentation", "peak_rss_mib")


class Scored(NamedTuple):
    """A row that has a score."""

    row: EpochRow
    score: Score


def scored(rows: Sequence[EpochRow]) -> list[Scored]:
    """The rows whose fakes were scored."""
    return [Scored(row, row.score) for row in rows if row.score is not None]


def read_history(store: Store) -> list[EpochRow]:
    """The rows that a run has published, up to the first that can't be read.

    Then the file is kept beside, since the run writes its rows anew. A torn last line is left out.
    """
    rows, reason = _rows_and_flaw(store)
    if reason:
        facts = {"key": run_tree.METRICS, "reason": reason, "rows": len(rows), "to": UNREADABLE}
        log.warning("unreadable", extra=facts)
        store.move(run_tree.METRICS, UNREADABLE)
    return rows


def read_rows(store: Store) -> list[EpochRow]:
    """The same rows, for whoever only looks: the file stays where it is."""
    return _rows_and_flaw(store)[0]


def _rows_and_flaw(store: Store) -> tuple[list[EpochRow], str]:
    lines, reason = run_tree.read_rows_and_flaw(store, run_tree.METRICS)
    rows: list[EpochRow] = []
    for line in lines:
        try:
            rows.append(EpochRow.from_json(line))
        except ValidationError as error:
            return rows, run_tree.what_is_wrong(error)
    return rows, reason


def encode_history(rows: Sequence[EpochRow]) -> bytes:
    """JSON lines."""
    return run_tree.encode_rows([row.to_json() for row in rows])
