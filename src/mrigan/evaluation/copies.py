"""Whether more fakes than real slices are like training slices, or like blends of two.

One test for each threshold of likeness: Fisher's. What the least of their p means is learned by
shuffling which slices are fakes, so that the answer is exact though the tests depend on each other
(Westfall & Young 1993).
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from mrigan.data.sampler import stream_seed
from mrigan.evaluation.nearest import Nearest
from mrigan.evaluation.shares import p_of_more

SAME_PICTURE = 0.985
"""Likeness from which two slices are one picture: what saving it again as a JPEG leaves."""

_LIKENESS = (0.93, 0.95, 0.965, 0.975, 0.985, 0.99)  # below, neighbours of one scan are as alike
_EXPLAINED = (0.7, 0.8, 0.85, 0.9, 0.95, 0.98)
_SHUFFLES = 4000

Kind = Literal["copy", "blend"]


@dataclass(frozen=True, kw_only=True)
class CopyTest:
    """How many slices are like training slices.

    Attributes:
        kind: ``copy``: like one; ``blend``: what one leaves of it a second one explains.
        threshold: Of likeness, or of the explained share of what is left.
        fakes: Share of the generated slices above it.
        reals: Share of the real ones above it.
        p: How likely so large a share is by chance, for this test alone, one-sided.
    """

    kind: Kind
    threshold: float
    fakes: float
    reals: float
    p: float

    @property
    def what(self) -> str:
        """What the slices above the threshold are, after "of the slices"."""
        if self.kind == "copy":
            return f"are more than {self.threshold:g} like a training slice"
        return f"are blends of two training slices (explained to {self.threshold:.0%})"


def copy_tests(fakes: Nearest, reals: Nearest, seed: int) -> tuple[tuple[CopyTest, ...], float]:
    """Make all tests; returns them, and the p of the strongest for all of them together.

    Args:
        fakes: What n generated slices are like.
        reals: What m real ones are like, that were not trained on together with what they are like.
        seed: Of the shuffles.
    """
    n, m = len(fakes.likeness), len(reals.likeness)
    marks = torch.cat([_marks(fakes), _marks(reals)])  # (n + m, tests)
    totals = marks.sum(0).tolist()
    tables = [
        torch.tensor([p_of_more(k, n, total - k, m) for k in range(min(total, n) + 1)])
        for total in totals
    ]
    found = []
    kinds: list[tuple[Kind, float]] = [("copy", each) for each in _LIKENESS]
    kinds += [("blend", each) for each in _EXPLAINED]
    for number, (kind, threshold) in enumerate(kinds):
        above = int(marks[:n, number].sum())
        others = totals[number] - above
        p = float(tables[number][above])
        shares = {"fakes": above / n, "reals": others / max(m, 1)}
        found.append(CopyTest(kind=kind, threshold=threshold, p=p, **shares))
    least = torch.ones(_SHUFFLES, dtype=torch.float64)
    counts = _shuffled(marks, n, seed)
    for number, table in enumerate(tables):
        least = torch.minimum(least, table.double()[counts[:, number]])
    smallest = min(test.p for test in found)
    chance = int((least <= smallest * (1 + 1e-9)).sum())
    return tuple(found), (1 + chance) / (1 + _SHUFFLES)


def detectable(fakes: int, reals: int, alarm: float) -> float:
    """The smallest share of the fakes that would be a sign of copies, if no real slice is like it.

    Args:
        fakes: How many there are.
        reals: How many real ones there are.
        alarm: Probability below which it is no chance; over all tests, of which there are some.
    """
    tests = len(_LIKENESS) + len(_EXPLAINED)
    enough = (k for k in range(1, fakes + 1) if p_of_more(k, fakes, 0, reals) * tests < alarm)
    return next(enough, fakes) / fakes


def _marks(found: Nearest) -> Tensor:
    """Whether each of n slices is above each threshold, (n, tests)."""
    left = 1 - found.likeness**2
    explained = 1 - (1 - found.pair**2) / left.clamp(min=1e-6)
    explained[found.likeness >= SAME_PICTURE] = 0.0  # a copy leaves nothing but noise
    return torch.cat(
        [
            found.likeness[:, None] >= torch.tensor(_LIKENESS),
            explained[:, None] >= torch.tensor(_EXPLAINED),
        ],
        1,
    )


def _shuffled(marks: Tensor, n: int, seed: int) -> Tensor:
    """How many of n slices drawn at random are above each threshold: (shuffles, tests)."""
    generator = torch.Generator().manual_seed(stream_seed(seed, "shuffles"))
    counted = marks.to(torch.int32)
    counts = [
        counted[torch.randperm(len(marks), generator=generator)[:n]].sum(0)
        for _ in range(_SHUFFLES)
    ]
    return torch.stack(counts)
