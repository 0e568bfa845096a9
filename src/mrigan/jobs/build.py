"""From settings to what a run is made of: its family, plan, state and way to the store."""

import math

from mrigan.data.selection import Selection
from mrigan.data.source import Source, open_source
from mrigan.errors import SettingsError
from mrigan.models.batchnorm import synchronise
from mrigan.models.family import Recipe, family_of
from mrigan.runtime.device import Hardware
from mrigan.runtime.ranks import ALONE, Ranks
from mrigan.sagemaker.container import read_checkpoint_folder
from mrigan.settings.fields import Settings
from mrigan.settings.models import MODELS
from mrigan.settings.values import patterns
from mrigan.storage.store import Store, StoreOptions, open_store
from mrigan.training.compiled import compile_networks
from mrigan.training.plan import Plan, check_groups_divide
from mrigan.training.state import TrainingState, build_state


def storage_options(settings: Settings) -> StoreOptions:
    """What every command that opens a store hands to it."""
    return StoreOptions(
        sse=settings.sse,
        sse_kms_key_id=settings.sse_kms_key_id,
        max_retries=settings.storage_retries,
        retry_timeout_seconds=settings.storage_timeout,
        synced_folder=read_checkpoint_folder(),
    )


def input_source(settings: Settings) -> Source:
    """Open INPUT_URI, as every command does that reads slices.

    Raises:
        StorageError: The store can't be opened.
    """
    selection = Selection(patterns(settings.include), patterns(settings.exclude))
    return open_source(settings.input_uri, storage_options(settings), selection)


def file_place(place: str, options: StoreOptions, example: str) -> tuple[Store, str]:
    """Open where one file is to be written; returns the store and the file's key in it.

    Args:
        place: A path, or ``s3://bucket/key``.
        options: Of the store.
        example: A name to propose where ``place`` has none.

    Raises:
        SettingsError: ``place`` names no file.
        StorageError: The store can't be opened.
    """
    folder, slash, name = place.rpartition("/")
    if not name or folder == "s3:/":
        raise SettingsError(f"{place}: names no file; add one, as in {place.rstrip('/')}/{example}")
    return open_store(folder or slash or ".", options), name


def plan_of(settings: Settings, slices: int) -> Plan:
    """The arithmetic of a run that trains on so many slices."""
    return Plan(
        slices=slices,
        epochs=settings.epochs,
        batch_size=settings.batch_size,
        accumulation_steps=settings.accumulation_steps,
    )


def check_ranks(settings: Settings, ranks: int) -> None:
    """Refuse a number of ranks that can't share the groups of images of a step evenly.

    Raises:
        SettingsError: Naming the nearest ACCUMULATION_STEPS that can.
    """
    if MODELS[settings.model].couples_images:
        check_groups_divide(settings.accumulation_steps, ranks)


def recipe_of(settings: Settings, plan: Plan) -> Recipe:
    """How the networks are trained over ``plan``."""
    return family_of(settings.model).recipe(settings, plan.slices, plan.total_images)


def fresh_state(settings: Settings, hardware: Hardware, ranks: Ranks = ALONE) -> TrainingState:
    """Networks and optimizers at the start of a run."""
    family = family_of(settings.model)
    state = build_state(
        lambda: family.networks(settings),
        g_lr=settings.g_lr,
        d_lr=settings.d_lr,
        beta1=settings.beta1,
        micro_batch=first_micro_batch(settings, hardware, ranks),
        seed=settings.seed,
        device=hardware.device,
        with_ema=settings.ema_images != 0,
        freeze_d=settings.freeze_d,
    )
    device = hardware.name if hardware.device.type == "cuda" else hardware.device.type
    state.hardware = f"{ranks.world.size} x {device}"
    if settings.sync_batchnorm and ranks.world.size > 1:
        synchronise(state.G, ranks)
    if settings.compile:
        compile_networks(state)
    return state


def first_micro_batch(settings: Settings, hardware: Hardware, ranks: Ranks) -> int:
    """Images in one forward pass, to begin with: halved when they turn out not to fit.

    A GPU takes a rank's whole part of a step; a CPU is no faster for it, and takes less memory.
    """
    if settings.micro_batch != "auto":
        return settings.micro_batch
    if hardware.device.type != "cuda":
        return settings.batch_size
    groups = settings.accumulation_steps / ranks.world.size
    if MODELS[settings.model].couples_images:
        return settings.batch_size * math.ceil(groups)
    return math.ceil(settings.batch_size * groups)
