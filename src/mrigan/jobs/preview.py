"""``mrigan preview``: a sheet of what augmentation makes of one's own slices.

To be looked at before training: each row is a slice as it is, then as D may see it.
"""

import logging
import random

import numpy as np
import torch
from numpy.typing import NDArray

from mrigan.artifacts.grids import render_grid
from mrigan.data.refusal import UnusableSliceError
from mrigan.data.sampler import stream_seed
from mrigan.data.series import find_series
from mrigan.data.slices import to_grey, to_unit
from mrigan.data.source import is_folder_marker
from mrigan.errors import DataError, SettingsError
from mrigan.jobs.build import file_place, input_source, storage_options
from mrigan.models.augment import augment, draw_warp, policy_of
from mrigan.settings.fields import Settings

log = logging.getLogger(__name__)


def preview(settings: Settings, place: str, *, rows: int, columns: int, p: float) -> None:
    """Write the sheet as a PNG.

    Args:
        settings: Where the slices are, their size, and what augmentation may do.
        place: A path or ``s3://bucket/key``.
        rows: Slices, drawn by SEED.
        columns: The slice itself, which is what p = 0 leaves, and so many less one of p = ``p``.
        p: Probability of each transformation, 0 to 1.

    Raises:
        SettingsError: Sizes that make no sheet.
        DataError: No object that was tried is a slice.
        StorageError: Reading or writing failed.
    """
    if rows < 1 or columns < 2 or not 0 <= p <= 1:
        raise SettingsError("a sheet has at least --rows 1 and --columns 2, and --p is from 0 to 1")
    store, name = file_place(place, storage_options(settings), "sheet.png")
    images = _some_slices(settings, rows)
    sheet = draw_sheet(settings, images, columns=columns, p=p)
    store.put(name, render_grid(sheet, columns))
    log.info("written", extra={"sheet": place, "slices": len(images), "p": p})


def draw_sheet(
    settings: Settings, images: NDArray[np.uint8], *, columns: int, p: float
) -> NDArray[np.uint8]:
    """The cells (N · columns, 1, H, W) of a sheet of ``images`` (N, 1, H, W), row by row."""
    policy, size = policy_of(settings), (settings.image_height, settings.image_width)
    real = to_unit(torch.from_numpy(images))
    cells = []
    for column in range(columns):
        seed = stream_seed(settings.seed, "preview", column)
        warp = draw_warp(policy, len(images), size, p=p if column else 0.0, seed=seed)
        cells.append(to_grey(augment(real, warp)))
    return torch.stack(cells, 1).flatten(0, 1).numpy()


def _some_slices(settings: Settings, count: int) -> NDArray[np.uint8]:
    """Read ``count`` slices at random, or as many as there are; (n, 1, H, W)."""
    source = input_source(settings)
    listed = [info for info in source.list() if not is_folder_marker(info.key, info.size_bytes)]
    series = find_series(listed)
    shape = settings.image_height, settings.image_width, settings.fit
    order = random.Random(settings.seed).sample(listed, len(listed))
    found: list[NDArray[np.uint8]] = []
    refused = ""
    for info in order:
        try:
            found.append(source.read(info, *shape, series.get(info.key)))
        except UnusableSliceError as error:
            refused = refused or f": {info.key!r} {error}"
        if len(found) == count:
            break
    if not found:
        raise DataError(f"no slice under {source.uri}{refused}; check MRIGAN_INPUT_URI")
    return np.stack(found)[:, None]
