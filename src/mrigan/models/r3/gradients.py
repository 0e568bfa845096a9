"""The gradients of one optimizer step of ``r3``: D's with both penalties, then G's.

Sums and gradients are over the pairs of a step, so they do not depend on how it is cut.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from mrigan.models.micro_batch import MicroBatch, summed, without_gradients
from mrigan.models.r3.losses import (
    SlopedDiscriminator,
    d_loss,
    d_terms,
    g_loss,
    g_terms,
    penalised_d_loss,
    real_signs,
)

# real_score: how sure D is that a real is more real than a fake; a half is chance.
D_SUMS = ("d_loss", "real_score", "fake_score", "real_sign", "r1", "r2")
G_SUMS = ("g_loss",)


def fill_d(
    G: nn.Module,
    D: nn.Module,
    batches: Iterable[MicroBatch],
    *,
    step_images: int,
    autocast: torch.autocast,
    gamma: Tensor,
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
    """Set G's gradients to those of its fakes passing for more real than reals; leave D's alone."""
    G.zero_grad(set_to_none=True)
    rows: list[Tensor] = []
    with without_gradients(D):
        for batch in batches:
            assert batch.real is not None
            with autocast:
                pairs = g_terms(D, batch.real, G(batch.z), batch.real_warp, batch.fake_warp)
            loss = g_loss(*pairs).sum()
            (loss / step_images).backward()
            rows.append(loss.detach()[None])
    return summed(rows, len(G_SUMS), G)
