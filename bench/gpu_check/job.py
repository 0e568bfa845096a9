"""``mrigan train`` itself, beside the loop alone: what samples, scores and checkpoints take."""

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
import tomllib
from functools import partial
from pathlib import Path

from gpu_check.bench import ROOT, Bench
from gpu_check.report import Row
from gpu_check.speed import best_speed

GOAL = 0.03  # of the time outside D's and G's steps
_SETTLED = 3  # epochs that are not counted: algorithms are chosen, graphs captured
_SLICES, _SLICES_TINY = 2560, 32


def run(bench: Bench) -> None:
    """``dcgan``, then ``r3-m``."""
    for models_left, model in ((2, "dcgan"), (1, "r3-m")):
        limit = max(bench.seconds_left() / models_left, 1.0)
        if bench.is_tiny:
            limit, model = 150.0, model.replace("r3-m", "r3-tiny")
        bench.row(f"train {model}", partial(trained, bench, model, limit), needs_seconds=5.0)


def trained(bench: Bench, model: str, limit: float) -> Row:
    """Images per second of whole epochs by the clock on the wall, until ``limit`` seconds."""
    with tempfile.TemporaryDirectory() as folder:
        chosen = {
            "MODEL": model,
            "INPUT_URI": f"phantom://{_SLICES_TINY if bench.is_tiny else _SLICES}",
            "OUTPUT_URI": f"{folder}/run",
            "CACHE_DIR": f"{folder}/cache",
            "IMAGE_HEIGHT": bench.size[0],
            "IMAGE_WIDTH": bench.size[1],
            "DEVICE": bench.device.type,
            "EPOCHS": 6 if bench.is_tiny else 500,
            "HOLDOUT": 0,
            "LOG_FORMAT": "json",
        }
        if bench.is_tiny:
            chosen |= {"BATCH_SIZE": 4, "ACCUMULATION_STEPS": 2}
        given = {f"MRIGAN_{name}": str(value) for name, value in chosen.items()}
        process = subprocess.Popen(
            [sys.executable, "-m", "mrigan", "train"],
            env=os.environ | given | {"PYTHONPATH": _path_of_mrigan(Path(folder))},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        begun = time.perf_counter()
        timer = threading.Timer(limit, process.terminate)
        timer.start()
        epochs, said = _epochs_of(process)
        timer.cancel()
        process.wait(60)
    if len(epochs) <= _SETTLED + 1:
        raise RuntimeError(f"{len(epochs)} epochs in {limit:.0f} s; at last: {said}")
    (first, before), (last, after) = epochs[_SETTLED - 1], epochs[-1]
    speed = (after - before) / (last - first)
    row: Row = {
        "epochs": len(epochs),
        "first epoch done s": round(epochs[0][0] - begun, 1),
        "images/s": round(speed, 1),
    }
    alone = best_speed(bench, model)
    if alone:
        row |= {"loop alone": alone, "outside": round(1 - speed / alone, 3), "goal": GOAL}
    return row


def _path_of_mrigan(folder: Path) -> str:
    """This tree's code, and the name and version that it wants to be installed with."""
    about = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    facts = folder / f"mrigan-{about['version']}.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: mrigan\nVersion: {about['version']}\n"
    )
    earlier = os.environ.get("PYTHONPATH")  # where libraries may be, too
    return os.pathsep.join([str(ROOT / "src"), str(folder), *([earlier] if earlier else [])])


def _epochs_of(process: subprocess.Popen[str]) -> tuple[list[tuple[float, int]], str]:
    """When each epoch was said to be done, and at how many images; and the last line."""
    epochs, line = [], ""
    assert process.stdout is not None
    for line in process.stdout:
        if '"event": "epoch"' in line:
            epochs.append((time.perf_counter(), json.loads(line)["images_seen"]))
    return epochs, line.strip()[:200]
