"""mrigan: trains a GAN on MRI slices, from a bucket back to a bucket.

In a notebook: ``mrigan.load("s3://bucket/runs/first").sample(16)``.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mrigan.artifacts.generator import TrainedGenerator, Which

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
    from mrigan.storage.store import open_store

    if which not in ("latest", "best"):
        raise ValueError(f"which: {which!r} is neither 'latest' nor 'best'")
    if device not in ("auto", "cuda", "mps", "cpu"):
        raise ValueError(f"device: {device!r} is none of 'auto', 'cuda', 'mps', 'cpu'")
    return read_generator(open_store(uri), which, available_device(device))
