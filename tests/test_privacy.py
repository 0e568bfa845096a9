"""Whether slices repeat training slices: planted copies are flagged, independent slices are not."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from mrigan.data.phantom import draw
from mrigan.evaluation.bands import aligned, band, shifted, unit
from mrigan.evaluation.features import random_features
from mrigan.evaluation.nearest import Gallery
from mrigan.evaluation.nearness import c_t, share_nearer
from mrigan.evaluation.privacy import check_privacy

SIZE = (75, 61)
TRAINING, HOLDOUT, FAKES = 160, 50, 80


def to_bytes(images):
    return (images.clamp(0, 1) * 255).round().to(torch.uint8)


@pytest.fixture(scope="module")
def phantoms():
    count = TRAINING + HOLDOUT + FAKES
    return torch.from_numpy(np.stack([draw(i, *SIZE) for i in range(count)]))[:, None]


@pytest.fixture(scope="module")
def sets(phantoms):
    return phantoms.split([TRAINING, HOLDOUT, FAKES])


def checked(fakes, training, holdout, **changed):
    features = tuple(map(random_features, (fakes, training, holdout)))
    return check_privacy(fakes, training, holdout, features, **changed)


def check(sets, fakes, **changed):
    training, holdout, _ = sets
    return checked(fakes, training, holdout, **changed)


@pytest.fixture(scope="module")
def of_reals(sets):
    return check(sets, sets[2])


def test_independent_slices_pass(of_reals):
    assert (of_reals.verdict, of_reals.reasons, of_reals.copies) == ("PASS", (), 0)
    assert (of_reals.fakes, of_reals.training, of_reals.holdout) == (FAKES, TRAINING, HOLDOUT)
    assert of_reals.nearer is None  # too few training slices for sets that say what chance is
    assert abs(of_reals.c_t) < 4


def test_copies_are_flagged_and_named(sets):
    training, _, fakes = sets
    x = training[:12].float() / 255
    noise = torch.randn(2, 1, *SIZE, generator=torch.Generator().manual_seed(0))
    copies = [
        x[:2],
        x[2:4] + 0.03 * noise,
        F.pad(x[4:6], (0, 2, 3, 0))[..., :-3, 2:],  # 3 px down, 2 to the left
        x[6:8] ** 0.7,
        x[8:10] * 0.7 + 0.2,
        x[10:12].flip(3),
    ]
    planted = torch.cat([fakes, to_bytes(torch.cat(copies))])
    found = check(sets, planted)
    assert found.verdict == "FLAG"
    assert found.copies == 12
    first = f"12 of {FAKES + 12} slices are one picture with a training slice"
    assert found.reasons[0] == first
    assert set(found.closest[:12]) == {(FAKES + at, at) for at in range(12)}
    assert list(found.closest_likeness) == sorted(found.closest_likeness, reverse=True)


def test_a_single_copy_is_flagged(sets):
    training, holdout, fakes = sets
    planted = torch.cat([fakes, training[3:4]])
    assert check(sets, planted).copies == 1
    without = checked(planted, training, holdout[:0])
    assert (without.verdict, without.nearer, without.c_t) == ("FLAG", None, None)


def test_blends_of_two_are_found(sets):
    training, _, fakes = sets
    gallery = Gallery(training)
    one, other = (training[rows].float() / 255 for rows in (slice(0, 30), slice(30, 60)))
    plain = gallery.nearest(fakes[:30])
    for part in (0.5, 0.65):
        blends = gallery.nearest(to_bytes(part * one + (1 - part) * other))
        assert blends.pair.median() > 0.99
        assert blends.pair.median() > plain.pair.quantile(0.95)
        assert blends.likeness.median() < 0.985


def test_a_slice_of_the_same_volume_says_nothing_about_copies(sets):
    # Each slice has a near copy in its own volume; looked up without it, reals are no copies.
    training, holdout, fakes = sets
    noise = torch.randint(0, 4, training.shape, generator=torch.Generator().manual_seed(0))
    doubled = torch.cat([training, (training.int() + noise).clamp(max=255).to(torch.uint8)])
    volumes = torch.arange(TRAINING).repeat(2)
    found = checked(fakes, doubled, holdout, volumes=volumes)
    assert (found.verdict, found.left_out) == ("PASS", 0)
    assert found.references == 2 * TRAINING + HOLDOUT


def test_slices_that_are_there_twice_are_left_out_of_the_references(sets):
    training, holdout, fakes = sets
    twice = torch.cat([training, training[:10]])
    found = checked(fakes, twice, holdout)
    assert (found.verdict, found.left_out) == ("PASS", 20)


def test_where_all_slices_are_alike_sameness_means_nothing():
    generator = torch.Generator().manual_seed(0)
    blank = torch.zeros(120, 1, 32, 40, dtype=torch.uint8)
    blank[..., 8:24, 8:32] = 200
    blank += torch.randint(0, 3, blank.shape, generator=generator).to(torch.uint8)
    found = checked(blank[:40], blank[40:100], blank[100:])
    assert (found.verdict, found.copies, found.left_out) == ("PASS", 0, 0)


def test_slices_near_to_training_are_told_from_those_that_are_not():
    generator = torch.Generator().manual_seed(0)
    # Likeness of 500 fakes to 600 training and 60 held-out slices, all alike, then drawn closer.
    training = torch.randn(500, 600, generator=generator)
    holdout = torch.randn(500, 60, generator=generator)
    plain = share_nearer(training, holdout, 0)
    assert plain.is_chance
    assert plain.share.low < 0.5 < plain.share.high
    near = share_nearer(training + 1, holdout, 0)
    assert not near.is_chance
    assert near.share.value > 0.7
    assert share_nearer(training[:, :290], holdout, 0) is None  # too few sets to know chance
    assert share_nearer(training, holdout[:, :40], 0) is None


def test_c_t_is_below_zero_where_fakes_are_more_alike():
    import scipy.stats

    generator = torch.Generator().manual_seed(0)
    fakes, held = torch.rand(90, generator=generator) + 0.3, torch.rand(70, generator=generator)
    expected = scipy.stats.mannwhitneyu(held, fakes, method="asymptotic", use_continuity=False)
    assert c_t(fakes, held) == pytest.approx(-scipy.stats.norm.isf(expected.pvalue / 2), rel=1e-6)


@pytest.mark.parametrize("size", [(32, 32), (33, 48), (200, 160), (517, 340)])
def test_a_copy_is_found_at_every_size(size):
    generator = torch.Generator().manual_seed(1)
    images = torch.rand(12, 1, *size, generator=generator)
    images = to_bytes(F.avg_pool2d(images, 7, 1, 3) * 4 - 1.5)
    found = Gallery(images).nearest(images[[3, 8]].flip(3))
    assert found.match.tolist() == [3, 8]
    assert found.likeness.min() > 0.999
    others = Gallery(images).nearest(images[[3, 8]], torch.tensor([3, 8]))
    assert others.likeness.max() < 0.9


def test_details_do_not_depend_on_brightness_and_contrast(sets):
    x = sets[0][:4].float() / 127.5 - 1
    one, other = (unit(band(each, 2, 0.7, 2.0).flatten(1)) for each in (x, 0.4 * x + 0.3))
    torch.testing.assert_close(one, other, rtol=0, atol=1e-5)


def test_what_moved_comes_back_into_place():
    generator = torch.Generator().manual_seed(0)
    fixed = torch.zeros(3, 20, 17)
    fixed[:, 5:15, 5:12] = torch.randn(3, 10, 7, generator=generator)
    moving = torch.stack([shifted(fixed, 3, -2), shifted(fixed, -1, 4)], 1)
    found = aligned(fixed, moving, 5)
    expected = unit(fixed.flatten(1))[:, None].expand(-1, 2, -1)
    # What the shift brings in is 0 before the mean is taken away, and the mean's opposite after.
    assert float((found * expected).sum(2).min()) > 0.99
