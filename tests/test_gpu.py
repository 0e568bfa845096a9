"""What only a GPU can show; run with ``pytest -m gpu`` where there is one."""

import pytest
import torch

from mrigan.jobs.model import family_of, fresh_state, known, with_defaults
from mrigan.runtime.device import choose_hardware
from mrigan.settings.fields import Settings
from mrigan.training.loop import train
from mrigan.training.plan import Plan

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]

SIZE = (64, 52)
SLICES = torch.rand(256, 1, *SIZE, generator=torch.Generator().manual_seed(3)) * 2 - 1


def two_steps(device, **chosen):
    """The state after two steps of 256 images, and the sums of the first."""
    settings = with_defaults(
        Settings(
            model="r3-tiny",
            image_height=SIZE[0],
            image_width=SIZE[1],
            batch_size=32,
            accumulation_steps=8,
            augment="none",
            **chosen,
        )
    )
    hardware = choose_hardware(device, "fp32")
    plan = Plan(slices=256, epochs=2, batch_size=32, accumulation_steps=8)
    state = fresh_state(settings, hardware)
    ticks = train(
        state,
        lambda indices: SLICES[indices].to(hardware.device),
        plan,
        latent_dim=known(settings.latent_dim),
        seed=0,
        autocast=hardware.autocast(),
        family=family_of(settings, plan),
    )
    sums = {name: float(value) for name, value in next(ticks).sums.items()}
    gradient = torch.cat([weight.grad.flatten().cpu() for weight in state.D.parameters()])
    next(ticks)
    return state, sums, gradient


def test_a_step_has_the_numbers_of_the_cpu():
    _, expected, gradient = two_steps("cpu")
    _, sums, ours = two_steps("cuda")
    assert sums == pytest.approx(expected, rel=1e-4)
    assert (ours - gradient).norm() < 1e-3 * gradient.norm()


def test_memory_that_runs_out_halves_the_micro_batch_and_nothing_else():
    _, expected, _ = two_steps("cuda")
    whole_bytes = torch.cuda.max_memory_allocated()
    torch.cuda.empty_cache()
    total_bytes = torch.cuda.mem_get_info()[1]
    torch.cuda.set_per_process_memory_fraction(0.5 * whole_bytes / total_bytes)
    try:
        state, sums, _ = two_steps("cuda")
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert 1 <= state.micro_batch < 256
    assert sums == pytest.approx(expected, rel=1e-4)
