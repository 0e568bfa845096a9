"""An exponential moving average of G's weights (EMA) whose memory is counted in images.

Samples and the published generator come from it.
"""

from collections.abc import Iterable
from copy import deepcopy

import torch
from torch import Tensor, nn

from mrigan.models.batchnorm import norms_of


def averaged_copy(G: nn.Module) -> nn.Module:
    """A G_ema that starts as ``G`` and never takes a gradient."""
    G_ema = deepcopy(G).eval()
    return G_ema.requires_grad_(requires_grad=False)


def decay_of(step_images: int, half_life_images: float) -> float:
    """What remains of the EMA after a step: a half every ``half_life_images``; 0 for none."""
    return 0.5 ** (step_images / half_life_images) if half_life_images > 0 else 0.0


@torch.no_grad()
def update_average(
    G_ema: nn.Module, G: nn.Module, decay: float, taken: Tensor | float = 1.0
) -> None:
    """Move ``G_ema``'s weights to decay × G_ema + (1 − decay) × G; its buffers stay.

    Args:
        G_ema: Changed in place.
        G: Of the same kind.
        decay: 0 to 1.
        taken: A scalar on the device, 0 where G's step was skipped and the EMA is to stay.
    """
    averages: list[Tensor] = list(G_ema.parameters())
    weights: list[Tensor] = list(G.parameters())
    if decay == 0:  # exactly; where G was skipped, the EMA is G already
        torch._foreach_copy_(averages, weights)
        return
    steps = torch._foreach_sub(weights, averages)
    torch._foreach_mul_(steps, (1 - decay) * taken)
    torch._foreach_add_(averages, steps)


@torch.no_grad()
def recalibrate_batchnorm(G_ema: nn.Module, latents: Iterable[Tensor]) -> None:
    """Replace BatchNorm's running statistics by the mean over ``latents`` (n, latent_dim) each.

    Averaged weights have statistics of their own; G's belong to other weights. Does nothing to a
    network without BatchNorm.
    """
    layers = norms_of(G_ema)
    if not layers:
        return
    for layer in layers:
        layer.reset_running_stats()
        layer.train()
    for count, z in enumerate(latents, start=1):
        G_ema(z)
        for layer in layers:
            (seen,) = layer.seen
            variance = (seen.inverse_std**-2 - layer.eps) * (seen.pixels / (seen.pixels - 1))
            assert layer.running_mean is not None
            assert layer.running_var is not None
            layer.running_mean.lerp_(seen.mean, 1 / count)
            layer.running_var.lerp_(variance, 1 / count)
    for layer in layers:
        layer.eval()
