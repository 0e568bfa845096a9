import pytest
import torch
from torch import nn
from torch.nn import functional as F

from mrigan.models.dcgan.losses import fake_loss, real_loss
from mrigan.models.dcgan.networks import Discriminator, Generator, UpsampledConv2d


def count(network):
    return sum(weight.numel() for weight in network.parameters())


def test_the_parameter_counts_are_the_notebooks():
    assert count(Generator(100, 200, 160)) == 6_704_833
    assert count(Discriminator(200, 160)) == 421_121
    assert count(Discriminator(200, 160, widths=(16, 32, 64, 128))) == 113_793


@pytest.mark.parametrize("size", [(200, 160), (191, 157), (33, 47), (32, 32), (45, 128)])
def test_any_size_comes_out_exactly_and_is_scored(size):
    G, D = Generator(7, *size), Discriminator(*size)
    images = G(torch.randn(3, 7))
    assert images.shape == (3, 1, *size)
    assert images.abs().max() <= 1
    assert D(images).shape == (3,)


def test_every_parameter_gets_a_gradient():
    G, D = Generator(5, 41, 35), Discriminator(41, 35)
    real_loss(D(G(torch.randn(4, 5)))).mean().backward()
    for network in (G, D):
        for name, weight in network.named_parameters():
            assert weight.grad is not None, name
            assert weight.grad.abs().sum() > 0, name


def test_the_doubling_convolution_equals_doubling_then_convolving():
    torch.manual_seed(0)
    layer = UpsampledConv2d(5, 3).double()
    nn.init.normal_(layer.weight)
    nn.init.normal_(layer.bias)
    x = torch.randn(2, 5, 7, 6, dtype=torch.double, requires_grad=True)
    pair = F.conv2d(F.interpolate(x, scale_factor=2), layer.weight, layer.bias, padding=1)
    torch.testing.assert_close(layer(x), pair)
    ours = torch.autograd.grad(layer(x).square().sum(), [x, layer.weight])
    torch.testing.assert_close(ours, torch.autograd.grad(pair.square().sum(), [x, layer.weight]))


def test_first_weights_are_drawn_as_the_seed_drew_them():
    torch.manual_seed(0)
    kernel = Discriminator(200, 160).layers[3].weight
    assert kernel.std().item() == pytest.approx(0.02, rel=0.02)
    gain = Generator(100, 200, 160).blocks[0].weight
    assert gain.mean().item() == pytest.approx(1, abs=0.01)
    assert gain.std().item() == pytest.approx(0.02, rel=0.3)


def test_losses_are_cross_entropies_of_the_logits():
    logits = torch.tensor([-30.0, -1.0, 0.0, 2.0, 200.0])
    ones, zeros = torch.ones(5), torch.zeros(5)
    bce = F.binary_cross_entropy_with_logits
    torch.testing.assert_close(real_loss(logits), bce(logits, ones, reduction="none"))
    torch.testing.assert_close(fake_loss(logits), bce(logits, zeros, reduction="none"))
