"""What MODEL stands for: its defaults, its networks, and how they are trained."""

import math
from dataclasses import replace
from typing import Any, TypeVar

from mrigan.models import dcgan, r3
from mrigan.models.augment import Policy
from mrigan.models.batchnorm import synchronise
from mrigan.runtime.device import Hardware
from mrigan.runtime.ranks import ALONE, Ranks
from mrigan.settings.fields import Settings
from mrigan.training import family, schedule
from mrigan.training.compiled import compile_networks
from mrigan.training.family import Family
from mrigan.training.plan import Plan
from mrigan.training.state import AdamValues, TrainingState, build_state

T = TypeVar("T")

_DCGAN: dict[str, Any] = {
    "latent_dim": 100,
    "accumulation_steps": 8,
    "g_lr": dcgan.LEARNING_RATE,
    "d_lr": dcgan.LEARNING_RATE,
    "beta1": dcgan.BETAS[0],
    "beta2": dcgan.BETAS[1],
    "ema_images": 0.0,
    "holdout": 0.0,
}
# β2 and the average's half-life have a course of their own, unless a number is given.
_R3: dict[str, Any] = {
    "latent_dim": r3.LATENT_DIM,
    "accumulation_steps": 1,  # steps teach, and nothing in the loss wants more at once
    "beta1": schedule.BETA1,
    "holdout": 10.0,
}


def is_r3(settings: Settings) -> bool:
    """Whether MODEL is one of the ``r3`` presets."""
    return settings.model in r3.PRESETS


def with_defaults(settings: Settings) -> Settings:
    """The settings with what the model decides filled in, as settings.json shows them."""
    given = _DCGAN
    if is_r3(settings):
        rate = r3.PRESETS[settings.model].learning_rate
        given = _R3 | {"g_lr": rate, "d_lr": rate}
    missing = {name: value for name, value in given.items() if getattr(settings, name) is None}
    return settings.model_copy(update=missing)


def known(value: T | None) -> T:
    """A setting that ``with_defaults`` has filled in."""
    assert value is not None
    return value


def fresh_state(settings: Settings, hardware: Hardware, ranks: Ranks = ALONE) -> TrainingState:
    """Networks and optimizers at the start of a run of ``with_defaults(settings)``."""
    beta2 = schedule.BETA2.start if settings.beta2 is None else settings.beta2
    state = build_state(
        latent_dim=known(settings.latent_dim),
        height=settings.image_height,
        width=settings.image_width,
        adam=AdamValues(
            g_lr=known(settings.g_lr),
            d_lr=known(settings.d_lr),
            betas=(known(settings.beta1), beta2),
        ),
        micro_batch=first_micro_batch(settings, hardware, ranks),
        seed=settings.seed,
        device=hardware.device,
        preset=r3.PRESETS.get(settings.model),
        with_average=settings.ema_images != 0,
        freeze_d=settings.freeze_d or 0,
    )
    device = hardware.name if hardware.device.type == "cuda" else hardware.device.type
    state.place = f"{ranks.world.size} x {device}"
    if settings.sync_batchnorm and ranks.world.size > 1:
        synchronise(state.G, ranks)
    if settings.compile:
        compile_networks(state)
    return state


def d_resolutions(settings: Settings) -> int:
    """How many of D's resolutions FREEZE_D may name."""
    if is_r3(settings):
        preset = r3.PRESETS[settings.model]
        return len(preset.sizes(settings.image_height, settings.image_width))
    return len(dcgan.D_WIDTHS)


def family_of(settings: Settings, plan: Plan) -> Family:
    """How the networks of ``with_defaults(settings)`` are trained over ``plan``."""
    if not is_r3(settings):
        return replace(family.DCGAN, ema_half_life_images=known(settings.ema_images))
    size = (settings.image_height, settings.image_width)
    if settings.gamma == "auto":
        gamma = schedule.gamma_for(plan.slices, *size)
    else:
        gamma = schedule.gamma_ramp(settings.gamma, *size)
    values = schedule.r3_schedule(total_images=plan.total_images, gamma=gamma)
    if settings.beta2 is not None:
        values = replace(values, beta2=schedule.Ramp(settings.beta2, settings.beta2))
    if settings.ema_images is not None:
        values = replace(values, ema_half_life_images=settings.ema_images, ema_share=None)
    elif settings.init_from:  # the EMA, too, is taken over, and a short one would drop it at once
        half_life = min(values.ema_half_life_images, plan.total_images / 10)
        values = replace(values, ema_half_life_images=half_life, ema_share=None)
    return family.r3(
        values,
        policy=policy_of(settings),
        size=size,
        augment_by=settings.augment,
    )


def policy_of(settings: Settings) -> Policy:
    """What augmentation may do."""
    return Policy(flips=settings.augment_flips, rotation_degrees=settings.augment_rotation)


def first_micro_batch(settings: Settings, hardware: Hardware, ranks: Ranks) -> int:
    """Images in one forward pass, to begin with: halved when they turn out not to fit.

    A GPU takes a rank's whole part of a step; a CPU is no faster for it, and takes less memory.
    """
    if settings.micro_batch != "auto":
        return settings.micro_batch
    if hardware.device.type != "cuda":
        return settings.batch_size
    rounds = known(settings.accumulation_steps) / ranks.world.size
    if is_r3(settings):
        return math.ceil(settings.batch_size * rounds)
    return settings.batch_size * math.ceil(rounds)
