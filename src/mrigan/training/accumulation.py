"""Fills the gradients of one optimizer step from micro-batches, for D and then for G.

A window's loss is a mean over its images, each weighted alike however the window is cut: a ragged
micro-batch counts by its images. Sums for logging stay on the device, since reading one here would
stall it once a micro-batch.
"""

from collections.abc import Iterator
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
    """One forward pass worth of a window."""

    z: Tensor  # (n, latent_dim)
    real: Tensor | None  # (n, 1, H, W) in [-1, 1]; G's window may need none
    seed: int  # of whatever the networks draw themselves, such as dropout
    real_warp: Warp | None = None  # augmentation, a row an image
    fake_warp: Warp | None = None


def accumulate_d(
    G: nn.Module,
    D: nn.Module,
    batches: Iterator[MicroBatch],
    *,
    window_images: int,
    autocast: torch.autocast,
) -> Sums:
    """Set D's gradients to those of ``real_loss + fake_loss`` over the window; leave G's alone.

    Returns:
        Sums over the window's images, scalars, by metric name.
    """
    D.zero_grad(set_to_none=True)
    rows: list[Tensor] = []
    for z, real, seed, *_ in batches:
        assert real is not None
        torch.manual_seed(seed)
        with torch.no_grad(), autocast:
            fake = G(z)
        with autocast:
            # One pass over both: nothing in D couples the images of a batch.
            logits = D(torch.cat([real, fake]))
        real_logits, fake_logits = logits[: len(real)], logits[len(real) :]
        real_sum, fake_sum = real_loss(real_logits).sum(), fake_loss(fake_logits).sum()
        ((real_sum + fake_sum) / window_images).backward()
        scores = (real_logits.detach().sigmoid().sum(), fake_logits.detach().sigmoid().sum())
        rows.append(torch.stack([real_sum + fake_sum, real_sum, fake_sum, *scores]).detach())
    return added(D_SUMS, rows, D)


def accumulate_g(
    G: nn.Module,
    D: nn.Module,
    batches: Iterator[MicroBatch],
    *,
    window_images: int,
    autocast: torch.autocast,
) -> Sums:
    """Set G's gradients to those of its fakes passing for real; leave D's alone.

    Returns:
        Sums over the window's images, scalars, by metric name.
    """
    G.zero_grad(set_to_none=True)
    rows: list[Tensor] = []
    with resting(D):
        for z, _, seed, *_ in batches:
            torch.manual_seed(seed)
            with autocast:
                fake_logits = D(G(z))
            g_sum = real_loss(fake_logits).sum()
            (g_sum / window_images).backward()
            rows.append(g_sum.detach()[None])
    return added(G_SUMS, rows, G)


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


def added(names: tuple[str, ...], rows: list[Tensor], network: nn.Module) -> Sums:
    """Each name's sum over ``rows``, zero where there are none."""
    some = next(network.parameters())
    total = torch.stack(rows).sum(0) if rows else some.new_zeros(len(names))
    return dict(zip(names, total, strict=True))
