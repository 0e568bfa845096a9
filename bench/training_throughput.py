"""Images per second of ``dcgan`` against the notebook's plain training, interleaved in one run.

    python bench/training_throughput.py [--steps 1] [--rounds 7] [--device auto]

Each variant has a process of its own, as it would in use; they take turns, one optimizer step (D
and G) at a time. The figure is the ratio of the medians.
"""

import argparse
import multiprocessing
import os
import statistics
import time
from collections.abc import Callable
from multiprocessing.connection import Connection

import numpy as np
import torch

from mrigan import environment
from mrigan.artifacts.run_facts import machine_facts
from mrigan.data.bank import open_bank
from mrigan.data.phantom import draw
from mrigan.models.dcgan.family import recipe
from mrigan.models.dcgan.networks import Discriminator, Generator
from mrigan.runtime.device import (
    choose_hardware,
    free_bytes,
    keep_freed_memory,
    memory_facts,
    reset_peak,
)
from mrigan.training.loop import train
from mrigan.training.plan import Plan
from mrigan.training.state import build_state
from plain_dcgan import BETAS, LEARNING_RATE, PlainTrainer

LATENT_DIM = 100


def ours(images: np.ndarray, args: argparse.Namespace, precision: str) -> Callable[[], int]:
    """A step of mrigan's loop."""
    hardware = choose_hardware(args.device, precision)
    height, width = images.shape[-2:]
    state = build_state(
        lambda: (Generator(LATENT_DIM, height, width), Discriminator(height, width)),
        g_lr=LEARNING_RATE,
        d_lr=LEARNING_RATE,
        beta1=BETAS[0],
        micro_batch=args.batch_size * args.steps,
        seed=0,
        device=hardware.device,
    )
    bank = open_bank(images, hardware.device, free_bytes=free_bytes(hardware.device))
    plan = Plan(
        slices=len(images),
        epochs=10**6,
        batch_size=args.batch_size,
        accumulation_steps=args.steps,
    )
    ticks = train(
        state,
        bank.take,
        plan,
        latent_dim=LATENT_DIM,
        seed=0,
        autocast=hardware.autocast(),
        recipe=recipe(beta2=BETAS[1]),
    )
    return lambda: next(ticks).step_images


def plain(images: np.ndarray, args: argparse.Namespace, _precision: str) -> Callable[[], int]:
    """A step of the notebook's training."""
    device = choose_hardware(args.device, "fp32").device
    torch.manual_seed(0)
    stack = (torch.from_numpy(images).float() / 127.5 - 1).to(device)
    return PlainTrainer(stack, LATENT_DIM, args.batch_size, args.steps).step


VARIANTS = {
    "plain fp32 NCHW": (plain, "fp32"),
    "mrigan fp32": (ours, "fp32"),
    "mrigan bf16": (ours, "bf16"),
}


def work(name: str, args: argparse.Namespace, orders: Connection) -> None:
    """Own process of one variant: times a step whenever it is told to."""
    build, precision = VARIANTS[name]
    device = choose_hardware(args.device, precision).device
    if build is ours:
        keep_freed_memory(device)
    images = np.stack([draw(index)[None] for index in range(args.batch_size * args.steps)])
    step = build(images, args, precision)
    step()
    reset_peak(device)
    while orders.recv():
        started = time.perf_counter()
        shown = step()
        if device.type == "cuda":
            torch.cuda.synchronize()
        orders.send((shown / (time.perf_counter() - started), memory_facts(device)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=1, help="micro-batches a step")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--device", default="auto")
    args = parser.parse_args()

    # Before torch in the children: ours runs as the job does, the plain one as a notebook does.
    context = multiprocessing.get_context("spawn")
    pipes: dict[str, Connection] = {}
    for name in VARIANTS:
        os.environ.pop("THP_MEM_ALLOC_ENABLE", None)
        if name.startswith("mrigan"):
            environment.configure_allocators()
        pipes[name], theirs = context.Pipe()
        context.Process(target=work, args=(name, args, theirs), daemon=True).start()
    found: dict[str, list[float]] = {name: [] for name in VARIANTS}
    memory = {}
    for _ in range(args.rounds):
        for name, pipe in pipes.items():
            pipe.send(True)
            speed, memory[name] = pipe.recv()
            found[name].append(speed)
    for pipe in pipes.values():
        pipe.send(False)
    print(f"torch {torch.__version__}, {machine_facts(choose_hardware(args.device, 'auto'), 1)}")
    print(f"amx {torch.cpu._is_amx_tile_supported()}")
    base = statistics.median(found["plain fp32 NCHW"])
    for name, speeds in found.items():
        median = statistics.median(speeds)
        print(f"{name:16} {median:8.2f} images/s {median / base:5.2f}x  {memory[name]}")


if __name__ == "__main__":
    main()
