"""``mrigan doctor``: tries each thing the job will need, cheaply, before money is spent.

Every check is the real act in small: the same listing, decoding, writing and training step that
the job does. A check that fails does not keep the others from being made.
"""

import random
import shutil
import statistics
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch

from mrigan.artifacts.lease import holder_of
from mrigan.artifacts.run_status import read_status
from mrigan.data.bank import HostBank
from mrigan.data.refusal import UnusableSliceError
from mrigan.data.source import Source, is_folder_marker
from mrigan.errors import DataError, MriganError
from mrigan.jobs.build import fresh_state, input_source, recipe_of
from mrigan.jobs.checklist import Check, go_through
from mrigan.jobs.train.output import open_output, read_matching
from mrigan.jobs.train.trackers.choice import check_trackers, chosen_trackers
from mrigan.runtime.device import (
    Hardware,
    allocator_in_force,
    choose_hardware,
    keep_freed_memory,
    memory_facts,
)
from mrigan.settings.fields import Settings
from mrigan.storage.store import ObjectInfo
from mrigan.training.graphs import WARM_UP_RUNS
from mrigan.training.loop import train
from mrigan.training.plan import Plan

_TRIED_OBJECTS = 16
_GIB = 2**30


def examine(settings: Settings) -> int:
    """Make every check, say what came of it, and return the exit status of the first that failed.

    0 means that the job would start and keep going as far as can be told.
    """
    statuses = go_through(list(_Checkup(settings).checks()), settings.log_format, failed="failed")
    return next((status for status in statuses if status), 0)


