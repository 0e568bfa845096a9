"""Checks that a command makes one after the other, and what it says of each."""

import logging
from collections.abc import Callable, Iterable
from typing import NamedTuple

from rich.console import Console
from rich.text import Text

from mrigan.errors import MriganError

log = logging.getLogger(__name__)


class Check(NamedTuple):
    """One thing to try; ``act`` says what it found, or raises what is wrong."""

    name: str
    act: Callable[[], str]


def go_through(checks: Iterable[Check], log_format: str, *, failed: str) -> list[int]:
    """Make every check, and write a line about each.

    Args:
        checks: One that fails does not keep the others from being made.
        log_format: ``json`` writes the lines as JSON.
        failed: The word for a check that fails.

    Returns:
        Of each check, 0 or the exit status of its failure.
    """
    return [_status(check, log_format, failed) for check in checks]


def _status(check: Check, log_format: str, failed: str) -> int:
    try:
        found, status = check.act(), 0
    except (MriganError, OSError) as error:  # what may not be looked at is an answer, too
        found, status = str(error), getattr(error, "exit_status", MriganError.exit_status)
    if log_format == "json":
        facts = {"name_of_check": check.name, "ok": not status, "found": found}
        log.info("check", extra=facts)
        return status
    mark = Text(f"{failed:8}", "bold red") if status else Text("ok      ", "green")
    line = Text.assemble(mark, Text(f"{check.name:9}", "bold"), found)
    Console(soft_wrap=True, highlight=False).print(line)
    return status
