"""Which rank of a run this process is: torchrun tells each one in its environment.

https://docs.pytorch.org/docs/stable/elastic/run.html#environment-variables
"""

import os
from pathlib import Path
from typing import NamedTuple

from mrigan.errors import SettingsError

_ERROR_FILE = "TORCHELASTIC_ERROR_FILE"


class RankPlace(NamedTuple):
    """Where a process stands among the processes of a run."""

    rank: int
    local_rank: int  # on its machine
    world_size: int


ALONE = RankPlace(rank=0, local_rank=0, world_size=1)


def rank_place() -> RankPlace | None:
    """This process's place, or None where nothing like torchrun has started it.

    Raises:
        SettingsError: RANK, LOCAL_RANK and WORLD_SIZE make no sense together.
    """
    names = ("RANK", "LOCAL_RANK", "WORLD_SIZE")
    given = [os.environ.get(name) for name in names]
    if None in given or "MASTER_ADDR" not in os.environ:
        return None
    try:
        rank, local_rank, world_size = (int(value or "") for value in given)
        if not (0 <= local_rank <= rank < world_size):
            raise ValueError
    except ValueError:
        said = ", ".join(f"{name}={value}" for name, value in zip(names, given, strict=True))
        remedy = "start mrigan with torchrun"
        raise SettingsError(f"{said}: not the place of a rank; {remedy}") from None
    return RankPlace(rank, local_rank, world_size)


def set_default(name: str, value: str) -> None:
    """Set a variable for this process and those it starts, unless the user has."""
    os.environ.setdefault(name, value)


def worker_folder() -> Path | None:
    """The folder that torchrun has given this worker alone; None to others."""
    path = os.environ.get(_ERROR_FILE)
    return Path(path).parent if path else None
