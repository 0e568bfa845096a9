"""Every number that compares one set of slices with another."""

import math
from typing import NamedTuple

from torch import Tensor

from mrigan.evaluation.intensities import (
    histogram_distance,
    histograms,
    spectra,
    spectrum_distance,
)
from mrigan.evaluation.kernel import KernelDistance, frechet_distance
from mrigan.evaluation.neighbours import Neighbourhoods
from mrigan.evaluation.sampling import Estimate, estimates
from mrigan.evaluation.shares import share_of
from mrigan.evaluation.sliced_wasserstein import PartDistances, sliced_wasserstein
from mrigan.evaluation.structural_similarity import random_pairs, similarities
from mrigan.evaluation.variety import duplicate_fraction

FEWEST = 20
"""Slices of each set below which halves of them say nothing."""

_PAIRS = 500
_FRECHET_HALVES = 20


class Metric(NamedTuple):
    """What a number is.

    Attributes:
        name: In files.
        title: For people.
        least: The least that it can be.
        most: The most.
        meaning: In one line.
    """

    name: str
    title: str
    least: float
    most: float
    meaning: str


_ANY = math.inf
METRICS = (
    Metric("kid", "kernel distance (KID)", -_ANY, _ANY, "unbiased: about 0 for reals"),
    Metric("frechet", "Fréchet distance", 0, _ANY, "grows as slices become fewer: see the floor"),
    Metric("precision", "precision", 0, 1, "share of the slices that lie among the reals"),
    Metric("recall", "recall", 0, 1, "share of the reals that lie among the slices"),
    Metric("density", "density", 0, _ANY, "how close to reals the slices lie; 1 for reals"),
    Metric("coverage", "coverage", 0, 1, "share of the reals that a slice is near to"),
    Metric("swd", "sliced Wasserstein distance", 0, _ANY, "of patches, mean of all scales"),
    Metric("diversity", "diversity (1 - MS-SSIM)", 0, _ANY, "1 as of reals, 0 for one slice"),
    Metric("duplicates", "duplicates", 0, 1, "share of the slices that nearly repeat another"),
    Metric("intensity", "grey-level distance", 0, 1, "Wasserstein, as a share of the range"),
    Metric("spectrum", "power-spectrum distance", 0, _ANY, "of detail of each size, decibels"),
)


def metric_of(name: str) -> Metric:
    """The metric of this name; ``swd_1`` is the sliced Wasserstein distance of the finest scale."""
    base, _, scale = name.partition("_")
    found = next(each for each in METRICS if each.name == base)
    return found._replace(name=name, title=f"· scale {scale}") if scale else found


class Compared:
    """A set of slices that others are compared with; what is needed of it is measured once.

    Args:
        images: (n, 1, H, W) uint8, ``FEWEST`` at least.
        features: Of them, (n, d).
    """

    def __init__(self, images: Tensor, features: Tensor) -> None:
        if len(images) < FEWEST:
            raise ValueError(f"{len(images)} slices: at least {FEWEST} are needed")
        self.images = images
        self._features = features
        self._histograms, self._spectra = histograms(images), spectra(images)
        self._unlike = _unlikeness(images, 0)

    def against(self, others: "Compared") -> dict[str, Estimate]:
        """Every metric of ``others``, with this set as the reals."""
        n, m = len(self.images), len(others.images)
        one, other = self._features, others._features
        kid = KernelDistance(one, other)
        found = {"kid": estimates(lambda i, j: [kid(i, j)], n, m)[0]}
        found["frechet"] = estimates(
            lambda i, j: [frechet_distance(one[i], other[j])], n, m, halves=_FRECHET_HALVES
        )[0]
        near = estimates(Neighbourhoods(one, other), n, m)
        found.update(zip(("precision", "recall", "density", "coverage"), near, strict=True))
        found.update(self._patch_distances(others))
        found["diversity"] = self._diversity(others)
        duplicates = duplicate_fraction(self.images, others.images)
        found["duplicates"] = share_of(round(duplicates * m), m)
        found["intensity"] = estimates(
            lambda i, j: [histogram_distance(self._histograms[i], others._histograms[j])], n, m
        )[0]
        found["spectrum"] = estimates(
            lambda i, j: [spectrum_distance(self._spectra[i], others._spectra[j])], n, m
        )[0]
        return {name: _bounded(each, metric_of(name)) for name, each in found.items()}

    def _patch_distances(self, others: "Compared") -> dict[str, Estimate]:
        parts = PartDistances(self.images, others.images)
        levels = sliced_wasserstein(self.images, others.images)

        def with_mean(values: list[float]) -> list[float]:
            return [sum(values) / len(values), *values]

        found = estimates(
            lambda i, j: with_mean(levels),
            len(self.images),
            len(others.images),
            of_halves=lambda i, j: with_mean(parts(i, j)),
        )
        names = ["swd", *(f"swd_{level}" for level in range(1, len(found)))]
        return dict(zip(names, found, strict=True))

    def _diversity(self, others: "Compared") -> Estimate:
        def ratio(rows: Tensor, more: Tensor) -> list[float]:
            reals = self._unlike[rows].mean().clamp(min=1e-6)
            return [float(others._unlike[more].mean() / reals)]

        return estimates(ratio, len(self._unlike), len(others._unlike))[0]


def _unlikeness(images: Tensor, seed: int) -> Tensor:
    return 1 - similarities(images, random_pairs(len(images), _PAIRS, seed))


def _bounded(found: Estimate, metric: Metric) -> Estimate:
    return Estimate(found.value, max(found.low, metric.least), min(found.high, metric.most))
