"""Adversarial losses on logits, as pure functions. High logit = real.

The seed's non-saturating loss (Goodfellow et al. 2014, arXiv 1406.2661 §3): D minimises
``real_loss + fake_loss``, G minimises the loss of its fakes being called real.
"""

from torch import Tensor
from torch.nn import functional as F


def real_loss(logits: Tensor) -> Tensor:
    """Per-image cost (N,) of not calling these real: softplus(−logit), BCE with target 1."""
    return F.softplus(-logits)


def fake_loss(logits: Tensor) -> Tensor:
    """Per-image cost (N,) of not calling these fake: softplus(logit), BCE with target 0."""
    return F.softplus(logits)
