"""Trials of ``r3``: what presets, rates, penalties and averages come to, by images and by time.

    python bench/r3_trials.py --slices FOLDER --size 64x52 --trials kernels --seeds 3
    python bench/r3_trials.py --table

Each trial is one short training of the networks by themselves: no job, no augmentation, one thread.
A tenth of the slices (by a hash of their order) is held out; at eight points of a run 256 fakes
are compared with 256 held-out slices: from G as it is, and from averages of different memory.
Without ``--slices`` it draws phantoms. Rows are appended to the results at once; ``--table``
prints what is there. The last grid of each trial is written beside them. Seconds are those of the
processor, so that a busy machine does not count.
"""

import argparse
import itertools
import json
import math
import tempfile
import time
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mrigan.artifacts.grids import render_grid
from mrigan.data.pack import open_pack
from mrigan.data.phantom import draw
from mrigan.data.slices import to_grey, to_unit
from mrigan.data.source import open_source
from mrigan.evaluation.coverage import coverage
from mrigan.evaluation.sliced_wasserstein import sliced_wasserstein
from mrigan.models.r3 import networks as r3
from mrigan.models.r3.losses import d_terms, g_loss, g_terms, penalised_d_loss, real_signs

RESULTS = Path(__file__).parent / "results" / "r3_trials.jsonl"
LATENT_DIM = 64
MEASUREMENTS = 8
SCORED = 256
UPSTREAM_PX, UPSTREAM_EXPONENT = 256 * 256, 1.557  # R3GAN's FFHQ presets: 2 at 64², 150 at 256²
# Averages of G: half-life as a share of the images seen so far; "run": a tenth of the run, reached
# along the burn-in's cosine.
AVERAGES = {"0.02": 0.02, "0.05": 0.05, "0.1": 0.1}


@dataclass(frozen=True)
class Trial:
    """One recipe.

    Attributes:
        preset: Of the networks.
        rate: Learning rate of both networks at the start.
        images: Of the whole run.
        step_images: Behind each optimizer step.
        gamma: At the start and the end of the burn-in, at 256×256.
        gamma_exponent: How γ goes with the number of pixels.
        burn_in: Share of the run.
        seconds: Where given, the run ends then; ``images`` still sets the schedule.
    """

    preset: r3.Preset
    rate: float = 4e-3
    images: int = 36_864
    step_images: int = 8
    gamma: tuple[float, float] = (5.0, 40.0)
    gamma_exponent: float = 1.0
    burn_in: float = 0.4
    lr_end: float = 0.25
    seconds: float = math.inf

    def ramp(self, start: float, end: float, images_seen: int) -> float:
        """A half cosine through the burn-in."""
        progress = min(images_seen / (self.burn_in * self.images), 1.0)
        return end + (start - end) * (1 + math.cos(math.pi * progress)) / 2


def sets_of_trials() -> dict[str, dict[str, Trial]]:
    """Named trials by the question that they answer."""
    tiny, small, middle = (r3.PRESETS[f"r3-{size}"] for size in ("tiny", "s", "m"))
    base = Trial(tiny)

    def tiny_of(**changes: Any) -> Trial:
        return replace(base, preset=replace(tiny, **changes))

    def at_rate(preset: r3.Preset, rate: float, images: int) -> Trial:
        return replace(base, preset=preset, rate=rate, images=images)

    wide_s, wide_m = 2e-4 * 768 / small.widths[0], 2e-4 * 768 / middle.widths[0]
    return {
        "kernels": {
            "3-1 haar": tiny_of(),
            "1-3-1 haar": tiny_of(kernels=(1, 3, 1)),
            "3-3 haar": tiny_of(kernels=(3, 3), widths=(24, 24, 24, 24, 16, 16)),
            "3-1 pixels": tiny_of(haar_levels=0, widths=(32, 32, 32, 32, 16, 16, 8)),
            "3-1 haar twice": tiny_of(haar_levels=2),
        },
        "rate-tiny": {f"rate {rate}": replace(base, rate=rate) for rate in (1e-3, 2e-3, 8e-3)},
        "gamma": {
            "exponent 1.557": replace(base, gamma_exponent=UPSTREAM_EXPONENT),
            "150 to 15, exponent 1.557": replace(
                base, gamma=(150.0, 15.0), gamma_exponent=UPSTREAM_EXPONENT
            ),
            "150 to 15": replace(base, gamma=(150.0, 15.0)),
        },
        "burn-in": {"burn-in 1": replace(base, burn_in=1.0)},
        "step": {
            "16 a step": replace(base, step_images=16),
            "32 a step": replace(base, step_images=32),
            "64 a step": replace(base, step_images=64),
        },
        "rate-s": {f"s x{m}": at_rate(small, wide_s * m, 8_192) for m in (0.25, 0.5, 1, 2)},
        # With the larger γ: with the small one a wide D wins within 3,000 images.
        "rate-s-paper": {
            f"s x{m}, 150 to 15": replace(at_rate(small, wide_s * m, 8_192), gamma=(150.0, 15.0))
            for m in (0.25, 0.5, 1, 2)
        },
        "rate-m": {f"m x{m}": at_rate(middle, wide_m * m, 4_096) for m in (0.25, 0.5, 1, 2)},
    }


