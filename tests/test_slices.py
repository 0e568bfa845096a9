import pytest
import torch

from mrigan.data.sampler import epoch_order, stream_seed
from mrigan.data.slices import to_grey, to_unit

LEVELS = torch.arange(256, dtype=torch.uint8).reshape(4, 1, 8, 8)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_every_grey_level_survives_the_way_there_and_back(dtype):
    images = to_unit(LEVELS, dtype)
    assert images.dtype == dtype
    assert (images.min(), images.max()) == (-1, 1)
    assert torch.equal(to_grey(images), LEVELS)


def test_what_a_network_overshoots_is_clamped_and_the_rest_rounded():
    images = torch.tensor([-3.0, -1.0 + 0.49 / 127.5, -1.0 + 0.51 / 127.5, 1.0001, 7.0])
    assert to_grey(images).tolist() == [0, 0, 1, 255, 255]


def test_scaling_changes_neither_its_input_nor_the_graph():
    images = torch.full((2, 1, 3, 3), 0.5, requires_grad=True)
    assert not to_grey(images).requires_grad
    to_unit(LEVELS)
    assert torch.equal(images, torch.full((2, 1, 3, 3), 0.5))
    assert torch.equal(LEVELS.flatten(), torch.arange(256, dtype=torch.uint8))


@pytest.mark.parametrize("count", [1, 2, 17, 2570])
def test_an_epoch_shows_every_slice_once(count):
    order = epoch_order(count, seed=3, epoch=5)
    assert order.dtype == torch.int64
    assert torch.equal(order.sort().values, torch.arange(count))


def test_the_order_depends_on_seed_and_epoch_and_on_nothing_else():
    first = epoch_order(100, seed=3, epoch=5)
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    assert torch.equal(epoch_order(100, seed=3, epoch=5), first)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert not torch.equal(epoch_order(100, seed=3, epoch=6), first)
    assert not torch.equal(epoch_order(100, seed=4, epoch=5), first)


def test_the_streams_of_a_seed_are_told_apart():
    paths = [(), (0,), ("0",), (0, 1), (1, 0), (10,), ("order", 0), ("order", "0"), (-1,)]
    seeds = {stream_seed(0, *path) for path in paths} | {stream_seed(1, *path) for path in paths}
    assert len(seeds) == 2 * len(paths)
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_streams_stay_what_they_are_from_version_to_version():
    assert stream_seed(0, "order", 0) == 2094333682667709378
