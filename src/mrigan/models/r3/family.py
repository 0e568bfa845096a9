"""``r3`` as a family: everything follows a schedule, and nothing couples its images."""

import math
from dataclasses import replace

from torch import nn

from mrigan.models.augment import policy_of
from mrigan.models.family import Augmentation, Chart, Curve, Family, Half, NetworkShape, Recipe
from mrigan.models.r3.losses import D_SUMS, G_SUMS, d_losses, g_losses
from mrigan.models.r3.networks import PRESETS, Discriminator, Generator
from mrigan.models.r3.schedule import Schedule, constant, gamma_for, gammas, r3_schedule
from mrigan.settings.fields import Settings


def _networks(shape: NetworkShape) -> tuple[nn.Module, nn.Module]:
    preset, size = PRESETS[shape.model], (shape.image_height, shape.image_width)
    return Generator(preset, shape.latent_dim, *size), Discriminator(preset, *size)


def recipe(schedule: Schedule, augmentation: Augmentation | None = None) -> Recipe:
    """How ``r3`` is trained along ``schedule``."""
    return Recipe(
        d=Half(losses=d_losses, sums=D_SUMS),
        g=Half(losses=g_losses, sums=G_SUMS),
        values=schedule.at,
        augmentation=augmentation,
    )


def _recipe(settings: Settings, slices: int, total_images: int) -> Recipe:
    augmentation = None
    if settings.augment != "none":
        size = (settings.image_height, settings.image_width)
        augmentation = Augmentation(policy_of(settings), size, settings.augment)
    return recipe(schedule_of(settings, slices, total_images), augmentation)


def schedule_of(settings: Settings, slices: int, total_images: int) -> Schedule:
    """The schedule of a run of ``total_images`` on ``slices`` slices."""
    size = (settings.image_height, settings.image_width)
    gamma = gamma_for(slices, *size) if settings.gamma == "auto" else gammas(*size)[settings.gamma]
    schedule = r3_schedule(total_images=total_images, gamma=gamma)
    if settings.beta2 != "schedule":
        schedule = replace(schedule, beta2=constant(settings.beta2))
    if settings.ema_images != "schedule":
        return replace(schedule, ema_half_life_images=settings.ema_images, ema_share=None)
    if settings.init_from:  # the EMA is taken over, too, and a short memory would drop it at once
        half_life = min(schedule.ema_half_life_images, total_images / 10)
        return replace(schedule, ema_half_life_images=half_life, ema_share=None)
    return schedule


FAMILY = Family(
    networks=_networks,
    recipe=_recipe,
    chart=Chart(
        losses=(Curve("d_loss", "D, without penalties"), Curve("g_loss", "G")),
        loss_range=(0.0, 3.0),
        chance_loss=math.log(2),
        scores=(
            Curve("real_score", "real over fake, by D (½ = can't tell)"),
            Curve("augment_p", "augmented"),
        ),
        scores_label="probability",
    ),
    gammas=gammas,
)
