"""Fills the gradients of one optimizer step from micro-batches, for D and then for G.

A step's loss is a mean over its images, each weighted alike however the step is cut: a ragged
micro-batch counts by its images. Sums for logging stay on the device, since reading one here would
stall it once a micro-batch.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn

from mrigan.models.augment import Warp
from mrigan.models.losses import fake_loss, real_loss

Sums = dict[str, Tensor]

D_SUMS = ("d_loss", "real_loss", "fake_loss", "real_score", "fake_score")
G_SUMS = ("g_loss",)


class MicroBatch(NamedTuple):
    """One forward pass worth of a step."""

    z: Tensor  # (n, latent_dim)
    real: Tensor | None = None  # (n, 1, H, W) in [-1, 1]; G's half may need none
    real_keep: Tensor | None = None  # (n, K) of 0 and 1: channels that dropout leaves to D
    fake_keep: Tensor | None = None
    real_warp: Warp | None = None  # augmentation, a row an image
    fake_warp: Warp | None = None


def accumulate_d(
    G: nn.Module,
    D: nn.Module,
    batches: Iterable[MicroBatch],
    *,
    step_images: int,
    autocast: torch.autocast,
    gamma: Tensor | float = 0.0,
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
    """Set G's gradients to those of its fakes passing for real; leave D's alone.

    Returns:
        Sums over the micro-batches' images, in the order of ``G_SUMS``.
    """
    G.zero_grad(set_to_none=True)
    rows: list[Tensor] = []
    with resting(D):
        for z, _, _, fake_keep, *_ in batches:
            with autocast:
                fake_logits = D(G(z), fake_keep)
            g_sum = real_loss(fake_logits).sum()
            (g_sum / step_images).backward()
            rows.append(g_sum.detach()[None])
    return added(rows, len(G_SUMS), G)


@contextmanager
def resting(network: nn.Module) -> Iterator[None]:
    """Spare the gradient of every weight that learns; those that are frozen stay so."""
    learning = [weight for weight in network.parameters() if weight.requires_grad]
    for weight in learning:
        weight.requires_grad = False
    try:
        yield
    finally:
        for weight in learning:
            weight.requires_grad = True


def added(rows: list[Tensor], count: int, network: nn.Module) -> Tensor:
    """The sum over micro-batches of ``rows``, ``count`` numbers each; zeros where there are none.

    The numbers of one micro-batch may come in several rows.
    """
    if not rows:
        return next(network.parameters()).new_zeros(count)
    joined = torch.cat(rows) if len(rows) > 1 else rows[0]
    return joined if len(joined) == count else joined.view(-1, count).sum(0)


def _joined(real: Tensor | None, fake: Tensor | None) -> Tensor | None:
    return None if real is None or fake is None else torch.cat([real, fake])
