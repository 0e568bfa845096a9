"""With which generator a command draws, and how: what generate and interpolate are both asked."""

from dataclasses import dataclass

import torch

from mrigan.artifacts.generator import TrainedGenerator, read_generator
from mrigan.runtime.device import available_device
from mrigan.settings.models import Which
from mrigan.storage.store import StoreOptions, open_store


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """Where the generator is from, and where it computes.

    Attributes:
        run: URI of the run.
        which: Of the run's generators.
        truncation: Scales the latents, 0 to 1.
        device: As the setting DEVICE.
        options: Of the run's store, and of that which is written to.
    """

    run: str
    which: Which
    truncation: float
    device: str
    options: StoreOptions

    def problems(self) -> list[str]:
        """What is wrong with it, a line each, by the names of the options."""
        if 0.0 <= self.truncation <= 1.0:
            return []
        return [f"--truncation: {self.truncation} is not within 0 to 1"]

    def generator(self, process: int = 0) -> TrainedGenerator:
        """Read the generator, on the GPU of this process where there are several.

        Raises:
            SettingsError: The device is absent.
            StorageError: There is no generator, or it can't be read.
        """
        device = available_device(self.device)
        if device.type == "cuda":
            device = torch.device("cuda", process % torch.cuda.device_count())
        return read_generator(open_store(self.run, self.options), self.which, device)
