import math

import pytest
import torch
from torch.nn import functional as F

from mrigan.models.r3.layers import (
    Conv,
    Doubled,
    FromPixels,
    Halved,
    Residual,
    ToPixels,
    haar_basis,
    pyramid,
)
from mrigan.models.r3.networks import PRESETS, Discriminator, Generator, Preset

TINY = PRESETS["r3-tiny"]
SIZE = (32, 40)


def count(network):
    return sum(weight.numel() for weight in network.parameters())


def stirred(network):
    """With residual branches that do something, which first weights do not let them."""
    for weight in network.parameters():
        if weight.ndim == 4 and not weight.any():
            torch.nn.init.normal_(weight, 0.0, 0.1)
    return network


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


@pytest.mark.parametrize(
    ("name", "g_count", "d_count"),
    [
        ("r3-tiny", 98_816, 96_800),
        ("r3-s", 1_982_496, 1_973_424),
        ("r3-m", 5_912_192, 5_896_064),
        ("r3-l", 23_604_480, 23_572_224),
    ],
)
def test_the_parameter_counts_at_200x160_are_the_plans(name, g_count, d_count):
    assert count(Generator(PRESETS[name], 64, 200, 160)) == g_count
    assert count(Discriminator(PRESETS[name], 200, 160)) == d_count


def test_each_size_is_half_the_next_rounded_up_and_no_features_are_at_full_size():
    assert pyramid(200, 160) == (
        *((4, 3), (7, 5), (13, 10), (25, 20)),
        *((50, 40), (100, 80), (200, 160)),
    )
    assert pyramid(33, 47) == ((3, 3), (5, 6), (9, 12), (17, 24), (33, 47))
    assert TINY.sizes(200, 160)[-1] == (100, 80)
    assert TINY.sizes(33, 47) == ((3, 3), (5, 6), (9, 12), (17, 24))
    assert TINY.sizes(32, 32) == ((4, 4), (8, 8), (16, 16))


@pytest.mark.parametrize("size", [(32, 32), (33, 47), (45, 128), (131, 37), (200, 160)])
def test_any_size_comes_out_exactly_and_is_scored(size):
    G, D = Generator(TINY, 7, *size), Discriminator(TINY, *size)
    images = G(torch.randn(2, 7))
    assert images.shape == (2, 1, *size)
    assert D(images).shape == (2,)
    logits, slope = D.with_slope(images)
    assert (logits.shape, slope.shape) == ((2,), (2, 1, *size))


def test_resolutions_beyond_the_plan_halve_their_width_while_it_suits_the_hardware():
    assert PRESETS["r3-m"].plan(9) == [256, 256, 256, 256, 128, 64, 32, 16, 8]
    assert PRESETS["r3-s"].plan(8) == [144, 144, 144, 144, 96, 48, 24, 24]
    assert TINY.plan(4) == [32, 32, 32, 32]
    assert Generator(TINY, 3, 400, 320)(torch.randn(1, 3)).shape == (1, 1, 400, 320)


def test_a_residual_block_is_a_leaky_convolution_and_a_plain_one_beside_a_skip():
    block = stirred(Residual(4, (3, 1), 1.0))
    first, last = block.layers
    torch.nn.init.normal_(first.bias)
    x = torch.randn(2, 4, 5, 6)
    y = F.leaky_relu(F.conv2d(x, first.weight, first.bias, padding=1), 0.2)
    torch.testing.assert_close(block(x), x + F.conv2d(y, last.weight))


def test_a_fresh_d_is_linear_because_every_residual_branch_starts_at_zero():
    D = Discriminator(TINY, *SIZE).double()
    one, other = torch.randn(2, 3, 1, *SIZE, dtype=torch.double)
    torch.testing.assert_close(D(one + other), D(one) + D(other))
    stirred(D)
    assert not D(one + other).allclose(D(one) + D(other), rtol=0.01)


def test_first_weights_keep_the_scale_of_what_passes():
    G, D = Generator(PRESETS["r3-s"], 64, 200, 160), Discriminator(PRESETS["r3-s"], 200, 160)
    gain = math.sqrt(2 / 1.04) * 12 ** (-1 / 2)
    first, last = next(layer for layer in G.layers if isinstance(layer, Residual)).layers
    assert first.weight.std().item() == pytest.approx(gain / math.sqrt(144 * 9), rel=0.02)
    assert not last.weight.any()
    assert not first.bias.any()
    assert G.basis.std().item() == pytest.approx(1, rel=0.05)
    assert D.basis.std().item() == pytest.approx(1 / math.sqrt(12), rel=0.05)
    transition = next(layer for layer in D.layers if isinstance(layer, Halved)).weight
    assert transition.std().item() == pytest.approx(1 / math.sqrt(48), rel=0.05)
    assert G.project.weight.std().item() == pytest.approx(1 / 8, rel=0.05)
    assert D.layers[0].weight.std().item() == pytest.approx(1 / 2, rel=0.2)


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


def test_doubling_is_a_change_of_width_and_bilinear_enlargement_away_from_the_edges():
    x = torch.randn(2, 3, 5, 6, dtype=torch.double)
    layer = Doubled(3, 4, (9, 11)).double()
    wide = F.conv2d(x, layer.weight.transpose(0, 1))
    bilinear = F.interpolate(wide, scale_factor=2, mode="bilinear")
    assert layer(x).shape == (2, 4, 9, 11)
    torch.testing.assert_close(layer(x)[:, :, 1:9, 1:11], bilinear[:, :, 1:9, 1:11])


