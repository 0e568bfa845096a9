"""What a run says about where it ran: versions and hardware."""

import platform
import sys
from importlib.metadata import version

import torch

from mrigan.artifacts.run_facts import MachineFacts
from mrigan.runtime.device import Hardware


def versions() -> dict[str, str]:
    """The versions that can change a number."""
    ours = {name: version(name) for name in ("mrigan", "numpy", "pillow", "obstore")}
    return {**ours, "torch": torch.__version__, "python": platform.python_version()}


def machine_facts(hardware: Hardware, ranks: int) -> MachineFacts:
    """Device and precision, as people name them."""
    return MachineFacts(
        device=hardware.device.type,
        device_name=hardware.name,
        precision=hardware.precision,
        platform=f"{sys.platform} {platform.machine()}",
        ranks=ranks,
    )
