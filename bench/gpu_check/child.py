"""Measurements that want a fresh process: the start, and what may have to be ended."""

import json
import subprocess
import sys
from pathlib import Path

from gpu_check.bench import Bench
from gpu_check.report import Row

MARK = "measured alone: "


def measured_alone(bench: Bench, name: str, *, seconds: float) -> Row:
    """Have another ``bench/gpu.py`` measure ``name``, for so long at most.

    Raises:
        RuntimeError: With the end of what it said, where it came to nothing.
        subprocess.TimeoutExpired: It was ended.
    """
    bench.clean_up()
    program = Path(__file__).parents[1] / "gpu.py"
    done = subprocess.run(
        [sys.executable, str(program), *bench.arguments, "--alone", name],
        capture_output=True,
        text=True,
        timeout=max(seconds, 1.0),
        check=False,
    )
    for line in reversed(done.stdout.splitlines()):
        if line.startswith(MARK):
            row: Row = json.loads(line.removeprefix(MARK))
            return row
    raise RuntimeError(f"ended with {done.returncode}: {done.stderr.strip()[-250:]}")


def measure(bench: Bench, name: str) -> None:
    """In that other process: print what was found."""
    from gpu_check.speed import ours
    from gpu_check.start import started

    images = bench.slices()[0]
    if name == "compiled":
        row = ours(bench, "r3-m", images, compile=True)
    else:
        row = started(bench, images)
    print(MARK + json.dumps(row), flush=True)
