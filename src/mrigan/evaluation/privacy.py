"""Whether generated slices repeat slices that were trained on.

Each is looked up among the slices that were trained on (``nearest``). How like them a slice is that
has nothing to do with training, is known from real ones: held-out slices, and training slices
looked up among those of other volumes. More of the generated slices are above some likeness than of
these: then some are copies. The tests are exact, so that slices of the same kind as the real ones
are flagged in less than one case in a hundred, whatever the data.

Such tests find what resembles a slice as a whole. They don't find a copied detail, a patient whose
other slices were learned, or what an attack on the networks themselves could tell (Stein et al.
2023, arXiv 2306.04675).
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from mrigan.data.sampler import stream_seed
from mrigan.evaluation.copies import SAME_PICTURE, CopyTest, copy_tests, detectable
from mrigan.evaluation.nearest import Gallery, Nearest
from mrigan.evaluation.nearness import (
    FEWEST_HELD_OUT,
    Nearness,
    c_t,
    share_nearer,
)
from mrigan.evaluation.sampling import Estimate
from mrigan.evaluation.variety import duplicate_fraction

_ALARM = 0.01  # probability of a false one, over all tests
_SIMPLE = 0.1  # share of one picture among the reals, from which sameness means nothing
_MOST_REFERENCES = 1200


@dataclass(frozen=True, kw_only=True)
class Privacy:
    """What the check has found.

    Attributes:
        verdict: FLAG where there is a reason.
        reasons: In plain words.
        fakes: Generated slices that were looked up.
        training: Slices that they were looked up among.
        holdout: Slices that were not trained on.
        references: Real slices that say what likeness means nothing.
        left_out: Real slices that are one picture with another one, and so say nothing.
        copies: Generated slices that are one picture with a training slice.
        p: How likely so strong a sign of copies is by chance, over all tests.
        strongest: The test that it is from.
        tests: All of them.
        detectable: Smallest share of plain copies that these numbers of slices would reveal.
        nearer: Share of the fakes nearer to training slices than to as many held-out ones, by the
            look; 0.5 says nothing. None with too few held out.
        nearer_by_features: The same by features.
        c_t: Mann and Whitney's z of likeness to training slices, fakes against held-out ones, after
            Meehan et al. 2020 (arXiv 2004.05675); well below 0 where the fakes are more alike.
        duplicates: Share of the fakes that nearly repeat another one.
        closest: Numbers (k, 2) of the fakes and training slices most alike.
        closest_likeness: Of these, (k,).
    """

    verdict: Literal["PASS", "FLAG"]
    reasons: tuple[str, ...]
    fakes: int
    training: int
    holdout: int
    references: int
    left_out: int
    copies: int
    p: float
    strongest: CopyTest
    tests: tuple[CopyTest, ...]
    detectable: float
    nearer: Estimate | None
    nearer_by_features: Estimate | None
    c_t: float | None
    duplicates: float
    closest: tuple[tuple[int, int], ...]
    closest_likeness: tuple[float, ...]


def check_privacy(
    fake: Tensor,
    training: Tensor,
    holdout: Tensor,
    features: tuple[Tensor, Tensor, Tensor],
    *,
    volumes: Tensor | None = None,
    seed: int = 0,
    pairs: int = 20,
) -> Privacy:
    """Look generated slices up among those that were trained on.

    Args:
        fake: (n, 1, H, W) uint8, some at least.
        training: (N, 1, H, W) uint8, 2 at least.
        holdout: (m, 1, H, W) uint8, none at least: slices of other volumes.
        features: Of these three sets, (n, d), (N, d) and (m, d).
        volumes: (N,) integers, the same for training slices of one volume; none means that each
            is its own.
        seed: Chooses the training slices that are looked up among the others.
        pairs: Closest pairs to name.
    """
    gallery = Gallery(training, volumes)
    found = gallery.nearest(fake)
    reals, held = _references(gallery, training, holdout, volumes, seed)
    is_same = reals.likeness >= SAME_PICTURE
    is_simple = bool(is_same.double().mean() > _SIMPLE)
    if not is_simple:
        reals = _only(reals, ~is_same)
    tests, p = copy_tests(found, reals, seed)
    strongest = min(tests, key=lambda test: test.p)
    copies = 0 if is_simple else int((found.likeness >= SAME_PICTURE).sum())
    looks = nearness = None
    if len(holdout) >= FEWEST_HELD_OUT:
        looks = share_nearer(gallery.scores(fake), Gallery(holdout).scores(fake), seed)
        rows = [each.double() for each in features]
        nearness = share_nearer(
            -torch.cdist(rows[0], rows[1]), -torch.cdist(rows[0], rows[2]), seed
        )
    order = found.likeness.argsort(descending=True, stable=True)[:pairs]
    reasons = [*_reasons(copies, len(fake), p, strongest, looks, nearness)]
    return Privacy(
        verdict="FLAG" if reasons else "PASS",
        reasons=tuple(reasons),
        fakes=len(fake),
        training=len(training),
        holdout=len(holdout),
        references=len(reals.likeness),
        left_out=0 if is_simple else int(is_same.sum()),
        copies=copies,
        p=p,
        strongest=strongest,
        tests=tests,
        detectable=detectable(len(fake), len(reals.likeness), _ALARM),
        nearer=looks.share if looks else None,
        nearer_by_features=nearness.share if nearness else None,
        c_t=c_t(found.likeness, held) if len(held) >= FEWEST_HELD_OUT else None,
        duplicates=duplicate_fraction(training, fake) if len(fake) > 1 else 0.0,
        closest=tuple((int(i), int(found.match[i])) for i in order),
        closest_likeness=tuple(float(found.likeness[i]) for i in order),
    )


def _references(
    gallery: Gallery, training: Tensor, holdout: Tensor, volumes: Tensor | None, seed: int
) -> tuple[Nearest, Tensor]:
    """What real slices are like, and the likeness of those held out alone."""
    generator = torch.Generator().manual_seed(stream_seed(seed, "privacy"))
    rows = torch.randperm(len(training), generator=generator)[:_MOST_REFERENCES].sort().values
    groups = torch.arange(len(training)) if volumes is None else volumes
    found = gallery.nearest(training[rows], groups[rows])
    if not len(holdout):
        return found, torch.zeros(0)
    held = gallery.nearest(holdout[:_MOST_REFERENCES])
    both = (torch.cat(parts) for parts in zip(found, held, strict=True))
    return Nearest(*both), held.likeness


def _only(found: Nearest, kept: Tensor) -> Nearest:
    return Nearest(*(part[kept] for part in found))


def _reasons(
    copies: int,
    fakes: int,
    p: float,
    strongest: CopyTest,
    looks: Nearness | None,
    nearness: Nearness | None,
) -> list[str]:
    reasons = []
    if copies:
        reasons.append(f"{copies:,} of {fakes:,} slices are one picture with a training slice")
    if p < _ALARM:
        reasons.append(
            f"{strongest.fakes:.1%} of the slices, but {strongest.reals:.1%} of real ones, "
            f"{strongest.what}"
        )
    for found, by in ((looks, "look"), (nearness, "features")):
        if found is not None and not found.is_chance:
            reasons.append(
                f"{found.share.value:.0%} of the slices are nearer to training slices than to as "
                f"many held-out ones, by their {by}"
            )
    return reasons
