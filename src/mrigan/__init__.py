"""mrigan: trains a GAN on MRI slices, from a bucket back to a bucket.

In a notebook: ``mrigan.load("s3://bucket/runs/first").sample(16)``.
"""

from typing import TYPE_CHECKING, get_args

if TYPE_CHECKING:
    from mrigan.artifacts.generator import TrainedGenerator
    from mrigan.settings.models import Which

__all__ = ["load"]


def load(uri: str, *, which: "Which" = "latest", device: str = "auto") -> "TrainedGenerator":
    """Load the generator of a run.

    Args:
        uri: The run: ``s3://bucket/prefix`` or a folder, as OUTPUT_URI or `mrigan fetch` named it.
        which: ``latest``, of the newest checkpoint, or ``best``, that of the best score.
        device: ``auto``, ``cuda``, ``mps`` or ``cpu``.

    Returns:
        What draws slices: ``sample``, ``sample_floats``, ``grid``; ``config`` says what it is.

    Raises:
        StorageError: There is no generator, or it can't be read.
        SettingsError: The device is absent.
        ValueError: ``which`` or ``device`` is none of these.
    """
    from mrigan.artifacts.generator import read_generator  # takes seconds, since it imports torch
    from mrigan.runtime.device import available_device
    from mrigan.settings import models
    from mrigan.settings.values import Device
    from mrigan.storage.store import open_store

    for name, value, choices in (
        ("which", which, get_args(models.Which)),
        ("device", device, get_args(Device)),
    ):
        if value not in choices:
            raise ValueError(f"{name}: {value!r} is none of {', '.join(choices)}")
    return read_generator(open_store(uri), which, available_device(device))
