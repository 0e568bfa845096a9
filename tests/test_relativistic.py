import math

import pytest
import torch
from torch import nn

from mrigan.models.augment import Policy, augment, draw_warp
from mrigan.models.r3.losses import (
    d_loss,
    d_terms,
    g_loss,
    g_terms,
    penalised_d_loss,
    real_signs,
    squared_slopes,
)
from mrigan.models.r3.networks import PRESETS, Discriminator, Generator, Preset

SMALL = Preset(widths=(8,))
SIZE = (32, 33)
LATENTS = 6
EVERYTHING = Policy(flips=True, rotation_degrees=10.0)


class LinearD(nn.Module):
    def __init__(self, size=SIZE):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(size, dtype=torch.double))

    def forward(self, images):
        return (images * self.weight).sum((1, 2, 3))

    def with_slope(self, images):
        return self(images), self.weight.expand_as(images)


class QuadraticD(nn.Module):
    def __init__(self, a):
        super().__init__()
        self.a = nn.Parameter(torch.tensor(a, dtype=torch.double))

    def forward(self, images):
        return self.a / 2 * images.square().sum((1, 2, 3))

    def with_slope(self, images):
        return self(images), self.a * images


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def networks(dtype=torch.double, preset=SMALL, size=SIZE):
    """G and D past their first steps, when no residual branch is zero any more."""
    G, D = Generator(preset, LATENTS, *size), Discriminator(preset, *size)
    for network in (G, D):
        for weight in network.parameters():
            if weight.ndim == 4 and not weight.any():
                nn.init.normal_(weight, 0.0, 0.1)
    return G.to(dtype), D.to(dtype)


def images_of(count, dtype=torch.double, size=SIZE):
    return torch.randn(2, count, 1, *size, dtype=dtype)


def warps_of(count, p=0.8, seed=1, policy=EVERYTHING, size=SIZE):
    return [draw_warp(policy, count, size, p=p, seed=seed + i) for i in range(2)]


def gradients(network):
    return {name: weight.grad.clone() for name, weight in network.named_parameters()}


def test_losses_have_their_closed_forms():
    real, fake = torch.tensor([0.0, 3.0, -1.0, 900.0]), torch.tensor([0.0, 1.0, 1.0, -900.0])
    expected = [math.log(2), math.log1p(math.exp(-2)), math.log1p(math.exp(2)), 0.0]
    torch.testing.assert_close(d_loss(real, fake), torch.tensor(expected))
    torch.testing.assert_close(g_loss(fake, real), torch.tensor(expected))
    assert g_loss(real, fake)[3] == 1800


def test_only_the_difference_of_the_logits_counts():
    real, fake = torch.randn(2, 5, dtype=torch.double)
    torch.testing.assert_close(d_loss(real + 7, fake + 7), d_loss(real, fake))
    torch.testing.assert_close(g_loss(real - 7, fake - 7), g_loss(real, fake))


def test_the_penalties_of_a_linear_d_are_its_weights_square():
    D = LinearD()
    terms = d_terms(D, *images_of(3))
    square = D.weight.square().sum().expand(3)
    torch.testing.assert_close(terms.r1, square)
    torch.testing.assert_close(terms.r2, square)


def test_the_penalty_and_its_own_gradient_have_the_closed_form_of_a_quadratic_d():
    D = QuadraticD(3.0)
    real, fake = images_of(3)
    terms = d_terms(D, real, fake)
    squares = real.square().sum((1, 2, 3))
    torch.testing.assert_close(terms.r1, 9 * squares)
    torch.testing.assert_close(terms.r2, 9 * fake.square().sum((1, 2, 3)))
    torch.testing.assert_close(terms.real_logits, 1.5 * squares)
    terms.r1.sum().backward()
    torch.testing.assert_close(D.a.grad, 6 * squares.sum())


def test_the_penalty_is_that_of_the_images_before_augmentation():
    D = LinearD()
    warp = draw_warp(Policy(translation=0, scale=0, aspect=0), 4, SIZE, p=1.0, seed=0)
    _, squares = squared_slopes(D, images_of(4)[0], warp)
    factors = warp.grey[:, 0].double()
    torch.testing.assert_close(squares, factors.square() * D.weight.square().sum())
    assert factors.std() > 0.1


def test_the_whole_loss_weighs_both_penalties_by_half_of_gamma():
    terms = d_terms(LinearD(), *images_of(3))
    plain = d_loss(terms.real_logits, terms.fake_logits)
    expected = plain + 5 * (terms.r1 + terms.r2)
    torch.testing.assert_close(penalised_d_loss(terms, 10.0), expected)
    torch.testing.assert_close(penalised_d_loss(terms, torch.tensor(10.0)), expected)


@pytest.mark.parametrize("with_warps", [False, True])
def test_the_loss_and_its_gradients_are_those_of_autograd_with_create_graph(with_warps):
    _, D = networks()
    real, fake = images_of(3)
    warps = warps_of(3) if with_warps else [None, None]

    found = d_terms(D, real, fake, *warps)
    penalised_d_loss(found, 2.0).mean().backward()
    ours = gradients(D)

    D.zero_grad()
    rows = []
    for images, warp in zip((real, fake), warps, strict=True):
        leaf = images.clone().requires_grad_()
        logits = D(leaf if warp is None else augment(leaf, warp))
        (slope,) = torch.autograd.grad(logits.sum(), leaf, create_graph=True)
        rows.append((logits, slope.square().sum((1, 2, 3))))
    (real_logits, r1), (fake_logits, r2) = rows
    loss = torch.nn.functional.softplus(fake_logits - real_logits) + (r1 + r2)
    loss.mean().backward()

    torch.testing.assert_close(found, type(found)(real_logits, fake_logits, r1, r2))
    torch.testing.assert_close(ours, gradients(D), rtol=1e-6, atol=1e-12)


