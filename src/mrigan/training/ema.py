"""A moving average of G's weights whose memory is counted in images, whatever the step's size.

Samples and the published generator come from it.
"""

from collections.abc import Iterable
from copy import deepcopy

import torch
from torch import Tensor, nn


def averaged_copy(G: nn.Module) -> nn.Module:
    """A G_ema that starts as ``G`` and never takes a gradient."""
    G_ema = deepcopy(G).eval()
    return G_ema.requires_grad_(requires_grad=False)


def decay_of(step_images: int, half_life_images: float) -> float:
    """What remains of the average after a step: a half every ``half_life_images``; 0 for none."""
    return 0.5 ** (step_images / half_life_images) if half_life_images > 0 else 0.0


@torch.no_grad()
def update_average(G_ema: nn.Module, G: nn.Module, decay: float) -> None:
    """Move ``G_ema``'s weights to decay × G_ema + (1 − decay) × G; buffers are copied."""
    averages: list[Tensor] = list(G_ema.parameters())
    weights: list[Tensor] = list(G.parameters())
    torch._foreach_lerp_(averages, weights, 1 - decay)
    for kept, current in zip(G_ema.buffers(), G.buffers(), strict=True):
        kept.copy_(current)


@torch.no_grad()
def settle_batchnorm(G_ema: nn.Module, latents: Iterable[Tensor]) -> None:
    """Replace BatchNorm's running statistics by the mean over ``latents`` (n, latent_dim) each.

    Averaged weights have statistics of their own; G's buffers belong to other weights. Does nothing
    to a network without BatchNorm.
    """
    layers = [layer for layer in G_ema.modules() if isinstance(layer, nn.BatchNorm2d)]
    if not layers:
        return
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # a plain mean over what follows
        layer.train()
    for z in latents:
        G_ema(z)
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum
        layer.eval()
