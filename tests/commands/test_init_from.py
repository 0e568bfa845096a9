"""A run that starts from another one's weights: which, what else is fresh, and what is refused."""

import json
import shutil

import pytest

from mrigan.data.sampler import stream_seed
from mrigan.storage.store import open_store
from tiny import newest

R3 = {
    "model": "r3-tiny",
    "image_height": 32,
    "image_width": 35,
    "input_uri": "phantom://5",
    "batch_size": 5,
    "accumulation_steps": 1,
    "epochs": 1,
}

pytestmark = pytest.mark.slow


def settings_of(uri):
    return json.loads(open_store(uri).get("run.json"))


def weights_of(uri):
    return newest(open_store(uri)).content


def same(one, other, difference=0.0):
    return all(float((one[name] - other[name]).abs().max()) <= difference for name in one)


@pytest.fixture(scope="module")
def source(train, tmp_path_factory):
    uri = str(tmp_path_factory.mktemp("source") / "run")
    assert train(uri, **R3 | {"epochs": 3}).status == 0
    return uri


def test_a_run_starts_from_the_weights_of_another_with_all_else_fresh(source, train, tmp_path):
    """With learning rates that move nothing, what it saves is what it began with."""
    uri = str(tmp_path / "run")
    still = {"g_lr": 1e-30, "d_lr": 1e-30, "ema_images": 1e12, "holdout": 0}
    ended = train(uri, **R3, **still, init_from=source, seed=7, gamma="paper")
    assert ended.status == 0, ended.err
    saved = newest(open_store(source))
    sha256 = saved.facts["sha256"]
    said = f"initialised uri={source} images_seen={saved.images_seen} sha256={sha256}"
    assert said in ended.out
    ours, theirs = weights_of(uri), weights_of(source)
    assert not same(theirs["G"], theirs["G_ema"])
    for network in ("G", "D", "G_ema"):
        assert same(ours[network], theirs[network], 1e-29)
    assert (ours["images_seen"], ours["attempt"]) == (5, 0)
    assert set(ours["g_optim"]["steps"].tolist()) == {1.0}

    named = {"uri": source, "images_seen": saved.images_seen, "sha256": sha256}
    assert settings_of(uri)["initial"] == named
    assert settings_of(uri)["settings"]["init_from"] == source
    assert newest(open_store(uri)).facts["initial"] == named


def test_a_resume_does_not_look_at_the_source_again(store_uri, train, tmp_path):
    source, whole = str(tmp_path / "source"), str(tmp_path / "whole")
    assert train(source, epochs=1).status == 0
    assert train(whole, init_from=source).status == 0
    assert train(store_uri, init_from=source, epochs=2).status == 0
    named = settings_of(store_uri)["initial"]
    shutil.move(source, tmp_path / "elsewhere")
    ended = train(store_uri, init_from=source)
    assert ended.status == 0
    assert "resumed images_seen=26" in ended.out
    ours, theirs = weights_of(store_uri), weights_of(whole)
    assert same(ours["G"], theirs["G"])
    assert same(ours["D"], theirs["D"])
    assert settings_of(store_uri)["initial"] == named
    other = train(store_uri, epochs=4)
    assert (other.status, other.err.count("init_from is None")) == (2, 1)


def test_frozen_resolutions_of_d_stay_as_they_are(source, train, tmp_path):
    uri = str(tmp_path / "run")
    for epochs in (2, 3):  # r3's length is part of it; each is a run of its own
        place = f"{uri}-{epochs}"
        ended = train(place, **R3 | {"epochs": epochs}, init_from=source, freeze_d=2)
        assert ended.status == 0, ended.err
        ours, theirs = weights_of(place)["D"], weights_of(source)["D"]
        frozen = {name for name in ours if ours[name].equal(theirs[name])}
        assert frozen == {
            name for name in ours if name.startswith(tuple(f"layers.{at}." for at in range(7)))
        }  # from the pixels, then twice two blocks and a halving


def test_frozen_resolutions_stay_so_in_a_resumed_dcgan(train, tmp_path):
    source, uri = str(tmp_path / "source"), str(tmp_path / "run")
    assert train(source, epochs=1).status == 0
    for epochs in (1, 2):
        assert train(uri, init_from=source, freeze_d=1, epochs=epochs).status == 0
    ours, theirs = weights_of(uri)["D"], weights_of(source)["D"]
    assert {name for name in ours if ours[name].equal(theirs[name])} == {
        "layers.0.weight",
        "layers.0.bias",
    }


def test_weights_of_other_networks_are_refused_by_what_differs(source, train, tmp_path):
    uri = str(tmp_path / "run")
    ended = train(uri, **R3 | {"image_width": 36, "latent_dim": 9}, init_from=source)
    assert ended.status == 2
    assert ended.err == (
        f"mrigan: MRIGAN_INIT_FROM: {source} has weights of other networks: image_width is 36, was "
        "35, latent_dim is 9, was 64; use those, or another run\n"
    )
    assert not (tmp_path / "run").exists()  # the same place is free for the next attempt


def test_slices_that_the_source_was_trained_on_can_not_be_held_out(source, train, tmp_path):
    """A score against them would flatter."""
    seeds = [seed for seed in range(1, 9) if not _holds_out_what_the_source_did(seed)]
    ended = train(str(tmp_path / "run"), **R3 | {"seed": seeds[0]}, init_from=source)
    assert ended.status == 2
    said = f"MRIGAN_INIT_FROM: {source} was trained on 1 of the 1 slices that this run holds out;"
    assert said in ended.err
    assert not (tmp_path / "run/run.json").exists()
    assert train(str(tmp_path / "same"), **R3, init_from=source).status == 0


def _holds_out_what_the_source_did(seed):
    keys = [f"phantom-{number:06}" for number in range(5)]
    first = [min(keys, key=lambda key: stream_seed(each, "holdout", key)) for each in (0, seed)]
    return first[0] == first[1]


def test_a_place_without_a_checkpoint_is_refused(train, tmp_path):
    (tmp_path / "empty").mkdir()
    for name in ("empty", "nowhere"):
        ended = train(str(tmp_path / "run"), init_from=tmp_path / name)
        assert ended.status == 2
        assert f"MRIGAN_INIT_FROM: no whole checkpoint under {tmp_path / name};" in ended.err


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"freeze_d": 2}, "--freeze-d is set, but not MRIGAN_INIT_FROM"),
        ({"init_from": "OUTPUT"}, "--init-from is --output-uri itself"),
        ({"init_from": "phantom://5"}, "--init-from: phantom://"),
        ({"init_from": "SOURCE", "freeze_d": 9}, "MRIGAN_FREEZE_D: 9 of D's resolutions"),
    ],
)
def test_settings_that_make_no_sense_are_refused(source, train, tmp_path, settings, said):
    uri = str(tmp_path / "run")
    places = {"OUTPUT": uri, "SOURCE": source}
    settings = {name: places.get(value, value) for name, value in settings.items()}
    ended = train(uri, **R3, **settings)
    assert ended.status == 2
    assert said in ended.err
