"""What only a GPU can show; run with ``pytest -m gpu`` where there is one."""

import math

import pytest
import torch

from mrigan.jobs.build import fresh_state, recipe_of
from mrigan.runtime.device import choose_hardware
from mrigan.settings.fields import Settings
from mrigan.training.loop import train
from mrigan.training.plan import Plan

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]

SIZE = (64, 52)
IMAGES = 256
SLICES = torch.rand(IMAGES, 1, *SIZE, generator=torch.Generator().manual_seed(3)) * 2 - 1
MODELS = ("r3-tiny", "dcgan")


def steps(device, model="r3-tiny", *, count=2, graphs=False, is_exact=False, **chosen):
    """The state after ``count`` steps of 256 images, all sums, and D's gradient in the first."""
    settings = Settings(
        model=model,
        image_height=SIZE[0],
        image_width=SIZE[1],
        batch_size=32,
        accumulation_steps=8,
        **chosen,
    )
    hardware = choose_hardware(device, "fp32")
    torch.backends.cudnn.benchmark = False  # or two runs may sum in two orders
    torch.backends.cudnn.deterministic = True
    plan = Plan(slices=IMAGES, epochs=count, batch_size=32, accumulation_steps=8)
    state = fresh_state(settings, hardware)
    dtype = torch.float64 if is_exact else torch.float32
    for network, optim in ((state.G, state.g_optim), (state.D, state.d_optim)):
        network.to(dtype)
        optim.moments = [[moment.to(dtype) for moment in each] for each in optim.moments]
    if state.G_ema is not None:
        state.G_ema.to(dtype)
    gradients, sums = [], []
    for tick in train(
        state,
        lambda indices: SLICES[indices].to(hardware.device, dtype),
        plan,
        latent_dim=settings.latent_dim,
        seed=0,
        autocast=hardware.autocast(),
        recipe=recipe_of(settings, plan),
        graphs=graphs,
    ):
        flat = [weight.grad.flatten().cpu().double() for weight in state.D.parameters()]
        gradients.append(torch.cat(flat))
        sums.append({name: float(value) for name, value in tick.sums.items()})
    return state, sums, gradients[0]


@pytest.mark.parametrize("model", MODELS)
def test_a_step_has_the_numbers_of_float64(model):
    _, expected, gradient = steps("cpu", model, count=1, is_exact=True)
    state, sums, ours = steps("cuda", model, count=1)
    # Each layer rounds a sum of so many terms; a wrong term would be of order one.
    layers = sum(weight.ndim == 4 for net in (state.G, state.D) for weight in net.parameters())
    allowed = torch.finfo(torch.float32).eps * math.sqrt(IMAGES * math.prod(SIZE)) * layers
    assert (ours - gradient).norm() < allowed * gradient.norm()
    del sums[0]["g_loss"]  # after a step of Adam, which makes small differences large
    for name, value in sums[0].items():
        assert value == pytest.approx(expected[0][name], rel=allowed, abs=allowed * IMAGES), name


@pytest.mark.parametrize("model", MODELS)
def test_captured_steps_have_the_numbers_of_eager_ones(model):
    eager, expected, _ = steps("cuda", model, count=6, cuda_graphs=False)
    captured, sums, _ = steps("cuda", model, count=6, graphs=True)
    for one, other in zip(sums, expected, strict=True):
        assert one == pytest.approx(other, rel=1e-3)
    for name, weight in eager.G.state_dict().items():
        difference = (captured.G.state_dict()[name] - weight).double().norm()
        assert difference <= 1e-2 * weight.double().norm() + 1e-6, name


def test_memory_that_runs_out_halves_the_micro_batch_and_nothing_else():
    _, expected, _ = steps("cuda", augment="none")
    whole_bytes = torch.cuda.max_memory_allocated()
    torch.cuda.empty_cache()
    total_bytes = torch.cuda.mem_get_info()[1]
    torch.cuda.set_per_process_memory_fraction(0.5 * whole_bytes / total_bytes)
    try:
        state, sums, _ = steps("cuda", augment="none")
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert 1 <= state.micro_batch < IMAGES
    assert sums[0] == pytest.approx(expected[0], rel=1e-3)
