"""The score of a run, its best snapshot and its warnings, told from what the job leaves."""

import hashlib
import io
import json
import os
import shutil
import signal

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image

from mrigan.data.phantom import draw
from mrigan.data.slices import to_grey
from mrigan.evaluation.features import random_features
from mrigan.evaluation.kernel import KernelDistance
from mrigan.evaluation.sliced_wasserstein import sliced_wasserstein
from mrigan.models.dcgan.networks import Generator
from mrigan.models.r3 import networks as r3
from mrigan.storage.store import open_store
from mrigan.training.loop import fixed_latents

R3 = {
    "model": "r3-tiny",
    "input_uri": "phantom://21",
    "image_height": 32,
    "image_width": 36,
    "batch_size": 8,
    "holdout": 40,
    "seed": 1,
}

pytestmark = pytest.mark.slow


def get_json(uri, key):
    return json.loads(open_store(uri).get(key))


def rows_of(uri):
    return [json.loads(line) for line in open_store(uri).get("metrics.jsonl").splitlines()]


def manifest_of(uri):
    return [json.loads(line) for line in open_store(uri).get("data/manifest.jsonl").splitlines()]


def scores_of(uri):
    return {row["epoch"]: row["swd"] for row in rows_of(uri) if "swd" in row}


@pytest.fixture(scope="module")
def r3_run(train, tmp_path_factory):
    """A short run of r3 with a holdout."""
    uri = str(tmp_path_factory.mktemp("r3") / "run")
    return uri, train(uri, **R3)


def test_the_best_is_the_smallest_distance_of_the_rows_and_verifies(finished):
    scores = scores_of(finished.uri)
    assert scores.keys() == {1, 2, 3}  # a run that stops has a score that is not far behind
    best = get_json(finished.uri, "model/best.json")
    assert best["swd"] == min(scores.values()) == scores[best["epoch"]]
    data = open_store(finished.uri).get("model/best.safetensors")
    assert (best["sha256"], best["size_bytes"]) == (hashlib.sha256(data).hexdigest(), len(data))
    assert best["images_seen"] == 13 * best["epoch"]
    G = Generator(best["latent_dim"], best["image_height"], best["image_width"])
    G.load_state_dict(safetensors.torch.load(data))


def test_without_a_holdout_the_rows_say_what_they_are_scored_against(finished):
    found = {row.get("swd_against") for row in rows_of(finished.uri) if "swd" in row}
    assert found == {"training"}


def test_r3_holds_volumes_out_and_scores_against_them(r3_run):
    uri, ended = r3_run
    assert ended.status == 0
    facts = get_json(uri, "run.json")["data"]
    sides = [entry["side"] for entry in manifest_of(uri)]
    assert sides.count("holdout") == facts["holdout"] > 1
    assert sides.count("training") == facts["training"] == 21 - facts["holdout"]
    for row in rows_of(uri):
        assert row["images_seen"] == row["epoch"] * facts["training"]
        assert row["augment_p"] >= 0
    assert {row.get("swd_against") for row in rows_of(uri) if "swd" in row} == {"holdout"}


def test_the_floor_is_the_distance_of_held_out_slices_to_those_of_training(r3_run):
    uri, _ = r3_run
    entries = manifest_of(uri)
    held = [entry["row"] for entry in entries if entry["side"] == "holdout"]
    trained = [entry["row"] for entry in entries if entry["side"] == "training"]
    real = torch.from_numpy(np.stack([draw(row, 32, 36) for row in held]))[:, None]
    others = torch.from_numpy(np.stack([draw(row, 32, 36) for row in trained]))[:, None]
    between = np.mean(sliced_wasserstein(real, others))
    floors = {row["swd_floor"] for row in rows_of(uri) if "swd" in row}
    assert len(floors) == 1
    assert floors.pop() == pytest.approx(between, rel=0.5)
    kid = KernelDistance(random_features(real), random_features(others))
    between = kid(torch.arange(len(real)), torch.arange(len(others)))
    kids = [(row["kid"], row["kid_floor"]) for row in rows_of(uri) if "kid" in row]
    assert len(kids) == len(scores_of(uri))
    for kid, floor in kids:
        assert kid > 5 * abs(floor)  # a network that has seen so little is far above
    assert len({floor for _, floor in kids}) == 1
    assert kids[0][1] == pytest.approx(between, abs=0.5 * kids[0][0])
    # A network that has seen so little is far above.
    assert min(scores_of(uri).values()) > 2 * between


def test_the_grid_of_reals_shows_those_that_are_trained_on_alone(r3_run):
    uri, _ = r3_run
    entries = manifest_of(uri)
    trained = [draw(entry["row"], 32, 36) for entry in entries if entry["side"] == "training"]
    grid = np.asarray(Image.open(io.BytesIO(open_store(uri).get("samples/real.png"))))
    for index, slice_ in enumerate(trained):
        top, left = 2 + index // 8 * 34, 2 + index % 8 * 38
        assert np.array_equal(grid[top : top + 32, left : left + 36], slice_)