class _Checkup:
    """The checks in order; a later one uses what an earlier one found, if it did."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._hardware: Hardware | None = None
        self._listed: list[ObjectInfo] = []

    def checks(self) -> Iterator[Check]:
        yield Check("machine", self._machine)
        yield Check("input", self._input)
        yield Check("cache", self._cache)
        yield Check("output", self._output)
        yield Check("trackers", self._trackers)
        yield Check("training", self._training)

    def _machine(self) -> str:
        self._hardware = choose_hardware(self._settings.device, self._settings.precision)
        device = self._hardware.device
        facts = [self._hardware.name, self._hardware.precision, f"torch {torch.__version__}"]
        if device.type == "cuda":
            free, total = torch.cuda.mem_get_info(device)
            facts.append(f"{free / _GIB:.1f} of {total / _GIB:.1f} GiB free")
            facts.append(f"allocator {allocator_in_force(device)}")
        return ", ".join(facts)

    def _input(self) -> str:
        settings = self._settings
        source = input_source(settings)
        began = time.perf_counter()
        self._listed = [
            info for info in source.list() if not is_folder_marker(info.key, info.size_bytes)
        ]
        listing = time.perf_counter() - began
        if not self._listed:
            raise DataError(f"{settings.input_uri}: nothing is there; check MRIGAN_INPUT_URI")
        return (
            f"{settings.input_uri}: {len(self._listed):,} objects, listed in {listing:.1f} s; "
            + (self._try_some(source))
        )

    def _try_some(self, source: Source) -> str:
        """Read objects of the listing, as the job would; say what they were."""
        settings = self._settings
        # Not each n-th: pictures often alternate with something else.
        draw = random.Random(0).sample
        tried = draw(self._listed, min(_TRIED_OBJECTS, len(self._listed)))
        refused: list[str] = []

        def read(info: ObjectInfo) -> float:
            began = time.perf_counter()
            try:
                source.read(info, settings.image_height, settings.image_width, settings.fit)
            except UnusableSliceError as error:
                refused.append(f"{info.key}: {error}")
            return time.perf_counter() - began

        with ThreadPoolExecutor(1) as pool:
            seconds = list(pool.map(read, tried))
        self._judge(refused, len(tried))
        whole = statistics.median(seconds) * len(self._listed) / settings.download_concurrency
        found = (
            f"{len(tried) - len(refused)} of {len(tried)} tried are slices, "
            f"{1000 * statistics.median(seconds):.0f} ms each (slowest "
            f"{1000 * max(seconds):.0f}); the pull takes about {max(whole, 1):.0f} s or more"
        )
        return f"{found}; refused: {refused[0]}" if refused else found

    def _judge(self, refused: list[str], tried: int) -> None:
        """Fail where the job would, or very likely would: a sample may be unlucky with one."""
        if len(refused) == tried:
            raise DataError(
                f"none of {tried} objects tried is a slice: {refused[0]}; check MRIGAN_INPUT_URI"
            )
        percent, allowed = 100 * len(refused) / tried, self._settings.max_refused
        is_sure = tried == len(self._listed) or len(refused) > 2
        if percent > allowed and is_sure:
            raise DataError(
                f"{len(refused)} of {tried} objects tried are no slices ({percent:.1f} %, "
                f"{allowed:g} % is allowed): {refused[0]}; remove them or raise MRIGAN_MAX_REFUSED"
            )

    def _trackers(self) -> str:
        check_trackers(self._settings.trackers)
        return ", ".join(chosen_trackers(self._settings.trackers)) or "none"

    def _cache(self) -> str:
        folder = self._settings.cache_dir
        needed = len(self._listed) * self._settings.image_height * self._settings.image_width
        existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
        free = shutil.disk_usage(existing).free
        if free < needed:
            raise MriganError(
                f"{folder}: {needed / _GIB:.1f} GiB are needed for the decoded slices, "
                f"{free / _GIB:.1f} are free; set MRIGAN_CACHE_DIR to a larger place"
            )
        return f"{folder}: {needed / _GIB:.2f} GiB needed, {free / _GIB:.1f} free"

    def _output(self) -> str:
        settings = self._settings
        store = open_output(settings, catch_up=False)
        missing = [] if store.is_s3 else _missing_folders(Path(store.uri))
        key, content = f".mrigan-doctor-{uuid.uuid4().hex}", b"may be removed"
        began = time.perf_counter()
        store.put(key, content)
        read_back = store.get(key)
        store.delete(key)
        seconds = (time.perf_counter() - began) / 3
        conditional = "honours" if store.honours_create() else "ignores"
        with suppress(OSError):  # a folder that is not empty is not ours alone
            for folder in missing:
                folder.rmdir()
        if read_back != content:
            raise MriganError(f"{store.uri}: what was written did not come back the same")
        state = "a new run"
        if not missing and read_matching(store, settings):
            status = read_status(store)
            stage = f"{status.state} at epoch {status.epoch}" if status else "not yet begun"
            holder = holder_of(store)
            state = f"a run of these settings, {stage}{f', written by {holder}' if holder else ''}"
        return (
            f"{store.uri}: written, read, removed, {1000 * seconds:.0f} ms each; {conditional} "
            f"conditional writes; {state}"
        )

    def _training(self) -> str:
        """Take steps as the job would, of one group of images on a CPU, and time the last."""
        settings = self._settings
        if self._hardware is None:
            raise MriganError("not tried: no device")
        device = self._hardware.device
        keep_freed_memory(device)
        is_gpu = device.type == "cuda"
        groups = settings.accumulation_steps if is_gpu else 1
        count = settings.batch_size * groups
        shape = (count, 1, settings.image_height, settings.image_width)
        images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
        state = fresh_state(settings, self._hardware)
        # On a GPU the first steps choose algorithms and capture graphs.
        warm_up = WARM_UP_RUNS + 2 if is_gpu else 1
        plan = Plan(
            slices=count,
            epochs=warm_up + 1,
            batch_size=settings.batch_size,
            accumulation_steps=groups,
        )
        ticks = train(
            state,
            HostBank(images, device).take,
            plan,
            latent_dim=settings.latent_dim,
            seed=settings.seed,
            autocast=self._hardware.autocast(),
            recipe=recipe_of(settings, plan),
            graphs=settings.cuda_graphs,
        )
        for _ in range(warm_up):
            next(ticks)
        began = time.perf_counter()
        next(ticks)
        speed = len(images) / (time.perf_counter() - began)
        run = settings.epochs * len(self._listed) / speed
        memory = ", ".join(f"{name} {value:,}" for name, value in memory_facts(device).items())
        return (
            f"{speed:,.1f} images/s; {settings.epochs:,} epochs of {len(self._listed):,} take "
            f"about {_span(run)}; {memory}"
        )


def _missing_folders(folder: Path) -> list[Path]:
    """``folder`` and those above it that do not exist, innermost first."""
    return [path for path in (folder, *folder.parents) if not path.exists()]


def _span(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
