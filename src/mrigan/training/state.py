"""Everything that moves while a run trains, and its building from a seed."""

from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor, nn

from mrigan.data.sampler import stream_seed
from mrigan.models.dcgan import Discriminator, Generator


class AdamValues(NamedTuple):
    """Adam's values for both networks."""

    g_lr: float
    d_lr: float
    betas: tuple[float, float]


@dataclass(kw_only=True)
class TrainingState:
    """The networks, their optimizers and how far they are."""

    G: nn.Module
    D: nn.Module
    g_optim: torch.optim.Optimizer
    d_optim: torch.optim.Optimizer
    micro_batch: int  # images in one forward pass; halved when memory runs out
    images_seen: int = 0
    epoch_sums: dict[str, Tensor] = field(default_factory=dict)  # over the current epoch's images


def build_state(
    *,
    latent_dim: int,
    height: int,
    width: int,
    adam: AdamValues,
    batch_size: int,
    seed: int,
    device: torch.device,
) -> TrainingState:
    """A fresh ``dcgan`` whose first weights are a function of ``seed`` alone, on any device."""
    torch.manual_seed(stream_seed(seed, "weights"))
    G: nn.Module = Generator(latent_dim, height, width)
    D: nn.Module = Discriminator(height, width)
    G, D = (net.to(device).to(memory_format=torch.channels_last) for net in (G, D))
    fused = device.type in {"cuda", "cpu"}
    return TrainingState(
        G=G,
        D=D,
        g_optim=torch.optim.Adam(G.parameters(), adam.g_lr, adam.betas, fused=fused),
        d_optim=torch.optim.Adam(D.parameters(), adam.d_lr, adam.betas, fused=fused),
        micro_batch=batch_size,
    )
