"""The numbers of `mrigan evaluate`: those of the libraries, and what they say of worse slices."""

import math
from functools import partial

import numpy as np
import pytest
import scipy.stats
import torch
from torch.nn import functional as F
from torchmetrics.functional.image import multiscale_structural_similarity_index_measure
from torchmetrics.image.fid import _compute_fid
from torchmetrics.image.kid import poly_mmd

from mrigan.data.phantom import draw
from mrigan.evaluation.comparison import FEWEST, METRICS, Compared, metric_of
from mrigan.evaluation.features import FEATURES, random_features
from mrigan.evaluation.intensities import (
    histogram_distance,
    histograms,
    spectra,
    spectrum_distance,
)
from mrigan.evaluation.kernel import KernelDistance, frechet_distance
from mrigan.evaluation.neighbours import Neighbourhoods
from mrigan.evaluation.sampling import estimates
from mrigan.evaluation.shares import p_of_more, share_of
from mrigan.evaluation.sliced_wasserstein import PartDistances, sliced_wasserstein
from mrigan.evaluation.structural_similarity import random_pairs, scales, similarities

SIZE = (51, 46)
COUNT = 70


def rows(n, d=24, seed=0, shift=0.0):
    generator = torch.Generator().manual_seed(seed)
    mixed = torch.randn(d, d, generator=generator)
    return torch.randn(n, d, generator=generator) @ mixed / d**0.5 + shift


def everything(n):
    return torch.arange(n)


def compared(images):
    return Compared(images, random_features(images))


@pytest.fixture(scope="module")
def phantoms():
    return torch.from_numpy(np.stack([draw(i, *SIZE) for i in range(3 * COUNT)]))[:, None]


@pytest.fixture(scope="module")
def real(phantoms):
    return compared(phantoms[:COUNT])


def test_the_kernel_distance_is_that_of_torchmetrics():
    one, other = rows(61), rows(83, seed=1, shift=0.2)
    # torchmetrics takes sets of one size only.
    found = KernelDistance(one, other[:61])(everything(61), everything(61))
    assert found == pytest.approx(float(poly_mmd(one.double(), other[:61].double())), rel=1e-9)
    assert KernelDistance(one, other)(everything(61), everything(61)) == pytest.approx(found)


def test_the_kernel_distance_is_unbiased():
    found = []
    generator = torch.Generator().manual_seed(0)
    for _ in range(300):
        one, other = (
            torch.randn(20, 8, generator=generator),
            torch.randn(30, 8, generator=generator),
        )
        found.append(KernelDistance(one, other)(everything(20), everything(30)))
    mean, error = np.mean(found), np.std(found) / math.sqrt(len(found))
    assert abs(mean) < 4 * error
    assert min(found) < 0 < max(found)


def test_frechet_distance_is_that_of_torchmetrics_and_of_gaussians():
    one, other = rows(400).double(), rows(300, seed=1, shift=0.3).double()
    means, covariances = zip(
        *((each.mean(0), torch.cov(each.T)) for each in (one, other)), strict=True
    )
    expected = _compute_fid(means[0], covariances[0], means[1], covariances[1])
    assert frechet_distance(one, other) == pytest.approx(float(expected), rel=1e-6)
    assert frechet_distance(one, one) == pytest.approx(0, abs=1e-6)
    assert frechet_distance(one, one + 2) == pytest.approx(4 * one.shape[1], rel=1e-6)


def test_fewer_rows_than_features_have_the_same_frechet_distance():
    one, other = rows(10).double(), rows(400, seed=1).double()
    means, covariances = zip(
        *((each.mean(0), torch.cov(each.T)) for each in (one, other)), strict=True
    )
    expected = _compute_fid(means[0], covariances[0], means[1], covariances[1])
    # The library takes square roots of eigenvalues that are 0 but for rounding.
    assert frechet_distance(one, other) == pytest.approx(float(expected), rel=1e-5)


