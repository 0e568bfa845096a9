"""BatchNorm by groups: one pass over several groups is each of them by itself."""

from copy import deepcopy

import pytest
import torch
from torch import nn

from mrigan.models.batchnorm import BatchNorm2d
from mrigan.models.dcgan.family import recipe
from mrigan.runtime.ranks import ALONE
from mrigan.training.loop import train
from mrigan.training.micro_batches import split_by_groups
from mrigan.training.plan import Plan
from mrigan.training.running_statistics import RunningStatistics
from tiny import SIZE, slices, tiny_state

SLICES = slices(22)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_each_group_is_normalised_as_torchs_batchnorm_would(memory_format):
    torch.manual_seed(0)
    ours = BatchNorm2d(5).double()
    theirs = nn.BatchNorm2d(5).double()
    nn.init.normal_(ours.weight)
    theirs.load_state_dict(ours.state_dict())
    ours.group_images = 4
    x = torch.randn(10, 5, 3, 2, dtype=torch.double).to(memory_format=memory_format)
    x = (x * 3 + 1).requires_grad_()
    expected = torch.cat([theirs(group) for group in x.split(4)])  # 4, 4 and 2
    torch.testing.assert_close(ours(x), expected)
    slope = torch.randn_like(expected)
    found = [
        torch.autograd.grad(out, [x, norm.weight, norm.bias], slope)
        for out, norm in ((ours(x), ours), (expected, theirs))
    ]
    torch.testing.assert_close(found[0], found[1])
    assert ours.seen[2].pixels == 12


def test_the_running_statistics_are_those_that_one_group_after_another_leaves():
    torch.manual_seed(0)
    ours, theirs = BatchNorm2d(5).double(), nn.BatchNorm2d(5).double()
    x = torch.randn(11, 5, 3, 2, dtype=torch.double) * 3 + 1
    for group in x.split(4):
        theirs(group)
    share = split_by_groups(11, 8, 4, ALONE, together=False)
    assert share.cuts == ((0, 8), (8, 11))
    statistics = RunningStatistics(ours, share)
    for start, stop in share.cuts:
        ours(x[start:stop])
        statistics.add()
    term = statistics.term(torch.tensor(statistics.weights, dtype=torch.double))
    before = deepcopy(ours.state_dict())
    statistics.finish(term, torch.tensor(False))
    torch.testing.assert_close(dict(ours.state_dict()), dict(before), rtol=0, atol=0)
    statistics.finish(term, torch.tensor(True))
    torch.testing.assert_close(dict(ours.state_dict()), dict(theirs.state_dict()))


def a_step_of_dcgan(micro_batch):
    state = tiny_state(micro_batch=micro_batch)
    plan = Plan(slices=22, epochs=1, batch_size=4, accumulation_steps=6)
    autocast = torch.autocast("cpu", enabled=False)
    (tick,) = train(
        state,
        SLICES.__getitem__,
        plan,
        latent_dim=6,
        seed=0,
        autocast=autocast,
        recipe=recipe(beta2=0.999),
    )
    found = {
        f"{name}.{key}": weight.grad
        for name, network in (("G", state.G), ("D", state.D))
        for key, weight in network.named_parameters()
    }
    running = {name: value for name, value in state.G.state_dict().items() if "running" in name}
    return found, {name: float(value) for name, value in tick.sums.items()}, running


@pytest.mark.parametrize("micro_batch", [8, 12, 24])
def test_dcgans_step_is_the_same_however_many_groups_make_a_pass(micro_batch):
    """With BatchNorm and dropout, by groups of 4 with a last one of 2."""
    expected, sums, running = a_step_of_dcgan(4)
    found, ours, ours_running = a_step_of_dcgan(micro_batch)
    terms = 22 * SIZE[0] * SIZE[1]
    eps = torch.finfo(torch.float32).eps
    for name, gradient in expected.items():
        # The terms of a sum in another order: each layer's rounding grows as their root.
        allowed = 16 * eps * terms**0.5 * gradient.norm()
        # Before a BatchNorm a bias moves nothing: what is there is rounding alone.
        assert (found[name] - gradient).norm() <= allowed + 1e-7, name
    assert ours == pytest.approx(sums, rel=16 * eps * 22**0.5)
    torch.testing.assert_close(ours_running, running)
