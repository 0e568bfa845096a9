"""How ``r3-tiny`` and ``dcgan`` learn from few slices, measured against images seen, on a CPU.

    python bench/r3_evidence.py [--processes 2] [--epochs 24] [--plot-only]

Both train on the same 512 phantoms at 40×32 with the job's own recipe: its defaults, its loop, 8
images behind each step. At nine points of a run 512 fakes are compared with 512 phantoms that no
run has seen. Half an hour on two cores; each measurement is appended to the results at once, and
started again it goes on with the runs that are missing. Leaves curves and samples in docs/.

dcgan is five times as fast here; for as long as r3-tiny takes it trains with ``--models dcgan
--seeds 1 --epochs 120 --results bench/results/r3_evidence_equal_time.jsonl``.
"""

import argparse
import io
import json
import multiprocessing
import statistics
import time
from collections.abc import Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from mrigan.artifacts.grids import render_grid
from mrigan.artifacts.run_facts import machine_facts
from mrigan.data.bank import open_bank
from mrigan.data.phantom import draw
from mrigan.data.slices import to_grey
from mrigan.evaluation.coverage import coverage, expected_coverage
from mrigan.evaluation.sliced_wasserstein import sliced_wasserstein
from mrigan.jobs.build import fresh_state, recipe_of
from mrigan.runtime.device import choose_hardware, keep_freed_memory
from mrigan.settings.fields import Settings
from mrigan.training.loop import Tick, fixed_latents, train
from mrigan.training.plan import Plan
from mrigan.training.state import TrainingState
from mrigan.training.step import Sums

HEIGHT, WIDTH = 40, 32
SLICES = 512
MODELS = ("r3-tiny", "dcgan")
# The same for both, so that equal images seen are equal steps. With r3's default of 64 so short a
# run has 192 steps, and it is steps that count: 64 steps of 16 and of 64 came equally far.
BATCH_SIZE, ACCUMULATION_STEPS = 8, 1
MEASUREMENTS = 8  # after the first, which is before training
HELD_OUT, FLOORS = 10_000, range(20_000, 24_000, 1_000)  # first phantoms of each set
RESULTS = Path(__file__).parent / "results" / "r3_evidence.jsonl"
DOCS = Path(__file__).parents[1] / "docs"
SHOWN, COLUMNS = 24, 12  # pictures of each set among the samples
COLOURS = {"r3-tiny": "#2563a8", "dcgan": "#c0392b"}


def phantoms(first: int) -> Tensor:
    """A set of ``SLICES`` phantoms (N, 1, H, W) uint8."""
    pictures = [draw(index, HEIGHT, WIDTH)[None] for index in range(first, first + SLICES)]
    return torch.from_numpy(np.stack(pictures))


def compare(held_out: Tensor, others: Tensor) -> dict[str, float]:
    """Both numbers of ``others`` against the held-out phantoms."""
    levels = sliced_wasserstein(held_out, others)
    return {
        "distance": round(sum(levels) / len(levels), 4),
        **{key: round(value, 4) for key, value in coverage(held_out, others)._asdict().items()},
    }


def fakes(state: TrainingState, latent_dim: int) -> Tensor:
    """What the run would publish now: from G's average if it has one, else from G."""
    G = state.sampler
    was_training = G.training
    G.eval()
    with torch.no_grad():
        drawn = [to_grey(G(z)) for z in fixed_latents(SLICES, latent_dim, seed=1).split(64)]
    G.train(was_training)
    return torch.cat(drawn)


