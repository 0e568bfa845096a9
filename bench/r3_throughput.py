"""Images per second of ``r3`` against a plain implementation, variant by variant, interleaved.

    python bench/r3_throughput.py [--preset r3-s] [--size 64x52] [--batch-size 4] [--rounds 5]
    python bench/r3_throughput.py --device cuda --preset r3-m --size 200x160 --batch-size 64

Each variant has a process of its own, as it would in use; they take turns, one optimizer step (D
with both penalties, and G) at a time. The figure is the ratio of the medians. Outside is the share
of a step's time that neither D's nor G's half takes: slices, latents, guard, average, the loop.
``--switches`` adds each switch by itself; ``--profile`` prints what a step's time goes to instead.
"""

import argparse
import multiprocessing
import os
import statistics
import time
from multiprocessing.connection import Connection

import torch
from torch.utils.flop_counter import FlopCounterMode

from mrigan import environment
from mrigan.artifacts.run_facts import machine_facts
from mrigan.models.r3 import networks as r3
from mrigan.runtime.device import choose_hardware, keep_freed_memory, memory_facts, reset_peak
from r3_variants import PLAIN, VARIANTS, Clock, Variant, ours, plain, switches


def variants(args: argparse.Namespace) -> dict[str, Variant]:
    found = dict(VARIANTS)
    if args.switches:
        found |= switches("bf16" if args.device == "cuda" else "fp32")
    return {name: variant for name, variant in found.items() if not args.only or name in args.only}


def work(name: str, args: argparse.Namespace, orders: Connection) -> None:
    """Own process of one variant: times a step whenever it is told to."""
    variant = variants(args)[name]
    device = choose_hardware(args.device, variant.precision).device
    if args.threads:
        torch.set_num_threads(args.threads)
    if not variant.is_plain:
        keep_freed_memory(device)
    clock = None if variant.is_plain else Clock(device)
    step = ours(args, variant, clock) if clock else plain(args, variant)
    for _ in range(3 if variant.is_compiled or device.type == "cuda" else 1):
        step()
    reset_peak(device)
    while orders.recv():
        if clock:
            clock.inside = 0.0
        started = time.perf_counter()
        shown = step()
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds = time.perf_counter() - started
        outside = 1 - clock.inside / seconds if clock else float("nan")
        orders.send((shown / seconds, outside, memory_facts(device)))


def profile(args: argparse.Namespace) -> None:
    """What one step's time goes to, by operator."""
    for name, variant in variants(args).items():
        if variant.is_plain:
            continue
        if args.threads:
            torch.set_num_threads(args.threads)
        step = ours(args, variant)
        step()
        with torch.profiler.profile() as found:
            step()
        where = "self_cuda_time_total" if args.device == "cuda" else "self_cpu_time_total"
        print(f"## {name}")
        print(found.key_averages().table(sort_by=where, row_limit=14, max_name_column_width=48))


def flops_an_image(args: argparse.Namespace) -> float:
    """Of one step over one image, multiplications and additions counted by torch."""
    step = ours(args, Variant())
    step()
    with FlopCounterMode(display=False) as counter:
        shown = step()
    return counter.get_total_flops() / shown


def matrix_rate(device: torch.device, dtype: torch.dtype) -> float:
    """FLOP/s of one large matrix product, the median of nine."""
    side = 8192 if device.type == "cuda" else 2048
    a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    times = []
    for _ in range(11):
        started = time.perf_counter()
        _ = a @ b
        if device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - started)
    return 2 * side**3 / statistics.median(times[2:])


def compare(args: argparse.Namespace) -> None:
    # Before torch in the children: ours runs as the job does, the plain one as a notebook does.
    context = multiprocessing.get_context("spawn")
    pipes: dict[str, Connection] = {}
    for name, variant in variants(args).items():
        os.environ.pop("THP_MEM_ALLOC_ENABLE", None)
        if not variant.is_plain:
            environment.configure_allocators()
        pipes[name], theirs = context.Pipe()
        # Not a daemon: the plain one's DataLoader has workers of its own.
        context.Process(target=work, args=(name, args, theirs)).start()
    found: dict[str, list[tuple[float, float, dict[str, float]]]] = {name: [] for name in pipes}
    for _ in range(args.rounds):
        for name, pipe in pipes.items():
            pipe.send(True)
            found[name].append(pipe.recv())
    for pipe in pipes.values():
        pipe.send(False)
    medians = {name: statistics.median(row[0] for row in rows) for name, rows in found.items()}
    base = medians.get(PLAIN, float("nan"))
    for name, rows in found.items():
        outside = statistics.median(row[1] for row in rows)
        memory = ", ".join(f"{key} {value}" for key, value in rows[-1][2].items())
        print(
            f"{name:24} {medians[name]:9.2f} images/s {medians[name] / base:6.2f}x "
            f"outside {100 * outside:4.1f} %  {memory}",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--preset", default="r3-s", choices=sorted(r3.PRESETS))
    parser.add_argument("--size", default="64x52", help="HEIGHTxWIDTH, pixels")
    parser.add_argument("--batch-size", type=int, default=4, help="images in one forward pass")
    parser.add_argument("--steps", type=int, default=1, help="micro-batches a step")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--threads", type=int, default=0, help="0: as torch chooses")
    parser.add_argument("--switches", action="store_true", help="each switch by itself, too")
    parser.add_argument("--only", nargs="*", help="these variants by name")
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--flops", action="store_true", help="count operations, measure the card")
    args = parser.parse_args()
    args.size = tuple(int(side) for side in args.size.split("x"))

    hardware = choose_hardware(args.device, "auto")
    print(f"torch {torch.__version__}, {machine_facts(hardware, 1)}, {args}", flush=True)
    print(f"amx {torch.cpu._is_amx_tile_supported()}")
    if args.profile:
        profile(args)
    elif args.flops:
        print(f"{flops_an_image(args) / 1e9:.2f} GFLOP an image")
        for dtype in (torch.float32, torch.bfloat16):
            rate = matrix_rate(hardware.device, dtype)
            print(f"{dtype} matrix product {rate / 1e12:.3f} TFLOP/s")
    else:
        compare(args)


if __name__ == "__main__":
    main()
