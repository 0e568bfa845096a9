import math
import subprocess
import sys
from copy import deepcopy

import pytest
import torch

from mrigan.errors import CheckpointError, DivergedError, MriganError
from mrigan.models.dcgan.family import recipe
from mrigan.models.family import MicroBatch
from mrigan.training.checkpoint import decode, encode, restore, snapshot
from mrigan.training.loop import train
from mrigan.training.micro_batches import fill_gradients, with_halving
from mrigan.training.plan import Plan
from tiny import LATENTS, slices, tiny_state

CPU = torch.device("cpu")
FP32 = torch.autocast("cpu", enabled=False)


SLICES = slices(11)


def plan_of(epochs=3, slices=11, batch_size=4, accumulation_steps=2):
    return Plan(
        slices=slices,
        epochs=epochs,
        batch_size=batch_size,
        accumulation_steps=accumulation_steps,
    )


def ticks_of(state, plan, seed=0, autocast=FP32):
    take = SLICES.__getitem__
    return train(
        state,
        take,
        plan,
        latent_dim=LATENTS,
        seed=seed,
        autocast=autocast,
        recipe=recipe(beta2=0.999),
    )


def filled(half, G, D, batches, *, step_images):
    return fill_gradients(
        getattr(recipe(beta2=0.999), half),
        (G, D),
        batches,
        step_images=step_images,
        autocast=FP32,
        gamma=torch.zeros(()),
        learning=D if half == "d" else G,
    )


def weights(state):
    return {**state.G.state_dict(prefix="G."), **state.D.state_dict(prefix="D.")}


def assert_same_bits(one, other):
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert torch.equal(value, other[name]), name


def test_the_plan_counts_ragged_steps():
    plan = plan_of(epochs=500, slices=300, batch_size=32, accumulation_steps=8)
    assert (plan.epoch_steps, plan.total_steps, plan.total_images) == (2, 1000, 150_000)
    assert plan.is_starved
    assert list(plan.steps(0)) == [(0, 256), (256, 300)]
    assert list(plan.steps(256)) == [(256, 300)]


def test_no_slice_of_an_epoch_is_left_out_or_shown_twice():
    shown = []

    def take(indices):
        shown.extend(indices.tolist())
        return SLICES[indices]

    state, plan = tiny_state(), plan_of(epochs=2)
    ticks = list(
        train(
            state,
            take,
            plan,
            latent_dim=LATENTS,
            seed=0,
            autocast=FP32,
            recipe=recipe(beta2=0.999),
        )
    )
    assert sorted(shown[:11]) == sorted(shown[11:]) == list(range(11))
    assert shown[:11] != shown[11:]
    assert [tick.step_images for tick in ticks] == [8, 3, 8, 3]
    assert [tick.ends_epoch for tick in ticks] == [False, True, False, True]
    assert [tick.images_seen for tick in ticks] == [8, 11, 19, 22]


def gradients(network):
    return {name: weight.grad.clone() for name, weight in network.named_parameters()}


@pytest.mark.parametrize("cut", [(7,), (4, 3), (3, 3, 1), (1,) * 7])
def test_cutting_a_step_into_ragged_micro_batches_does_not_change_the_gradients(cut):
    # Without batch statistics and dropout: with them it does, and the docs say so.
    state = tiny_state()
    G, D = state.G.double().eval(), state.D.double().eval()
    real, z = SLICES[:7].double(), torch.randn(7, LATENTS, dtype=torch.double)

    def batches(sizes):
        parts = zip(real.split(sizes), z.split(sizes), strict=True)
        return iter([MicroBatch(z=part_z, real=part) for part, part_z in parts])

    found = []
    for sizes in ([7], list(cut)):
        d_sums = filled("d", G, D, batches(sizes), step_images=7)
        d_grads = gradients(D)
        g_sums = filled("g", G, D, batches(sizes), step_images=7)
        found.append((d_sums, g_sums, d_grads, gradients(G)))
    torch.testing.assert_close(found[0], found[1])


def test_each_half_step_leaves_the_other_network_alone():
    state = tiny_state()
    G, D = state.G, state.D
    batch = MicroBatch(z=torch.randn(3, LATENTS), real=SLICES[:3])
    filled("d", G, D, iter([batch]), step_images=3)
    assert all(weight.grad is None for weight in G.parameters())
    D.zero_grad(set_to_none=True)
    filled("g", G, D, iter([batch]), step_images=3)
    assert all(weight.grad is None for weight in D.parameters())
    assert all(weight.requires_grad for weight in D.parameters())


def test_the_first_d_loss_is_that_of_a_d_that_can_not_tell():
    tick = next(ticks_of(tiny_state(), plan_of()))
    d_loss = float(tick.sums["d_loss"]) / tick.step_images
    assert d_loss == pytest.approx(2 * math.log(2), rel=0.05)
    parts = float(tick.sums["real_loss"]) + float(tick.sums["fake_loss"])
    assert parts == pytest.approx(float(tick.sums["d_loss"]), rel=1e-5)


def test_d_learns_to_tell_noise_from_flat_pictures():
    ticks = ticks_of(tiny_state(g_lr=1e-9), plan_of(epochs=30))
    losses = [float(tick.sums["d_loss"]) / tick.step_images for tick in ticks]
    assert losses[0] > 1.2
    assert sum(losses[-10:]) / 10 < 0.7