def step_gradients(G, D, real, z, cut):
    """The flat gradients of D's step and of G's over a step in micro-batches of ``cut``."""
    D.zero_grad()
    G.zero_grad()
    first = 0
    for size in cut:
        part = slice(first, first + size)
        warps = [warp.part(first, first + size) for warp in warps_of(len(z))]
        fake = G(z[part])
        terms = d_terms(D, real[part], fake, *warps)
        (penalised_d_loss(terms, 1.0).sum() / len(z)).backward()
        D.requires_grad_(requires_grad=False)
        (g_loss(*g_terms(D, real[part], fake, *warps)).sum() / len(z)).backward()
        D.requires_grad_(requires_grad=True)
        first += size
    return [
        torch.cat([weight.grad.flatten() for weight in network.parameters()]) for network in (D, G)
    ]


def test_cutting_a_step_does_not_change_the_gradients():
    # In float64: in fp32 a leaky ReLU near 0 may fall on the other side for another cut, and no
    # tolerance for that would still notice a wrong term.
    dtype = torch.double
    G, D = networks(dtype)
    # Reals that have something in common, or the step's gradient is what noise leaves over.
    real, z = images_of(64, dtype)[0] / 4 - 0.75, torch.randn(64, LATENTS, dtype=dtype)
    whole = step_gradients(G, D, real, z, [64])
    for cut in ([8] * 8, [33, 20, 11]):
        for gradient, expected in zip(step_gradients(G, D, real, z, cut), whole, strict=True):
            assert (gradient - expected).norm() < 1e-11 * expected.norm()


def test_each_phase_leaves_the_other_network_alone():
    G, D = networks()
    real, fake = images_of(2)[0], G(torch.randn(2, LATENTS, dtype=torch.double))
    penalised_d_loss(d_terms(D, real, fake), 1.0).sum().backward()
    assert all(weight.grad is None for weight in G.parameters())
    D.zero_grad(set_to_none=True)
    D.requires_grad_(requires_grad=False)
    g_loss(*g_terms(D, real, fake)).sum().backward()
    assert all(weight.grad is None for weight in D.parameters())
    assert all(weight.grad.abs().sum() > 0 for weight in G.parameters())


def test_g_follows_its_fakes_through_the_augmentation():
    D = LinearD()
    real, fake = images_of(2)
    fake.requires_grad_()
    shift = Policy(translation=0, scale=0, aspect=0, contrast=0, brightness=0, flips=True)
    warps = warps_of(2, p=1.0, seed=0, policy=shift)
    pairs = g_terms(D, real, fake, *warps)
    pairs.fake_logits.sum().backward()
    flipped = warps[1].placement[:, 1] < 0
    assert flipped.any()
    assert not flipped.all()
    for gradient, is_flipped in zip(fake.grad[:, 0], flipped, strict=True):
        torch.testing.assert_close(gradient, D.weight.flip(1) if is_flipped else D.weight)


def test_signs_count_the_pairs_that_d_tells_apart():
    _, D = networks()
    terms = d_terms(D, *images_of(5))
    is_right = terms.real_logits > terms.fake_logits
    assert real_signs(terms).tolist() == [1 if right else -1 for right in is_right]
    assert len(set(real_signs(terms).tolist())) == 2


@pytest.mark.parametrize(
    ("preset", "size", "backend"),
    [(SMALL, (33, 40), "aot_eager"), (PRESETS["r3-tiny"], (32, 40), "inductor")],
)
@pytest.mark.slow
def test_a_compiled_d_has_the_logits_slopes_and_gradients_of_the_eager_one(preset, size, backend):
    _, D = networks(preset=preset, size=size)
    compiled = torch.compile(D.with_slope, fullgraph=True, backend=backend)
    for count in (3, 3):
        images = images_of(count, size=size)[0]
        found = []
        for with_slope in (D.with_slope, compiled):
            D.zero_grad()
            logits, slope = with_slope(images)
            (logits.sum() + slope.square().sum()).backward()
            found.append((logits, slope, gradients(D)))
        torch.testing.assert_close(found[1], found[0], rtol=1e-9, atol=1e-12)
        assert all(bool(gradient.any()) for gradient in found[1][2].values())


def test_under_bf16_autocast_the_terms_are_fp32_and_near():
    _, D = networks(torch.float32)
    real, fake = images_of(4, torch.float32)
    exact = d_terms(D, real, fake)
    with torch.autocast("cpu", torch.bfloat16):
        terms = d_terms(D, real, fake, *warps_of(4, p=0.0))
    assert {term.dtype for term in terms} == {torch.float32}
    torch.testing.assert_close(terms.r1, exact.r1, rtol=0.1, atol=0)
    assert not torch.equal(terms.r1, exact.r1)