def test_what_is_drawn_is_never_augmented(tmp_path, train):
    """The last grid is what the published generator makes of the fixed latents, and no more."""
    uri = str(tmp_path / "run")
    assert train(uri, **R3, augment="schedule").status == 0
    assert rows_of(uri)[-1]["augment_p"] == 0.3
    G = r3.Generator(r3.PRESETS["r3-tiny"], 64, 32, 36)
    G.load_state_dict(safetensors.torch.load(open_store(uri).get("model/generator.safetensors")))
    with torch.no_grad():
        drawn = to_grey(G(fixed_latents(32, 64, R3["seed"])))
    last = f"samples/epoch-{rows_of(uri)[-1]['epoch']:04d}.png"
    grid = np.asarray(Image.open(io.BytesIO(open_store(uri).get(last)))).astype(int)
    for index, slice_ in enumerate(drawn[:, 0].numpy()):
        top, left = 2 + index // 8 * 34, 2 + index % 8 * 38
        assert np.abs(grid[top : top + 32, left : left + 36] - slice_).max() <= 1


def test_an_interrupted_r3_run_has_the_very_bits_and_scores_of_an_uninterrupted_one(
    r3_run, tmp_path, train, content, assert_same_run
):
    whole, _ = r3_run
    uri = str(tmp_path / "run")
    # That line comes from the thread that trains, so the next step hears of the signal.
    stopped = train(uri, at="epoch epoch=1 ", do=lambda: os.kill(os.getpid(), signal.SIGTERM), **R3)
    assert stopped.status == 143
    assert train(uri, **R3).status == 0
    ours, theirs = content(uri), content(whole)
    assert_same_run(ours, theirs)
    assert ours["model/best.json"] == theirs["model/best.json"]


def test_a_better_snapshot_of_an_earlier_start_is_kept(finished_in_folder, tmp_path, train):
    uri = str(shutil.copytree(finished_in_folder.uri, tmp_path / "copy"))
    store = open_store(uri)
    best = get_json(uri, "model/best.json") | {"swd": 1e-6, "epoch": 2, "images_seen": 26}
    store.put("model/best.json", json.dumps(best).encode())
    store.put("model/best.safetensors", b"better than any")
    assert train(uri, epochs=4).status == 0
    assert get_json(uri, "model/best.json") == best
    assert store.get("model/best.safetensors") == b"better than any"
    assert get_json(uri, "status.json")["summary"]["best"]["swd"] == 1e-6


@pytest.mark.slow
def test_trouble_is_warned_of_once_and_told_everywhere(tmp_path, train):
    uri = str(tmp_path / "run")
    # G stays as it was drawn and D learns: it soon has no loss left, and that for 200 steps.
    rates = {"g_lr": 1e-12, "d_lr": 1e-3, "batch_size": 1, "accumulation_steps": 1}
    chosen = {"input_uri": "phantom://40", "image_height": 32, "image_width": 32, "epochs": 12}
    ended = train(uri, checkpoint_every=99, sample_every=99, **rates, **chosen)
    assert ended.status == 0
    rows = rows_of(uri)
    has_lost = [row["d_loss"] < 0.05 for row in rows]  # 5 epochs of 40 steps in a row are too many
    due = [all(has_lost[end - 5 : end]) and end >= 5 for end in range(1, 13)]
    assert [row.get("alarms", []) == ["d_overpowers"] for row in rows] == due
    begins = [epoch for epoch in range(1, 13) if due[epoch - 1] and not due[epoch - 2]]
    assert begins
    assert ended.out.count("WARNING d_overpowers") == len(begins)
    found = get_json(uri, "status.json")["summary"]["alarms"]
    assert [(span["alarm"], span["first_epoch"]) for span in found] == [
        ("d_overpowers", epoch) for epoch in begins
    ]
    assert "D tells real slices from fakes too well" in open_store(uri).get("report.html").decode()


def test_a_best_snapshot_that_is_not_what_its_json_says_is_not_fetched(
    finished_in_folder, tmp_path, mrigan
):
    uri = str(shutil.copytree(finished_in_folder.uri, tmp_path / "copy"))
    assert mrigan("fetch", uri, tmp_path / "good").status == 0
    assert (tmp_path / "good/model/best.safetensors").exists()
    open_store(uri).put("model/best.safetensors", b"broken")
    ended = mrigan("fetch", uri, tmp_path / "bad")
    assert ended.status == 5
    assert "model/best.safetensors" in ended.err
    assert not (tmp_path / "bad/model/best.safetensors").exists()


def test_what_takes_the_memory_is_told_after_the_first_step(finished):
    found = get_json(finished.uri, "status.json")["memory"]
    G = Generator(100, 48, 33)
    assert found["weights_mib"] > sum(each.nbytes for each in G.parameters()) / 2**20
    # Adam keeps two numbers a weight; G has running statistics besides weights.
    assert found["optimizer_mib"] == pytest.approx(2 * found["gradients_mib"], rel=0.05)
    assert found["slices_on"] == "host"
    assert finished.ended.out.count(" memory weights_mib=") == 1


def test_the_best_snapshot_draws_what_was_scored(finished):
    best = get_json(finished.uri, "model/best.json")
    data = open_store(finished.uri).get("model/best.safetensors")
    G = Generator(best["latent_dim"], best["image_height"], best["image_width"])
    G.load_state_dict(safetensors.torch.load(data))
    with torch.no_grad():
        fakes = to_grey(G.eval()(torch.randn(13, best["latent_dim"])))
    reals = torch.from_numpy(np.stack([draw(n, 48, 33) for n in range(13)]))[:, None]
    assert np.mean(sliced_wasserstein(reals, fakes)) == pytest.approx(best["swd"], rel=0.4)
