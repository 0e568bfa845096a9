"""Images per second: mrigan's networks, their switches, and the plain implementations."""

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

import plain_dcgan
import plain_r3
from gpu_check.bench import Bench, switches_kept
from gpu_check.child import measured_alone
from gpu_check.jobs import begin, heard
from gpu_check.report import FAILED, Row
from gpu_check.slices import repeated
from mrigan.models.r3 import networks as r3
from mrigan.settings.fields import Settings
from mrigan.training.micro_batches import is_out_of_memory

# Images per second, of issue 9.
GOALS = {"r3-m": 800.0, "r3-s": 2000.0, "r3-l": 300.0, "dcgan": 12_000.0}
NOTEBOOK, PLAIN_R3, COMPILED = "dcgan plain", "r3-m plain", "r3-m bf16 compiled"
WARM_UP = 5  # two eager steps, the capture, and two of its replays
_STEPS, _SECONDS = 20, 3.0  # timed: at most
_SLICES = 2560  # whole steps an epoch, for 64 and for 256 images
_DCGAN_IMAGES = (32, 8)
_R3_IMAGES = 64
_GIB = 2**30
_COMPILE_SECONDS = 45.0  # less than that is not worth a try

# Most important first.
_ROWS: tuple[tuple[str, str, bool], ...] = (
    ("r3-m", "bf16", True),
    ("dcgan", "bf16", True),
    (NOTEBOOK, "", False),
    ("r3-s", "bf16", True),
    ("r3-l", "bf16", True),
    ("r3-m", "bf16", False),
    ("dcgan", "bf16", False),
    (PLAIN_R3, "", False),
    ("r3-tiny", "bf16", True),
    ("r3-s", "bf16", False),
    ("r3-tiny", "bf16", False),
    ("r3-l", "bf16", False),
    ("dcgan", "fp32", True),
    ("dcgan", "fp32", False),
)


def run(bench: Bench) -> None:
    """Measure every row."""
    images = repeated(bench.slices()[0], 32 if bench.is_tiny else _SLICES)
    for model, precision, graphs in _ROWS:
        if precision:
            name = name_of(model, precision, graphs=graphs)
            measure = partial(ours, bench, model, images, precision=precision, graphs=graphs)
        else:
            name = model
            measure = partial(notebook if model == NOTEBOOK else plain, bench, images)
        bench.row(name, measure, needs_seconds=1.0)
    if not bench.is_tiny:
        bench.row(COMPILED, partial(compiled, bench), needs_seconds=_COMPILE_SECONDS)
    bench.row("ratios", partial(ratios, bench))


def run_compiled(bench: Bench) -> None:
    """One row, in the time of a section of its own."""
    bench.row(COMPILED, partial(compiled, bench), needs_seconds=1.0)


def name_of(model: str, precision: str, *, graphs: bool) -> str:
    """Of a row."""
    return f"{model} {precision} {'graphs' if graphs else 'eager'}"


def ours(
    bench: Bench,
    model: str,
    images: npt.NDArray[np.uint8],
    *,
    precision: str = "bf16",
    graphs: bool = True,
    compile: bool = False,
) -> Row:
    """Whole steps of mrigan's loop."""
    chosen: dict[str, Any] = {"compile": True} if compile else {}
    if model != "dcgan" and not bench.is_tiny:  # the goals are of so many images a step
        chosen |= {"batch_size": _R3_IMAGES, "accumulation_steps": 1}
    with switches_kept(bench.device), heard() as warnings:
        job = begin(bench, model, images, precision=precision, graphs=graphs, **chosen)
        row = timed(bench, job.steps)
    row |= {"images a pass": job.state.micro_batch}
    row |= _against_goal(model, row["images/s"])
    if warnings:
        row["warned"] = "; ".join(warnings)
    return row


def notebook(bench: Bench, images: npt.NDArray[np.uint8]) -> Row:
    """The notebook's training as torch comes, TF32 allowed for convolutions."""
    batch_size, rounds = (4, 2) if bench.is_tiny else _DCGAN_IMAGES
    with switches_kept(bench.device):
        _as_torch_comes()
        torch.manual_seed(0)
        stack = (torch.from_numpy(images).float() / 127.5 - 1).to(bench.device)
        trainer = plain_dcgan.PlainTrainer(stack, 100, batch_size, rounds)
        return timed(bench, lambda count: sum(trainer.step() for _ in range(count)))


