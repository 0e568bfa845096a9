"""The gradients of one optimizer step of ``dcgan``, and the losses that they are of.

The non-saturating loss (Goodfellow et al. 2014, arXiv 1406.2661 §3) on logits, high = real: D
minimises ``real_loss + fake_loss``, G minimises the loss of its fakes being called real.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mrigan.models.micro_batch import MicroBatch, summed, without_gradients

D_SUMS = ("d_loss", "real_loss", "fake_loss", "real_score", "fake_score")
G_SUMS = ("g_loss",)


def real_loss(logits: Tensor) -> Tensor:
    """Per-image cost (N,) of not calling these real: softplus(−logit), BCE with target 1."""
    return F.softplus(-logits)


def fake_loss(logits: Tensor) -> Tensor:
    """Per-image cost (N,) of not calling these fake: softplus(logit), BCE with target 0."""
    return F.softplus(logits)


def fill_d(
    G: nn.Module,
    D: nn.Module,
    batches: Iterable[MicroBatch],
    *,
    step_images: int,
    autocast: torch.autocast,
    gamma: Tensor,
) -> Tensor:
    """Set D's gradients to those of ``real_loss + fake_loss`` over the step; leave G's alone.

    Returns:
        Sums over the micro-batches' images, in the order of ``D_SUMS``.
    """
    D.zero_grad(set_to_none=True)
    rows: list[Tensor] = []
    for z, real, real_keep, fake_keep, *_ in batches:
        assert real is not None
        with torch.no_grad(), autocast:
            fake = G(z)
        with autocast:
            # One pass over both: nothing in D couples the images of a batch.
            logits = D(torch.cat([real, fake]), _joined(real_keep, fake_keep))
        real_logits, fake_logits = logits.split([len(real), len(fake)])
        losses = torch.stack([real_loss(real_logits).sum(), fake_loss(fake_logits).sum()])
        (losses.sum() / step_images).backward()
        scores = logits.detach().sigmoid().split([len(real), len(fake)])
        losses = losses.detach()
        rows += [losses.sum()[None], losses, torch.stack([score.sum() for score in scores])]
    return summed(rows, len(D_SUMS), D)


def fill_g(
    G: nn.Module,
    D: nn.Module,
    batches: Iterable[MicroBatch],
    *,
    step_images: int,
    autocast: torch.autocast,
    gamma: Tensor,
) -> Tensor:
    """Set G's gradients to those of its fakes passing for real; leave D's alone.

    Returns:
        Sums over the micro-batches' images, in the order of ``G_SUMS``.
    """
    G.zero_grad(set_to_none=True)
    rows: list[Tensor] = []
    with without_gradients(D):
        for z, _, _, fake_keep, *_ in batches:
            with autocast:
                fake_logits = D(G(z), fake_keep)
            g_sum = real_loss(fake_logits).sum()
            (g_sum / step_images).backward()
            rows.append(g_sum.detach()[None])
    return summed(rows, len(G_SUMS), G)


def _joined(real: Tensor | None, fake: Tensor | None) -> Tensor | None:
    return None if real is None or fake is None else torch.cat([real, fake])
