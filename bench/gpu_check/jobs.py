"""mrigan's own loop, as the job builds it, with a switch or two changed."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from gpu_check.bench import Bench
from mrigan.data.bank import open_bank
from mrigan.jobs.build import fresh_state, recipe_of
from mrigan.models.family import Recipe
from mrigan.runtime.device import Hardware, choose_hardware, free_bytes
from mrigan.settings.fields import Settings
from mrigan.training.loop import Tick, train
from mrigan.training.plan import Plan
from mrigan.training.state import TrainingState
from mrigan.training.step import TakeSlices

ENDLESS = 10**6  # epochs
_TINY_BATCH, _TINY_ROUNDS = 4, 2


@dataclass(kw_only=True)
class Job:
    """A training that has not taken its first step."""

    state: TrainingState
    ticks: Iterator[Tick]
    settings: Settings
    hardware: Hardware
    plan: Plan

    def steps(self, count: int) -> int:
        """Take so many steps and return the images that they showed."""
        return sum(next(self.ticks).step_images for _ in range(count))


def begin(
    bench: Bench,
    model: str,
    images: npt.NDArray[np.uint8],
    *,
    precision: str = "bf16",
    graphs: bool = True,
    epochs: int = ENDLESS,
    device: torch.device | None = None,
    change_take: Callable[[TakeSlices], TakeSlices] | None = None,
    change_recipe: Callable[[Recipe], Recipe] | None = None,
    **chosen: Any,
) -> Job:
    """Build the networks of ``model`` and the loop that trains them on ``images``."""
    device = device or bench.device
    if bench.is_tiny:
        chosen = {"batch_size": _TINY_BATCH, "accumulation_steps": _TINY_ROUNDS, **chosen}
    height, width = images.shape[2:]
    settings = Settings(
        model=model,
        image_height=height,
        image_width=width,
        epochs=epochs,
        device=device.type,
        precision=precision,
        cuda_graphs=graphs,
        **chosen,
    )
    hardware = choose_hardware(device.type, precision)
    plan = Plan(
        slices=len(images),
        epochs=epochs,
        batch_size=settings.batch_size,
        accumulation_steps=settings.accumulation_steps,
    )
    state = fresh_state(settings, hardware)
    recipe = recipe_of(settings, plan)
    bank = open_bank(images, hardware.device, free_bytes=free_bytes(hardware.device))
    ticks = train(
        state,
        change_take(bank.take) if change_take else bank.take,
        plan,
        latent_dim=settings.latent_dim,
        seed=settings.seed,
        autocast=hardware.autocast(),
        recipe=change_recipe(recipe) if change_recipe else recipe,
        graphs=graphs,
    )
    return Job(state=state, ticks=ticks, settings=settings, hardware=hardware, plan=plan)


class _Heard(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        facts = {
            name: vars(record).get(name) for name in ("pass", "reason") if name in vars(record)
        }
        self.lines.append(f"{record.getMessage()} {facts or ''}".strip()[:200])


@contextmanager
def heard() -> Iterator[list[str]]:
    """Collect what mrigan warns of meanwhile: such as graphs or compiling that were given up."""
    handler = _Heard()
    logger = logging.getLogger("mrigan")
    logger.addHandler(handler)
    try:
        yield handler.lines
    finally:
        logger.removeHandler(handler)
