"""Everything that moves while a run trains, and its building from a seed."""

from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor, nn

from mrigan.data.sampler import stream_seed
from mrigan.models import dcgan, r3
from mrigan.training.adam import Adam
from mrigan.training.adaptive import AdaptiveP
from mrigan.training.ema import averaged_copy


class AdamValues(NamedTuple):
    """Adam's values for both networks at the start."""

    g_lr: float
    d_lr: float
    betas: tuple[float, float]


@dataclass(kw_only=True)
class TrainingState:
    """The networks, their optimizers and how far they are."""

    G: nn.Module
    D: nn.Module
    g_optim: Adam
    d_optim: Adam
    micro_batch: int  # images in one forward pass; halved when memory runs out
    place: str = ""  # what computes: another place's micro-batch is not for this one
    images_seen: int = 0
    epoch_sums: dict[str, Tensor] = field(default_factory=dict)  # over the current epoch's images
    G_ema: nn.Module | None = None
    augment: AdaptiveP = field(default_factory=AdaptiveP.of)
    attempt: int = 0  # how often the run has rolled back because numbers were not finite
    # Steps that were not finite: in a row up to now; most in a row, and all, since the last read.
    skips: Tensor = field(default_factory=lambda: torch.zeros(3))

    @property
    def sampler(self) -> nn.Module:
        """The network that draws what people see: G's average, or G itself."""
        return self.G if self.G_ema is None else self.G_ema

    @property
    def rate_factor(self) -> float:
        """Of the learning rates, after the attempts so far."""
        return 0.5**self.attempt


def build_state(
    *,
    latent_dim: int,
    height: int,
    width: int,
    adam: AdamValues,
    micro_batch: int,
    seed: int,
    device: torch.device,
    preset: r3.Preset | None = None,
    with_average: bool = False,
    freeze_d: int = 0,
) -> TrainingState:
    """Fresh networks whose first weights are a function of ``seed`` alone, on any device.

    Args:
        latent_dim: Width of z.
        height: Of the images, pixels.
        width: Of the images, pixels.
        adam: Rates and betas; a schedule changes them from step to step.
        micro_batch: Images in one forward pass, to begin with.
        seed: Of the run.
        device: Where they are to be.
        preset: Of ``r3``; None builds ``dcgan``.
        with_average: Whether to keep a G_ema.
        freeze_d: How many of D's resolutions, from the image on, never learn.
    """
    torch.manual_seed(stream_seed(seed, "weights"))
    networks: tuple[nn.Module, nn.Module]
    if preset is None:
        networks = (dcgan.Generator(latent_dim, height, width), dcgan.Discriminator(height, width))
    else:
        networks = (
            r3.Generator(preset, latent_dim, height, width),
            r3.Discriminator(preset, height, width),
        )
    G, D = (net.to(device).to(memory_format=torch.channels_last) for net in networks)
    _freeze(D, freeze_d)
    return TrainingState(
        G=G,
        D=D,
        g_optim=Adam(G, adam.g_lr, adam.betas),
        d_optim=Adam(D, adam.d_lr, adam.betas),
        micro_batch=micro_batch,
        G_ema=averaged_copy(G) if with_average else None,
        augment=AdaptiveP.of(device=device),
        skips=torch.zeros(3, device=device),
    )


def _freeze(D: nn.Module, count: int) -> None:
    assert isinstance(D, dcgan.Discriminator | r3.Discriminator)
    for stage in D.stages_from_image()[:count]:
        stage.requires_grad_(requires_grad=False)
