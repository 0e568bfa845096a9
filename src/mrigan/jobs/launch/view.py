"""What a person sees of a job that runs elsewhere: its lines, its stages, on a terminal a bar."""

import json
import logging
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.text import Text

from mrigan.jobs.bars import Bars
from mrigan.redaction import printable
from mrigan.sagemaker.events import Ended, Event, Notice, StatusChanged
from mrigan.sagemaker.job_log import LogLine

log = logging.getLogger(__name__)

_FACT = re.compile(r"(\w+)=([^\s\"]+)")
_CLOCK = re.compile(r"\d\d:\d\d:\d\d ")
_FIRST_HOST = "algo-1"


class View(Protocol):
    """Told of everything as it happens."""

    def show(self, event: Event) -> None:
        """Something has become known of the job."""


@contextmanager
def open_view(log_format: str) -> Iterator[View]:
    """A live bar below the lines on a terminal, unless plain lines were asked for."""
    if log_format == "auto" and sys.stdout.isatty():
        with LiveView() as view:
            yield view
    else:
        yield LineView(as_json=log_format == "json")


def read_line(text: str) -> tuple[str, dict[str, str]]:
    """Event and facts of a line of the job's log, of either format; "" if it is not one."""
    if text.startswith("{"):
        try:
            line = json.loads(text)
        except ValueError:
            return "", {}
        facts = {name: str(value) for name, value in line.items()}
        return facts.get("event", ""), facts
    if not _CLOCK.match(text):
        return "", {}
    event, _, rest = text[len("00:00:00 ") :].partition(" ")
    return event, dict(_FACT.findall(rest))


class LineView:
    """The job's own lines as they are, or wrapped into JSON, with a line for each new stage."""

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json

    def show(self, event: Event) -> None:
        """Log it, or write it through."""
        match event:
            case StatusChanged():
                log.info("status", extra={"status": event.status, "said": event.message})
            case Notice():
                log.warning("notice", extra={"said": event.text})
            case LogLine() if self._as_json:
                log.info("log", extra={"host": event.host, "line": event.text})
            case LogLine():
                sys.stdout.write(f"{printable(_with_host(event))}\n")
                sys.stdout.flush()
            case Ended():
                pass


class LiveView(Bars):
    """A bar of the epochs with speed and losses; the other lines scroll above it."""

    def __init__(self, console: Console | None = None) -> None:
        super().__init__(console)
        self._task = self._progress.add_task("waiting", total=None, facts="")

    def show(self, event: Event) -> None:
        """Move the bar, or put a line above it."""
        match event:
            case StatusChanged():
                self._progress.update(self._task, description=event.status)
                self._print(Text(f"{event.status}: {event.message}".rstrip(": "), "bold"))
            case Notice():
                self._print(Text(event.text, "yellow"))
            case LogLine():
                self._line(event)
            case Ended():
                pass

    def _line(self, line: LogLine) -> None:
        event, facts = read_line(line.text)
        if event == "plan" and facts.get("epochs", "").isdecimal():
            self._progress.update(self._task, total=int(facts["epochs"]))
        if event != "epoch" or not facts.get("epoch", "").isdecimal():
            self._print(Text(_with_host(line)))
            return
        losses = f"D {facts.get('d_loss', '?')}  G {facts.get('g_loss', '?')}"
        self._progress.update(
            self._task,
            completed=int(facts["epoch"]),
            description=f"epoch {facts['epoch']}",
            facts=f"{facts.get('images_per_second', '?')} images/s  {losses}",
        )

    def _print(self, text: Text) -> None:
        text.plain = printable(text.plain)
        self._console.print(text, soft_wrap=True, highlight=False)


def _with_host(line: LogLine) -> str:
    return line.text if line.host == _FIRST_HOST else f"{line.host}: {line.text}"
