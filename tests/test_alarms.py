"""Alarms from a run's rows: what raises them, what does not, and a generator that collapsed."""

import numpy as np
import pytest
import torch

from mrigan.artifacts.history import EpochRow
from mrigan.artifacts.run_status import BestScore
from mrigan.data.phantom import draw
from mrigan.evaluation.coverage import coverage
from mrigan.evaluation.variety import duplicate_fraction, spread_ratio
from mrigan.jobs.train.alarms import (
    COLLAPSE,
    D_OVERPOWERS,
    REMEDIES,
    SPIKE,
    Limits,
    alarms_of,
    spans,
)
from mrigan.jobs.train.metrics import summary_of
from mrigan.models.dcgan.networks import Generator

SIZE = (35, 41)
COUNT = 60
LIMITS = Limits(epoch_steps=20, total_images=100_000)
MEASURED = {"swd_floor": 0.05, "swd_against": "holdout", "score_seconds": 1.0}
TIMES = {"seconds": 1.0, "images_per_second": 1.0}


def as_rows(objects):
    """Rows, each from its JSON."""
    return [EpochRow.from_json(TIMES | each) for each in objects]


def found_in(objects, limits):
    return alarms_of(as_rows(objects), limits)


def r3_rows(count, images=1000, **changed):
    """Rows of a run in good order."""
    row = {"d_loss": 0.6, "real_sign": 0.5, "augment_p": 0.8, "r1": 0.1, "r2": 0.2}
    return [
        row | {"epoch": number, "images_seen": number * images} | changed
        for number in range(1, count + 1)
    ]


def scored(rows, **changed):
    score = {
        "swd": 0.3,
        "swd_floor": 0.05,
        "swd_against": "holdout",
        "score_seconds": 1.0,
        "spread": 0.95,
        "duplicates": 0.0,
        "coverage": 0.8,
    }
    return [row | score | changed for row in rows]


def continued(rows, **changed):
    """``rows`` and one more like the last, changed."""
    last = rows[-1]
    step = {"epoch": last["epoch"] + 1, "images_seen": last["images_seen"] + 1000}
    return [*rows, last | step | changed]


def test_a_run_in_good_order_has_no_alarms():
    assert found_in([], LIMITS) == {}
    for count in (1, 2, 60):
        assert found_in(scored(r3_rows(count)), LIMITS) == {}


@pytest.mark.parametrize(
    ("rows", "is_raised"),
    [
        (r3_rows(10, real_sign=0.9), True),
        (r3_rows(9, real_sign=0.9), False),  # 9,000 images are too few to tell
        (r3_rows(10, real_sign=0.84), False),
        (r3_rows(10, real_sign=0.9, augment_p=0.79), False),  # augmentation may still help
        (r3_rows(10, real_sign=0.5) + r3_rows(21, real_sign=0.9)[10:], True),
        (r3_rows(21, real_sign=0.9)[:11] + r3_rows(21)[11:], False),
        (r3_rows(30, real_sign=0.99, augment_p=0.1), True),  # however far augmentation is
        (r3_rows(29, real_sign=0.99, augment_p=0.1), False),
        (r3_rows(30, real_sign=0.97, augment_p=0.1), False),
    ],
)
def test_d_overpowers_when_it_knows_its_reals_and_augmentation_is_at_its_cap(rows, is_raised):
    assert (D_OVERPOWERS in found_in(rows, LIMITS)) is is_raised


def test_without_adaptive_augmentation_the_sign_alone_tells():
    rows = r3_rows(10, real_sign=0.9, augment_p=0.0)
    assert D_OVERPOWERS in found_in(rows, LIMITS._replace(augment_cap=0.0))


@pytest.mark.parametrize(("epochs", "is_raised"), [(10, True), (9, False)])
def test_dcgan_s_d_overpowers_after_two_hundred_steps_of_no_loss(epochs, is_raised):
    rows = [{"epoch": n, "images_seen": n, "d_loss": 0.04 if n > 3 else 0.5} for n in range(1, 14)]
    assert (D_OVERPOWERS in found_in(rows[: 3 + epochs], LIMITS)) is is_raised


@pytest.mark.parametrize(
    "lost", [{"spread": 0.59}, {"duplicates": 0.06}, {"coverage": 0.39}], ids=str
)
def test_variety_lost_in_two_scores_is_a_collapse_until_it_is_back(lost):
    rows = scored(r3_rows(5))
    once = continued(rows, **lost)
    assert found_in(once, LIMITS) == {}
    twice = continued(once)
    assert found_in(twice, LIMITS).keys() == {COLLAPSE}
    unscored = [*twice, r3_rows(8)[-1]]
    assert found_in(unscored, LIMITS).keys() == {COLLAPSE}
    assert found_in(continued(twice, **scored(r3_rows(1), epoch=9)[0]), LIMITS) == {}


def test_the_blobs_that_every_run_begins_with_are_no_collapse():
    blobs = {"spread": 0.1, "duplicates": 1.0, "coverage": 0.0}
    assert found_in(scored(r3_rows(40), **blobs), LIMITS) == {}
    assert found_in(scored(r3_rows(50), **blobs), LIMITS).keys() == {COLLAPSE}


def test_a_run_too_short_to_learn_anything_has_not_collapsed():
    blobs = scored(r3_rows(9), spread=0.1, duplicates=1.0, coverage=0.0)
    assert found_in(blobs, LIMITS._replace(total_images=9000)) == {}


