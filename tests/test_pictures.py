"""A corpus of what people store: each object is the right picture, or refused by its true name."""

import random
import time

import numpy as np
import pytest

from mrigan.data.formats import decode
from mrigan.data.refusal import UnusableSliceError
from pictures import HEIGHT, WIDTH, head, others, refused, tiff, tiffs

READ = {**tiffs(), **others()}
REFUSED = refused()


@pytest.mark.parametrize("name", READ)
def test_a_picture_of_any_kind_is_the_right_one(name):
    got = decode(READ[name], HEIGHT, WIDTH).astype(float)
    assert np.corrcoef(got.ravel(), head().ravel())[0, 1] > 0.995
    assert np.ptp(got) > 60


@pytest.mark.parametrize("name", REFUSED)
def test_another_object_is_refused_by_its_name(name):
    data, reason = REFUSED[name]
    with pytest.raises(UnusableSliceError, match=f"^{reason}"):
        decode(data, HEIGHT, WIDTH)


def test_the_corpus_has_a_hundred_kinds():
    assert len(READ) + len(REFUSED) >= 100


@pytest.mark.parametrize("radius", [9, 15, 40])
@pytest.mark.parametrize("ground", [0, -1024])
def test_a_stripped_brain_keeps_its_contrast(radius, ground):
    y, x = np.mgrid[:181, :167]
    brain = (y - 90) ** 2 + (x - 80) ** 2 < radius**2
    pixels = np.full(brain.shape, ground, np.int16)
    pixels[brain] = np.random.default_rng(1).normal(600, 150, brain.sum()).clip(50, 4000)
    got = decode(tiff(pixels), *brain.shape)
    assert np.mean(got[brain] == 255) < 0.015
    assert got[brain].std() > 30
    assert not got[~brain].any()


def mutated(data, rng):
    """``data`` with lies in it, most of them in its first bytes."""
    damaged = bytearray(data)
    reach = len(data) if rng.random() < 0.4 else min(len(data), 400)
    for _ in range(rng.choice((1, 2, 4, 9))):
        damaged[rng.randrange(reach)] = rng.choice((0, 1, 2, 0x7F, 0x80, 0xFF, rng.randrange(256)))
    if rng.random() < 0.2:
        del damaged[rng.randrange(len(damaged)) :]
    return bytes(damaged)


def refusal_of(data):
    try:
        decode(data, 32, 32)
    except UnusableSliceError as refusal:
        return refusal.reason
    return ""


@pytest.mark.parametrize(
    "rounds", [pytest.param(4, id="few"), pytest.param(130, id="many", marks=pytest.mark.slow)]
)
def test_damaged_files_are_read_or_refused_in_one_line_and_in_time(rounds):
    kinds = {**READ, **{name: data for name, (data, _) in REFUSED.items()}}
    for name, data in kinds.items():
        rng = random.Random(name)
        for _ in range(rounds):
            began = time.process_time()
            reason = refusal_of(mutated(data, rng))
            assert reason.isprintable()
            assert len(reason) < 160
            assert time.process_time() - began < 2, name
