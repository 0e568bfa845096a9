"""Starts a process per GPU, or one per machine, with torchrun's engine, and tells how they ended.

Each rank runs the command that was typed. torchrun hands a signal on to the ranks and waits for
them; what they ended with is read from a file that each leaves in the folder torchrun gave it.
"""

import logging
import signal
import socket
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch.distributed.run  # noqa: F401, TID251 - registers the rendezvous
from torch.distributed.elastic.multiprocessing import (  # noqa: TID251 - the door
    DefaultLogsSpecs,
    SignalException,
)
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError  # noqa: TID251
from torch.distributed.launcher.api import LaunchConfig, launch_agent  # noqa: TID251

from mrigan.errors import MriganError
from mrigan.runtime.ends import End, decisive, read_ends
from mrigan.runtime.hosts import choose_interface, spare_shared_memory, wait_for_names
from mrigan.runtime.signals import StopRequest
from mrigan.runtime.wakeup import leaving_at_once

log = logging.getLogger(__name__)

_PORT = 7777  # AWS's own choice for its containers
_MEETING_SECONDS = 600
# Of the 120 s that SageMaker and compose leave between SIGTERM and SIGKILL.
_SHUTDOWN_SECONDS = 112


class Machines(NamedTuple):
    """The machines of a run, and which of them this one is."""

    hosts: tuple[str, ...]
    number: int  # this one's, from 0
    interface: str  # by which they reach each other; "" if that needs no saying


ONE_MACHINE = Machines(("127.0.0.1",), 0, "")


def run_ranks(
    arguments: Sequence[str],
    ranks: int,
    machines: Machines,
    stop: StopRequest,
    *,
    interrupted: int,
) -> End | None:
    """Run ``mrigan ARGUMENTS`` as ``ranks`` processes here, as part of all machines' processes.

    Args:
        arguments: Of the command.
        ranks: Of this machine.
        machines: All of them.
        stop: This process's; from the start of the ranks on it is theirs.
        interrupted: Exit status of a process that is stopped while it waits for the others.

    Returns:
        The end that counts, or None if a stop came before the ranks could say anything.

    Raises:
        MriganError: The ranks could not be started, or one was killed.
    """
    if len(machines.hosts) > 1:
        wait_for_names(machines.hosts, should_stop=lambda: bool(stop))
    choose_interface(machines.interface)
    spare_shared_memory()
    if stop:
        return None
    _quiet()
    with tempfile.TemporaryDirectory(prefix="mrigan-ranks-") as folder:
        config = _config(ranks, machines, folder)
        killed = ""
        try:
            with leaving_at_once(interrupted):
                launch_agent(config, sys.executable, ["-m", "mrigan", *arguments])
        except ChildFailedError as error:
            killed = _killed(error)
        except SignalException as caught:
            stop.signal_name = caught.sigval.name
        except (RuntimeError, ValueError) as error:  # a rendezvous that failed
            raise MriganError(
                f"the ranks of {', '.join(machines.hosts)} did not meet: {error}; check that the "
                f"machines reach each other on port {_PORT}, then run the same command again"
            ) from error
        finally:
            stop.install()
        end = decisive(read_ends(Path(folder)))
    if killed and (end is None or end.is_echo or not end.status):
        raise MriganError(killed)
    return end


def _quiet() -> None:
    """Leave the telling to the ranks: the engine's own lines are about processes and tracebacks."""
    for name in list(logging.root.manager.loggerDict):
        if name.startswith("torch.distributed.elastic"):
            logging.getLogger(name).setLevel(logging.CRITICAL)


def _config(ranks: int, machines: Machines, folder: str) -> LaunchConfig:
    port = _PORT if len(machines.hosts) > 1 else _free_port()
    return LaunchConfig(
        min_nodes=len(machines.hosts),
        max_nodes=len(machines.hosts),
        nproc_per_node=ranks,
        logs_specs=DefaultLogsSpecs(log_dir=folder),
        run_id="mrigan",
        rdzv_backend="static",
        rdzv_endpoint=f"{machines.hosts[0]}:{port}",
        rdzv_configs={"rank": machines.number, "timeout": _MEETING_SECONDS},
        max_restarts=0,
        signals_to_handle="SIGTERM,SIGINT",
        shutdown_timeout=_SHUTDOWN_SECONDS,
    )


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def _killed(error: ChildFailedError) -> str:
    """Say which signal ended the first rank to fail; "" if it ended by itself."""
    _, failure = error.get_first_failure()
    number = -failure.exitcode
    if number <= 0:
        return ""
    name = signal.Signals(number).name
    hint = "; SIGKILL often means that host memory ran out" if number == signal.SIGKILL else ""
    return (
        f"a rank was killed by {name}{hint}; run the same command again to go on from the newest "
        "checkpoint"
    )