def test_scores_of_sets_too_small_for_coverage_are_judged_by_the_rest():
    rows = [
        {name: value for name, value in row.items() if name != "coverage"}
        for row in scored(r3_rows(60), spread=0.5)
    ]
    assert found_in(rows, LIMITS).keys() == {COLLAPSE}


@pytest.mark.parametrize(
    ("before", "r1", "is_raised"),
    [(20, 3.0, True), (20, 2.7, False), (10, 30.0, True), (4, 30.0, False)],
)
def test_a_penalty_of_ten_times_its_median_is_a_spike(before, r1, is_raised):
    rows = continued(r3_rows(before), r1=r1)
    limits = LIMITS._replace(total_images=40_000)
    assert (SPIKE in found_in(rows, limits)) is is_raised
    if is_raised:
        assert SPIKE not in found_in(continued(rows, r1=0.1), limits)


def test_a_penalty_that_rises_as_training_begins_is_no_spike():
    rows = [row | {"r1": 4.0 ** row["epoch"]} for row in r3_rows(9)]
    assert found_in(rows, LIMITS) == {}


@pytest.mark.parametrize("name", ["alarms", "events"])  # of this version, and of the one before
def test_alarms_are_told_from_their_first_epoch_to_their_last(name):
    raised = {2: ["a"], 3: ["a", "b"], 4: ["b"], 6: ["a"]}
    rows = [{"epoch": n, "images_seen": n, name: raised.get(n, [])} for n in range(1, 8)]
    assert spans(as_rows(rows)) == [("a", 2, 3), ("b", 3, 4), ("a", 6, 6)]


def test_the_summary_is_the_last_score_the_best_and_the_alarms():
    rows = as_rows([*scored(r3_rows(2)), r3_rows(3)[-1]])
    found = summary_of(rows, BestScore(1, 1000, 0.2))
    assert found.pop("score_share") == pytest.approx(2 / 5)
    assert found == {
        "swd": 0.3,
        "swd_floor": 0.05,
        "swd_against": "holdout",
        "coverage": 0.8,
        "best": {"epoch": 1, "images_seen": 1000, "swd": 0.2},
        "alarms": [],
    }
    assert summary_of([], None) == {"best": {}, "alarms": [], "score_share": 0.0}


def test_every_alarm_has_a_remedy():
    assert REMEDIES.keys() == {COLLAPSE, D_OVERPOWERS, SPIKE}


@pytest.fixture(scope="module")
def slices():
    return torch.from_numpy(np.stack([draw(i, *SIZE) for i in range(2 * COUNT)]))[:, None]


def row_of(real, fake, number):
    (row,) = r3_rows(1)
    return row | {
        "epoch": number,
        "images_seen": number * 1000,
        "swd": 0.0,
        **MEASURED,
        "spread": spread_ratio(real, fake),
        "duplicates": duplicate_fraction(real, fake),
        "coverage": coverage(real, fake).coverage,
    }


def test_fresh_slices_have_the_reals_variety(slices):
    real, fresh = slices[:COUNT], slices[COUNT:]
    assert spread_ratio(real, fresh) == pytest.approx(1, abs=0.1)
    assert duplicate_fraction(real, fresh) == 0


def test_a_set_has_its_own_spread_and_one_slice_has_none(slices):
    assert spread_ratio(slices, slices) == pytest.approx(1)
    assert spread_ratio(slices, slices[:1].repeat(5, 1, 1, 1)) == 0
    assert spread_ratio(slices, slices // 2) == pytest.approx(0.5, abs=0.02)


def test_near_copies_count_as_duplicates_however_the_grain_differs(slices):
    real, fresh = slices[:COUNT], slices[COUNT:]
    noise = torch.randint(0, 3, fresh.shape, generator=torch.Generator().manual_seed(0))
    copied = torch.cat([fresh[:50], (fresh[:10] + noise[:10]).clamp(0, 255).to(torch.uint8)])
    assert duplicate_fraction(real, copied) == pytest.approx(20 / 60)


def test_slices_that_are_there_twice_do_not_hide_duplicates(slices):
    real = torch.cat([slices[:COUNT], slices[:2]])
    assert duplicate_fraction(real, slices[COUNT:]) == 0
    assert duplicate_fraction(real, slices[:1].repeat(9, 1, 1, 1)) == 1
    assert duplicate_fraction(slices[:1].repeat(9, 1, 1, 1), slices) == 0


def test_few_fresh_slices_are_no_duplicates(slices):
    parts = slices.split(12)
    shares = [
        duplicate_fraction(one, other) for one in parts for other in parts if one is not other
    ]
    assert np.mean(shares) < 0.05


def test_modes_that_are_lost_are_a_collapse(slices):
    real, fresh = slices[:COUNT], slices[COUNT:]
    well = [row_of(real, fresh, number) for number in range(1, 4)]
    assert found_in(well, LIMITS) == {}
    lost = fresh[:4].repeat(COUNT // 4, 1, 1, 1)
    rows = [*well, *(row_of(real, lost, number) for number in (4, 5))]
    assert found_in(rows, LIMITS).keys() == {COLLAPSE}


def test_a_generator_that_has_forgotten_its_latents_is_a_collapse(slices):
    real, fresh = slices[:COUNT], slices[COUNT:]
    torch.manual_seed(0)
    G = Generator(8, *SIZE).eval()
    first = next(G.parameters())
    assert first.shape[1] == 8  # z enters here
    with torch.no_grad():
        first.mul_(1e-4)
        fake = ((G(torch.randn(COUNT, 8)) + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
    rows = [row_of(real, fresh, 1), *(row_of(real, fake, number) for number in (2, 3))]
    assert COLLAPSE in found_in(rows, LIMITS)
