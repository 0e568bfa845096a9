"""``r3`` in the loop: what a run is made of, and all that must not change its numbers."""

import math
from itertools import islice

import pytest
import torch

from mrigan.models.augment import Policy
from mrigan.models.family import Augmentation
from mrigan.models.r3.family import recipe
from mrigan.models.r3.schedule import gammas, r3_schedule
from mrigan.training.adaptive import AdaptiveP
from mrigan.training.checkpoint import decode, encode, restore, snapshot
from mrigan.training.guard import Verdict
from mrigan.training.loop import train
from mrigan.training.plan import Plan
from tiny import LATENTS, SIZE, SMALLEST, slices, tiny_state

FP32 = torch.autocast("cpu", enabled=False)
BF16 = torch.autocast("cpu", torch.bfloat16)
EVERYTHING = Policy(flips=True, rotation_degrees=15.0)
SLICES = slices(64)


def stir(state):
    """Let residual branches do something: while their last weights are 0, others learn nothing."""
    for network in (state.G, state.D, state.G_ema):
        generator = torch.Generator().manual_seed(1)
        for _name, weight in network.named_parameters():
            if bool((weight == 0).all()) and weight.ndim > 1:
                torch.nn.init.normal_(weight, 0.0, 0.1, generator=generator)


def state_of(seed=0, micro_batch=8, rates=(2e-4, 2e-4)):
    state = tiny_state(
        SMALLEST, seed=seed, micro_batch=micro_batch, g_lr=rates[0], d_lr=rates[1], beta1=0.0
    )
    stir(state)
    # Half of all transformations, and so near a decision that p moves within a step or two.
    state.augment = AdaptiveP.of(p=0.5, sign_sum=100.0, pairs=245)
    return state


def plan_of(slices=11, epochs=2, batch_size=4, accumulation_steps=2):
    return Plan(
        slices=slices, epochs=epochs, batch_size=batch_size, accumulation_steps=accumulation_steps
    )


def ticks_of(state, plan, *, seed=0, autocast=FP32, augment_by="adaptive", take=None):
    schedule = r3_schedule(total_images=plan.total_images, gamma=gammas(*SIZE)["small"])
    augmentation = Augmentation(EVERYTHING, SIZE, augment_by) if augment_by != "none" else None
    return train(
        state,
        take or (lambda indices: SLICES[indices].to(state.G.basis)),
        plan,
        latent_dim=LATENTS,
        seed=seed,
        autocast=autocast,
        recipe=recipe(schedule, augmentation),
    )


def weights(state):
    networks = {"G": state.G, "D": state.D, "G_ema": state.G_ema}
    return {
        f"{name}.{key}": value
        for name, network in networks.items()
        for key, value in network.state_dict().items()
    }


def assert_same_bits(one, other):
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert torch.equal(value, other[name]), name


def assert_close(one, other, tolerance=1e-5):
    """Compare by the size of each tensor: some gradients are sums that nearly cancel."""
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert (value - other[name]).norm() <= tolerance * value.norm() + 1e-9, name


def gradients(state):
    return {
        f"{name}.{key}": weight.grad.clone()
        for name, network in (("G", state.G), ("D", state.D))
        for key, weight in network.named_parameters()
    }


@pytest.mark.parametrize(("cut", "augment_by"), [(1, "adaptive"), (2, "schedule"), (3, "adaptive")])
def test_a_run_cut_anywhere_and_continued_has_the_same_bits(cut, augment_by):
    plan = plan_of()
    whole = state_of()
    rows = [tick.images_seen for tick in ticks_of(whole, plan, augment_by=augment_by)]
    assert rows == [8, 11, 19, 22]

    first = state_of()
    for _ in islice(ticks_of(first, plan, augment_by=augment_by), cut):
        pass
    data = encode(snapshot(first))

    torch.manual_seed(99)  # nothing may hang on what the process drew before
    second = state_of(seed=5)
    second.augment = AdaptiveP.of()
    restore(second, decode(data))
    rest = [tick.images_seen for tick in ticks_of(second, plan, augment_by=augment_by)]
    assert rest == rows[cut:]
    assert_same_bits(weights(second), weights(whole))
    assert_same_bits(second.epoch_sums, whole.epoch_sums)
    assert second.augment == whole.augment
    assert second.g_optim.lr == whole.g_optim.lr


