"""What a family of networks brings; everything else is the same for all of them.

A family is a package here whose module ``family`` holds it as ``FAMILY``, and its models are
entries of ``settings.models.MODELS``.
"""

import importlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from mrigan.models.augment import Policy, Warp
from mrigan.settings.fields import Settings
from mrigan.settings.models import MODELS


class MicroBatch(NamedTuple):
    """One forward pass worth of a step."""

    z: Tensor  # (n, latent_dim)
    real: Tensor | None = None  # (n, 1, H, W) in [-1, 1]; G's half may need none
    real_keep: Tensor | None = None  # (n, K) of 0 and 1: channels that dropout leaves to D
    fake_keep: Tensor | None = None
    real_warp: Warp | None = None  # augmentation, a row an image
    fake_warp: Warp | None = None


class Losses(Protocol):
    """One network's loss over a micro-batch, and what is logged of it."""

    def __call__(
        self,
        G: nn.Module,
        D: nn.Module,
        batch: MicroBatch,
        autocast: torch.autocast,
        gamma: Tensor,
        /,
    ) -> tuple[Tensor, list[Tensor]]:
        """Take the passes and sum the losses of the images, so that a step may be cut at will.

        Args:
            G: Latents (n, latent_dim) to images (n, 1, H, W).
            D: Images to logits (n,), high = real.
            batch: Of n images.
            autocast: Precision of the passes.
            gamma: Weight of a gradient penalty, a scalar on the device; 0 where there is none.

        Returns:
            The sum over the images, with its graph, and the sums of the half, detached and still on
            the device: together as many numbers as the half has names.
        """


@dataclass(frozen=True, kw_only=True)
class Half:
    """One network's half of a step."""

    losses: Losses
    sums: tuple[str, ...]  # what is logged, by its name in metrics.jsonl
    takes_reals: bool = True


class Values(NamedTuple):
    """What holds for one optimizer step of each network."""

    lr_factor: float  # of the rates that the run starts with
    beta2: float
    gamma: float
    ema_half_life_images: float  # 0 for no EMA
    augment_p: float = 0.0  # where p follows the schedule
    augment_target: float = 0.0  # where p adapts: the mean sign of D(real) − D(fake) it steers to


class Ramp(NamedTuple):
    """A value at the start of a burn-in and from its end on: one half cosine."""

    start: float
    end: float

    def at(self, progress: float) -> float:
        """The value at ``progress`` through the burn-in: 0 is its start, 1 and more its end."""
        turn = math.cos(math.pi * min(max(progress, 0.0), 1.0))
        return self.end + (self.start - self.end) * (1 + turn) / 2

    def scaled(self, factor: float) -> "Ramp":
        """Both ends, times ``factor``."""
        return Ramp(self.start * factor, self.end * factor)


class Dropout(NamedTuple):
    """Which share of an image's channels in D is dropped, and how many channels there are."""

    channels: int
    share: float


class Augmentation(NamedTuple):
    """What may happen to the images that D sees, and what decides how often."""

    policy: Policy
    size: tuple[int, int]  # (H, W) of the images, pixels
    by: Literal["adaptive", "schedule"]


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How the networks of one run are trained.

    Attributes:
        d: D's half of a step.
        g: G's half.
        values: What holds for the step that begins at ``images_seen``.
        couples_images: Whether BatchNorm sees groups of images: a micro-batch holds whole groups.
        dropout: Of D's channels; None for none.
        augmentation: None for none.
    """

    d: Half
    g: Half
    values: Callable[[int], Values]
    couples_images: bool = False
    dropout: Dropout | None = None
    augmentation: Augmentation | None = None


class Curve(NamedTuple):
    """One metric of a plot: its key in a row of metrics.jsonl, and its name for people."""

    key: str
    name: str


@dataclass(frozen=True, kw_only=True)
class Chart:
    """What a plot of the training history shows of a family.

    Attributes:
        losses: D's, then G's.
        loss_range: Of the axis.
        chance_loss: D's, when it can't tell reals from fakes.
        scores: Two metrics between 0 and 1.
        scores_label: Of their axis.
    """

    losses: tuple[Curve, Curve]
    loss_range: tuple[float, float]
    chance_loss: float
    scores: tuple[Curve, Curve]
    scores_label: str


class NetworkShape(Protocol):
    """What the layers of a model's networks follow from; a run's settings are one."""

    @property
    def model(self) -> str:
        """As MODEL names it."""

    @property
    def latent_dim(self) -> int:
        """Numbers in one latent vector."""

    @property
    def image_height(self) -> int:
        """Pixels."""

    @property
    def image_width(self) -> int:
        """Pixels."""


@runtime_checkable
class Staged(Protocol):
    """A D whose resolutions can be frozen."""

    def stages_from_image(self) -> list[nn.Module]:
        """What an image passes through, resolution by resolution; the logit is not among it."""


@dataclass(frozen=True, kw_only=True)
class Family:
    """What a family of networks brings.

    Attributes:
        networks: Builds G and D, ``Staged``, with their first weights from torch's generator.
        recipe: How they are trained on so many slices, for so many images in all.
        chart: What a plot shows of their training.
        gammas: The gamma schedules that GAMMA may name, for images of (H, W) pixels.
    """

    networks: Callable[[NetworkShape], tuple[nn.Module, nn.Module]]
    recipe: Callable[[Settings, int, int], Recipe]
    chart: Chart
    gammas: Callable[[int, int], Mapping[str, Ramp]] = lambda _height, _width: {}


def family_of(model: str) -> Family:
    """The family of the model that MODEL names."""
    family = importlib.import_module(f"{__package__}.{MODELS[model].family}.family").FAMILY
    assert isinstance(family, Family)
    return family


def d_resolutions(settings: Settings) -> int:
    """How many of D's resolutions FREEZE_D may name."""
    with torch.device("meta"):
        _, D = family_of(settings.model).networks(settings)
    assert isinstance(D, Staged)
    return len(D.stages_from_image())
