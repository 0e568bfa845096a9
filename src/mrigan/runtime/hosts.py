"""What has to be so before the ranks of several machines can meet: names, interfaces, memory."""

import logging
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path

from mrigan.environment import set_default
from mrigan.errors import PeerLostError

log = logging.getLogger(__name__)

DNS_SECONDS = 120.0
_PAUSE_SECONDS = 1.0
# NCCL takes some 10 MB of it per channel and pair of ranks; SageMaker's 64 MB can't be changed.
_ENOUGH_SHARED_BYTES = 2**29


def wait_for_names(
    hosts: tuple[str, ...], *, should_stop: Callable[[], bool], seconds: float = DNS_SECONDS
) -> None:
    """Return when every host's name has an address; a container's peers may get theirs later.

    Raises:
        PeerLostError: A name has none after ``seconds``.
    """
    deadline = time.monotonic() + seconds
    for host in hosts:
        while not _has_address(host) and not should_stop():
            if time.monotonic() > deadline:
                raise PeerLostError(
                    f"host {host} of resourceconfig.json has no address after {seconds:.0f} s; "
                    "check that the hosts share a network, and that its container has started"
                )
            time.sleep(_PAUSE_SECONDS)


def choose_interface(name: str) -> None:
    """Have NCCL and gloo use the interface ``name``, where it exists and the user chose none.

    The SDK's local mode names one that does not exist.
    """
    if name and Path("/sys/class/net", name).exists():
        set_default("NCCL_SOCKET_IFNAME", name)
        set_default("GLOO_SOCKET_IFNAME", name)


def spare_shared_memory(folder: Path = Path("/dev/shm")) -> None:
    """Keep NCCL out of a shared memory that is too small for it, unless the user decided."""
    try:
        facts = os.statvfs(folder)
    except OSError:
        return
    total = facts.f_frsize * facts.f_blocks
    if total < _ENOUGH_SHARED_BYTES:
        set_default("NCCL_SHM_DISABLE", "1")
        log.info("small_shared_memory", extra={"mib": total >> 20, "nccl_shm": "off"})


def _has_address(host: str) -> bool:
    try:
        return bool(socket.getaddrinfo(host, None))
    except OSError:
        return False
