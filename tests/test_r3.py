import math

import pytest
import torch
from torch.nn import functional as F

from mrigan.models.r3 import GROUP_WIDTHS, PRESETS, Discriminator, Generator, Preset
from mrigan.models.r3_layers import Doubled, Halved, Residual, pyramid

TINY = PRESETS["r3-tiny"]
SIZE = (32, 40)


def count(network):
    return sum(weight.numel() for weight in network.parameters())


def stirred(network):
    """With residual branches that do something, which first weights do not let them."""
    for name, weight in network.named_parameters():
        if name.endswith("reduce.weight"):
            torch.nn.init.normal_(weight, 0.0, 0.1)
    return network


def doubled(x, size):
    return Doubled(size)(x)


def halved(x):
    return Halved(tuple(x.shape[2:]))(x)


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


@pytest.mark.parametrize(
    ("name", "g_count", "d_count"),
    [
        ("r3-tiny", 90_184, 88_168),
        ("r3-s", 1_861_848, 1_849_752),
        ("r3-m", 6_324_912, 6_300_720),
        ("r3-l", 23_054_688, 23_006_304),
    ],
)
def test_the_parameter_counts_at_200x160_are_the_plans(name, g_count, d_count):
    assert count(Generator(PRESETS[name], 64, 200, 160)) == g_count
    assert count(Discriminator(PRESETS[name], 200, 160)) == d_count


def test_each_size_is_half_the_next_rounded_up():
    assert pyramid(200, 160) == (
        *((4, 3), (7, 5), (13, 10), (25, 20)),
        *((50, 40), (100, 80), (200, 160)),
    )
    assert pyramid(33, 47) == ((3, 3), (5, 6), (9, 12), (17, 24), (33, 47))
    assert pyramid(32, 40) == ((4, 5), (8, 10), (16, 20), (32, 40))


@pytest.mark.parametrize("size", [(32, 32), (33, 47), (45, 128), (131, 37), (200, 160)])
def test_any_size_comes_out_exactly_and_is_scored(size):
    G, D = Generator(TINY, 7, *size), Discriminator(TINY, *size)
    images = G(torch.randn(2, 7))
    assert images.shape == (2, 1, *size)
    assert D(images).shape == (2,)


def test_resolutions_beyond_the_plan_halve_their_width_while_its_groups_divide():
    assert PRESETS["r3-m"].plan(9) == [384, 384, 384, 384, 192, 96, 48, 24, 24]
    assert PRESETS["r3-s"].plan(8) == [192, 192, 192, 192, 96, 48, 24, 24]
    assert TINY.plan(4) == [32, 32, 32, 32]
    assert Generator(TINY, 3, 400, 320)(torch.randn(1, 3)).shape == (1, 1, 400, 320)


@pytest.mark.parametrize("group_width", GROUP_WIDTHS)
def test_every_group_width_builds_and_only_dense_ones_cost_more(group_width):
    narrow = Residual(48, 8, 1.0)
    block = Residual(48, group_width, 1.0)
    assert block(torch.randn(1, 48, 5, 4)).shape == (1, 48, 5, 4)
    assert count(block) - count(narrow) == 96 * 9 * (block.mix.weight.shape[1] - 8)
    assert block.mix.weight.shape[1] == {8: 8, 16: 16, 32: 32, None: 96}[group_width]


def test_a_residual_block_is_three_convolutions_with_two_leaks_of_a_fifth():
    block = Residual(4, 4, 1.0)
    for weight in block.parameters():
        torch.nn.init.normal_(weight)
    x = torch.randn(2, 4, 5, 6)
    y = F.leaky_relu(F.conv2d(x, block.expand.weight, block.expand.bias), 0.2)
    y = F.conv2d(y, block.mix.weight, block.mix.bias, padding=1, groups=2)
    y = F.conv2d(F.leaky_relu(y, 0.2), block.reduce.weight)
    torch.testing.assert_close(block(x), x + y)


def test_a_fresh_d_is_linear_because_every_residual_branch_starts_at_zero():
    D = Discriminator(TINY, *SIZE).double()
    one, other = torch.randn(2, 3, 1, *SIZE, dtype=torch.double)
    torch.testing.assert_close(D(one + other), D(one) + D(other))
    stirred(D)
    assert not D(one + other).allclose(D(one) + D(other), rtol=0.01)


def test_first_weights_keep_the_scale_of_what_passes():
    G, D = Generator(PRESETS["r3-s"], 64, 200, 160), Discriminator(PRESETS["r3-s"], 200, 160)
    gain = math.sqrt(2 / 1.04) * 14 ** (-1 / 4)
    block = G.stages[2].blocks[1]
    assert block.expand.weight.std().item() == pytest.approx(gain / math.sqrt(192), rel=0.02)
    assert block.mix.weight.std().item() == pytest.approx(gain / math.sqrt(16 * 9), rel=0.02)
    assert not block.reduce.weight.any()
    assert not block.mix.bias.any()
    assert G.basis.std().item() == pytest.approx(1, rel=0.05)
    assert D.basis.std().item() == pytest.approx(1 / math.sqrt(12), rel=0.05)
    transition = D.stages[2].widen.weight
    assert transition.std().item() == pytest.approx(1 / math.sqrt(96), rel=0.03)
    assert G.project.weight.std().item() == pytest.approx(1 / 8, rel=0.05)


def test_every_parameter_gets_a_gradient_once_the_branches_have_left_zero():
    G = stirred(Generator(TINY, 5, 33, 47))
    D = stirred(Discriminator(TINY, 33, 47))
    D(G(torch.randn(3, 5))).sum().backward()
    for network in (G, D):
        for name, weight in network.named_parameters():
            assert weight.grad is not None, name
            assert weight.grad.abs().sum() > 0, name


