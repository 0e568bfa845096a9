"""Cold pull and pack from S3 against the notebook's loop, at several latencies, in one run.

    python bench/pull_and_pack.py [--folder DIR] [--latency-ms 0 30] [--objects 1280] [--rounds 3]
        [--wait-idle 60]

The notebook's loop is one ``get_object`` after another, PIL to grey and 200x160, a list of float32
arrays, and ``torch.stack``. Both read the same objects from ``latency_s3.py``; each measurement is
a process of its own, the two take turns, and figures are medians. Time begins with listing; what
imports and making the client take (``client``) is boto3's own in both. Memory is the peak above
what the imports left: after the work, and after every row was read once as well, which is the one
that counts. ``others`` are the cores that anything else took meanwhile: the loop leaves one of two
free, so a shared machine costs the packing more than it. The warm start is another process that
finds the cache of the cold one. ``fixed`` is a cold start whose pool has all its workers from the
beginning.

Without ``--folder``, phantoms as 512x512 JPEGs are made first. With latency only ``--objects-slow``
objects are used, as the loop takes 35 ms for each; so small a pack is no measure of memory.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from latency_s3 import BUCKET, PREFIX, RunningServer, running
from slice_sets import link_slices, make_slices

HEIGHT, WIDTH = 200, 160
_TARGETS = {0.0: 3.0, 30.0: 20.0}  # times the loop
_WARM_TARGET = 20.0
_MEMORY_TARGET = 1.6
_PACK_BYTES_TO_JUDGE = 64 * 2**20  # below, what S3's client takes outweighs the slices


class Load(NamedTuple):
    """What one variant made of the objects: images by key, in the pixels' own range 0 to 255."""

    keys: list[str]
    images: np.ndarray[Any, Any]


Connect = Callable[[], Callable[[], Load]]


def the_notebook(_cache_dir: Path) -> Connect:
    """``load_images_from_s3``, as it is usually written."""
    import io

    import boto3
    import torch

    def load(client: Any) -> Load:
        pages = client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=PREFIX)
        keys = [found["Key"] for page in pages for found in page["Contents"]]
        images = []
        for key in keys:
            body = client.get_object(Bucket=BUCKET, Key=key)["Body"].read()
            picture = Image.open(io.BytesIO(body)).convert("L")
            small = picture.resize((WIDTH, HEIGHT), Image.Resampling.BILINEAR)
            images.append(torch.from_numpy(np.asarray(small, np.float32) / 127.5 - 1)[None])
        stack = torch.stack(images)
        return Load([key.removeprefix(f"{PREFIX}/") for key in keys], stack.numpy())

    return lambda: partial(load, boto3.client("s3"))


def mrigan(cache_dir: Path) -> Connect:
    """What ``mrigan train`` does before its first step."""
    import torch  # noqa: F401 - the job has it too

    from mrigan.data.pack import open_pack
    from mrigan.data.source import Source, open_source

    def load(source: Source) -> Load:
        pack = open_pack(source, height=HEIGHT, width=WIDTH, cache_dir=cache_dir)
        # A copy only where refused objects have left gaps.
        images = pack.images if len(pack.rows) == len(pack.images) else pack.images[pack.rows]
        return Load([entry.key for entry in pack.manifest if entry.row is not None], images)

    return lambda: partial(load, open_source(f"s3://{BUCKET}/{PREFIX}"))


def fixed_pool(cache_dir: Path) -> Connect:
    """The same with as many workers from the start as the pool may have."""
    from mrigan.data import pull

    pull.usable_cores = lambda: 2**20
    return mrigan(cache_dir)


VARIANTS = {"notebook": the_notebook, "fixed": fixed_pool, "mrigan": mrigan}


