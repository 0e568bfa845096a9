"""Runs one command: errors become one line and an exit status, signals a request to stop."""

import argparse
import logging
import re
import sys
from collections.abc import Callable, Sequence

from mrigan import logs
from mrigan.cli.commands import INTERRUPTED, train
from mrigan.cli.parser import build_parser
from mrigan.environment import process_rank
from mrigan.errors import MriganError, PeerFailedError, PeerLostError, SettingsError
from mrigan.runtime.ends import note_end
from mrigan.runtime.signals import StopRequest
from mrigan.sagemaker.container import is_sagemaker
from mrigan.sagemaker.failure import clear_failure, write_failure

log = logging.getLogger(__name__)


def run(arguments: Sequence[str]) -> int:
    """Run one command and return the exit status (design: 0, 143, 2, 3, 4, 5 or 1)."""
    logs.configure("text")  # before the handlers, which say what a stop does
    stop = StopRequest()
    stop.install()  # at once: as PID 1 of a container, no handler means no signal
    options = argparse.Namespace(debug=False)
    try:
        parser = build_parser()
        options, unknown = parser.parse_known_args(list(arguments))
        if options.command is None:
            return _without_command(parser, unknown)
        options.arguments = list(arguments)
        logs.configure(_log_format(options), debug=options.debug)
        command: Callable[[argparse.Namespace, list[str], StopRequest], int] = options.command
        if _is_the_job(options) and not process_rank():
            clear_failure()
        status = command(options, unknown, stop)
        note_end(status, is_echo=False)
        return status
    except KeyboardInterrupt:
        _complain("interrupted at once: what was not yet saved is lost", options.debug)
        return INTERRUPTED if stop.signal_name == "SIGTERM" else 130
    except Exception as error:  # noqa: BLE001 - the last door: one line, not a traceback
        is_echo = isinstance(error, PeerFailedError | PeerLostError)
        for problem in _problems(error):
            _complain(problem, options.debug)
        if _is_the_job(options):
            write_failure(error)
        status = error.exit_status if isinstance(error, MriganError) else MriganError.exit_status
        note_end(status, is_echo=is_echo)
        return status
    finally:
        stop.end()


def _without_command(parser: argparse.ArgumentParser, unknown: list[str]) -> int:
    if unknown:
        parser.error(f"{unknown[0]}: unknown")
    parser.print_help()
    return 0


def _problems(error: Exception) -> tuple[str, ...]:
    if isinstance(error, SettingsError):
        return error.problems
    if isinstance(error, MriganError):
        return (str(error),)
    if (lack := _lacking(error)) is not None:
        return (lack,)
    hint = "this is a bug of mrigan, please report it; --debug shows where"
    return (f"{type(error).__name__}: {error} ({hint})",)


_LACKS = (
    (
        r"No usable temporary directory|Read-only file system|a writable cache directory",
        "nothing can be written here",
        "let TMPDIR and MRIGAN_CACHE_DIR be folders that it can write (docker: --tmpfs /tmp)",
    ),
    (
        r"Could not determine home directory|getpwuid|uid not found|no username set",
        "this user has no home folder",
        "set HOME and MRIGAN_CACHE_DIR to folders that it can write",
    ),
    (
        r"can't start new thread|pthread_create|Resource temporarily unavailable",
        "no more threads can be started",
        "raise ulimit -u and ulimit -v, or give the container more memory",
    ),
    (
        r"failed to map segment|[Cc]annot allocate memory|DefaultCPUAllocator|not enough memory"
        r"|std::bad_alloc|Unable to allocate",
        "there is too little memory",
        "raise ulimit -v, give the container more memory, or lower MRIGAN_MICRO_BATCH",
    ),
)


def _lacking(error: Exception) -> str | None:
    """What this process lacks, where that is what has failed, and how to give it."""
    text = f"{type(error).__name__}: {error}"
    for pattern, lack, remedy in _LACKS:
        if re.search(pattern, text) or (isinstance(error, MemoryError) and "memory" in lack):
            return f"{lack} ({' '.join(text.split())[:160]}); {remedy}"
    return None


def _is_the_job(options: argparse.Namespace) -> bool:
    """Whether SageMaker started this: ``train``, or a command line that names no command."""
    return is_sagemaker() and getattr(options, "command", train) is train


def _complain(problem: str, debug: bool) -> None:
    line = " ".join(problem.split())
    log.error("error", extra={"reason": line}, exc_info=debug and sys.exc_info()[0] is not None)


def _log_format(options: argparse.Namespace) -> str:
    """``json`` if it was asked for where an answer is at hand; settings may be wrong still."""
    chosen: str | None = getattr(options, "log_format", None)
    return chosen or "text"
