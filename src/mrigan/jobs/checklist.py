"""Checks that a command makes one after the other, and what it says of each."""

import logging
from collections.abc import Callable, Sequence
from typing import NamedTuple

from rich.console import Console
from rich.text import Text

from mrigan.errors import MriganError, UncheckedError
from mrigan.redaction import shown

log = logging.getLogger(__name__)


class Check(NamedTuple):
    """One thing to try; ``act`` says what it found, or raises what is wrong."""

    name: str
    act: Callable[[], str]


def go_through(
    checks: Sequence[Check], log_format: str, *, failed: str, gate: str = ""
) -> list[int]:
    """Make every check, and write a line about each.

    Args:
        checks: One that fails does not keep the others from being made.
        log_format: ``json`` writes the lines as JSON.
        failed: The word for a check that fails.
        gate: The name of one whose failure the others would only repeat: they are not made then.

    Returns:
        Of each check that was made, 0 or the exit status of its failure.
    """
    statuses = []
    for number, check in enumerate(checks, 1):
        statuses.append(_status(check, log_format, failed))
        if statuses[-1] and check.name == gate:
            rest = ", ".join(each.name for each in checks[number:])
            _write(Check("the rest", str), None, f"not checked: {rest}", log_format, failed)
            break
    return statuses


def _status(check: Check, log_format: str, failed: str) -> int:
    status: int | None
    try:
        found, status = check.act(), 0
    except UncheckedError as error:
        found, status = str(error), None
    except (MriganError, OSError) as error:  # what may not be looked at is an answer, too
        found, status = str(error), getattr(error, "exit_status", MriganError.exit_status)
    _write(check, status, found, log_format, failed)
    return status or 0


def _write(check: Check, status: int | None, found: str, log_format: str, failed: str) -> None:
    """Write a line; a ``status`` of None is of a check that could not be made."""
    if log_format == "json":
        ok = None if status is None else not status
        log.info("check", extra={"name_of_check": check.name, "ok": ok, "found": found})
        return
    mark = Text(f"{failed:8}", "bold red") if status else Text("ok      ", "green")
    if status is None:
        mark = Text("unknown ", "yellow")
    line = Text.assemble(mark, Text(f"{check.name:9}", "bold"), shown(found))
    Console(soft_wrap=True, highlight=False).print(line)