def work(variant: str, cache_dir: Path, out: Path) -> None:
    """Own process of one measurement: prints it as JSON and leaves the pixels in ``out``."""
    connect = VARIANTS[variant](cache_dir)
    Path("/proc/self/clear_refs").write_text("5")  # the peak from here on
    floor = _status_bytes("VmHWM")
    started = time.perf_counter()
    load = connect()
    connected, cpu, busy = time.perf_counter(), time.process_time(), _busy_seconds()
    loaded = load()
    seconds, cpu = time.perf_counter() - connected, time.process_time() - cpu
    others = max(_busy_seconds() - busy - cpu, 0.0) / seconds
    peak = _status_bytes("VmHWM") - floor
    loaded.images.max()  # every row is in memory now, as it is in training
    facts = {
        "client": connected - started,
        "seconds": seconds,
        "cpu": cpu,
        "others": others,
        "peak": peak,
        "peak_read": _status_bytes("VmHWM") - floor,
        "objects": len(loaded.keys),
    }
    if not out.with_suffix(".npy").exists():
        grey = loaded.images
        if grey.dtype != np.uint8:
            grey = np.rint((grey + 1) * 127.5).astype(np.uint8)
        np.save(out.with_suffix(".npy"), grey)
        out.with_suffix(".json").write_text(json.dumps(loaded.keys))
    print(json.dumps(facts))


def _status_bytes(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:")) * 1024


def _busy_seconds() -> float:
    """What all cores have worked since the machine started."""
    first = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]
    user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, first)
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def wait_until_idle(patience_seconds: float) -> None:
    """Give what else runs on the machine a chance to end: two seconds at under 0.2 cores."""
    deadline = time.monotonic() + patience_seconds
    while time.monotonic() < deadline:
        busy = _busy_seconds()
        time.sleep(2)
        if _busy_seconds() - busy < 2 * 0.2:
            return


class Measurement(NamedTuple):
    """Of one process: times in seconds, peaks in bytes; ``others`` is cores taken by others."""

    client: float
    seconds: float
    cpu: float
    others: float
    peak: int
    peak_read: int
    objects: int
    gets: int


def measure(variant: str, cache_dir: Path, out: Path, server: RunningServer) -> Measurement:
    """Run ``work`` in a process of its own."""
    server.reset()
    command = [sys.executable, __file__, "--work", variant, str(cache_dir), str(out)]
    environ = {**os.environ, **server.environ()}
    done = subprocess.run(command, env=environ, stdout=subprocess.PIPE, text=True, check=True)
    return Measurement(**json.loads(done.stdout), gets=server.counts()["get"])


def compare(latency_ms: float, folder: Path, scratch: Path, args: argparse.Namespace) -> None:
    """Print one latency's lines of the table, and whether they reach the targets."""
    found: dict[str, list[Measurement]] = {"notebook": [], "fixed": [], "cold": [], "warm": []}
    with running(folder) as server:
        server.set_latency(latency_ms)
        for _ in range(args.rounds):
            cache_dir = Path(tempfile.mkdtemp(dir=scratch))
            for name in found:
                variant = name if name in VARIANTS else "mrigan"
                out = scratch / f"{variant}-{latency_ms:g}"
                wait_until_idle(args.wait_idle)
                cache = cache_dir / ("fixed" if name == "fixed" else "own")
                found[name].append(measure(variant, cache, out, server))
            shutil.rmtree(cache_dir)
    medians = {
        name: Measurement(*map(statistics.median, zip(*taken, strict=True)))
        for name, taken in found.items()
    }
    loop, cold, warm = medians["notebook"], medians["cold"], medians["warm"]
    packed = cold.objects * HEIGHT * WIDTH
    for name, one in medians.items():
        fastest = min(taken.seconds for taken in found[name])
        print(
            f"{latency_ms:3.0f} ms {name:8} {one.objects:4.0f} objects {one.seconds:6.2f} s"
            f" (fastest {fastest:5.2f}) {one.objects / one.seconds:6.0f}/s"
            f" {loop.seconds / one.seconds:6.1f}x  client {one.client:4.2f} s"
            f"  cpu {one.cpu:5.2f} s, others {one.others:4.2f} cores  {one.gets:4.0f} GETs"
            f"  peak {one.peak / 2**20:4.0f}, read {one.peak_read / 2**20:4.0f} MiB"
            f" = {one.peak_read / packed:4.2f}x packed"
        )
    _judge("cold against the notebook", loop.seconds / cold.seconds, _TARGETS.get(latency_ms))
    best = {name: min(one.seconds for one in taken) for name, taken in found.items()}
    _judge("cold against a fixed pool, best of each", best["fixed"] / best["cold"], None)
    _judge("warm against cold", cold.seconds / warm.seconds, _WARM_TARGET)
    _judge("warm against the notebook", loop.seconds / warm.seconds, None)
    _say("warm start's GETs", f"{warm.gets:.0f}", warm.gets == 0)
    peak = max(cold.peak_read, warm.peak_read) / packed
    if packed >= _PACK_BYTES_TO_JUDGE:
        _say("memory", f"{peak:.2f}x packed (target {_MEMORY_TARGET}x)", peak <= _MEMORY_TARGET)
    print(f"  {_difference(scratch, latency_ms)}", flush=True)