def measured_run(model: str, seed: int, epochs: int, samples: Path) -> Iterator[dict[str, Any]]:
    """Train as the job does, and yield a row at each point of measurement; leave ``samples``."""
    settings = Settings(
        model=model,
        seed=seed,
        image_height=HEIGHT,
        image_width=WIDTH,
        epochs=epochs,
        batch_size=BATCH_SIZE,
        accumulation_steps=ACCUMULATION_STEPS,
        device="cpu",
        precision="fp32",
    )
    hardware = choose_hardware("cpu", "fp32")
    plan = Plan(
        slices=SLICES,
        epochs=epochs,
        batch_size=BATCH_SIZE,
        accumulation_steps=ACCUMULATION_STEPS,
    )
    state = fresh_state(settings, hardware)
    held_out, latent_dim = phantoms(HELD_OUT), settings.latent_dim
    seconds = 0.0
    row = {"model": model, "seed": seed, "epochs": epochs, "torch": torch.__version__}

    def measure(sums: Sums) -> dict[str, Any]:
        images = max(int(sums.get("images", 0)), 1)
        means = {name: round(float(total) / images, 4) for name, total in sums.items()}
        return {
            **row,
            "images_seen": state.images_seen,
            **compare(held_out, fakes(state, latent_dim)),
            "augment_p": round(float(state.augment.p), 4),
            "train_seconds": round(seconds, 1),
            "epoch_means": {name: mean for name, mean in means.items() if name != "images"},
        }

    yield measure({})
    ticks = train(
        state,
        open_bank(phantoms(0).numpy(), hardware.device, free_bytes=0).take,
        plan,
        latent_dim=latent_dim,
        seed=seed,
        autocast=hardware.autocast(),
        recipe=recipe_of(settings, plan),
    )
    due = [round(epochs * part / MEASUREMENTS) for part in range(1, MEASUREMENTS + 1)]
    for tick, step_seconds in timed(ticks):
        seconds += step_seconds
        if tick.ends_epoch and tick.epoch in due:
            yield measure(state.epoch_sums)
    drawn = render_grid(fakes(state, latent_dim)[:SHOWN].numpy(), COLUMNS)
    samples.write_bytes(drawn)


def samples_of(results: Path, model: str, seed: int) -> Path:
    """Where what a run drew at its end is kept."""
    return results.with_name(f"{results.stem}_{model}_{seed}.png")


def timed(ticks: Iterator[Tick]) -> Iterator[tuple[Tick, float]]:
    """Each Tick with the seconds its step took, whatever is done in between."""
    started = time.perf_counter()
    for tick in ticks:
        yield tick, time.perf_counter() - started
        started = time.perf_counter()


def append(results: Path, row: dict[str, Any]) -> None:
    results.parent.mkdir(parents=True, exist_ok=True)
    with results.open("a") as file:
        file.write(json.dumps(row) + "\n")


def read(results: Path) -> dict[tuple[str, int, int], dict[str, Any]]:
    """Rows by (model, seed, images_seen), the latest of each."""
    if not results.exists():
        return {}
    rows = [json.loads(line) for line in results.read_text().splitlines()]
    return {(row["model"], row["seed"], row["images_seen"]): row for row in rows}


def work(job: tuple[str, int], epochs: int, results: Path) -> None:
    torch.set_num_threads(1)
    keep_freed_memory(torch.device("cpu"))
    results.parent.mkdir(parents=True, exist_ok=True)
    for row in measured_run(*job, epochs, samples_of(results, *job)):
        append(results, row)
        print(json.dumps(row), flush=True)


def measure_floor(results: Path) -> None:
    """Real against real: other phantoms in the fakes' place, several sets of them."""
    held_out = phantoms(HELD_OUT)
    for first in FLOORS:
        found = compare(held_out, phantoms(first))
        append(results, {"model": "phantoms", "seed": first, "images_seen": 0, **found})