def test_halving_smooths_by_1331_and_takes_zeros_beyond_the_edges():
    layer = Halved(1, 1, (4, 7))
    torch.nn.init.ones_(layer.weight)
    line = torch.tensor([[0.0, 8.0, 16.0, 32.0, 8.0, 0.0, 80.0]]).expand(1, 1, 4, 7)
    means = [(3 * 0 + 3 * 8 + 16) / 8, (8 + 3 * 16 + 3 * 32 + 8) / 8]
    means += [(32 + 3 * 8 + 0 + 80) / 8, (0 + 3 * 80) / 8]
    # Above the first row there are zeros, too: 7 of 8 parts are inside.
    torch.testing.assert_close(layer(line)[0, 0, 0], torch.tensor(means) * 7 / 8)
    assert layer(line).shape == (1, 1, 2, 4)


@pytest.mark.parametrize("levels", [0, 1, 2])
def test_the_haar_transform_is_orthonormal(levels):
    basis = haar_basis(levels).double()
    side = 2**levels
    assert basis.shape == (4**levels, side, side)
    flat = basis.flatten(1)
    torch.testing.assert_close(flat @ flat.T, torch.eye(4**levels).double(), rtol=0, atol=1e-6)
    assert basis[0].allclose(torch.tensor(1 / side, dtype=torch.double))  # the mean comes first


@pytest.mark.parametrize("size", [(6, 8), (7, 5)])
def test_from_pixels_and_back_with_all_coefficients_gives_the_image(size):
    inward, outward = FromPixels(4, size, 1).double(), ToPixels(4, size, 1).double()
    for layer in (inward, outward):
        torch.nn.init.eye_(layer.weight)
    images = torch.randn(3, 1, *size, dtype=torch.double)
    torch.testing.assert_close(outward(inward(images)), images)


@pytest.mark.parametrize(
    ("layer", "channels"),
    [
        (Conv(3, 4, 3, leaky=True), 3),
        (Conv(3, 4), 3),
        (Halved(3, 4, (7, 5)), 3),
        (FromPixels(3, (7, 5), 1), 1),
        (stirred(Residual(3, (1, 3, 1), 1.0)), 3),
    ],
)
def test_a_layers_transpose_is_its_gradient(layer, channels):
    layer.double()
    x = torch.randn(2, channels, 7, 5, dtype=torch.double, requires_grad=True)
    out, transpose = layer.with_transpose(x)
    torch.testing.assert_close(out, layer(x))
    slope = torch.randn_like(out)
    (expected,) = torch.autograd.grad(out, x, slope)
    torch.testing.assert_close(transpose(slope), expected)


@pytest.mark.parametrize("levels", [0, 1, 2])
@pytest.mark.parametrize("size", [(33, 47), (32, 32)])
def test_the_slope_and_its_own_gradient_are_those_of_autograd(levels, size):
    D = stirred(Discriminator(Preset(widths=(8,), haar_levels=levels), *size)).double()
    images = torch.randn(3, 1, *size, dtype=torch.double)
    names = [name for name, _ in D.named_parameters()]

    logits, slope = D.with_slope(images)
    found = torch.autograd.grad(slope.square().sum(), list(D.parameters()), allow_unused=True)

    leaf = images.clone().requires_grad_()
    expected_logits = D(leaf)
    (expected_slope,) = torch.autograd.grad(expected_logits.sum(), leaf, create_graph=True)
    expected = torch.autograd.grad(
        expected_slope.square().sum(), list(D.parameters()), allow_unused=True
    )
    torch.testing.assert_close((logits, slope), (expected_logits, expected_slope))
    for name, ours, theirs in zip(names, found, expected, strict=True):
        # A bias moves no slope: nothing, or zeros.
        if ours is None or theirs is None:
            assert "bias" in name
            continue
        torch.testing.assert_close(ours, theirs)
        assert ours.any(), name


def test_under_bf16_all_convolutions_are_bf16_and_latents_logits_and_slopes_fp32():
    G, D = stirred(Generator(TINY, 5, *SIZE)), stirred(Discriminator(TINY, *SIZE))
    seen = []
    for network in (G, D):
        for layer in network.layers:
            layer.register_forward_hook(lambda *args: seen.append(args[2].dtype))
    z = torch.randn(2, 5)
    with torch.autocast("cpu", torch.bfloat16):
        images = G(z)
        logits = D(images)
        _, slope = D.with_slope(images)
    assert set(seen) == {torch.bfloat16}
    assert {images.dtype, logits.dtype, slope.dtype} == {torch.float32}
    torch.testing.assert_close(images, G(z), rtol=0.05, atol=0.05)
    assert not torch.equal(images, G(z))


def test_the_memory_format_of_the_weights_changes_nothing():
    D = stirred(Discriminator(Preset(widths=(16,)), *SIZE)).double()
    images = torch.randn(2, 1, *SIZE, dtype=torch.double)
    expected = D(images)
    torch.testing.assert_close(D.to(memory_format=torch.channels_last)(images), expected)
