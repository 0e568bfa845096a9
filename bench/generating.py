"""How near ``mrigan generate`` comes to the generator's own forward passes, and its memory.

    python bench/generating.py [--model dcgan] [--count 2048] [--format png]

A fresh generator of 200×160 slices is published; then, alternating, its forward passes alone are
timed and the whole job is, each of as many slices. Prints the ratio of the rates, of the best of
three, and the job's peak memory at a tenth of the slices and at all.
"""

import argparse
import logging
import resource
import sys
import tempfile
import time

import torch

from mrigan.artifacts.generator import read_generator
from mrigan.jobs.drawing import Drawing
from mrigan.jobs.generate.job import generate
from mrigan.jobs.generate.request import Request
from mrigan.jobs.train.generators import publish_generator
from mrigan.models.family import family_of
from mrigan.settings.fields import Settings
from mrigan.storage.store import StoreOptions, open_store

_ROUNDS = 3


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="dcgan")
    parser.add_argument("--count", type=int, default=2048)
    parser.add_argument("--format", default="png")
    args = parser.parse_args()
    logging.disable(logging.INFO)
    with tempfile.TemporaryDirectory() as name:
        run = f"{name}/run"
        settings = Settings(model=args.model)
        network, _ = family_of(args.model).networks(settings)
        publish_generator(open_store(run), settings, network.state_dict())
        _generate(run, f"{name}/first", args.count // 10, args.format)
        peaks = [_peak_mib()]
        alone, whole = [], []
        for number in range(_ROUNDS):
            alone.append(_forward_seconds(run, args.count))
            whole.append(_generate(run, f"{name}/{number}", args.count, args.format))
        peaks.append(_peak_mib())
    rates = [args.count / min(alone), args.count / min(whole)]
    print(
        f"{args.model}, {args.count} slices, {args.format}: forward {rates[0]:.1f}/s, job "
        f"{rates[1]:.1f}/s, ratio {rates[1] / rates[0]:.2f}; peak memory {peaks[0]:.0f} MiB at "
        f"{args.count // 10}, {peaks[1]:.0f} MiB at {args.count}"
    )


def _forward_seconds(run: str, count: int) -> float:
    generator = read_generator(open_store(run), "latest", torch.device("cpu"))
    z = torch.randn(generator.batch_images, generator.config.latent_dim)
    network = generator._network
    with torch.inference_mode():
        network(z)
        began = time.monotonic()
        for _ in range(0, count, generator.batch_images):
            network(z)
    return time.monotonic() - began


def _generate(run: str, out: str, count: int, kind: str) -> float:
    drawing = Drawing(run=run, which="latest", truncation=1.0, device="cpu", options=StoreOptions())
    request = Request(drawing=drawing, out=out, count=count, kind=kind)
    began = time.monotonic()
    assert generate(request, lambda: False)
    return time.monotonic() - began


def _peak_mib() -> float:
    divisor = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / divisor


if __name__ == "__main__":
    main()
