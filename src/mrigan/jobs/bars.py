"""Progress bars on a terminal, alike for a run on this machine and for a SageMaker job."""

from contextlib import ExitStack
from typing import Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeRemainingColumn,
)

# The time left is estimated over these: several steps, also on a slow machine.
_SPEED_SECONDS = 600.0


class Bars(ExitStack):
    """A context manager; each bar's task has a description and a field ``facts``."""

    def __init__(self, console: Console | None = None) -> None:
        super().__init__()
        self._console = console or Console()
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("[bold]{task.description}"),
            BarColumn(bar_width=None),
            TextColumn("{task.fields[facts]}"),
            TimeRemainingColumn(),
            TextColumn("left"),
            console=self._console,
            transient=True,  # a bar that no longer moves says nothing; the lines above it stay
            refresh_per_second=4,
            speed_estimate_period=_SPEED_SECONDS,
        )

    def __enter__(self) -> Self:
        self.enter_context(self._progress)  # which restores the terminal at the end
        return self
