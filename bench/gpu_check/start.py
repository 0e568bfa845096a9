"""How long a run waits for its first step, in a fresh process, as cuDNN's trials leave it."""

import time
from functools import partial

import numpy as np
import numpy.typing as npt

from gpu_check.bench import Bench
from gpu_check.child import measured_alone
from gpu_check.jobs import begin
from gpu_check.report import Row

GOAL_SECONDS = 15.0


def run(bench: Bench) -> None:
    """One row, of ``r3-m``."""
    limit = bench.seconds_left()
    bench.row("r3-m", partial(measured_alone, bench, "start", seconds=limit), needs_seconds=5.0)


def started(bench: Bench, images: npt.NDArray[np.uint8]) -> Row:
    """From before the networks are built to the first steps done; libraries are imported."""
    seconds = []
    bench.wait()
    begun = time.perf_counter()
    job = begin(bench, "r3-m", images)
    for _ in range(4):  # the third is captured
        job.steps(1)
        bench.wait()
        seconds.append(round(time.perf_counter() - begun, 2))
    names = ("first step done s", "second", "third, captured", "fourth")
    return {**dict(zip(names, seconds, strict=True)), "goal": GOAL_SECONDS}
