"""Short real trainings at equal time: samples to look at, distance and coverage to compare.

Their clock starts when shapes are known to cuDNN; a run's schedule is made for as many images as
its speed will let it see.
"""

import time
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from gpu_check.bench import Bench, path_beside, presets, switches_kept
from gpu_check.jobs import Job, begin, heard
from gpu_check.report import Row
from mrigan.artifacts.grids import render_grid
from mrigan.data.slices import to_grey
from mrigan.evaluation.coverage import coverage
from mrigan.evaluation.sliced_wasserstein import sliced_wasserstein
from mrigan.settings.models import MODELS
from mrigan.training.loop import fixed_latents

_OVERHEAD_SECONDS = 7.0  # of a run: its shapes' trials, its scores
_SHORTEST_SECONDS = 2.0
_CALIBRATION_STEPS, _WARM_UP = 8, 5
_READ_EVERY = 8  # steps between looks at the clock
_SHOWN, _COLUMNS = 32, 8
_RATES = (1, 2, 4)

# Name, model, changes of its preset, share of the time.
Recipe = tuple[str, str, dict[str, Any], float]
_RECIPES: tuple[Recipe, ...] = (
    ("r3-s", "r3-s", {}, 1.0),
    ("r3-m", "r3-m", {}, 1.0),
    ("r3-m kernels 1-3-1", "r3-m", {"kernels": (1, 3, 1)}, 1.0),
    ("r3-m Haar twice", "r3-m", {"haar_levels": 2}, 1.0),
    ("dcgan", "dcgan", {}, 0.5),
)


def run(bench: Bench) -> None:
    """All recipes, in what time is left."""
    _compare(bench, list(_RECIPES))


def run_rates(bench: Bench) -> None:
    """Multiples of the presets' learning rates."""
    _compare(
        bench,
        [
            (
                f"{model} rate x{factor}",
                model,
                {"rate": factor},
                1.0,
            )
            for model in ("r3-s", "r3-m")
            for factor in _RATES
        ],
    )


def _compare(bench: Bench, recipes: list[Recipe]) -> None:
    bench.row("slices", partial(_floor, bench))
    seconds = bench.seconds_left() - len(recipes) * (0.0 if bench.is_tiny else _OVERHEAD_SECONDS)
    unit = seconds / sum(share for *_, share in recipes)
    for name, model, changes, share in recipes:
        given = 0.01 if bench.is_tiny else max(unit * share, _SHORTEST_SECONDS)
        measure = partial(trained, bench, name, model, changes, given)
        bench.row(name, measure, needs_seconds=given if not bench.is_tiny else 0.0)


def trained(bench: Bench, name: str, model: str, changes: dict[str, Any], seconds: float) -> Row:
    """Train ``model`` for so long, score what it draws, and write it."""
    images = bench.slices()[0]
    changes = dict(changes)
    rate = changes.pop("rate", 1.0) * MODELS[model].g_lr
    changed = {model: changes} if changes else {}
    with switches_kept(bench.device), presets(changed), heard() as warnings:
        speed = _calibrated(bench, model)
        epochs = max(1, round(seconds * speed / len(images)))
        job = begin(bench, model, images, epochs=epochs, g_lr=rate, d_lr=rate)
        took, steps = _train(bench, job, seconds)
        row: Row = {
            "seconds": round(took, 1),
            "images": job.state.images_seen,
            "of plan": round(job.state.images_seen / job.plan.total_images, 2),
            "steps": steps,
            "images/s": round(job.state.images_seen / took, 1),
        }
        networks = {"published": job.state.sampler, "raw": job.state.G}
        if job.state.G_ema is None:
            del networks["raw"]
        for which, network in networks.items():
            drawn = fakes(job, network, len(bench.slices()[1]))
            distance, covered = compared(bench.slices()[1], drawn)
            row |= {f"{which} distance": distance, f"{which} coverage": covered}
            if which == "published":
                file = path_beside(bench.report, f"{name.replace(' ', '-')}.png")
                file.write_bytes(render_grid(drawn[:_SHOWN].numpy(), _COLUMNS))
                row["grid"] = file.name
    if warnings:
        row["warned"] = "; ".join(warnings)
    return row


def compared(held_out: Tensor, drawn: Tensor) -> tuple[float, float]:
    """Sliced-Wasserstein distance (0 is best) and coverage (near 1 is best), on the CPU."""
    levels = sliced_wasserstein(held_out, drawn)
    return round(sum(levels) / len(levels), 4), round(coverage(held_out, drawn).coverage, 3)


def fakes(job: Job, network: nn.Module, count: int) -> Tensor:
    """What ``network`` draws from fixed latents, uint8 on the CPU."""
    was_training = network.training
    network.eval()
    torch.backends.cudnn.benchmark = False  # a few passes are not worth trials
    device = job.hardware.device
    with torch.no_grad(), job.hardware.autocast():
        latents = fixed_latents(count, job.settings.latent_dim, seed=1).to(device)
        drawn = torch.cat([to_grey(network(part)) for part in latents.split(64)]).cpu()
    network.train(was_training)
    return drawn


def _train(bench: Bench, job: Job, seconds: float) -> tuple[float, int]:
    """Step to the end of the plan or of the time."""
    bench.wait()
    started, steps = time.perf_counter(), 0
    for _ in job.ticks:
        steps += 1
        if steps % _READ_EVERY == 0:
            bench.wait()
            if time.perf_counter() - started >= seconds:
                break
    bench.wait()
    return time.perf_counter() - started, steps


def _calibrated(bench: Bench, model: str) -> float:
    """Images per second of a run that is thrown away."""
    if bench.is_tiny:
        return 1.0
    job = begin(bench, model, bench.slices()[0])
    job.steps(_WARM_UP)
    bench.wait()
    started = time.perf_counter()
    shown = job.steps(_CALIBRATION_STEPS)
    bench.wait()
    speed = shown / (time.perf_counter() - started)
    del job
    bench.clean_up()
    return speed


def _floor(bench: Bench) -> Row:
    """Reals in the fakes' place, and a grid of them."""
    training, held_out = bench.slices()
    others = torch.from_numpy(training[: len(held_out)])
    distance, covered = compared(held_out, others)
    file = path_beside(bench.report, "slices.png")
    file.write_bytes(render_grid(held_out[:_SHOWN].numpy(), _COLUMNS))
    return {
        "trained on": len(training),
        "held out": len(held_out),
        "distance": distance,
        "coverage": covered,
        "grid": file.name,
    }
