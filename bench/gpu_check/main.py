"""Runs the sections one after another, and keeps going where one fails."""

import argparse
import datetime
import faulthandler
import json
import logging
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from gpu_check import child, correctness, job, kernels, limits, quality, speed, start
from gpu_check.bench import ROOT, TINY_PRESET, Bench, DeadDeviceError, presets, reason_of
from gpu_check.report import Report
from mrigan.models.r3 import networks as r3

# With what each may take of the whole.
SECTIONS: dict[str, tuple[Callable[[Bench], None], float]] = {
    "correctness": (correctness.run, 0.15),
    "speed": (speed.run, 0.4),
    "limits": (limits.run, 0.06),
    "start": (start.run, 0.15),
    "kernels": (kernels.run, 0.08),
    "quality": (quality.run, 1.0),
    "job": (job.run, 0.3),
    "compiled": (speed.run_compiled, 1.0),
}
RATES = "rates"
_GRACE_SECONDS = 120.0


def run(args: argparse.Namespace, arguments: list[str]) -> int:
    """Measure what was asked for; 0 if all of it was right."""
    logging.basicConfig(level=logging.WARNING)
    device = torch.device(_device(args.device))
    began = time.monotonic()
    faulthandler.dump_traceback_later(args.seconds + _GRACE_SECONDS, exit=True)
    earlier = json.loads(args.going_on.read_text()) if args.going_on else {}
    about = earlier.get("about") or _about(device, args)
    stem = args.out / f"gpu-{_slug(about['card'])}-{about['date'].replace(':', '')}"
    bench = Bench(
        device=device,
        size=args.size,
        folder=args.slices,
        is_tiny=args.tiny,
        ends=began + args.seconds,
        report=Report(stem, about, earlier.get("sections")),
        arguments=arguments,
    )
    tiny = dict.fromkeys(r3.PRESETS, TINY_PRESET) if args.tiny else {}
    try:
        with presets(tiny):
            return _run(bench, args)
    finally:
        faulthandler.cancel_dump_traceback_later()


def _run(bench: Bench, args: argparse.Namespace) -> int:
    if args.alone:
        bench.section_ends = bench.ends
        child.measure(bench, args.alone)
        return 0
    names = [RATES] if args.rates else args.sections
    for position, name in enumerate(names):
        if not _section(bench, name, args.seconds):
            return _in_another_process(bench, names[position + 1 :], args)
    print("\n" + bench.report.table())
    print(f"written: {bench.report.stem}.json, .txt and the grids beside them")
    return int(bench.report.has_failed)


def _section(bench: Bench, name: str, seconds: float) -> bool:
    """Run one; false if the device is dead afterwards."""
    work, share = (quality.run_rates, 1.0) if name == RATES else SECTIONS[name]
    bench.section, bench.section_ends = name, time.monotonic() + share * seconds
    bench.report.begin(name)
    try:
        work(bench)
        bench.clean_up()
    except DeadDeviceError as error:
        bench.report.end(name, reason_of(error))
        return False
    except Exception as error:  # noqa: BLE001 - the other sections are worth having
        bench.report.end(name, reason_of(error))
    else:
        bench.report.end(name)
    return True


def _in_another_process(bench: Bench, names: list[str], args: argparse.Namespace) -> int:
    """What is left, where this process can do nothing more."""
    left = bench.ends - time.monotonic()
    if not names or left < 1:
        print("\n" + bench.report.table())
        return 1
    report = bench.report.stem.with_name(f"{bench.report.stem.name}.json")
    how = ["--sections", ",".join(names), "--seconds", str(left), "--going-on", str(report)]
    program = str(Path(__file__).parents[1] / "gpu.py")
    faulthandler.cancel_dump_traceback_later()
    subprocess.run([sys.executable, program, *bench.arguments, *how], check=False)
    return 1


def _device(asked: str) -> str:
    if asked == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return asked


def _about(device: torch.device, args: argparse.Namespace) -> dict[str, Any]:
    about: dict[str, Any] = {
        "card": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S"),
        "commit": _said_by("git", "-C", str(ROOT), "describe", "--always", "--dirty"),
        "torch": torch.__version__,
        "CUDA": torch.version.cuda,
        "cuDNN": torch.backends.cudnn.version(),
        "python": platform.python_version(),
        "size": f"{args.size[0]}x{args.size[1]}",
        "slices": Path(args.slices).name or "phantoms",
        "seconds": args.seconds,
        "threads": torch.get_num_threads(),
    }
    if device.type == "cuda":
        facts = torch.cuda.get_device_properties(device)
        about |= {
            "memory GiB": round(facts.total_memory / 2**30, 1),
            "SMs": facts.multi_processor_count,
            "capability": f"{facts.major}.{facts.minor}",
            "driver": _said_by("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"),
        }
    return about


def _said_by(*command: str) -> str:
    try:
        said = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return said.stdout.strip() if said.returncode == 0 else ""


def _slug(card: str) -> str:
    return "-".join(card.lower().replace("nvidia", "").split())
