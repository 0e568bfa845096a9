"""Weights & Biases, set up by its own variables: https://docs.wandb.ai/."""

import io
import uuid
from collections.abc import Sequence

import wandb
from PIL import Image

from mrigan.artifacts.history import EpochRow
from mrigan.artifacts.run_status import State
from mrigan.environment import wandb_project
from mrigan.jobs.train.trackers.tracker import About, scalars

STEP = "images_seen"


class Wandb:
    """One run of a project; a resumed run goes on where it was.

    Raises:
        wandb.errors.Error: The server can't be reached, or refuses.
    """

    def __init__(self, about: About) -> None:
        if not (name := about.known):
            name = uuid.uuid4().hex[:12]
            about.remember(name)
        self._run = wandb.init(
            project=wandb_project(),
            id=name,
            name=about.name,
            config={**about.settings, "uri": about.uri},
            resume="allow",
            settings=wandb.Settings(console="off", silent=True),
        )
        self._run.define_metric("*", step_metric=STEP)

    def rows(self, rows: Sequence[EpochRow]) -> None:
        """Log the numbers over ``images_seen``."""
        for row in rows:
            self._run.log({**scalars(row), STEP: row.images_seen})

    def grid(self, png: bytes, row: EpochRow) -> None:
        """Log the grid as a picture."""
        picture = wandb.Image(Image.open(io.BytesIO(png)), caption=f"epoch {row.epoch}")
        self._run.log({"samples": picture, STEP: row.images_seen})

    def end(self, state: State) -> None:
        """Finish; an interrupted run is shown as one that will be resumed."""
        if state == "interrupted":
            self._run.mark_preempting()
        self._run.finish(exit_code=int(state != "completed"))
