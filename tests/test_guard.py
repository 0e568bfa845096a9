"""Steps that are not finite: skipped, then gone back on with lower rates, then the run's end."""

import math
from copy import deepcopy

import pytest
import torch

from mrigan.errors import DivergedError
from mrigan.models.dcgan.family import recipe
from mrigan.training.checkpoint import decode, encode, restore, snapshot
from mrigan.training.guard import ATTEMPTS, SKIPS, Verdict
from mrigan.training.loop import train
from mrigan.training.plan import Plan
from tiny import LATENTS, slices, tiny_state

STEP = 4
SLICES = slices(12)
TAKEN, SKIPPED, ROLLED_BACK = Verdict.TAKEN, Verdict.SKIPPED, Verdict.ROLLED_BACK


@pytest.fixture(autouse=True)
def every_step_is_read(monkeypatch):
    """So that what becomes of a step is known at once; how it is when it is not has its test."""
    monkeypatch.setattr("mrigan.training.guard.STEPS_BETWEEN_READS", 1)


def state_of():
    return tiny_state(micro_batch=STEP)


def ticks_of(state, is_bad, *, phase="d", epochs=4, shown=None):
    """Train in steps of 4 of 12 slices; a step is not finite where ``is_bad(state)`` says so."""

    def take(indices):
        if shown is not None:
            shown.append(indices)
        return SLICES[indices] * (math.nan if phase == "d" and is_bad(state) else 1.0)

    def spoil(_module, _inputs, logits):
        in_g_step = not next(state.D.parameters()).requires_grad
        return logits * math.nan if phase == "g" and in_g_step and is_bad(state) else None

    state.D.register_forward_hook(spoil)
    plan = Plan(slices=12, epochs=epochs, batch_size=STEP, accumulation_steps=1)
    return train(
        state,
        take,
        plan,
        latent_dim=LATENTS,
        seed=0,
        autocast=torch.autocast("cpu", enabled=False),
        recipe=recipe(beta2=0.999),
    )


def at(*images_seen):
    """The steps that begin there, in the first attempt, are not finite."""
    return lambda state: state.attempt == 0 and state.images_seen in images_seen


def moving(state):
    """All that a step moves."""
    return deepcopy(
        {
            "G": state.G.state_dict(),
            "D": state.D.state_dict(),
            "g_optim": state.g_optim.state_dict(),
            "d_optim": state.d_optim.state_dict(),
        }
    )


def same(one, other):
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[name], other[name]) for name in one)
    if isinstance(one, list):
        return all(map(same, one, other))
    return torch.equal(one, other)


def rates(state):
    return [optim.lr for optim in (state.g_optim, state.d_optim)]


def test_a_step_that_is_not_finite_leaves_everything_but_the_progress():
    state = state_of()
    ticks = ticks_of(state, at(4))
    next(ticks)
    before, sums = moving(state), dict(state.epoch_sums)
    tick = next(ticks)
    assert (tick.verdict, tick.images_seen, state.images_seen) == (SKIPPED, 8, 8)
    assert same(moving(state), before)
    assert same(state.epoch_sums, sums)


def test_a_bad_step_of_g_leaves_g_and_its_batchnorm_as_they_were():
    state = state_of()
    ticks = ticks_of(state, at(4), phase="g")
    next(ticks)
    before = moving(state)
    assert next(ticks).verdict is SKIPPED
    after = moving(state)
    assert not same(after["D"], before["D"])  # its step was fine
    assert same(after["g_optim"], before["g_optim"])
    # D's step has run G, too, and moved what BatchNorm remembers of it.
    names = [name for name in before["G"] if "running" not in name and "tracked" not in name]
    assert all(torch.equal(after["G"][name], before["G"][name]) for name in names)
    assert all(value.isfinite().all() for value in after["G"].values())
    moved = after["G"]["blocks.0.num_batches_tracked"] - before["G"]["blocks.0.num_batches_tracked"]
    assert moved == 1


