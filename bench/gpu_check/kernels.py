"""Kernels of one eager step and the ten heaviest; off CUDA, operators in their place."""

from collections import defaultdict
from functools import partial
from typing import Any

import torch
from torch.autograd import DeviceType

from gpu_check.bench import Bench, switches_kept
from gpu_check.jobs import begin
from gpu_check.report import Row

_WARM_UP = 3
_HEAVIEST = 10
_NAME_CHARACTERS = 90
_COPIES = ("Memcpy", "Memset")


def run(bench: Bench) -> None:
    """Rows for ``r3-m``, then for ``dcgan``."""
    for model in ("r3-m", "dcgan"):
        found: list[Row] = []
        bench.row(model, partial(profiled, bench, model, found), needs_seconds=4.0)
        for row in found:
            bench.report.row(bench.section, row)


def profiled(bench: Bench, model: str, heaviest: list[Row]) -> Row:
    """Totals of one step; adds the heaviest kernels' rows to ``heaviest``."""
    with switches_kept(bench.device):
        job = begin(bench, model, bench.slices()[0], graphs=False)
        job.steps(1 if bench.is_tiny else _WARM_UP)
        bench.wait()
        activities = [torch.profiler.ProfilerActivity.CPU]
        if bench.is_cuda:
            activities.append(torch.profiler.ProfilerActivity.CUDA)
        with torch.profiler.profile(activities=activities) as profile:
            job.steps(1)
            bench.wait()
    launches, milliseconds = _by_name(bench, profile.events())
    if not launches:
        raise RuntimeError("the profiler saw nothing on the device")
    kernels = [name for name in launches if not name.startswith(_COPIES)]
    order = sorted(kernels, key=milliseconds.__getitem__, reverse=True)
    heaviest += [
        {
            "model": model,
            "ms": round(milliseconds[name], 3),
            "launches": launches[name],
            "kernel": name[:_NAME_CHARACTERS],
        }
        for name in order[:_HEAVIEST]
    ]
    return {
        "kernels": sum(launches[name] for name in kernels),
        "copies and fills": sum(launches.values()) - sum(launches[name] for name in kernels),
        "ms on the device": round(sum(milliseconds.values()), 2),
    }


def _by_name(bench: Bench, events: Any) -> tuple[dict[str, int], dict[str, float]]:
    launches: dict[str, int] = defaultdict(int)
    milliseconds: dict[str, float] = defaultdict(float)
    for event in events:
        on_device = event.device_type == (DeviceType.CUDA if bench.is_cuda else DeviceType.CPU)
        if not on_device or getattr(event, "is_user_annotation", False):
            continue
        if not bench.is_cuda and not event.name.startswith("aten::"):
            continue
        own_us = event.time_range.elapsed_us() if bench.is_cuda else event.self_cpu_time_total
        launches[event.name] += 1
        milliseconds[event.name] += own_us / 1e3
    return launches, milliseconds