def plain(bench: Bench, images: npt.NDArray[np.uint8]) -> Row:
    """``r3-m`` as a paper is usually coded; in smaller parts where a step does not fit."""
    step_images = 8 if bench.is_tiny else _R3_IMAGES
    rounds = 1
    while True:
        try:
            row = _plain(bench, images, step_images // rounds, rounds)
        except RuntimeError as error:
            if not is_out_of_memory(error) or rounds == step_images:
                raise
        else:
            return row | {"images a pass": step_images // rounds}
        rounds *= 2
        bench.clean_up()


def _plain(bench: Bench, images: npt.NDArray[np.uint8], batch_size: int, rounds: int) -> Row:
    with switches_kept(bench.device):
        _as_torch_comes()
        torch.manual_seed(0)
        workers = 2 if bench.is_cuda else 0  # containers have 64 MiB for what these hand over
        trainer = plain_r3.PlainTrainer(
            images, r3.PRESETS["r3-m"], batch_size, rounds, bench.device, workers
        )
        return timed(bench, lambda count: sum(trainer.step() for _ in range(count)))


def timed(bench: Bench, take_steps: Callable[[int], int]) -> Row:
    """Steps a second after warm-up; the device is waited for at both ends only."""
    if bench.is_cuda:
        torch.cuda.reset_peak_memory_stats()
    first = _seconds_of(bench, partial(take_steps, 1))
    # One more than the capture: a graph's first launch uploads it.
    _seconds_of(bench, partial(take_steps, 1 if bench.is_tiny else WARM_UP - 1))
    once = _seconds_of(bench, partial(take_steps, 1)) if not bench.is_tiny else _SECONDS
    steps = max(1, min(_STEPS, int(_SECONDS / once)))
    shown = 0

    def work() -> None:
        nonlocal shown
        shown = take_steps(steps)

    seconds = _seconds_of(bench, work)
    row: Row = {
        "images/s": round(shown / seconds, 1),
        "ms a step": round(1e3 * seconds / steps, 2),
        "images a step": shown // steps,
        "steps": steps,
        "first step s": round(first, 2),
    }
    if bench.is_cuda:
        row["peak GiB"] = round(torch.cuda.max_memory_allocated() / _GIB, 2)
        row["reserved GiB"] = round(torch.cuda.max_memory_reserved() / _GIB, 2)
    return row


def ratios(bench: Bench) -> Row:
    """Mrigan's best of each model against the plain one of the same run."""
    found = {
        row["what"]: row["images/s"] for row in bench.report.rows("speed") if "images/s" in row
    }
    row: Row = {}
    for model, base in (("dcgan", NOTEBOOK), ("r3-m", PLAIN_R3)):
        best = best_speed(bench, model)
        if best and base in found:
            row[f"{model} / {base}"] = round(best / found[base], 2)
    dcgan = best_speed(bench, "dcgan")
    if dcgan:
        row["seed's default run, s"] = round(500 * 2570 / dcgan)
    return row or {FAILED: "nothing to compare"}


def best_speed(bench: Bench, model: str) -> float:
    """Images per second of the fastest bf16 row of ``model``; 0 where there is none."""
    own = [
        row["images/s"]
        for row in bench.report.rows("speed")
        if row["what"].startswith(f"{model} bf16") and "images/s" in row
    ]
    return max(own, default=0.0)


def compiled(bench: Bench) -> Row:
    """In a process of its own, which may be ended: compiling can take minutes."""
    if "compile" not in Settings.model_fields:
        return {"note": "there is no such setting"}
    return measured_alone(bench, "compiled", seconds=bench.seconds_left())


def _against_goal(model: str, speed: float) -> Row:
    goal = GOALS.get(model)
    return {"goal": goal, "of goal": round(speed / goal, 2)} if goal else {}


def _seconds_of(bench: Bench, work: Callable[[], object]) -> float:
    bench.wait()
    started = time.perf_counter()
    work()
    bench.wait()
    return time.perf_counter() - started


def _as_torch_comes() -> None:
    """What a program has that sets nothing: TF32 in convolutions, and cuDNN's first choice."""
    cudnn = torch.backends.cudnn
    cudnn.benchmark, cudnn.deterministic, cudnn.allow_tf32 = False, False, True
    torch.backends.cuda.matmul.allow_tf32 = False