def _judge(what: str, ratio: float, target: float | None) -> None:
    if target is None:
        print(f"  {what}: {ratio:.2f}x")
    else:
        _say(what, f"{ratio:.1f}x (target {target:g}x)", ratio >= target)


def _say(what: str, value: str, reached: bool) -> None:
    print(f"  {what}: {value}{'' if reached else '  MISSED'}")


def _difference(scratch: Path, latency_ms: float) -> str:
    """How far the packed pixels are from the loop's, in grey levels, object by object."""
    loop, ours = (scratch / f"{variant}-{latency_ms:g}" for variant in ("notebook", "mrigan"))
    keys = [json.loads(one.with_suffix(".json").read_text()) for one in (loop, ours)]
    pixels = [np.load(one.with_suffix(".npy"), mmap_mode="r") for one in (loop, ours)]
    rows = {key: row for row, key in enumerate(keys[0])}
    worst, total, differing = 0, 0.0, 0
    for row, key in enumerate(keys[1]):
        apart = np.abs(pixels[0][rows[key]].astype(np.int16) - pixels[1][row])
        worst, total = max(worst, int(apart.max())), total + float(apart.mean())
        differing += bool(apart.any())
    return (
        f"pixels: {len(keys[1])} of {len(keys[0])} objects packed, {differing} differ from the "
        f"notebook's; largest difference {worst}, mean {total / len(keys[1]):.4f} grey levels"
    )


def main() -> None:
    if sys.argv[1:2] == ["--work"]:
        return work(sys.argv[2], Path(sys.argv[3]), Path(sys.argv[4]))
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, help="encoded slices, at any depth")
    parser.add_argument("--latency-ms", type=float, nargs="+", default=[0.0, 30.0])
    parser.add_argument("--objects", type=int, default=1280, help="0: all of --folder")
    parser.add_argument("--objects-slow", type=int, default=640, help="with latency")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--wait-idle", type=float, default=0.0, help="patience with others' work, seconds each time"
    )
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="mrigan-bench-") as name:
        scratch = Path(name)
        folder = args.folder
        if folder is None:
            folder = scratch / "made"
            folder.mkdir()
            make_slices(folder, args.objects)
        print(_about())
        for latency_ms in args.latency_ms:
            served = scratch / f"served-{latency_ms:g}"
            link_slices(folder, served, args.objects_slow if latency_ms else args.objects)
            compare(latency_ms, served, scratch, args)
    return None


def _about() -> str:
    packages = ("boto3", "obstore", "pillow", "numpy", "torch")
    cores = len(os.sched_getaffinity(0))
    return f"{cores} cores; " + ", ".join(f"{name} {version(name)}" for name in packages)


if __name__ == "__main__":
    main()
