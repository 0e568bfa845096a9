"""TensorBoard event files below ``tensorboard/`` of the run, which a bucket can hold, too.

An object can't be appended to, so each call makes a file of its own; TensorBoard reads them in the
order of their names. A file of rows says first at which step it starts, and TensorBoard drops what
it has from there on: a run that rolled back, or was resumed, has one curve.
"""

import io
import itertools
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from mrigan.artifacts import run_tree
from mrigan.artifacts.history import EpochRow
from mrigan.artifacts.publisher import Publisher
from mrigan.artifacts.run_status import State
from mrigan.jobs.train.trackers.tracker import scalars, warn_of
from mrigan.storage.store import Store

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


class TensorBoard:
    """Writes event files; the step is ``images_seen``, so that runs compare at equal cost.

    Args:
        publisher: Of the run.
    """

    def __init__(self, publisher: Publisher) -> None:
        self._publisher = publisher
        self._numbers = itertools.count()
        self._has_failed = False

    def rows(self, rows: Sequence[EpochRow]) -> None:
        """Write a file of scalars."""
        at = time.time()

        def fill(writer: "SummaryWriter") -> None:
            for row in rows:
                for name, value in scalars(row).items():
                    writer.add_scalar(name, value, row.images_seen, walltime=at)

        self._write(fill, first=rows[0].images_seen)

    def grid(self, png: bytes, row: EpochRow) -> None:
        """Write a file of one picture."""
        at = time.time()

        def fill(writer: "SummaryWriter") -> None:
            grid = np.asarray(Image.open(io.BytesIO(png)))
            writer.add_image("samples", grid, row.images_seen, walltime=at, dataformats="HW")

        self._write(fill)

    def end(self, state: State) -> None:
        """Nothing is kept open."""

    def _write(self, fill: Callable[["SummaryWriter"], None], first: int | None = None) -> None:
        name = f"events.out.tfevents.{time.time():.0f}.{next(self._numbers):06d}.mrigan"
        key = f"{run_tree.TENSORBOARD}/{name}"

        def write(store: Store) -> None:
            if self._has_failed:
                return
            try:
                data = _encoded(fill, first)
            except Exception as error:  # noqa: BLE001 - of an installation that is not ours
                self._has_failed = True
                warn_of(error, "tensorboard", "training goes on without event files")
            else:
                store.put(key, data)

        self._publisher.submit(key, write)


def _encoded(fill: Callable[["SummaryWriter"], None], first: int | None) -> bytes:
    """The bytes of an event file; from step ``first`` on it takes the place of earlier ones."""
    from torch.utils.tensorboard import SummaryWriter

    with tempfile.TemporaryDirectory() as folder:
        with SummaryWriter(folder, purge_step=first) as writer:
            fill(writer)
        (file,) = Path(folder).iterdir()
        return file.read_bytes()
