"""Everything that moves while a run trains, and its building from a seed."""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from mrigan.data.sampler import stream_seed
from mrigan.models.family import Staged
from mrigan.training.adam import Adam
from mrigan.training.adaptive import AdaptiveP
from mrigan.training.ema import averaged_copy


@dataclass(kw_only=True)
class TrainingState:
    """The networks, their optimizers and how far they are."""

    G: nn.Module
    D: nn.Module
    g_optim: Adam
    d_optim: Adam
    micro_batch: int  # images in one forward pass; halved when memory runs out
    hardware: str = ""  # what computes: a micro-batch that fits other hardware says nothing here
    images_seen: int = 0
    epoch_sums: dict[str, Tensor] = field(default_factory=dict)  # over the current epoch's images
    G_ema: nn.Module | None = None
    augment: AdaptiveP = field(default_factory=AdaptiveP.of)
    attempt: int = 0  # how often the run has rolled back because numbers were not finite
    # Steps that were not finite: in a row up to now; most in a row, and all, since the last read.
    skips: Tensor = field(default_factory=lambda: torch.zeros(3))

    @property
    def sampler(self) -> nn.Module:
        """The network that draws what people see: G's EMA, or G itself."""
        return self.G if self.G_ema is None else self.G_ema

    @property
    def rate_factor(self) -> float:
        """Of the learning rates, after the attempts so far."""
        return 0.5**self.attempt


def build_state(
    networks: Callable[[], tuple[nn.Module, nn.Module]],
    *,
    g_lr: float,
    d_lr: float,
    beta1: float,
    micro_batch: int,
    seed: int,
    device: torch.device,
    with_ema: bool = False,
    freeze_d: int = 0,
) -> TrainingState:
    """Fresh networks whose first weights are a function of ``seed`` alone, on any device.

    Args:
        networks: Builds G and D.
        g_lr: Learning rate of G; a schedule multiplies it from step to step.
        d_lr: That of D.
        beta1: Adam's, of both; β2 is set at each step.
        micro_batch: Images in one forward pass, to begin with.
        seed: Of the run.
        device: Where they are to be.
        with_ema: Whether to keep a G_ema.
        freeze_d: How many of D's resolutions, from the image on, never learn.
    """
    torch.manual_seed(stream_seed(seed, "weights"))
    G, D = (net.to(device).to(memory_format=torch.channels_last) for net in networks())
    _freeze(D, freeze_d)
    return TrainingState(
        G=G,
        D=D,
        g_optim=Adam(G, g_lr, beta1),
        d_optim=Adam(D, d_lr, beta1),
        micro_batch=micro_batch,
        G_ema=averaged_copy(G) if with_ema else None,
        augment=AdaptiveP.of(device=device),
        skips=torch.zeros(3, device=device),
    )


def _freeze(D: nn.Module, count: int) -> None:
    assert isinstance(D, Staged)
    for stage in D.stages_from_image()[:count]:
        stage.requires_grad_(requires_grad=False)
