import numpy as np
import pytest
import torch
from torch.nn import functional as F

from mrigan.data.phantom import draw
from mrigan.evaluation.coverage import coverage, expected_coverage, feature_coverage, thumbnails
from mrigan.evaluation.sliced_wasserstein import laplacian, laplacian_levels, sliced_wasserstein

SIZE = (35, 41)
COUNT = 96


@pytest.fixture(scope="module")
def slices():
    return torch.from_numpy(np.stack([draw(i, *SIZE) for i in range(3 * COUNT)]))[:, None]


@pytest.fixture
def real(slices):
    return slices[: 2 * COUNT]


@pytest.fixture
def fresh(slices):
    """Slices that come from where the reals come from."""
    return slices[2 * COUNT :]


def distance(real, fake):
    """Averaged over the levels."""
    return float(np.mean(sliced_wasserstein(real, fake)))


def test_a_set_is_at_no_distance_from_itself_in_any_order(real):
    shuffled = real[torch.randperm(len(real), generator=torch.Generator().manual_seed(0))]
    assert sliced_wasserstein(real, shuffled) == [0.0, 0.0]
    assert sliced_wasserstein(real, real.repeat(2, 1, 1, 1)) == pytest.approx([0, 0], abs=2e-3)


def test_the_same_sets_give_the_same_number_whatever_was_drawn_before(real, fresh):
    first = sliced_wasserstein(real, fresh)
    torch.manual_seed(123)
    assert sliced_wasserstein(real, fresh) == first


def test_a_constant_offset_is_at_its_own_distance_on_the_coarsest_level():
    # Along a unit direction u a brighter patch moves by offset × |Σu|, √(2/π) × 7 on average.
    generator = torch.Generator().manual_seed(0)
    dark = torch.randint(0, 200, (64, 1, 16, 16), generator=generator).to(torch.uint8)
    (found,) = sliced_wasserstein(dark, dark + 40)
    spread = dark.float().std()
    assert found == pytest.approx(float(40 / spread) * (2 / np.pi) ** 0.5, rel=0.15)


def test_fresh_slices_are_as_near_as_other_reals_and_worse_ones_are_not(real, fresh):
    half, other = real.split(COUNT)
    floor = distance(half, other)
    assert distance(half, fresh) < 1.5 * floor
    noise = torch.randint(0, 256, fresh.shape, dtype=torch.uint8)
    blurred = F.avg_pool2d(fresh.float(), 3, 1, 1).to(torch.uint8)
    brighter = fresh.clamp(max=225) + 30
    one = fresh[:1].expand_as(fresh)
    found = {
        name: distance(half, fake)
        for name, fake in (("noise", noise), ("blur", blurred), ("bright", brighter), ("one", one))
    }
    assert all(worse > 2.5 * floor for worse in found.values()), found
    assert found["noise"] > found["blur"] > found["one"]


def test_more_noise_is_further_away(real, fresh):
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(fresh.shape, generator=generator)
    fakes = [(fresh + level * noise).clamp(0, 255).to(torch.uint8) for level in (0, 10, 20, 45)]
    distances = [distance(real[:COUNT], fake) for fake in fakes]
    assert distances == sorted(distances)
    assert distances[-1] > 5 * distances[0]


def test_a_detail_is_what_a_pixel_differs_by_from_its_own_mean_at_odd_sides_too():
    fine, rest = laplacian(torch.randint(0, 256, (2, 1, 35, 33), dtype=torch.uint8))
    assert (fine.shape, rest.shape) == ((2, 35, 33), (2, 17, 16))
    blocks = fine[:, :34, :32].reshape(2, 17, 2, 16, 2)
    assert blocks.mean((2, 4)).abs().max() < 1e-6


def test_the_pyramid_of_200x160_ends_at_25x20():
    assert laplacian_levels(200, 160) == 4
    assert laplacian_levels(32, 40) == 2


@pytest.mark.parametrize(
    ("real_size", "fake_size", "message"),
    [
        ((0, 1, 32, 32), (3, 1, 32, 32), "0 real and 3 fake"),
        ((3, 1, 32, 32), (3, 1, 32, 33), "fake ones"),
        ((3, 1, 32, 15), (3, 1, 32, 15), "sides start at 16"),
    ],
)
def test_sets_that_can_not_be_compared_are_refused(real_size, fake_size, message):
    real, fake = (torch.zeros(size, dtype=torch.uint8) for size in (real_size, fake_size))
    with pytest.raises(ValueError, match=message):
        sliced_wasserstein(real, fake)


def test_coverage_and_density_have_their_definition_on_a_line():
    real = torch.tensor([[0.0], [1.0], [3.0], [10.0]])  # radii with k = 1: 1, 1, 2, 7
    fake = torch.tensor([[0.5], [4.5], [30.0]])
    # 0.5 lies by 0 and 1; 4.5 by 3 and 10; 30 nowhere.
    assert feature_coverage(real, fake, neighbours=1) == pytest.approx((1.0, 4 / 3))
    assert feature_coverage(real, fake[:1], neighbours=1) == pytest.approx((0.5, 2.0))


def test_coverage_is_as_expected_of_fresh_slices_and_low_after_collapse(real, fresh):
    found = coverage(real[:COUNT], fresh)
    assert found.coverage == pytest.approx(expected_coverage(COUNT, COUNT), abs=0.06)
    assert found.density == pytest.approx(1, abs=0.2)
    collapsed = fresh[:4].repeat(COUNT // 4, 1, 1, 1)
    assert coverage(real[:COUNT], collapsed).coverage < 0.5
    assert coverage(real[:COUNT], 255 - fresh).coverage == 0


def test_the_expected_coverage_is_that_of_random_draws():
    generator = torch.Generator().manual_seed(0)
    found = [
        feature_coverage(*torch.randn(2, 40, 3, generator=generator), neighbours=3).coverage
        for _ in range(60)
    ]
    assert np.mean(found) == pytest.approx(expected_coverage(40, 40, neighbours=3), abs=0.02)
    assert expected_coverage(10**6, 10**6) == pytest.approx(1 - 2**-5, abs=1e-4)


def test_coverage_of_too_few_slices_is_refused():
    with pytest.raises(ValueError, match="at least 6 reals and 1 fake"):
        feature_coverage(torch.zeros(5, 2), torch.zeros(9, 2))


def test_thumbnails_are_means_over_a_small_grid():
    flat = torch.full((2, 1, 200, 160), 255, dtype=torch.uint8)
    assert thumbnails(flat).shape == (2, 20 * 16)
    assert thumbnails(flat).allclose(torch.tensor(1.0))
