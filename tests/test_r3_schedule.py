import math
from copy import deepcopy
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from mrigan.jobs.build import first_micro_batch, fresh_state, recipe_of
from mrigan.models.dcgan import networks as dcgan
from mrigan.models.family import Ramp
from mrigan.models.r3.schedule import (
    GAMMAS,
    gamma_for,
    gammas,
    r3_schedule,
)
from mrigan.runtime.device import Hardware, choose_hardware
from mrigan.settings.fields import Settings
from mrigan.training.adaptive import AdaptiveP
from mrigan.training.ema import averaged_copy, decay_of, recalibrate_batchnorm, update_average
from mrigan.training.loop import train
from mrigan.training.plan import Plan


def test_every_value_follows_one_half_cosine_through_the_burn_in_and_then_stays():
    schedule = r3_schedule(total_images=1_000_000, gamma=Ramp(2.5, 20.0))
    assert schedule.burn_in_images == 400_000
    rows = [schedule.at(images) for images in (0, 100_000, 200_000, 400_000, 900_000)]
    quarter = (1 + math.cos(math.pi / 4)) / 2
    assert rows[0] == pytest.approx((1, 0.9, 2.5, 0, 0, 0.6))
    assert rows[1].lr_factor == pytest.approx(0.25 + 0.75 * quarter)
    assert rows[1].gamma == pytest.approx(20 - 17.5 * quarter)
    assert rows[2] == pytest.approx((0.625, 0.945, 11.25, 10_000, 0.15, 0.6))
    assert rows[3] == pytest.approx((0.25, 0.99, 20, 20_000, 0.3, 0.6))
    assert rows[4] == rows[3]._replace(ema_half_life_images=45_000)


def test_a_schedule_without_burn_in_is_constant():
    schedule = r3_schedule(total_images=0, gamma=Ramp(2.5, 20.0))
    assert schedule.at(0).lr_factor == schedule.at(10).lr_factor == 0.25


def test_the_average_is_never_left_behind_and_its_memory_ends_at_100_000_images():
    schedule = r3_schedule(total_images=30_000, gamma=Ramp(1, 1))
    assert schedule.at(3_000).ema_half_life_images == 150
    assert schedule.at(9_000_000).ema_half_life_images == 100_000


def test_gamma_goes_with_the_number_of_pixels():
    assert gammas(200, 160)["small"] == (2.5, 20.0)
    assert gammas(32, 40)["paper"] == pytest.approx((75 * 0.04, 7.5 * 0.04))


def test_gamma_goes_smoothly_from_few_slices_to_many():
    assert gamma_for(10, 200, 160) == gamma_for(1_000, 200, 160) == GAMMAS["small"]
    assert gamma_for(10**6, 200, 160) == pytest.approx(GAMMAS["paper"])
    middle = gamma_for(round(70**0.5 * 1_000), 200, 160)
    assert middle == pytest.approx(((2.5 * 75) ** 0.5, (20 * 7.5) ** 0.5), rel=1e-3)
    for below, above in zip(gamma_for(9_999, 200, 160), gamma_for(10_000, 200, 160), strict=True):
        assert below == pytest.approx(above, rel=1e-3)


@pytest.mark.parametrize(
    ("given", "rates"),
    [({}, (4e-3, 4e-3)), ({"d_lr": 1e-4}, (4e-3, 1e-4)), ({"model": "r3-s"}, (2e-4, 2e-4))],
)
def test_a_preset_begins_at_its_own_rates_or_those_given_and_ends_at_a_quarter(given, rates):
    sizes = {"image_height": 32, "image_width": 32}
    settings = Settings(**({"model": "r3-tiny"} | sizes | given))
    plan = Plan(slices=10, epochs=2, batch_size=5, accumulation_steps=1)
    state = fresh_state(settings, choose_hardware("cpu", "fp32"))
    ticks = train(
        state,
        lambda indices: torch.zeros(len(indices), 1, 32, 32),
        plan,
        latent_dim=settings.latent_dim,
        seed=0,
        autocast=torch.autocast("cpu", enabled=False),
        recipe=recipe_of(settings, plan),
    )
    for images_seen, factor in ((0, 1), (10, 0.25)):
        while state.images_seen <= images_seen:
            next(ticks)
        found = [optim.lr for optim in (state.g_optim, state.d_optim)]
        assert found == pytest.approx([factor * rate for rate in rates])


