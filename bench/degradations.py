"""What each metric says of real slices that are made worse by known degrees: a Markdown table.

    python bench/degradations.py FOLDER [--height 200 --width 160] [--count 1000]

Distinct real slices are dealt into two halves. The second is made worse, in steps, and compared
with the first, as `mrigan evaluate` compares generated slices. A metric that does what it is for
moves one way with each step.
"""

import argparse
import tempfile
from pathlib import Path

import torch
from torch import Tensor

from mrigan.data.pack import open_pack
from mrigan.data.source import open_source
from mrigan.evaluation.bands import blurred
from mrigan.evaluation.comparison import Compared, metric_of
from mrigan.evaluation.features import random_features
from mrigan.evaluation.sampling import Estimate

SHOWN = ("kid", "frechet", "precision", "recall", "density", "coverage", "swd", "diversity",
         "duplicates", "intensity", "spectrum")  # fmt: skip
# Which metrics each kind of degradation is to move, and which way.
MOVES = {
    "blur, sigma px": {"kid": 1, "frechet": 1, "swd": 1, "spectrum": 1, "precision": -1,
                       "density": -1, "coverage": -1},
    "noise, % of range": {"kid": 1, "frechet": 1, "swd": 1, "spectrum": 1, "precision": -1,
                          "density": -1, "coverage": -1},
    "brighter, % of range": {"kid": 1, "frechet": 1, "swd": 1, "intensity": 1, "precision": -1,
                             "density": -1, "coverage": -1},
    "modes kept, 1 of": {"kid": 1, "frechet": 1, "swd": 1, "recall": -1, "coverage": -1},
    "one slice in place of, %": {"kid": 1, "frechet": 1, "diversity": -1, "duplicates": 1,
                                 "swd": 1},
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder")
    parser.add_argument("--height", type=int, default=200)
    parser.add_argument("--width", type=int, default=160)
    parser.add_argument("--count", type=int, default=1000)
    options = parser.parse_args()
    slices = read(options.folder, options.height, options.width)
    order = torch.randperm(len(slices), generator=torch.Generator().manual_seed(0))
    real, fresh = (slices[rows] for rows in order[: 2 * options.count].split(options.count))
    reference = compared(real)
    print(f"{len(real):,} against {len(fresh):,} slices of {options.height}×{options.width}\n")
    found: dict[str, list[dict[str, Estimate]]] = {}
    plain = reference.against(compared(fresh))
    print(row("degradation", [metric_of(name).title for name in SHOWN]))
    print(row("---", ["---"] * len(SHOWN)))
    print(row("none", [cell(plain[name]) for name in SHOWN]), flush=True)
    for kind, steps in degraded(fresh).items():
        found[kind] = [plain]
        for degree, images in steps.items():
            measured = reference.against(compared(images))
            found[kind].append(measured)
            print(row(f"{kind} {degree}", [cell(measured[name]) for name in SHOWN]), flush=True)
    print()
    for kind, moves in MOVES.items():
        for name, way in moves.items():
            values = [way * each[name].value for each in found[kind]]
            verdict = "in order" if values == sorted(values) else "NOT IN ORDER"
            print(
                f"{kind}: {name} {verdict}: {', '.join(f'{way * value:.4g}' for value in values)}"
            )


def compared(images: Tensor) -> Compared:
    return Compared(images, random_features(images))


def degraded(fresh: Tensor) -> dict[str, dict[str, Tensor]]:
    x = fresh.float()
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
    # Modes: slices in the order of their mean grey level, of which the first part is kept.
    order = x.mean((1, 2, 3)).argsort()
    numbers = torch.arange(len(x))
    some = torch.randperm(len(x), generator=torch.Generator().manual_seed(2))

    def replaced(percent: int) -> Tensor:
        images = x.clone()
        images[some[: len(x) * percent // 100]] = x[some[-1]]
        return images

    kinds = {
        "blur, sigma px": {str(s): blurred(x, s) for s in (0.5, 1.0, 2.0)},
        "noise, % of range": {str(p): x + 2.55 * p * noise for p in (2, 5, 10)},
        "brighter, % of range": {str(p): x + 2.55 * p for p in (2, 5, 10)},
        "modes kept, 1 of": {str(k): x[order[numbers % (len(x) // k)]] for k in (2, 4, 8)},
        "one slice in place of, %": {str(p): replaced(p) for p in (5, 20, 60)},
    }
    return {
        kind: {name: each.round().clamp(0, 255).to(torch.uint8) for name, each in steps.items()}
        for kind, steps in kinds.items()
    }


def read(folder: str, height: int, width: int) -> Tensor:
    """The slices of which no two have the same pixels."""
    with tempfile.TemporaryDirectory() as cache:
        source = open_source(folder)
        pack = open_pack(source, height=height, width=width, fit="pad", cache_dir=Path(cache))
        first = {entry.sha256: entry.row for entry in pack.manifest if entry.row is not None}
        return torch.from_numpy(pack.images[pack.rows[sorted(first.values())]])


def row(name: str, cells: list[str]) -> str:
    return f"| {name} | {' | '.join(cells)} |"


def cell(found: Estimate) -> str:
    low, value, high = (f"{each:.3g}" for each in (found.low, found.value, found.high))
    return f"{value} ({low}–{high})"


if __name__ == "__main__":
    main()
