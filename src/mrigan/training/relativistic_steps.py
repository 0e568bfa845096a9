"""Fills the gradients of one optimizer step of ``r3``: D's with both penalties, then G's.

Sums and gradients are over the pairs of a step, so they do not depend on how it is cut.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from mrigan.models.relativistic import (
    SlopedDiscriminator,
    d_loss,
    d_terms,
    g_loss,
    g_terms,
    penalised_d_loss,
    real_signs,
)
from mrigan.training.accumulation import MicroBatch, added, resting

# real_score: how sure D is that a real is more real than a fake; a half is chance.
D_SUMS = ("d_loss", "real_score", "fake_score", "real_sign", "r1", "r2")
G_SUMS = ("g_loss",)


def accumulate_d(
    G: nn.Module,
    D: nn.Module,
    batches: Iterable[MicroBatch],
    *,
    step_images: int,
    autocast: torch.autocast,
    gamma: Tensor | float,
) -> Tensor:
    """Set D's gradients to those of the penalised relativistic loss over the step.

    Returns:
        Sums over the micro-batches' pairs, in the order of ``D_SUMS``.
    """
    assert isinstance(D, SlopedDiscriminator)
    D.zero_grad(set_to_none=True)
    rows: list[Tensor] = []
    for batch in batches:
        assert batch.real is not None
        with autocast:
            with torch.no_grad():
                fake = G(batch.z)
            terms = d_terms(D, batch.real, fake, batch.real_warp, batch.fake_warp)
        (penalised_d_loss(terms, gamma).sum() / step_images).backward()
        score = (terms.real_logits - terms.fake_logits).detach().sigmoid()
        facts = (
            d_loss(terms.real_logits, terms.fake_logits),
            score,
            1 - score,
            real_signs(terms),
            terms.r1,
            terms.r2,
        )
        rows.append(torch.stack([each.detach() for each in facts]).sum(1))
    return added(rows, len(D_SUMS), D)


def accumulate_g(
    G: nn.Module,
    D: nn.Module,
    batches: Iterable[MicroBatch],
    *,
    step_images: int,
    autocast: torch.autocast,
    gamma: Tensor | float = 0.0,
) -> Tensor:
    """Set G's gradients to those of its fakes passing for more real than reals; leave D's alone."""
    G.zero_grad(set_to_none=True)
    rows: list[Tensor] = []
    with resting(D):
        for batch in batches:
            assert batch.real is not None
            with autocast:
                pairs = g_terms(D, batch.real, G(batch.z), batch.real_warp, batch.fake_warp)
            loss = g_loss(*pairs).sum()
            (loss / step_images).backward()
            rows.append(loss.detach()[None])
    return added(rows, len(G_SUMS), G)
