"""Captured steps: static inputs, replays and what ends them; a stand-in captures without a GPU."""

import math
from itertools import islice

import pytest
import torch
from torch.utils._pytree import tree_leaves

from mrigan.models.augment import Policy
from mrigan.models.dcgan import family as dcgan_family
from mrigan.models.family import Augmentation, Ramp
from mrigan.models.r3 import family as r3_family
from mrigan.models.r3.schedule import r3_schedule
from mrigan.training import graphs, loop
from mrigan.training.adaptive import AdaptiveP
from mrigan.training.graphs import WARM_UP_RUNS, Graphs, Lane
from mrigan.training.loop import train
from mrigan.training.plan import Plan
from tiny import SIZE, SMALLEST, slices, tiny_state

SLICES = slices(20)


class Recorded:
    """Captures as CUDA does: runs once, then fills the same tensors again at each replay."""

    def __init__(self, limit=None, error=None):
        self.captures = 0
        self.replays = 0
        self.limit, self.error = limit, error

    def __call__(self, work):
        self.captures += 1
        if self.error is not None:
            raise self.error
        self.forget_gradients()
        result = work()
        gradients = self.gradients_of()
        statics = [*tree_leaves(result), *gradients]
        for static in statics:
            with torch.no_grad():
                static.fill_(math.nan)  # a capture computes nothing

        def replay():
            self.replays += 1
            self.forget_gradients()
            fresh = [*tree_leaves(work()), *self.gradients_of()]
            for static, value in zip(statics, fresh, strict=True):
                with torch.no_grad():
                    static.copy_(value)

        return result, replay

    def forget_gradients(self):
        for network in self.networks:
            network.zero_grad(set_to_none=True)

    def gradients_of(self):
        weights = [weight for net in self.networks for weight in net.parameters()]
        return [weight.grad for weight in weights if weight.grad is not None]


def state_of(preset, seed=0, micro_batch=8):
    state = tiny_state(preset, seed=seed, micro_batch=micro_batch, beta1=0.0 if preset else 0.5)
    state.augment = AdaptiveP.of(p=0.5, sign_sum=100.0, pairs=245)
    return state


def ticks_of(state, preset, *, bad=(), slices=20, epochs=3):
    """Steps of 8, 8 and 4; the reals of those that begin at ``bad`` are not numbers."""
    plan = Plan(slices=slices, epochs=epochs, batch_size=4, accumulation_steps=2)
    schedule = r3_schedule(total_images=plan.total_images, gamma=Ramp(0.1, 2.0))
    recipe = dcgan_family.recipe(beta2=0.9)
    if preset:
        policy = Policy(flips=True, rotation_degrees=10.0)
        recipe = r3_family.recipe(schedule, Augmentation(policy, SIZE, "adaptive"))

    def take(indices):
        return SLICES[indices] * (math.nan if state.images_seen in bad else 1.0)

    return train(
        state,
        take,
        plan,
        latent_dim=6,
        seed=0,
        autocast=torch.autocast("cpu", enabled=False),
        recipe=recipe,
        graphs=True,
    )


@pytest.fixture
def capture(monkeypatch):
    """Steps on the CPU go through this instead of running as they are."""
    recorded = Recorded()

    def lane(device, *, graphs):
        made = Lane(device, graphs=graphs)
        made.graphs = Graphs(recorded)
        return made

    monkeypatch.setattr(loop, "Lane", lane)
    return recorded


def weights(state):
    networks = [state.G, state.D, *([state.G_ema] if state.G_ema is not None else [])]
    return [value for network in networks for value in network.state_dict().values()]


def run(state, preset, **given):
    said = [
        ({name: float(value) for name, value in tick.sums.items()}, tick.verdict, tick.micro_batch)
        for tick in ticks_of(state, preset, **given)
    ]
    return said, weights(state), [float(value) for value in state.augment]


@pytest.mark.parametrize("preset", [None, SMALLEST])
@pytest.mark.parametrize("bad", [(), (24, 28)])
def test_captured_steps_have_the_bits_of_eager_ones(capture, monkeypatch, preset, bad):
    state = state_of(preset)
    capture.networks = (state.G, state.D)
    captured = run(state, preset, bad=bad)
    assert capture.captures == 4  # D's and G's half, of 8 images and of 4
    # Of each half there are 6 steps of 8 images and 3 of 4.
    assert capture.replays == 2 * (6 - WARM_UP_RUNS) + 2 * (3 - WARM_UP_RUNS)

    monkeypatch.setattr(loop, "Lane", Lane)
    eager = run(state_of(preset), preset, bad=bad)
    assert str(captured[0]) == str(eager[0])  # as text: of a skipped step they are no numbers
    for one, other in zip(captured[1], eager[1], strict=True):
        assert torch.equal(one, other)
    assert captured[2] == eager[2]


def test_memory_that_runs_out_in_a_capture_halves_the_micro_batch(capture):
    state = state_of(SMALLEST)
    capture.networks = (state.G, state.D)
    ticks = ticks_of(state, SMALLEST)
    list(islice(ticks, 3))
    capture.error = torch.OutOfMemoryError("full")
    next(ticks)
    capture.error = None
    assert [tick.micro_batch for tick in islice(ticks, 2)] == [4, 4]


def test_a_capture_that_fails_leaves_steps_eager_and_says_so(capture, caplog):
    state = state_of(SMALLEST)
    capture.networks = (state.G, state.D)
    capture.error = RuntimeError("operation not permitted when stream is capturing\nat line 7")
    found = run(state, SMALLEST)
    assert capture.captures == 1
    (record,) = [each for each in caplog.records if each.message == "cuda_graphs_off"]
    assert record.reason == "operation not permitted when stream is capturing"
    assert all(value.isfinite().all() for value in found[1])


def test_off_cuda_nothing_is_captured():
    lane = Lane(torch.device("cpu"), graphs=True)
    calls = []
    network = torch.nn.Linear(1, 1)
    for _ in range(5):
        lane.graphs.run("key", calls.append, (), network)
    assert len(calls) == 5
    assert graphs.WARM_UP_RUNS < 5
