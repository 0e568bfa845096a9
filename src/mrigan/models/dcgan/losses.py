"""The losses of ``dcgan`` over one micro-batch.

The non-saturating loss (Goodfellow et al. 2014, arXiv 1406.2661 §3) on logits, high = real: D
minimises ``real_loss + fake_loss``, G minimises the loss of its fakes being called real.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mrigan.models.family import MicroBatch

D_SUMS = ("d_loss", "real_loss", "fake_loss", "real_score", "fake_score")
G_SUMS = ("g_loss",)


def real_loss(logits: Tensor) -> Tensor:
    """Per-image cost (N,) of not calling these real: softplus(−logit), BCE with target 1."""
    return F.softplus(-logits)


def fake_loss(logits: Tensor) -> Tensor:
    """Per-image cost (N,) of not calling these fake: softplus(logit), BCE with target 0."""
    return F.softplus(logits)


def d_losses(
    G: nn.Module, D: nn.Module, batch: MicroBatch, autocast: torch.autocast, _gamma: Tensor
) -> tuple[Tensor, list[Tensor]]:
    """D's loss; see ``models.family.Losses``."""
    z, real, real_keep, fake_keep, *_ = batch
    assert real is not None
    with torch.no_grad(), autocast:
        fake = G(z)
    with autocast:
        # One pass over both: nothing in D couples the images of a batch.
        logits = D(torch.cat([real, fake]), _joined(real_keep, fake_keep))
    real_logits, fake_logits = logits.split([len(real), len(fake)])
    losses = torch.stack([real_loss(real_logits).sum(), fake_loss(fake_logits).sum()])
    scores = logits.detach().sigmoid().split([len(real), len(fake)])
    loss = losses.sum()
    return loss, [loss.detach()[None], losses.detach(), torch.stack([s.sum() for s in scores])]


def g_losses(
    G: nn.Module, D: nn.Module, batch: MicroBatch, autocast: torch.autocast, _gamma: Tensor
) -> tuple[Tensor, list[Tensor]]:
    """G's loss; see ``models.family.Losses``."""
    with autocast:
        fake_logits = D(G(batch.z), batch.fake_keep)
    loss = real_loss(fake_logits).sum()
    return loss, [loss.detach()[None]]


def _joined(real: Tensor | None, fake: Tensor | None) -> Tensor | None:
    return None if real is None or fake is None else torch.cat([real, fake])
