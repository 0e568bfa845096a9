"""The variants that ``r3_throughput.py`` times: mrigan's loop with one switch changed, or none."""

import argparse
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mrigan.data.bank import open_bank
from mrigan.data.phantom import draw
from mrigan.jobs.model import family_of, fresh_state, known, with_defaults
from mrigan.models import r3
from mrigan.runtime.device import choose_hardware, free_bytes
from mrigan.settings.fields import Settings
from mrigan.training import relativistic_steps
from mrigan.training.adaptive import AdaptiveP
from mrigan.training.family import Family
from mrigan.training.loop import train
from mrigan.training.plan import Plan
from mrigan.training.state import TrainingState
from plain_r3 import PlainTrainer

MOST_SLICES = 256


@dataclass(frozen=True)
class Variant:
    """What differs from the job as it is.

    Attributes:
        precision: Of the high resolutions.
        is_plain: Whether it is the plain implementation.
        augment_p: Probability of each transformation.
        channels_last: Whether channels lie innermost in memory.
        is_compiled: Whether torch.compile has had its way with all three networks' passes.
        group_width: Channels in a group; 0 for all of them, None for the preset's.
    """

    precision: str = "fp32"
    is_plain: bool = False
    augment_p: float = 0.0
    channels_last: bool = True
    is_compiled: bool = False
    group_width: int | None = None

    def preset(self, name: str) -> r3.Preset:
        """The widths of preset ``name``, in this variant's groups."""
        preset = r3.PRESETS[name]
        if self.group_width is None:
            return preset
        return replace(preset, group_width=self.group_width or None)


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
        f"{precision} NCHW": replace(base, channels_last=False),
        f"{precision} compiled": replace(base, is_compiled=True),
        f"{precision} groups of 32": replace(base, group_width=32),
        f"{precision} no groups": replace(base, group_width=0),
    }


@dataclass
class Clock:
    """Seconds inside D's and G's halves, with the waiting for their micro-batches taken out."""

    device: torch.device
    inside: float = 0.0
    begun: float = field(default=0.0)

    def now(self) -> float:
        """Seconds, when all that was asked of the device is done."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    def around(self, family: Family) -> Family:
        """The family with both halves timed."""
        return replace(
            family,
            accumulate_d=self._timed(family.accumulate_d),
            accumulate_g=self._timed(family.accumulate_g),
        )

    def around_optimizer(self, optimizer: torch.optim.Optimizer) -> None:
        """Time its steps, too."""

        def begin(*_: object) -> None:
            self.begun = self.now()

        def end(*_: object) -> None:
            self.inside += self.now() - self.begun

        optimizer.register_step_pre_hook(begin)
        optimizer.register_step_post_hook(end)

    def _timed(self, accumulate: Callable[..., Any]) -> Callable[..., Any]:
        def run(G: nn.Module, D: nn.Module, batches: Iterator[Any], **how: Any) -> Any:
            started = self.now()
            sums = accumulate(G, D, self._without_waiting(batches), **how)
            self.inside += self.now() - started
            return sums

        return run

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
    settings = with_defaults(
        Settings(
            model=args.preset,
            image_height=args.size[0],
            image_width=args.size[1],
            batch_size=args.batch_size,
            micro_batch=args.batch_size,
            accumulation_steps=args.steps,
        )
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
    state.augment = AdaptiveP(p=variant.augment_p)
    if not variant.channels_last:
        _to_nchw(state)
    if variant.is_compiled:
        _compile(state)
    family = family_of(settings, plan)
    # p stays: how often images are augmented is the variant's, not the run's.
    family = replace(family, augment_by="adaptive" if variant.augment_p else "none")
    if clock:
        family = clock.around(family)
        clock.around_optimizer(state.g_optim)
        clock.around_optimizer(state.d_optim)
    bank = open_bank(images, hardware.device, free_bytes=free_bytes(hardware.device))
    ticks = train(
        state,
        bank.take,
        plan,
        latent_dim=known(settings.latent_dim),
        seed=0,
        autocast=hardware.autocast(),
        family=family,
    )
    return lambda: next(ticks).step_images


def _to_nchw(state: TrainingState) -> None:
    def nchw(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return tuple(x.contiguous() for x in inputs)

    for net in (state.G, state.D):
        net.to(memory_format=torch.contiguous_format)
        net.stages[0].register_forward_pre_hook(nchw)


def _compile(state: TrainingState) -> None:
    for name in ("d_terms", "g_terms"):
        whole = torch.compile(getattr(relativistic_steps, name), fullgraph=True)
        setattr(relativistic_steps, name, whole)
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