@pytest.mark.parametrize("autocast", [FP32, torch.autocast("cpu", torch.bfloat16)])
@pytest.mark.parametrize("cut", [1, 2, 3, 5])
def test_a_run_cut_anywhere_and_continued_has_the_same_bits(cut, autocast):
    plan = plan_of()
    whole = tiny_state()
    rows = [tick.images_seen for tick in ticks_of(whole, plan, autocast=autocast)]

    first = tiny_state()
    ticks = ticks_of(first, plan, autocast=autocast)
    for _ in range(cut):
        next(ticks)
    data = encode(snapshot(first))

    torch.manual_seed(99)  # nothing may hang on what the process drew before
    second = tiny_state(seed=5)
    restore(second, decode(data))
    rest = [tick.images_seen for tick in ticks_of(second, plan, autocast=autocast)]
    assert rest == rows[cut:]
    assert_same_bits(weights(second), weights(whole))
    assert_same_bits(second.epoch_sums, whole.epoch_sums)


def test_another_seed_is_another_run():
    runs = []
    for seed in (0, 1):
        state = tiny_state(seed=seed)
        list(ticks_of(state, plan_of(epochs=1), seed=seed))
        runs.append(state.G.project.weight.detach())
    assert not torch.equal(*runs)


def test_a_snapshot_is_a_copy_that_training_does_not_touch():
    state = tiny_state()
    ticks = ticks_of(state, plan_of())
    next(ticks)
    saved = snapshot(state)
    before = deepcopy(saved)
    next(ticks)
    assert_same_bits(saved["G"], before["G"])
    assert not torch.equal(saved["G"]["project.weight"], state.G.project.weight)


def test_weights_that_are_not_finite_are_never_saved():
    state = tiny_state()
    with torch.no_grad():
        state.G.project.weight[0, 0] = math.inf
    with pytest.raises(DivergedError, match="not finite"):
        snapshot(state)


def test_a_checkpoint_that_would_run_code_is_refused():
    class Evil:
        def __reduce__(self):
            return (print, ("executed",))

    with pytest.raises(CheckpointError, match="no tensors that can be read safely"):
        decode(encode({"G": Evil()}))


def limit_of(network, images):
    """Make ``network`` run out of memory above so many images, as a device does."""

    def check(_module, inputs):
        if len(inputs[0]) > images:
            raise torch.OutOfMemoryError(f"tried to hold {len(inputs[0])} images")

    network.register_forward_pre_hook(check)


def test_out_of_memory_repeats_the_step_in_smaller_cuts():
    state = tiny_state(micro_batch=8)
    limit_of(state.G, 3)
    plan = plan_of(epochs=2, batch_size=8, accumulation_steps=1)
    ticks = list(ticks_of(state, plan))
    assert [tick.step_images for tick in ticks] == [8, 3, 8, 3]
    assert ticks[-1].micro_batch == 2

    by_twos = tiny_state(micro_batch=2)  # as if it had been cut so from the start
    list(ticks_of(by_twos, plan))
    assert_same_bits(weights(state), weights(by_twos))


@pytest.mark.parametrize(
    "said",
    [
        "CUDA error: out of memory",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "[enforce fail at alloc_cpu.cpp:119] DefaultCPUAllocator: can't allocate memory: you tried",
    ],
)
def test_libraries_that_get_no_memory_are_heard_like_torch(said):
    forgotten = []

    def attempt(size):
        if size > 1:
            raise RuntimeError(said)
        return size

    assert with_halving(attempt, 5, forget=lambda: forgotten.append(1)) == (1, 1)
    assert len(forgotten) == 3  # 5, 3, 2
    with pytest.raises(RuntimeError, match="inconsistent"):
        with_halving(lambda _: torch.ones(2) @ torch.ones(3), 5, forget=list)


def test_out_of_memory_with_one_image_says_what_to_do():
    state = tiny_state()
    limit_of(state.D, 0)
    with pytest.raises(MriganError, match="MRIGAN_IMAGE_HEIGHT"):
        next(ticks_of(state, plan_of()))


def test_steps_import_no_compiler():
    """Dynamo and the symbolic shapes cost each start seconds, and nothing here is compiled."""
    script = """
import sys, torch
from mrigan.jobs.build import fresh_state, recipe_of
from mrigan.runtime.device import choose_hardware
from mrigan.settings.fields import Settings
from mrigan.training.loop import train
from mrigan.training.plan import Plan
for model in ("dcgan", "r3-tiny"):
    settings = Settings(model=model, image_height=32, image_width=32)
    plan = Plan(slices=4, epochs=1, batch_size=4, accumulation_steps=1)
    hardware = choose_hardware("cpu", "fp32")
    for _ in train(
        fresh_state(settings, hardware),
        lambda indices: torch.zeros(len(indices), 1, 32, 32),
        plan,
        latent_dim=settings.latent_dim,
        seed=0,
        autocast=hardware.autocast(),
        recipe=recipe_of(settings, plan),
    ):
        pass
print([name for name in ("torch._dynamo", "sympy", "torch._inductor") if name in sys.modules])
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=240
    )
    assert done.stdout.strip() == "[]"
