"""``dcgan`` as a family: nothing changes while it trains, and BatchNorm couples its images."""

import math

from torch import nn

from mrigan.models.dcgan.losses import D_SUMS, G_SUMS, d_losses, g_losses
from mrigan.models.dcgan.networks import D_WIDTHS, DROPOUT, Discriminator, Generator
from mrigan.models.family import Chart, Curve, Dropout, Family, Half, NetworkShape, Recipe, Values
from mrigan.settings.fields import Settings


def _networks(shape: NetworkShape) -> tuple[nn.Module, nn.Module]:
    size = (shape.image_height, shape.image_width)
    return Generator(shape.latent_dim, *size), Discriminator(*size)


def recipe(*, beta2: float, ema_images: float = 0.0) -> Recipe:
    """How ``dcgan`` is trained.

    Args:
        beta2: Adam's, of both networks.
        ema_images: Half-life of G's EMA, images; 0 for none.
    """
    values = Values(lr_factor=1.0, beta2=beta2, gamma=0.0, ema_half_life_images=ema_images)
    return Recipe(
        d=Half(losses=d_losses, sums=D_SUMS),
        g=Half(losses=g_losses, sums=G_SUMS, takes_reals=False),
        values=lambda _images_seen: values,
        couples_images=True,
        dropout=Dropout(channels=sum(D_WIDTHS), share=DROPOUT),
    )


def _recipe(settings: Settings, _slices: int, _total_images: int) -> Recipe:
    return recipe(beta2=float(settings.beta2), ema_images=float(settings.ema_images))


FAMILY = Family(
    networks=_networks,
    recipe=_recipe,
    chart=Chart(
        losses=(Curve("d_loss", "D: real_loss + fake_loss"), Curve("g_loss", "G")),
        loss_range=(0.0, 6.0),
        chance_loss=2 * math.log(2),
        scores=(Curve("real_score", "real slices"), Curve("fake_score", "fakes")),
        scores_label="D's score\n(1 = real)",
    ),
)