def test_neighbours_are_counted_as_by_hand():
    real = torch.tensor([[0.0], [1.0], [3.0], [10.0]])
    fake = torch.tensor([[0.5], [0.6], [9.5], [30.0]])
    found = Neighbourhoods(real, fake)(everything(4), everything(4), neighbours=1)
    # The reals reach 1, 1, 2 and 7 far; the fakes 0.1, 0.1, 8.9 and 20.5.
    assert found.precision == 0.75
    assert found.density == pytest.approx((2 + 2 + 2 + 0) / 4 - 0.25)
    assert found.coverage == 0.75
    assert found.recall == 0.75


def test_structural_similarity_is_that_of_torchmetrics():
    # Sides whose mean over 2×2 pixels has no rest; below 161 px the library takes fewer scales.
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (9, 1, 200, 160), generator=generator)
    images = F.avg_pool2d(images.float(), 9, 1, 4).to(torch.uint8)
    pairs = random_pairs(9, 12, 3)
    betas = torch.tensor([0.0448, 0.2856, 0.3001, 0.2363])
    expected = multiscale_structural_similarity_index_measure(
        images[pairs[:, 0]].float() / 255,
        images[pairs[:, 1]].float() / 255,
        data_range=1.0,
        reduction="none",
        betas=tuple((betas / betas.sum()).tolist()),
    )
    torch.testing.assert_close(similarities(images, pairs), expected, rtol=0, atol=2e-5)


def test_a_slice_is_like_itself_and_pairs_are_of_two():
    pairs = random_pairs(5, 1000, 0)
    assert bool((pairs[:, 0] != pairs[:, 1]).all())
    assert pairs.unique().tolist() == [0, 1, 2, 3, 4]
    images = torch.randint(0, 256, (2, 1, 33, 48), dtype=torch.uint8)
    same = torch.tensor([[0, 0], [1, 1]])
    torch.testing.assert_close(similarities(images, same), torch.ones(2), rtol=0, atol=1e-5)
    assert [scales(*size) for size in ((200, 160), (33, 48), (32, 32), (700, 700))] == [4, 2, 2, 5]


def test_the_grey_level_distance_is_scipys_and_that_of_a_shift():
    generator = torch.Generator().manual_seed(0)
    one = torch.randint(0, 200, (7, 1, 32, 35), generator=generator).to(torch.uint8)
    other = torch.randint(40, 250, (5, 1, 32, 35), generator=generator).to(torch.uint8)
    expected = scipy.stats.wasserstein_distance(one.flatten(), other.flatten()) / 255
    found = histogram_distance(histograms(one), histograms(other))
    assert found == pytest.approx(expected, rel=1e-5)
    shifted = histogram_distance(histograms(one), histograms(one + 25))
    assert shifted == pytest.approx(25 / 255, rel=1e-5)


def test_the_spectrum_distance_is_the_gain_of_what_is_louder():
    generator = torch.Generator().manual_seed(0)
    grain = torch.randint(-30, 31, (20, 1, 64, 57), generator=generator)
    quiet, loud = ((grain * gain + 128).to(torch.uint8) for gain in (1, 2))
    found = spectrum_distance(spectra(quiet), spectra(loud))
    assert found == pytest.approx(20 * math.log10(2), rel=1e-3)
    assert spectrum_distance(spectra(quiet), spectra(quiet)) == 0


def test_a_checkerboard_is_seen_in_the_spectrum(phantoms):
    lattice = phantoms.clone()
    for odd in (0, 1):  # a checkerboard of 6 grey levels
        cells = lattice[..., odd::2, odd::2]
        lattice[..., odd::2, odd::2] = (cells.int() + 6).clamp(max=255).to(torch.uint8)
    plain, other = spectra(phantoms[:COUNT]), spectra(phantoms[COUNT : 2 * COUNT])
    assert spectrum_distance(plain, spectra(lattice[COUNT : 2 * COUNT])) > 3 * spectrum_distance(
        plain, other
    )


def test_fishers_test_and_wilsons_interval_are_scipys():
    for count, total, others, of_others in ((8, 800, 0, 1500), (3, 20, 10, 31), (0, 9, 4, 5)):
        table = [[count, total - count], [others, of_others - others]]
        expected = scipy.stats.fisher_exact(table, alternative="greater").pvalue
        assert p_of_more(count, total, others, of_others) == pytest.approx(expected, rel=1e-6)
    for count, total in ((0, 50), (3, 80), (80, 80)):
        expected = scipy.stats.binomtest(count, total).proportion_ci(method="wilson")
        found = share_of(count, total)
        assert found == pytest.approx((count / total, expected.low, expected.high), abs=1e-4)