def plot_samples(results: Path, seed: int, path: Path) -> None:
    """What reals look like, and what both models drew at the end of the runs of ``seed``."""
    reals = render_grid(phantoms(HELD_OUT)[:SHOWN].numpy(), COLUMNS)
    named = {"phantoms that no run has seen": io.BytesIO(reals)}
    named |= {model: io.BytesIO(samples_of(results, model, seed).read_bytes()) for model in MODELS}
    figure = Figure(figsize=(9, 6.4), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    for axes, (name, png) in zip(figure.subplots(len(named), 1), named.items(), strict=True):
        axes.imshow(
            np.asarray(Image.open(png)), cmap="gray", vmin=0, vmax=255, interpolation="nearest"
        )
        axes.set_title(name, loc="left", fontsize=9)
        axes.set_axis_off()
    drawn = io.BytesIO()
    figure.savefig(drawn)
    Image.open(drawn).convert("L").save(path, optimize=True)  # a fifth of the size


def plot_curves(rows: dict[tuple[str, int, int], dict[str, Any]], path: Path) -> None:
    """Median over seeds as a line, seeds faint; the floor dashed."""
    figure = Figure(figsize=(9, 3.8), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    floors = [row for row in rows.values() if row["model"] == "phantoms"]
    for axes, what in ((left, "distance"), (right, "coverage")):
        for model in MODELS:
            _curve(axes, [row for row in rows.values() if row["model"] == model], what)
        floor = statistics.mean(row[what] for row in floors)
        axes.axhline(floor, color="0.3", lw=1, ls="--", label="other phantoms")
        axes.set_xlabel("images seen")
        axes.set_xlim(left=0)
    left.set_ylim(bottom=0)
    left.set_ylabel("sliced-Wasserstein distance, mean of levels")
    right.set_ylim(0, 1.02)
    right.set_ylabel("coverage (k = 5)")
    expected = expected_coverage(SLICES, SLICES)
    right.axhline(expected, color="0.3", lw=1, ls=":", label=f"expected of reals, {expected:.3f}")
    left.legend(fontsize=8)
    right.legend(fontsize=8)
    figure.savefig(path)


def _curve(axes: Axes, rows: list[dict[str, Any]], what: str) -> None:
    if not rows:
        return
    colour, model = COLOURS[rows[0]["model"]], rows[0]["model"]
    seeds = sorted({row["seed"] for row in rows})
    points: dict[int, list[float]] = {}
    for seed in seeds:
        own = sorted((row["images_seen"], row[what]) for row in rows if row["seed"] == seed)
        axes.plot(*zip(*own, strict=True), color=colour, lw=0.8, alpha=0.35)
        for images, value in own:
            points.setdefault(images, []).append(value)
    whole = {images: values for images, values in points.items() if len(values) == len(seeds)}
    medians = [statistics.median(values) for values in whole.values()]
    axes.plot(list(whole), medians, color=colour, lw=2, label=f"{model}, median of {len(seeds)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=24, help="of 512 phantoms")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--models", nargs="+", default=MODELS, choices=MODELS)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--docs", type=Path, default=DOCS, help="folder of both pictures")
    parser.add_argument("--plot-only", action="store_true")
    args = parser.parse_args()

    found = read(args.results)
    if not args.plot_only:
        done = {(model, seed) for model, seed, images in found if images == args.epochs * SLICES}
        # The slow model first, so that no process is left with a long run at the end.
        jobs = [(model, seed) for model in args.models for seed in range(args.seeds)]
        if not found:
            machine_row = {"machine": asdict(machine_facts(choose_hardware("cpu", "fp32"), 1))}
            append(args.results, {"model": "", "seed": 0, "images_seen": 0, **machine_row})
            measure_floor(args.results)
        context = multiprocessing.get_context("spawn")
        with context.Pool(args.processes, maxtasksperchild=1) as pool:
            missing = [job for job in jobs if job not in done]
            one = partial(work, epochs=args.epochs, results=args.results)
            for _ in pool.imap_unordered(one, missing):
                pass
    if set(args.models) == set(MODELS):
        plot_curves(read(args.results), args.docs / "r3-evidence.png")
        plot_samples(args.results, 0, args.docs / "r3-samples.png")


if __name__ == "__main__":
    main()
