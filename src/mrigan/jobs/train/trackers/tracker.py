"""What an experiment tracker is told, and under which names."""

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from mrigan.artifacts.history import EpochRow
from mrigan.artifacts.run_status import State

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class About:
    """The run that a tracker is told of.

    Attributes:
        name: The last part of its URI.
        uri: Of the run.
        settings: By name.
        known: The tracker's own name of the run, once ``remember`` was told; "" before.
        remember: Keeps that name in the run.
    """

    name: str
    uri: str
    settings: Mapping[str, Any]
    known: str
    remember: Callable[[str], None]


class Tracker(Protocol):
    """One experiment tracker, told of one run."""

    def rows(self, rows: Sequence[EpochRow]) -> None:
        """Take the epochs that have ended since the last call.

        After a roll-back or a resume they may begin before the last one that was told.
        """

    def grid(self, png: bytes, row: EpochRow) -> None:
        """Take the sample grid that was drawn after the epoch of ``row``."""

    def end(self, state: State) -> None:
        """Take how the run's start ended; the last call."""


def warn_of(error: Exception, tracker: str, consequence: str) -> None:
    """Say in one line that a tracker has failed: its errors are of any kind, and may be long."""
    reason = (str(error) or type(error).__name__).partition("\n")[0]
    facts = {"tracker": tracker, "reason": reason, "consequence": consequence}
    log.warning("tracker_failed", extra=facts)


def scalars(row: EpochRow) -> dict[str, float]:
    """The finite numbers of ``row`` by a name that begins with its kind: ``score/swd``."""
    score = asdict(row.score) if row.score else {}
    kinds: dict[str, Mapping[str, Any]] = {
        "training": {**row.means, "augment_p": row.augment_p},
        "score": score,
        "machine": {"images_per_second": row.images_per_second, **row.memory},
        "progress": {"epoch": row.epoch, "alarms": len(row.alarms)},
    }
    found = {
        f"{kind}/{name}": value
        for kind, values in kinds.items()
        for name, value in values.items()
        if isinstance(value, int | float)
    }
    return {name: float(value) for name, value in found.items() if math.isfinite(value)}