@pytest.mark.parametrize("phase", ["d", "g"])
def test_single_bad_steps_are_survived(phase):
    state = state_of()
    ticks = list(ticks_of(state, at(4, 8, 20, 32), phase=phase))
    expected = {8: SKIPPED, 12: SKIPPED, 24: SKIPPED, 36: SKIPPED}
    assert [tick.images_seen for tick in ticks] == [4 * (number + 1) for number in range(12)]
    assert {t.images_seen: t.verdict for t in ticks if t.verdict is not TAKEN} == expected
    assert state.attempt == 0
    assert rates(state) == [2e-3, 1e-3]


def test_an_epochs_sums_are_those_of_the_steps_that_were_taken():
    state = state_of()
    ticks = ticks_of(state, at(4))
    for _ in range(3):
        next(ticks)
    assert state.epoch_sums["images"] == 8
    assert state.epoch_sums["d_loss"].isfinite()


def test_three_in_a_row_go_back_with_half_the_rates_and_other_latents():
    state = state_of()
    seen = []
    state.G.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].clone()))
    ticks = ticks_of(state, at(4, 8, 12))
    start = moving(state)
    said = [next(ticks) for _ in range(SKIPS + 1)]
    assert [tick.verdict for tick in said] == [TAKEN, SKIPPED, SKIPPED, ROLLED_BACK]
    assert not said[-1].ends_epoch
    assert (said[-1].images_seen, state.images_seen, state.attempt) == (0, 0, 1)
    assert same(moving(state), start)

    rest = list(ticks)
    assert [tick.verdict for tick in rest] == [TAKEN] * 12
    assert state.images_seen == 48
    assert rates(state) == [1e-3, 5e-4]
    first_z = seen[0]
    assert not any(torch.equal(z, first_z) for z in seen[1:])


def test_a_run_that_was_fine_for_long_goes_back_no_further_than_it_must(monkeypatch):
    monkeypatch.setattr("mrigan.training.guard._STEPS_BETWEEN_COPIES", 2)
    state = state_of()
    said = list(ticks_of(state, at(28, 32, 36)))
    (back,) = [tick for tick in said if tick.verdict is ROLLED_BACK]
    assert back.images_seen == 24  # where the third epoch began
    assert state.images_seen == 48


def test_no_place_is_kept_in_the_middle_of_a_bad_spell(monkeypatch):
    monkeypatch.setattr("mrigan.training.guard._STEPS_BETWEEN_COPIES", 1)
    state = state_of()
    said = list(ticks_of(state, at(20, 24, 28)))
    (back,) = [tick for tick in said if tick.verdict is ROLLED_BACK]
    assert back.images_seen == 12


def test_the_last_step_of_a_run_is_not_skipped():
    state = state_of()
    said = list(ticks_of(state, at(8), epochs=1))
    assert [tick.verdict for tick in said] == [TAKEN, TAKEN, ROLLED_BACK, TAKEN, TAKEN, TAKEN]
    assert state.attempt == 1


def test_the_place_to_go_back_to_is_the_same_the_second_time(monkeypatch):
    monkeypatch.setattr("mrigan.training.guard._STEPS_BETWEEN_COPIES", 3)
    state, places = state_of(), []

    def is_bad(state):  # from the second step of the second epoch on
        return state.attempt < 2 and state.images_seen in (16, 20, 24)

    kept = []
    for tick in ticks_of(state, is_bad):
        if (tick.verdict, tick.images_seen) == (TAKEN, 12) and not kept:
            kept.append(moving(state))
        if tick.verdict is ROLLED_BACK:
            places.append((tick.images_seen, same(moving(state), kept[0])))
    assert places == [(12, True), (12, True)]


def test_another_attempt_sees_every_slice_in_another_order():
    state, shown = state_of(), []
    list(ticks_of(state, lambda state: state.attempt == 0, epochs=1, shown=shown))
    first, second = torch.cat(shown[:3]), torch.cat(shown[3:])
    assert sorted(first.tolist()) == sorted(second.tolist()) == list(range(12))
    assert not torch.equal(first, second)