def test_intervals_hold_what_they_promise():
    # Of means of 40 numbers around 0.
    def apart(one, other, i, j):
        return [float(one[i].mean() - other[j].mean())]

    held = 0
    for seed in range(200):
        generator = torch.Generator().manual_seed(seed)
        one, other = torch.randn(40, generator=generator), torch.randn(40, generator=generator)
        (found,) = estimates(partial(apart, one, other), 40, 40)
        held += found.low <= 0 <= found.high
    # 40 halves know quantiles only roughly; 4 standard deviations of 200 trials below 92 %.
    assert held / 200 > 0.92 - 4 * math.sqrt(0.92 * 0.08 / 200)


def test_intervals_of_distances_are_as_wide_as_new_slices_make_them(phantoms):
    parts = PartDistances(phantoms[:COUNT], phantoms[COUNT : 2 * COUNT], directions=128)
    whole = sliced_wasserstein(phantoms[:COUNT], phantoms[COUNT : 2 * COUNT])
    torch.testing.assert_close(parts(everything(COUNT), everything(COUNT)), whole)


def test_features_are_of_each_slice_alone_and_always_the_same(phantoms):
    found = random_features(phantoms[:5])
    assert (found.shape, found.dtype) == ((5, FEATURES), torch.float32)
    torch.testing.assert_close(found[3:], random_features(phantoms[3:5]), rtol=1e-5, atol=1e-5)
    torch.manual_seed(5)
    torch.testing.assert_close(found, random_features(phantoms[:5]), rtol=0, atol=0)


def test_every_metric_is_explained(real):
    found = real.against(real)
    assert {name.partition("_")[0] for name in found} == {metric.name for metric in METRICS}
    assert metric_of("swd_2").title == "· scale 2"


def test_other_reals_are_within_the_floor_and_a_set_is_like_itself(real, phantoms):
    same, other = real.against(real), real.against(compared(phantoms[COUNT:]))
    for name in ("frechet", "swd", "intensity", "spectrum"):
        assert same[name].value == pytest.approx(0, abs=1e-6)
    assert other["kid"].low < 0 < other["kid"].high
    for name, found in other.items():
        metric = metric_of(name)
        assert metric.least <= found.low <= found.value <= found.high <= metric.most, name


@pytest.mark.parametrize(
    ("worse", "seen"),
    [
        ("blur", {"kid", "frechet", "swd_1", "spectrum"}),
        ("noise", {"kid", "frechet", "swd_1", "spectrum"}),
        ("brighter", {"kid", "frechet", "intensity", "swd"}),
        ("few", {"kid", "frechet", "coverage", "recall", "duplicates"}),
    ],
)
def test_worse_slices_are_further_off_the_worse_they_are(real, phantoms, worse, seen):
    fresh = phantoms[COUNT : 2 * COUNT].float()
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(fresh.shape, generator=generator)

    def degraded(degree):
        if worse == "blur":
            side = 2 * degree + 1
            return F.avg_pool2d(fresh, side, 1, degree, count_include_pad=False)
        if worse == "noise":
            return fresh + 20 * degree * noise
        if worse == "brighter":
            return fresh + 20 * degree
        return fresh[torch.arange(COUNT) % (COUNT // 4**degree)]

    sets = [degraded(degree).round().clamp(0, 255).to(torch.uint8) for degree in (0, 1, 2)]
    found = [real.against(compared(each)) for each in sets]
    for name in seen:
        values = [each[name].value for each in found]
        if name in {"coverage", "recall"}:
            values = [-value for value in values]
        assert values == sorted(values), name
        assert values[0] < values[2], name


def test_too_few_slices_are_refused(phantoms):
    with pytest.raises(ValueError, match=f"at least {FEWEST}"):
        compared(phantoms[: FEWEST - 1])
