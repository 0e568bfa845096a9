"""Fills the gradients of one optimizer step of ``r3``: D's with both penalties, then G's.

Sums and gradients are over the pairs of a window, so they do not depend on how it is cut.
"""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from mrigan.models.relativistic import (
    d_loss,
    d_terms,
    g_loss,
    g_terms,
    penalised_d_loss,
    real_signs,
)
from mrigan.training.accumulation import MicroBatch, Sums, added, resting

# real_score: how sure D is that a real is more real than a fake; a half is chance.
D_SUMS = ("d_loss", "real_score", "fake_score", "real_sign", "r1", "r2")
G_SUMS = ("g_loss",)


def accumulate_d(
    G: nn.Module,
    D: nn.Module,
    batches: Iterator[MicroBatch],
    *,
    window_images: int,
    autocast: torch.autocast,
    gamma: float,
) -> Sums:
    """Set D's gradients to those of the penalised relativistic loss over the window.

    Returns:
        Sums over the window's pairs, scalars, by metric name.
    """
    D.zero_grad(set_to_none=True)
    rows: list[Tensor] = []
    for z, real, _, real_warp, fake_warp in batches:
        assert real is not None
        with autocast:
            with torch.no_grad():
                fake = G(z)
            terms = d_terms(D, real, fake, real_warp, fake_warp)
        (penalised_d_loss(terms, gamma).sum() / window_images).backward()
        score = (terms.real_logits - terms.fake_logits).detach().sigmoid()
        facts = (
            d_loss(terms.real_logits, terms.fake_logits),
            score,
            1 - score,
            real_signs(terms),
            terms.r1,
            terms.r2,
        )
        rows.append(torch.stack([each.detach().sum() for each in facts]))
    return added(D_SUMS, rows, D)


def accumulate_g(
    G: nn.Module,
    D: nn.Module,
    batches: Iterator[MicroBatch],
    *,
    window_images: int,
    autocast: torch.autocast,
    gamma: float,
) -> Sums:
    """Set G's gradients to those of its fakes passing for more real than reals; leave D's alone."""
    del gamma
    G.zero_grad(set_to_none=True)
    rows: list[Tensor] = []
    with resting(D):
        for z, real, _, real_warp, fake_warp in batches:
            assert real is not None
            with autocast:
                pairs = g_terms(D, real, G(z), real_warp, fake_warp)
            loss = g_loss(*pairs).sum()
            (loss / window_images).backward()
            rows.append(loss.detach()[None])
    return added(G_SUMS, rows, G)
