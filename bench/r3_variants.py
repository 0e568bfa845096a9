"""The variants that ``r3_throughput.py`` times: mrigan's loop with one switch changed, or none."""

import argparse
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mrigan.data.bank import open_bank
from mrigan.data.phantom import draw
from mrigan.jobs.build import fresh_state, recipe_of
from mrigan.models.family import Half
from mrigan.models.r3 import losses
from mrigan.models.r3 import networks as r3
from mrigan.runtime.device import choose_hardware, free_bytes
from mrigan.settings.fields import Settings
from mrigan.training import step
from mrigan.training.adam import Adam
from mrigan.training.adaptive import AdaptiveP
from mrigan.training.loop import train
from mrigan.training.plan import Plan
from mrigan.training.state import TrainingState
from plain_r3 import PlainTrainer

MOST_SLICES = 256


@dataclass(frozen=True)
class Variant:
    """What differs from the job as it is.

    Attributes:
        precision: Of the forward passes.
        is_plain: Whether it is the plain implementation.
        augment_p: Probability of each transformation.
        is_compiled: Whether torch.compile has had its way with both networks' passes.
        graphs: Whether steps run as CUDA graphs, on CUDA.
        changes: Of the preset's fields.
    """

    precision: str = "fp32"
    is_plain: bool = False
    augment_p: float = 0.0
    is_compiled: bool = False
    graphs: bool = False
    changes: dict[str, Any] = field(default_factory=dict)

    def preset(self, name: str) -> r3.Preset:
        """Preset ``name`` with this variant's changes."""
        return replace(r3.PRESETS[name], **self.changes)


PLAIN = "plain fp32"
VARIANTS = {
    PLAIN: Variant(is_plain=True),
    "mrigan fp32": Variant(),
    "mrigan bf16": Variant("bf16"),
}


def switches(precision: str) -> dict[str, Variant]:
    """Each switch by itself, on top of ``precision``."""
    base = Variant(precision)
    return {
        f"{precision} augmented, p 0.5": replace(base, augment_p=0.5),
        f"{precision} graphs": replace(base, graphs=True),
        f"{precision} compiled": replace(base, is_compiled=True),
        f"{precision} 1-3-1": replace(base, changes={"kernels": (1, 3, 1)}),
        f"{precision} no Haar": replace(base, changes={"haar_levels": 0}),
        f"{precision} Haar twice": replace(base, changes={"haar_levels": 2}),
    }


@dataclass
class Clock:
    """Seconds inside D's and G's halves, with the waiting for their micro-batches taken out."""

    device: torch.device
    inside: float = 0.0

    def now(self) -> float:
        """Seconds, when all that was asked of the device is done."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    def around_gradients(self) -> None:
        """Time what fills the gradients of both halves."""
        fill = step.fill_gradients

        def timed(half: Half, networks: Any, batches: Iterator[Any], **how: Any) -> Tensor:
            started = self.now()
            sums = fill(half, networks, self._without_waiting(batches), **how)
            self.inside += self.now() - started
            return sums

        step.fill_gradients = timed

    def around_optimizer(self, optim: Adam) -> None:
        """Time its steps, too."""
        take_step = optim.step

        def timed(skip: Tensor | None = None) -> None:
            started = self.now()
            take_step(skip)
            self.inside += self.now() - started

        optim.step = timed  # type: ignore[method-assign] - timed from outside

    def _without_waiting(self, batches: Iterator[Any]) -> Iterator[Any]:
        while True:
            started = self.now()
            batch = next(batches, None)
            self.inside -= self.now() - started
            if batch is None:
                return
            yield batch


def slices(args: argparse.Namespace) -> np.ndarray:
    count = max(args.batch_size * args.steps, min(MOST_SLICES, 4 * args.batch_size * args.steps))
    return np.stack([draw(index, *args.size)[None] for index in range(count)])


def ours(
    args: argparse.Namespace, variant: Variant, clock: Clock | None = None
) -> Callable[[], int]:
    """A step of mrigan's loop, as the job builds it."""
    images = slices(args)
    settings = Settings(
        model=args.preset,
        image_height=args.size[0],
        image_width=args.size[1],
        batch_size=args.batch_size,
        micro_batch=args.batch_size,
        accumulation_steps=args.steps,
    )
    hardware = choose_hardware(args.device, variant.precision)
    # One endless epoch would draw its order forever; these many steps are never reached.
    plan = Plan(
        slices=len(images),
        epochs=10**6,
        batch_size=args.batch_size,
        accumulation_steps=args.steps,
    )
    r3.PRESETS[args.preset] = variant.preset(args.preset)
    state = fresh_state(settings, hardware)
    state.augment = AdaptiveP.of(p=variant.augment_p, device=hardware.device)
    if variant.is_compiled:
        _compile(state)
    recipe = recipe_of(settings, plan)
    # p stays: how often images are augmented is the variant's, not the run's.
    if not variant.augment_p:
        recipe = replace(recipe, augmentation=None)
    if clock:
        clock.around_gradients()
        clock.around_optimizer(state.g_optim)
        clock.around_optimizer(state.d_optim)
    bank = open_bank(images, hardware.device, free_bytes=free_bytes(hardware.device))
    ticks = train(
        state,
        bank.take,
        plan,
        latent_dim=settings.latent_dim,
        seed=0,
        autocast=hardware.autocast(),
        recipe=recipe,
        graphs=variant.graphs,
    )
    return lambda: next(ticks).step_images


def _compile(state: TrainingState) -> None:
    for name in ("d_terms", "g_terms"):
        whole = torch.compile(getattr(losses, name), fullgraph=True)
        setattr(losses, name, whole)
    state.G.compile(fullgraph=True)


def plain(args: argparse.Namespace, variant: Variant) -> Callable[[], int]:
    """A step of the plain implementation."""
    device = choose_hardware(args.device, "fp32").device
    torch.manual_seed(0)
    workers = 4 if device.type == "cuda" else 0
    trainer = PlainTrainer(
        slices(args), variant.preset(args.preset), args.batch_size, args.steps, device, workers
    )
    return trainer.step
