"""The card's ceilings, and how near a step of ``r3-m`` and of ``dcgan`` comes to them.

FLOPs are those of products and convolutions, as torch.utils.flop_counter has them. Bytes are what
every operator reads and writes if each goes to memory by itself: sizes of the tensors given to it
and of those it returns, views left out. Both are counted over one eager step on the device, so that
kernels which keep data in caches, or fuse operators, can come out above one.
"""

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from gpu_check.bench import Bench, switches_kept
from gpu_check.jobs import begin
from gpu_check.report import Row
from gpu_check.speed import best_speed, ours

_SIDE, _COPIED_BYTES = 8192, 2**31
_SIDE_TINY, _COPIED_BYTES_TINY = 256, 2**22
_ROUNDS = 10


class Traffic(TorchDispatchMode):
    """Counts operators, and the bytes that they read and write."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = self.total_bytes = 0

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if not getattr(func, "is_view", False):
            self.calls += 1
            given = tree_leaves((args, kwargs or {}))
            self.total_bytes += sum(
                each.numel() * each.element_size()
                for each in (*given, *tree_leaves(result))
                if isinstance(each, Tensor)
            )
        return result


def run(bench: Bench) -> None:
    """Ceilings first."""
    bench.row("bf16 product", partial(product, bench))
    bench.row("copy", partial(copying, bench))
    for model in ("r3-m", "dcgan"):
        bench.row(model, partial(share, bench, model), needs_seconds=2.0)


def product(bench: Bench) -> Row:
    """TFLOP/s of one large matrix product."""
    side = _SIDE_TINY if bench.is_tiny else _SIDE
    a, b = (torch.randn(side, side, device=bench.device, dtype=torch.bfloat16) for _ in range(2))
    out = torch.empty_like(a)
    seconds = _median_seconds(bench, lambda: torch.mm(a, b, out=out))
    return {"side": side, "TFLOP/s": round(2e-12 * side**3 / seconds, 4)}


def copying(bench: Bench) -> Row:
    """TB/s of a copy on the device, read and written."""
    size = _COPIED_BYTES_TINY if bench.is_tiny else _COPIED_BYTES
    source = torch.ones(size // 4, device=bench.device)
    target = torch.empty_like(source)
    seconds = _median_seconds(bench, lambda: target.copy_(source))
    return {"bytes": size, "TB/s": round(2e-12 * size / seconds, 5)}


def share(bench: Bench, model: str) -> Row:
    """What a step needs, and the rates that its speed comes to."""
    images = bench.slices()[0]
    with switches_kept(bench.device):
        job = begin(bench, model, images, graphs=False)
        job.steps(1)
        with FlopCounterMode(display=False) as flops:
            shown = job.steps(1)
        with Traffic() as traffic:
            job.steps(1)
        del job
    bench.clean_up()
    speed = best_speed(bench, model) or ours(bench, model, images)["images/s"]
    gflop = 1e-9 * flops.get_total_flops() / shown
    gigabytes = 1e-9 * traffic.total_bytes / shown
    row: Row = {
        "operators a step": traffic.calls,
        "GFLOP an image": round(gflop, 3),
        "GB an image": round(gigabytes, 4),
        "images/s": speed,
        "TFLOP/s": round(1e-3 * gflop * speed, 4),
        "TB/s": round(1e-3 * gigabytes * speed, 5),
    }
    ceilings = {
        name: found[name]
        for found in bench.report.rows("limits")
        for name in ("TFLOP/s", "TB/s")
        if found["what"] in ("bf16 product", "copy") and name in found
    }
    for name, ceiling in ceilings.items():
        row[f"of {name}"] = round(row[name] / ceiling, 3)
    return row


def _median_seconds(bench: Bench, work: Callable[[], object]) -> float:
    seconds = []
    for _ in range(_ROUNDS):
        bench.wait()
        started = time.perf_counter()
        work()
        bench.wait()
        seconds.append(time.perf_counter() - started)
    return sorted(seconds)[_ROUNDS // 2]
