"""How each rank ended, left where the process that started the ranks finds it."""

import json
from pathlib import Path
from typing import NamedTuple

from mrigan.environment import worker_folder

_NAME = "end.json"


class End(NamedTuple):
    """The end of one rank, in its own words."""

    status: int  # of the process
    is_echo: bool  # it ended only because another rank did


def note_end(status: int, *, is_echo: bool) -> None:
    """Leave word of how this process ends, if torchrun has started it."""
    if folder := worker_folder():
        (folder / _NAME).write_text(json.dumps([status, is_echo]))


def read_ends(folder: Path) -> list[End]:
    """What the ranks below ``folder`` have said, by rank."""
    return [End(*json.loads(path.read_text())) for path in sorted(folder.rglob(_NAME))]


def decisive(ends: list[End]) -> End | None:
    """The end that stands for all: a failure before an echo of one before a success."""
    failures = [end for end in ends if end.status]
    own = [end for end in failures if not end.is_echo]
    return next(iter([*own, *failures, *ends]), None)