def test_nothing_couples_the_images_of_a_batch():
    G = stirred(Generator(TINY, 5, *SIZE)).double()
    D = stirred(Discriminator(TINY, *SIZE)).double()
    z = torch.randn(3, 5, dtype=torch.double)
    images = G(z)
    torch.testing.assert_close(images, torch.cat([G(row[None]) for row in z]))
    torch.testing.assert_close(D(images), torch.cat([D(image[None]) for image in images]))


def test_doubling_is_bilinear_and_halving_its_mirror():
    x = torch.randn(2, 3, 5, 6, dtype=torch.double)
    bilinear = F.interpolate(x, scale_factor=2, mode="bilinear")
    torch.testing.assert_close(doubled(x, (10, 12)), bilinear)
    torch.testing.assert_close(doubled(x, (9, 11))[:, :, :8, :10], bilinear[:, :, :8, :10])
    # Away from the edges <up(x), y> = 4 <x, down(y)>.
    x[:, :, [0, -1]] = x[:, :, :, [0, -1]] = 0
    y = torch.randn(2, 3, 10, 12, dtype=torch.double)
    y[:, :, [0, -1]] = y[:, :, :, [0, -1]] = 0
    torch.testing.assert_close((doubled(x, (10, 12)) * y).sum(), 4 * (x * halved(y)).sum())


def test_halving_smooths_by_1331_and_at_an_edge_by_what_is_inside():
    line = torch.tensor([[0.0, 8.0, 16.0, 32.0, 8.0, 0.0, 80.0]]).expand(1, 3, 4, 7)
    means = [(3 * 0 + 3 * 8 + 16) / 7, (8 + 3 * 16 + 3 * 32 + 8) / 8]
    means += [(32 + 3 * 8 + 0 + 80) / 8, (0 + 3 * 80) / 4]
    torch.testing.assert_close(halved(line)[0, 1, 1], torch.tensor(means))
    assert halved(torch.full((1, 1, 7, 5), 0.3)).allclose(torch.tensor(0.3))
    assert halved(torch.zeros(1, 2, 7, 5)).shape == (1, 2, 4, 3)


def test_a_flat_picture_stays_flat_to_its_edges():
    flat = torch.full((1, 2, 3, 4), -1.0)
    assert doubled(flat, (5, 7)).allclose(torch.tensor(-1.0))


def test_layers_have_right_second_derivatives_at_odd_sizes():
    block = Residual(4, 4, 1.0).double()
    torch.nn.init.normal_(block.reduce.weight)
    x = torch.randn(1, 4, 5, 3, dtype=torch.double, requires_grad=True)
    assert torch.autograd.gradgradcheck(lambda x: halved(x).sin(), x)
    names, weights = zip(*block.named_parameters(), strict=True)

    def apply(x, *weights):
        return torch.func.functional_call(block, dict(zip(names, weights, strict=True)), x)

    assert torch.autograd.gradcheck(apply, (x, *weights))
    assert torch.autograd.gradgradcheck(apply, (x, *weights))


def test_the_penalty_of_a_block_has_the_gradient_that_plain_operators_give_it():
    block = Residual(8, 4, 1.0).double()
    torch.nn.init.normal_(block.reduce.weight)
    x = torch.randn(2, 8, 5, 6, dtype=torch.double)

    def plain(x):
        y = F.leaky_relu(F.conv2d(x, block.expand.weight, block.expand.bias), 0.2)
        y = F.conv2d(y, block.mix.weight, block.mix.bias, padding=1, groups=4)
        return x + F.conv2d(F.leaky_relu(y, 0.2), block.reduce.weight)

    found = []
    for layer in (block, plain):
        block.zero_grad()
        slope = torch.func.grad(lambda x, layer=layer: layer(x).square().sum())(x)
        slope.square().sum().backward()
        found.append([slope.detach(), *(weight.grad for weight in block.parameters())])
        assert all(gradient.abs().sum() > 0 for gradient in found[-1])
    torch.testing.assert_close(*found)


def test_under_bf16_the_low_resolutions_latents_and_logits_stay_fp32():
    G, D = Generator(TINY, 5, *SIZE), Discriminator(TINY, *SIZE)
    seen = []
    for network in (G, D):
        for stage in network.stages:
            stage.register_forward_hook(lambda *args: seen.append(args[2].dtype))
    z = torch.randn(2, 5)
    with torch.autocast("cpu", torch.bfloat16):
        images = G(z)
        logits = D(images)
    half, full = torch.bfloat16, torch.float32
    assert seen == [full, full, full, half, half, full, full, full]
    assert (images.dtype, logits.dtype) == (full, full)
    torch.testing.assert_close(images, G(z), rtol=0.05, atol=0.05)
    assert not torch.equal(images, G(z))


def test_bf16_reaches_four_resolutions_at_200x160_and_none_of_16_pixels():
    half = Generator(TINY, 5, 200, 160).half_precision
    assert half == [False] * 3 + [True] * 4
    assert Discriminator(TINY, 200, 160).half_precision == half[::-1]


def test_the_memory_format_of_the_weights_changes_nothing():
    D = stirred(Discriminator(Preset(widths=(16,)), *SIZE)).double()
    images = torch.randn(2, 1, *SIZE, dtype=torch.double)
    expected = D(images)
    torch.testing.assert_close(D.to(memory_format=torch.channels_last)(images), expected)