class Averages:
    """G as it is and its averages."""

    def __init__(self, G: nn.Module) -> None:
        self.G = G
        self.kept = {name: deepcopy(G) for name in (*AVERAGES, "run")}

    @torch.no_grad()
    def update(self, trial: Trial, images_seen: int) -> None:
        """Count one step."""
        lives = {name: share * images_seen for name, share in AVERAGES.items()}
        lives["run"] = trial.ramp(0.0, trial.images / 10, images_seen)
        for name, half_life in lives.items():
            decay = 0.5 ** (trial.step_images / half_life) if half_life else 0.0
            torch._foreach_lerp_(
                list(self.kept[name].parameters()), list(self.G.parameters()), 1 - decay
            )

    def networks(self) -> dict[str, nn.Module]:
        """Each by its name."""
        return {"raw": self.G, **self.kept}


def load_slices(folder: str, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Slices trained on and held out, uint8 (N, 1, H, W)."""
    if folder:
        with tempfile.TemporaryDirectory() as cache:
            pack = open_pack(
                open_source(folder),
                height=size[0],
                width=size[1],
                cache_dir=Path(cache),
                max_refused_percent=5,
            )
        images = torch.from_numpy(pack.images[pack.rows])
    else:
        pictures = [draw(index, *size)[None] for index in range(768)]
        images = torch.from_numpy(np.stack(pictures))
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(1))
    held_out = max(SCORED, len(images) // 10)
    return images[order[held_out:]], images[order[:held_out]]


def fakes(G: nn.Module) -> Tensor:
    """What G draws from the same latents each time, uint8."""
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        z = torch.randn(SCORED, LATENT_DIM, generator=generator)
        return torch.cat([to_grey(G(part)) for part in z.split(64)])


def measured(held_out: Tensor, drawn: Tensor) -> list[float]:
    """Distance and coverage."""
    levels = sliced_wasserstein(held_out[:SCORED], drawn)
    return [
        round(sum(levels) / len(levels), 4),
        round(coverage(held_out[:SCORED], drawn).coverage, 3),
    ]


def run(trial: Trial, seed: int, training: Tensor, held_out: Tensor, note: Any) -> bytes:
    """Train once; ``note`` is told of each measurement. Returns the last grid."""
    torch.manual_seed(seed)
    height, width = training.shape[2:]
    nets = (
        r3.Generator(trial.preset, LATENT_DIM, height, width),
        r3.Discriminator(trial.preset, height, width),
    )
    G, D = (net.to(memory_format=torch.channels_last) for net in nets)
    optims = [torch.optim.Adam(net.parameters(), betas=(0.0, 0.9), fused=True) for net in (G, D)]
    averages = Averages(G)
    size_factor = (height * width / UPSTREAM_PX) ** trial.gamma_exponent
    images_seen, seconds, signs = 0, 0.0, 0.0
    rate = trial.rate
    due = [math.ceil(trial.images * part / MEASUREMENTS) for part in range(1, MEASUREMENTS + 1)]
    n = trial.step_images
    while images_seen < trial.images and seconds < trial.seconds:
        began = time.process_time()
        for optim in optims:
            group = optim.param_groups[0]
            group["lr"] = trial.ramp(rate, rate * trial.lr_end, images_seen)
            group["betas"] = (0.0, trial.ramp(0.9, 0.99, images_seen))
        gamma = trial.ramp(*trial.gamma, images_seen) * size_factor
        batches = [to_unit(training[torch.randint(len(training), (n,))]) for _ in range(2)]
        D.zero_grad()
        with torch.no_grad():
            fake = G(torch.randn(n, LATENT_DIM))
        terms = d_terms(D, batches[0], fake)
        penalised_d_loss(terms, gamma).mean().backward()
        optims[1].step()
        G.zero_grad()
        D.requires_grad_(False)
        g_loss(*g_terms(D, batches[1], G(torch.randn(n, LATENT_DIM)))).mean().backward()
        D.requires_grad_(True)
        optims[0].step()
        images_seen += n
        averages.update(trial, images_seen)
        signs = 0.98 * signs + 0.02 * float(real_signs(terms).mean())
        seconds += time.process_time() - began
        if images_seen >= due[0] or seconds >= trial.seconds:
            due.pop(0)
            scores = {
                name: measured(held_out, fakes(net)) for name, net in averages.networks().items()
            }
            note(
                {
                    "images_seen": images_seen,
                    "seconds": round(seconds, 1),
                    "real_sign": round(signs, 3),
                    **scores,
                }
            )
    return render_grid(fakes(averages.kept["0.05"])[:32].numpy(), 8)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--slices", default="", help="a folder; phantoms without")
    parser.add_argument("--size", default="64x52")
    parser.add_argument("--trials", nargs="+", default=["kernels"], choices=sets_of_trials())
    parser.add_argument("--only", nargs="+", help="names of trials")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--images", type=int, help="instead of the trial's own")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--table", action="store_true")
    args = parser.parse_args()
    if args.table:
        print_table(args.results)
        return
    torch.set_num_threads(1)
    height, width = (int(side) for side in args.size.split("x"))
    training, held_out = load_slices(args.slices, (height, width))
    data = f"{Path(args.slices).name or 'phantoms'} {args.size}"
    for seed, question in itertools.product(args.seeds, args.trials):
        for name, trial in sets_of_trials()[question].items():
            if args.only and name not in args.only:
                continue
            head = {"data": data, "question": question, "trial": name, "seed": seed}
            changed = replace(trial, images=args.images) if args.images else trial
            grid = run(changed, seed, training, held_out, partial(append, args.results, head))
            path = args.results.with_name(f"{args.results.stem}_{name}_{seed}.png")
            path.with_name(path.name.replace(" ", "-")).write_bytes(grid)


def append(results: Path, head: dict[str, Any], row: dict[str, Any]) -> None:
    """Keep a measurement at once."""
    with results.open("a") as file:
        file.write(json.dumps({**head, **row}) + "\n")
    print(head["trial"], head["seed"], row, flush=True)


def print_table(results: Path) -> None:
    """One line a trial: the last measurement."""
    rows = [json.loads(line) for line in results.read_text().splitlines()]
    last = {(row["data"], row["question"], row["trial"], row["seed"]): row for row in rows}
    print("| data | trial | seed | images | seconds | real_sign | raw | 0.02 | 0.05 | 0.1 | run |")
    print("|---|---|---|---|---|---|---|---|---|---|---|")
    for row in last.values():
        scores = " | ".join("{} / {}".format(*row[name]) for name in ("raw", *AVERAGES, "run"))
        print(
            f"| {row['data']} | {row['trial']} | {row['seed']} | {row['images_seen']:,} "
            f"| {row['seconds']:.0f} | {row['real_sign']} | {scores} |"
        )


if __name__ == "__main__":
    main()