@pytest.mark.parametrize(
    ("given", "device", "world", "expected"),
    [
        ({}, "cuda", 1, 32),  # all images of a step, until memory says otherwise
        ({}, "cuda", 3, 11),
        ({"accumulation_steps": 5}, "cuda", 1, 160),
        ({}, "cpu", 1, 32),
        ({"micro_batch": 7}, "cuda", 2, 7),
        ({"model": "dcgan", "batch_size": 9}, "cuda", 2, 36),
        ({"model": "dcgan", "batch_size": 9}, "cpu", 1, 9),
    ],
)
def test_the_first_micro_batch_is_all_that_a_gpu_may_hold(given, device, world, expected):
    settings = Settings(**({"model": "r3-s"} | given))
    hardware = Hardware(torch.device(device), torch.float32, "a device")
    ranks = SimpleNamespace(world=SimpleNamespace(size=world))
    assert first_micro_batch(settings, hardware, ranks) == expected


def test_half_of_the_average_remains_after_its_half_life_whatever_the_step():
    for step_images in (1, 64, 1000):
        assert decay_of(step_images, 1000) ** (1000 / step_images) == pytest.approx(0.5)
    assert decay_of(64, 0) == 0


def test_the_average_of_steady_weights_has_the_closed_form():
    G = nn.Linear(2, 3).double()
    G_ema = averaged_copy(G)
    start = deepcopy(G.state_dict())
    with torch.no_grad():
        for weight in G.parameters():
            weight.fill_(5.0)
    for _ in range(6):
        update_average(G_ema, G, decay_of(100, 300))
    for name, value in G_ema.state_dict().items():
        torch.testing.assert_close(value, 5 + (start[name] - 5) / 4)
    assert not any(weight.requires_grad for weight in G_ema.parameters())
    update_average(G_ema, G, 0.0)
    assert all(torch.equal(*pair) for pair in zip(G_ema.parameters(), G.parameters(), strict=True))


def test_batchnorm_statistics_of_the_average_are_those_of_its_own_pictures():
    torch.manual_seed(0)
    G = dcgan.Generator(6, 33, 47)
    G_ema = averaged_copy(G)
    latents = [torch.randn(8, 6) for _ in range(4)]
    first = G_ema.blocks[0]
    first.running_mean.fill_(9.0)
    recalibrate_batchnorm(G_ema, latents)
    drawn = G_ema.project(torch.cat(latents)).view(-1, *G_ema.base)
    torch.testing.assert_close(first.running_mean, drawn.mean((0, 2, 3)))
    assert not any(layer.training for layer in G_ema.modules())
    assert first.momentum == G.blocks[0].momentum
    again = {name: value.clone() for name, value in G_ema.state_dict().items()}
    recalibrate_batchnorm(G_ema, latents)
    torch.testing.assert_close(dict(G_ema.state_dict()), again)


STEER = {"target": 0.6, "speed_images": 1000.0}


def numbers(adaptive):
    return [float(value) for value in adaptive]


def test_p_rises_while_d_tells_its_reals_too_well_and_falls_while_it_does_not():
    above = AdaptiveP.of(0.2).after(torch.tensor(256 * 0.7), 256, **STEER)
    below = AdaptiveP.of(0.6).after(torch.tensor(512 * 0.5), 512, **STEER)
    assert numbers(above) == pytest.approx((0.2 + 0.256, 0, 0))
    assert numbers(below) == pytest.approx((0.6 - 0.512, 0, 0))
    at_target = AdaptiveP.of(0.3).after(torch.tensor(150.0), 300, target=0.5, speed_images=1000.0)
    assert float(at_target.p) == pytest.approx(0.3)


def test_p_stays_between_nothing_and_its_cap():
    p = AdaptiveP.of()
    for _ in range(9):
        p = p.after(torch.tensor(256.0), 256, **STEER)
    assert float(p.p) == pytest.approx(0.8)
    for _ in range(9):
        p = p.after(torch.tensor(-256.0), 256, **STEER)
    assert p.p == 0


def test_p_waits_until_enough_pairs_are_counted_however_they_arrive():
    whole = AdaptiveP.of(0.1).after(torch.tensor(170.0), 256, **STEER)
    p = AdaptiveP.of(0.1)
    for sign_sum, pairs in ((100.0, 128), (20.0, 64)):
        p = p.after(torch.tensor(sign_sum), pairs, **STEER)
        assert float(p.p) == pytest.approx(0.1)
    assert p.after(torch.tensor(50.0), 64, **STEER) == whole
    assert whole.p > 0.1


def test_an_ema_that_was_asked_for_has_that_half_life_from_the_start():
    settings = Settings(model="r3-tiny", ema_images=500.0)
    plan = Plan(slices=100, epochs=2, batch_size=5, accumulation_steps=1)
    values = recipe_of(settings, plan).values
    assert [values(images).ema_half_life_images for images in (0, 100, 200)] == [500.0] * 3