def test_a_run_in_bf16_is_cut_and_continued_alike():
    plan = plan_of(epochs=1)
    whole, first, second = state_of(), state_of(), state_of(seed=5)
    list(ticks_of(whole, plan, autocast=BF16))
    next(ticks_of(first, plan, autocast=BF16))
    restore(second, decode(encode(snapshot(first))))
    list(ticks_of(second, plan, autocast=BF16))
    assert_same_bits(weights(second), weights(whole))
    in_fp32 = state_of()
    list(ticks_of(in_fp32, plan))
    assert not torch.equal(in_fp32.G.to_pixels.weight, whole.G.to_pixels.weight)


def test_the_same_seed_is_the_same_run_and_another_is_not():
    def last(seed):
        state = state_of(seed)
        list(ticks_of(state, plan_of(epochs=1), seed=seed))
        return weights(state)

    one = last(0)
    assert_same_bits(one, last(0))
    other = last(1)
    assert not any(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("micro_batch", [64, 8, 9])
def test_gradients_do_not_depend_on_the_micro_batch(micro_batch, whole_step):
    state = in_float64(state_of(micro_batch=micro_batch))
    tick = next(ticks_of(state, plan_of(slices=64, batch_size=8, accumulation_steps=8)))
    expected, sums = whole_step
    assert all(bool(gradient.any()) for gradient in expected.values())
    assert_close(gradients(state), expected, tolerance=1e-9)
    for name, value in tick.sums.items():
        assert float(value) == pytest.approx(sums[name], rel=1e-9), name


def test_in_bf16_they_are_those_of_float64_to_its_rounding(whole_step):
    exact = torch.cat([gradient.flatten() for gradient in whole_step[0].values()])
    for micro_batch in (64, 8):
        state = state_of(micro_batch=micro_batch)
        next(ticks_of(state, plan_of(64, batch_size=8, accumulation_steps=8), autocast=BF16))
        found = torch.cat([gradient.flatten() for gradient in gradients(state).values()])
        error = (found.double() - exact).norm() / exact.norm()
        # bf16 rounds to 2^-9, once for each of the layers that a gradient passes, twice over; what
        # a wrong term would do is of order one.
        assert 2**-12 < error < 2**-9 * math.sqrt(2 * layers_of(state)) * 4


def layers_of(state):
    """Convolutions of both networks."""
    return sum(weight.ndim == 4 for net in (state.G, state.D) for weight in net.parameters())


def in_float64(state):
    """Compute in float64, where no rounding moves a leaky ReLU to its other side."""
    for network, optim in ((state.G, state.g_optim), (state.D, state.d_optim)):
        network.double()
        optim.moments = [[moment.double() for moment in moments] for moments in optim.moments]
    state.G_ema.double()
    return state


@pytest.fixture(scope="module")
def whole_step():
    """The gradients and sums of a step of 64 images in one forward pass, in float64."""
    state = in_float64(state_of(micro_batch=64))
    tick = next(ticks_of(state, plan_of(slices=64, batch_size=64, accumulation_steps=1)))
    return gradients(state), {name: float(value) for name, value in tick.sums.items()}


def limit_of(network, images):
    """Make ``network`` run out of memory above so many images, as a device does."""

    def check(_module, inputs):
        if len(inputs[0]) > images:
            raise torch.OutOfMemoryError(f"tried to hold {len(inputs[0])} images")

    network.register_forward_pre_hook(check)
    if hasattr(network, "with_slope"):
        with_slope = network.with_slope

        def checked(seen):
            check(network, (seen,))
            return with_slope(seen)

        network.with_slope = checked


@pytest.mark.parametrize("limited", ["G", "D"])
def test_out_of_memory_halves_the_micro_batch_and_changes_nothing_else(limited):
    plan = plan_of()
    whole, small = in_float64(state_of()), in_float64(state_of())
    list(ticks_of(whole, plan))
    # D sees reals and fakes together.
    limit_of(getattr(small, limited), 3 if limited == "G" else 4)
    ticks = list(ticks_of(small, plan))
    assert [tick.micro_batch for tick in ticks] == [2] * 4
    assert [tick.images_seen for tick in ticks] == [8, 11, 19, 22]
    assert_close(weights(small), weights(whole), tolerance=1e-7)
    assert small.augment.p == whole.augment.p


def test_going_back_halves_the_schedules_rates_and_restores_average_and_augmentation():
    plan = plan_of(slices=8, epochs=4)
    state = state_of()
    start = weights(state), state.augment

    def take(indices):
        return SLICES[indices] * (math.nan if state.attempt == 0 else 1.0)

    ticks = ticks_of(state, plan, take=take)
    for tick in islice(ticks, 3):
        assert tick.verdict is not Verdict.TAKEN
    assert tick.verdict is Verdict.ROLLED_BACK
    assert_same_bits(weights(state), start[0])
    assert state.augment == start[1]
    next(ticks)
    rates = [optim.lr for optim in (state.g_optim, state.d_optim)]
    assert rates == pytest.approx([1e-4, 1e-4])


def test_what_fitted_elsewhere_is_not_taken_over():
    saved = snapshot(state_of(micro_batch=3))
    for hardware, micro_batch in (("", 3), ("1 x NVIDIA H200", 8)):
        state = state_of()
        state.hardware = hardware
        restore(state, saved)
        assert state.micro_batch == micro_batch


def test_the_first_d_loss_is_that_of_a_d_that_can_not_tell():
    tick = next(ticks_of(state_of(), plan_of(), augment_by="none"))
    # D starts near zero only after its residual branches; its first logits are of order one.
    assert float(tick.sums["d_loss"]) / tick.step_images == pytest.approx(math.log(2), rel=0.5)
    assert float(tick.sums["real_score"] + tick.sums["fake_score"]) == pytest.approx(8)


def test_d_learns_to_tell_white_pictures_from_what_g_draws():
    plan = plan_of(slices=4, epochs=20, batch_size=4, accumulation_steps=1)
    white = torch.ones(4, 1, *SIZE)
    state = state_of(rates=(2e-7, 4e-3))
    ticks = ticks_of(state, plan, augment_by="none", take=white.__getitem__)
    losses = [float(tick.sums["d_loss"]) / 4 for tick in ticks]
    assert losses[-1] < 0.5 * math.log(2)
    assert losses[-1] < 0.5 * losses[0]


def test_the_average_lags_behind_g_once_its_half_life_has_grown():
    state = state_of()
    plan = plan_of()
    for tick in ticks_of(state, plan):
        if tick.images_seen == 8:  # its half-life starts at nothing
            assert_same_bits(state.G.state_dict(), state.G_ema.state_dict())
    assert not torch.equal(state.G.project.weight, state.G_ema.project.weight)
    assert state.sampler is state.G_ema
    assert not any(weight.requires_grad for weight in state.G_ema.parameters())


def test_augmentation_is_what_d_sees_and_never_what_g_is_fed_or_draws():
    """The reals handed out and the latents are those of a run without augmentation."""

    def handed_out(augment_by):
        state, shown, latents = state_of(), [], []
        state.G.register_forward_pre_hook(lambda _, inputs: latents.append(inputs[0].clone()))

        def take(indices):
            shown.append(indices)
            return SLICES[indices]

        next(ticks_of(state, plan_of(), augment_by=augment_by, take=take))
        return torch.cat(shown), torch.cat(latents), state

    plain, augmented = handed_out("none"), handed_out("adaptive")
    assert torch.equal(plain[0], augmented[0])
    assert torch.equal(plain[1], augmented[1])
    assert not torch.equal(plain[2].D.layers[0].weight, augmented[2].D.layers[0].weight)


def test_p_rises_while_d_knows_its_reals_too_well():
    state = state_of()
    state.augment = AdaptiveP.of(p=0.5, sign_sum=250.0, pairs=250)
    next(ticks_of(state, plan_of()))
    assert 0.5 < state.augment.p < 0.51
    state.augment = AdaptiveP.of(p=0.5, sign_sum=-250.0, pairs=250)
    next(ticks_of(state, plan_of()))
    assert 0.49 < state.augment.p < 0.51
