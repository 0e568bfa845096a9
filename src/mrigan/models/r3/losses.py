"""The relativistic loss with R1 and R2, as pure functions of networks and images.

RpGAN (Jolicoeur-Martineau 2018, arXiv 1807.00734) with gradient penalties on reals and fakes (Huang
et al. 2024, arXiv 2501.05441). High logit = real. Every result is one value per pair (N,), so a
step's mean does not depend on how the step is cut. D itself gives the slopes that the
penalties measure, so whatever runs D, eager or compiled, takes first derivatives only, and no
penalty can lose its gradient in silence.
"""

from typing import NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mrigan.models.augment import Warp, augment
from mrigan.models.family import MicroBatch

# real_score: how sure D is that a real is more real than a fake; a half is chance.
D_SUMS = ("d_loss", "real_score", "fake_score", "real_sign", "r1", "r2")
G_SUMS = ("g_loss",)


@runtime_checkable
class SlopedDiscriminator(Protocol):
    """A D that knows the gradient of its logits with respect to the pixels."""

    def __call__(self, images: Tensor) -> Tensor:
        """Images (N, 1, H, W) to logits (N,)."""

    def with_slope(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Images (N, 1, H, W) to logits (N,) and slopes (N, 1, H, W)."""


class Pairs(NamedTuple):
    """Logits of the reals and the fakes, pair by pair; each (N,)."""

    real_logits: Tensor
    fake_logits: Tensor


class DTerms(NamedTuple):
    """What D's loss is made of; each (N,)."""

    real_logits: Tensor
    fake_logits: Tensor
    r1: Tensor  # |∂D(real)/∂real|², summed over C, H, W
    r2: Tensor  # the same for the fake


def d_loss(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """Per-pair cost (N,) to D of not telling the two apart: softplus(fake − real)."""
    return F.softplus(fake_logits - real_logits)


def g_loss(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """Per-pair cost (N,) to G of the fake not passing for more real than the real one."""
    return F.softplus(real_logits - fake_logits)


def penalised_d_loss(terms: DTerms, gamma: Tensor | float) -> Tensor:
    """D's whole cost (N,): the relativistic loss and γ/2 (R1 + R2)."""
    loss = d_loss(terms.real_logits, terms.fake_logits)
    return loss + gamma / 2 * (terms.r1 + terms.r2)


def real_signs(pairs: Pairs | DTerms) -> Tensor:
    """Signs (N,) of D(real) − D(fake): mean 1 when D tells all pairs apart, 0 at chance."""
    return (pairs.real_logits - pairs.fake_logits).detach().sign()


def squared_slopes(
    D: SlopedDiscriminator, images: Tensor, warp: Warp | None = None
) -> tuple[Tensor, Tensor]:
    """Score ``images`` and measure how sharply: both are differentiable in D's parameters.

    Args:
        D: Images to logits (N,), each image by itself, and to their slopes.
        images: (N, 1, H, W). The slope is that of these, before ``warp``.
        warp: Augmentation, one row for each image; None for none.

    Returns:
        Logits (N,) and |∂logit/∂image|² (N,).
    """
    images = images.detach()
    if warp is None:
        logits, slope = D.with_slope(images)
    else:
        seen = augment(images.requires_grad_(), warp)
        logits, seen_slope = D.with_slope(seen)
        # Augmentation is linear in the pixels, so this is linear in D's slope. As a product: given
        # the slope as grad_outputs, torch imports its symbolic shapes, which takes seconds.
        (slope,) = torch.autograd.grad((seen * seen_slope).sum(), images, create_graph=True)
    return logits, slope.square().sum((1, 2, 3))


def d_terms(
    D: SlopedDiscriminator,
    real: Tensor,
    fake: Tensor,
    real_warp: Warp | None = None,
    fake_warp: Warp | None = None,
) -> DTerms:
    """Score reals and fakes, and measure both penalties, in one pass of D.

    Args:
        D: Images to logits (N,), each image by itself.
        real: (N, 1, H, W).
        fake: As many, from G; their graph is not followed.
        real_warp: Augmentation of the reals; None for none at all.
        fake_warp: That of the fakes, drawn for itself; None exactly where ``real_warp`` is.
    """
    images = torch.cat([real, fake.detach()])
    logits, squares = squared_slopes(D, images, _together(real_warp, fake_warp))
    return DTerms(*logits.chunk(2), *squares.chunk(2))


def g_terms(
    D: nn.Module,
    real: Tensor,
    fake: Tensor,
    real_warp: Warp | None = None,
    fake_warp: Warp | None = None,
) -> Pairs:
    """Score reals, as constants, and fakes with their graph; D's parameters should be frozen.

    The relativistic loss needs reals in G's step too. Arguments as those of ``d_terms``.
    """
    with torch.no_grad():
        real_logits = D(real if real_warp is None else augment(real, real_warp))
    fake_logits = D(fake if fake_warp is None else augment(fake, fake_warp))
    return Pairs(real_logits, fake_logits)


def d_losses(
    G: nn.Module, D: nn.Module, batch: MicroBatch, autocast: torch.autocast, gamma: Tensor
) -> tuple[Tensor, list[Tensor]]:
    """D's penalised relativistic loss; see ``models.family.Losses``."""
    assert isinstance(D, SlopedDiscriminator)
    assert batch.real is not None
    with autocast:
        with torch.no_grad():
            fake = G(batch.z)
        terms = d_terms(D, batch.real, fake, batch.real_warp, batch.fake_warp)
    score = (terms.real_logits - terms.fake_logits).detach().sigmoid()
    facts = (
        d_loss(terms.real_logits, terms.fake_logits),
        score,
        1 - score,
        real_signs(terms),
        terms.r1,
        terms.r2,
    )
    sums = torch.stack([each.detach() for each in facts]).sum(1)
    return penalised_d_loss(terms, gamma).sum(), [sums]


def g_losses(
    G: nn.Module, D: nn.Module, batch: MicroBatch, autocast: torch.autocast, _gamma: Tensor
) -> tuple[Tensor, list[Tensor]]:
    """The loss of G's fakes passing for more real than reals; see ``models.family.Losses``."""
    assert batch.real is not None
    with autocast:
        pairs = g_terms(D, batch.real, G(batch.z), batch.real_warp, batch.fake_warp)
    loss = g_loss(*pairs).sum()
    return loss, [loss.detach()[None]]


def _together(real_warp: Warp | None, fake_warp: Warp | None) -> Warp | None:
    if real_warp is None or fake_warp is None:
        return None
    return Warp(*(torch.cat(rows) for rows in zip(real_warp, fake_warp, strict=True)))
