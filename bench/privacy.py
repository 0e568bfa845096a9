"""Whether the privacy check flags planted copies, and how often it raises a false alarm.

    python bench/privacy.py FOLDER [--resamplings 100] [--sizes 700,80,350] [--part alarms]

Real slices, of which no two are one picture, are dealt into training slices, held-out ones and an
independent set that stands for generated ones. The last is checked as it is (false alarms), and
with 1 % of it replaced by copies of training slices, each kind in turn, or with more and more of it
replaced by exact ones (--part shares).
"""

import argparse
import json
import tempfile
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from mrigan.data.pack import open_pack
from mrigan.data.source import open_source
from mrigan.evaluation.copies import SAME_PICTURE
from mrigan.evaluation.features import random_features
from mrigan.evaluation.nearest import Gallery
from mrigan.evaluation.privacy import check_privacy

SHARE = 0.01
SHARES = (0.005, 0.02, 0.05, 0.2, 0.5)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder")
    parser.add_argument("--resamplings", type=int, default=100)
    parser.add_argument("--sizes", default="1300,150,850", help="training, held out, independent")
    parser.add_argument("--height", type=int, default=200)
    parser.add_argument("--width", type=int, default=160)
    parser.add_argument("--part", choices=("alarms", "copies", "shares"), default="alarms")
    options = parser.parse_args()
    slices = distinct(read(options.folder, options.height, options.width))
    sizes = [int(part) for part in options.sizes.split(",")]
    print(json.dumps({"slices": len(slices), "sizes": sizes}), flush=True)
    flagged: dict[str, int] = {}
    for number in range(options.resamplings):
        generator = torch.Generator().manual_seed(number)
        order = torch.randperm(len(slices), generator=generator)[: sum(sizes)]
        training, holdout, independent = (slices[rows] for rows in order.split(sizes))
        kinds = {"none": independent}
        if options.part == "copies":
            kinds |= contaminated(training, independent, generator)
        if options.part == "shares":
            kinds |= memorised(training, independent, generator)
        for kind, fakes in kinds.items():
            features = tuple(map(random_features, (fakes, training, holdout)))
            found = check_privacy(fakes, training, holdout, features, seed=number)
            flagged[kind] = flagged.get(kind, 0) + (found.verdict == "FLAG")
            row = {
                "resampling": number,
                "copies": kind,
                "verdict": found.verdict,
                "p": found.p,
                "same": found.copies,
                "nearer": found.nearer,
                "by_features": found.nearer_by_features,
                "c_t": found.c_t,
                "strongest": found.strongest.what,
                "reasons": found.reasons,
            }
            print(json.dumps(row), flush=True)
    print(json.dumps({"flagged": flagged, "of": options.resamplings}))


def read(folder: str, height: int, width: int) -> Tensor:
    with tempfile.TemporaryDirectory() as cache:
        pack = open_pack(
            open_source(folder), height=height, width=width, fit="pad", cache_dir=Path(cache)
        )
        return torch.from_numpy(pack.images[pack.rows])


def distinct(slices: Tensor) -> Tensor:
    """The slices without those that are one picture with another that stays."""
    while True:
        found = Gallery(slices).nearest(slices, torch.arange(len(slices)))
        kept = torch.ones(len(slices), dtype=torch.bool)
        for row in torch.nonzero(found.likeness >= SAME_PICTURE).flatten().tolist():
            if kept[found.match[row]]:
                kept[row] = False
        if bool(kept.all()):
            return slices
        slices = slices[kept]


def contaminated(
    training: Tensor, independent: Tensor, generator: torch.Generator
) -> dict[str, Tensor]:
    """The independent set with a part of it replaced by copies, of each kind."""
    count = max(1, round(SHARE * len(independent)))
    rows = torch.randperm(len(training), generator=generator)
    x = training[rows[:count]].float() / 255
    other = training[rows[count : 2 * count]].float() / 255
    noise = torch.randn(x.shape, generator=generator)
    copies = {
        "exact": x,
        "noise of 5 %": x + 0.05 * noise,
        "noise of 10 %": x + 0.1 * noise,
        "shift of 5 and 4 px": F.pad(x, (0, 4, 5, 0))[..., :-5, 4:],
        "contrast, gamma 0.6": x**0.6,
        "contrast, gamma 1.6": x**1.6,
        "mirrored": x.flip(3),
        "blends 1:1": (x + other) / 2,
        "blends 7:3": 0.7 * x + 0.3 * other,
    }
    return {
        kind: torch.cat([(each.clamp(0, 1) * 255).round().to(torch.uint8), independent[count:]])
        for kind, each in copies.items()
    }


def memorised(
    training: Tensor, independent: Tensor, generator: torch.Generator
) -> dict[str, Tensor]:
    """The independent set with more and more of it replaced by training slices."""
    rows = torch.randperm(len(training), generator=generator)
    counts = {share: round(share * len(independent)) for share in SHARES}
    return {
        f"exact, {share:.1%}": torch.cat([training[rows[:count]], independent[count:]])
        for share, count in counts.items()
    }


if __name__ == "__main__":
    main()
