"""Trains for an hour into a bucket and watches what a leak would show in.

    python bench/soak.py [--minutes 60] [--results FILE]

A small job with a checkpoint every few seconds writes to a bucket that another process serves. Each
10 s the job's memory, descriptors, threads and disk (cache and temporary files) are written down.
Printed are their values after a tenth of the time, at the end, and the most; and the growth of
memory by a straight line through the last nine tenths, MiB an hour.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

_EVERY_SECONDS = 10.0
_JOB = (
    *("--input-uri", "phantom://64", "--image-height", "40", "--image-width", "33"),
    *("--model", "r3-tiny", "--batch-size", "8", "--device", "cpu", "--epochs", "100000"),
    *("--checkpoint-minutes", "0.1", "--keep-checkpoints", "2", "--sample-every", "20"),
)
_NAMES = ("rss_mib", "descriptors", "threads", "disk_mib")


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--results", type=Path, help="a file of JSON lines")
    args = parser.parse_args()
    for name in list(os.environ):
        if name.startswith(("AWS_", "MRIGAN_")):
            del os.environ[name]
    with tempfile.TemporaryDirectory(prefix="mrigan-soak-") as name:
        folder = Path(name)
        server = _served(folder)
        try:
            samples = _soak(folder, args.minutes * 60)
        finally:
            server.kill()
    for sample in samples if args.results else ():
        with args.results.open("a") as out:
            out.write(json.dumps(sample) + "\n")
    _report(samples)
    return 0


def _served(folder: Path) -> "subprocess.Popen[bytes]":
    """Serve a bucket from a process of its own; the environment leads there."""
    port = 20000 + os.getpid() % 20000
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}"
    for _ in range(300):
        try:
            request = urllib.request.Request(f"{url}/soak", method="PUT")
            urllib.request.urlopen(request).close()
            break
        except OSError:
            time.sleep(0.1)
    os.environ.update(
        AWS_ENDPOINT_URL=url,
        AWS_ACCESS_KEY_ID="bench",
        AWS_SECRET_ACCESS_KEY="bench-secret",
        AWS_REGION="us-east-1",
        MRIGAN_CACHE_DIR=str(folder / "cache"),
        TMPDIR=str(folder),
    )
    return server


def _soak(folder: Path, seconds: float) -> list[dict[str, float]]:
    command = [sys.executable, "-m", "mrigan", "train", *_JOB, "--output-uri", "s3://soak/run"]
    log = (folder / "log").open("w")
    job = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
    began, samples = time.monotonic(), []
    while time.monotonic() - began < seconds and job.poll() is None:
        time.sleep(_EVERY_SECONDS)
        samples.append({"seconds": round(time.monotonic() - began), **_look(job.pid, folder)})
    job.terminate()
    status = job.wait(200)
    lines = (folder / "log").read_text().splitlines()
    for event in (" epoch ", " checkpoint ", " WARNING "):
        print(f"{sum(event in line for line in lines):8,} lines of{event.rstrip()}")
    print(f"ended with status {status} after {samples[-1]['seconds']} s")
    return samples


def _look(pid: int, folder: Path) -> dict[str, float]:
    status = dict(
        line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines()
    )
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != "log"]
    return {
        "rss_mib": round(int(status["VmRSS"].split()[0]) / 1024, 1),
        "descriptors": len(list(Path(f"/proc/{pid}/fd").iterdir())),
        "threads": int(status["Threads"]),
        "disk_mib": round(sum(path.stat().st_size for path in files) / 2**20, 2),
    }


def _report(samples: list[dict[str, float]]) -> None:
    settled = samples[len(samples) // 10 :]
    print(f"{'':14}{'at a tenth':>12}{'at the end':>12}{'most':>12}")
    for name in _NAMES:
        values = [sample[name] for sample in settled]
        print(f"{name:14}{values[0]:12,.1f}{values[-1]:12,.1f}{max(values):12,.1f}")
    hours = [sample["seconds"] / 3600 for sample in settled]
    line = statistics.linear_regression(hours, [sample["rss_mib"] for sample in settled])
    print(f"memory grows by {line.slope:.1f} MiB an hour")


if __name__ == "__main__":
    sys.exit(main())