def test_going_back_does_not_undo_what_memory_taught():
    state = state_of()

    def check(_module, inputs):
        if state.attempt == 0 and len(inputs[0]) > 2:
            raise torch.OutOfMemoryError

    state.G.register_forward_pre_hook(check)
    list(ticks_of(state, lambda state: state.attempt == 0, epochs=1))
    assert (state.attempt, state.micro_batch) == (1, 2)


@pytest.mark.parametrize("phase", ["d", "g"])
def test_after_three_attempts_the_run_ends(phase):
    state = state_of()
    ticks = ticks_of(state, lambda _: True, phase=phase)
    said = [next(ticks).verdict for _ in range(SKIPS * ATTEMPTS + SKIPS - 1)]
    assert said == [SKIPPED, SKIPPED, ROLLED_BACK] * 3 + [SKIPPED, SKIPPED]
    with pytest.raises(DivergedError, match=r"at 12 images, after 3 attempts.*MRIGAN_G_LR"):
        next(ticks)
    assert rates(state) == [2e-3 / 8, 1e-3 / 8]


def test_the_host_hears_of_bad_steps_when_an_epoch_ends(monkeypatch):
    monkeypatch.setattr("mrigan.training.guard.STEPS_BETWEEN_READS", 32)
    state = state_of()
    ticks = ticks_of(state, at(4, 24))
    said = [tick.verdict for tick in ticks]
    assert said == [TAKEN, TAKEN, SKIPPED, TAKEN, TAKEN, TAKEN, TAKEN, TAKEN, SKIPPED, *[TAKEN] * 3]

    state = state_of()
    said = list(ticks_of(state, at(8, 12, 16)))  # three in a row, across the end of an epoch
    back = next(number for number, tick in enumerate(said) if tick.verdict is ROLLED_BACK)
    assert (back, said[back].images_seen) == (5, 0)
    assert state.images_seen == 48


def test_between_two_reads_no_step_waits_for_the_device(monkeypatch):
    monkeypatch.setattr("mrigan.training.guard.STEPS_BETWEEN_READS", 2)
    state = state_of()
    ticks = ticks_of(state, at(0, 4))
    assert [next(ticks).verdict for _ in range(3)] == [TAKEN, SKIPPED, TAKEN]


def test_a_run_that_starts_with_weights_that_are_no_numbers_has_nothing_to_go_back_to():
    state = state_of()
    with torch.no_grad():
        state.D.to_logit.bias.fill_(math.nan)
    with pytest.raises(DivergedError, match="after 0 attempts"):
        list(ticks_of(state, lambda _: False))


def test_a_bad_streak_that_a_checkpoint_falls_into_is_answered_as_without_it(monkeypatch):
    """The steps 2 to 4 of an epoch of 6 are bad, the flags are read at its end."""
    monkeypatch.setattr("mrigan.training.guard.STEPS_BETWEEN_READS", 32)

    def steps_of(state):
        plan = Plan(slices=12, epochs=2, batch_size=2, accumulation_steps=1)

        def take(indices):
            is_bad = state.attempt == 0 and state.images_seen in (2, 4, 6)
            return SLICES[indices] * (math.nan if is_bad else 1.0)

        autocast = torch.autocast("cpu", enabled=False)
        return train(
            state,
            take,
            plan,
            latent_dim=LATENTS,
            seed=0,
            autocast=autocast,
            recipe=recipe(beta2=0.999),
        )

    whole, first, second = state_of(), state_of(), state_of()
    said = [(tick.verdict, tick.images_seen) for tick in steps_of(whole)]
    assert said[5] == (ROLLED_BACK, 0)
    ticks = steps_of(first)
    for _ in range(5):  # the fifth step was taken
        next(ticks)
    restore(second, decode(encode(snapshot(first))))
    # The copy to roll back to is the point of the resume; that it rolls back is the same.
    assert next(steps_of(second)).verdict is ROLLED_BACK
    assert (second.attempt, second.images_seen) == (1, 10)
