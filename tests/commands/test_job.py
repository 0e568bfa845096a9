"""A run from slices to artifacts, in a folder and in a bucket alike."""

import hashlib
import io
import json

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image

from mrigan.data.phantom import draw
from mrigan.data.slices import to_grey
from mrigan.models.dcgan.networks import Generator
from mrigan.storage.store import open_store
from mrigan.training.loop import fixed_latents

HEIGHT, WIDTH = 48, 33
TREE = [
    "checkpoints/000000013.json",
    "checkpoints/000000013.pt",
    "checkpoints/000000026.json",
    "checkpoints/000000026.pt",
    "checkpoints/000000039.json",
    "checkpoints/000000039.pt",
    "data/manifest.jsonl",
    "metrics.jsonl",
    "model/README.md",
    "model/best.json",
    "model/best.safetensors",
    "model/config.json",
    "model/generator.safetensors",
    "plots/losses.png",
    "report.html",
    "run.json",
    "samples/epoch-0001.png",
    "samples/epoch-0002.png",
    "samples/epoch-0003.png",
    "samples/real.png",
    "status.json",
]


def get_json(uri, key):
    return json.loads(open_store(uri).get(key))


def get_lines(uri, key):
    return [json.loads(line) for line in open_store(uri).get(key).splitlines()]


def slices_of_grid(png, count, columns=8):
    """Cut a grid into its slices (count, H, W)."""
    grid = np.asarray(Image.open(io.BytesIO(png)))
    assert grid.dtype == np.uint8
    gap = 2
    rows = -(-count // columns)
    assert grid.shape == (rows * (HEIGHT + gap) + gap, columns * (WIDTH + gap) + gap)
    tops = [gap + index // columns * (HEIGHT + gap) for index in range(count)]
    lefts = [gap + index % columns * (WIDTH + gap) for index in range(count)]
    return np.stack(
        [
            grid[top : top + HEIGHT, left : left + WIDTH]
            for top, left in zip(tops, lefts, strict=True)
        ]
    )


def test_a_run_leaves_the_tree_that_the_design_draws(finished, content):
    assert finished.ended.status == 0
    assert finished.ended.err == ""
    assert sorted(content(finished.uri)) == TREE


def test_the_status_says_that_it_is_complete(finished):
    status = get_json(finished.uri, "status.json")
    assert status.pop("started") <= status.pop("updated")
    summary = status.pop("summary")
    assert summary["swd_against"] == "training"  # dcgan holds nothing out, unless told to
    assert summary["best"]["epoch"] in (1, 3)
    assert summary["alarms"] == []
    assert status.pop("memory")["micro_batch"] == 4
    assert status == {
        "state": "completed",
        "reason": "",
        "exit_status": 0,
        "epoch": 3,
        "epochs": 3,
        "images_seen": 39,
    }


def test_every_epoch_has_one_row_of_metrics(finished):
    rows = get_lines(finished.uri, "metrics.jsonl")
    assert [(row["epoch"], row["images_seen"]) for row in rows] == [(1, 13), (2, 26), (3, 39)]
    for row in rows:
        assert row["d_loss"] == pytest.approx(row["real_loss"] + row["fake_loss"], abs=2e-6)
        assert 0 < row["real_score"] < 1
        assert 0 < row["fake_score"] < 1
        assert row["seconds"] > 0
        assert row["peak_rss_mib"] > 10
    assert rows[0]["d_loss"] == pytest.approx(2 * np.log(2), abs=0.05)


def test_the_manifest_names_every_slice(finished):
    entries = get_lines(finished.uri, "data/manifest.jsonl")
    assert [entry["key"] for entry in entries] == [f"phantom-{index:06d}" for index in range(13)]
    assert [entry["row"] for entry in entries] == list(range(13))
    assert {entry["status"] for entry in entries} == {"used"}


def test_the_grid_of_reals_is_the_slices_as_they_are(finished):
    shown = slices_of_grid(open_store(finished.uri).get("samples/real.png"), 13)
    assert np.array_equal(shown, [draw(index, HEIGHT, WIDTH) for index in range(13)])


def test_the_last_grid_is_what_the_published_generator_draws(finished):
    store = open_store(finished.uri)
    config = get_json(finished.uri, "model/config.json")
    G = Generator(config["latent_dim"], config["image_height"], config["image_width"])
    G.load_state_dict(safetensors.torch.load(store.get("model/generator.safetensors")))
    with torch.no_grad():
        drawn = to_grey(G.eval()(fixed_latents(32, config["latent_dim"], 0)))[:, 0].numpy()
    shown = slices_of_grid(store.get("samples/epoch-0003.png"), 32)
    assert np.abs(shown.astype(int) - drawn).max() <= 1
    assert np.ptp(shown) > 0
    earlier = slices_of_grid(store.get("samples/epoch-0001.png"), 32)
    assert np.abs(earlier.astype(int) - drawn).max() > 1


def test_a_checkpoint_is_tensors_and_the_facts_that_vouch_for_them(finished, content):
    objects = content(finished.uri)
    facts = json.loads(objects["checkpoints/000000039.json"])
    data = objects["checkpoints/000000039.pt"]
    assert facts["sha256"] == hashlib.sha256(data).hexdigest()
    assert (facts["size_bytes"], facts["images_seen"], facts["epoch"]) == (len(data), 39, 3)
    settings = json.loads(objects["run.json"])
    assert facts["identity"] == settings["identity"]
    assert facts["versions"] == settings["versions"]
    saved = torch.load(io.BytesIO(data), weights_only=True)
    published = safetensors.torch.load(objects["model/generator.safetensors"])
    assert published.keys() == saved["G"].keys()
    assert all(torch.equal(published[name], value) for name, value in saved["G"].items())


def test_the_config_is_enough_to_rebuild_the_generator(finished, content):
    objects = content(finished.uri)
    weights = objects["model/generator.safetensors"]
    assert json.loads(objects["model/config.json"]) == {
        "model": "dcgan",
        "latent_dim": 100,
        "image_height": HEIGHT,
        "image_width": WIDTH,
        "output_range": [-1, 1],
        "images_seen": 39,
        "epoch": 3,
        "sha256": hashlib.sha256(weights).hexdigest(),
        "size_bytes": len(weights),
    }


def test_the_settings_are_recorded_as_resolved(finished):
    facts = get_json(finished.uri, "run.json")
    assert facts["settings"]["g_lr"] == 0.0002
    assert facts["settings"]["output_uri"] == finished.uri
    assert facts["data"]["slices"] == 13
    assert facts["machine"]["device"] == "cpu"
    assert facts["versions"]["torch"] == torch.__version__


def test_no_credential_is_written_or_said(finished_in_bucket, aws_environ, content):
    said = finished_in_bucket.ended.out.encode()
    for key, data in {**content(finished_in_bucket.uri), "the log": said}.items():
        assert b"testing-key" not in data, key
        assert b"testing-secret" not in data, key


def test_the_end_says_where_everything_is(finished, content):
    out = finished.ended.out
    assert f"completed epochs=3 uri={_quoted(finished.uri)}" in out
    said = [line.split("=", 1)[1].strip('"') for line in out.splitlines() if " published " in line]
    keys = [uri.removeprefix(f"{finished.uri}/") for uri in said]
    assert len(keys) == 6
    assert content(finished.uri).keys() >= set(keys)


def _quoted(uri):
    return f'"{uri}"' if " " in uri else uri


def test_samples_and_checkpoints_come_as_often_as_asked_for(tmp_path, train, content, tinier):
    uri = str(tmp_path / "run")
    ended = train(uri, epochs=4, sample_every=3, checkpoint_every=10, **tinier)
    assert ended.status == 0
    keys = content(uri).keys()
    assert [key for key in keys if key.startswith("samples/epoch")] == [
        "samples/epoch-0003.png",
        "samples/epoch-0004.png",
    ]
    assert [key for key in keys if key.endswith(".pt")] == ["checkpoints/000000016.pt"]


def test_a_checkpoint_comes_after_its_minutes_in_the_middle_of_an_epoch(tmp_path, train, content):
    uri = str(tmp_path / "run")
    assert train(uri, epochs=1, checkpoint_minutes=1e-6, keep_checkpoints=9).status == 0
    assert [key for key in content(uri) if key.endswith(".pt")] == [
        "checkpoints/000000008.pt",
        "checkpoints/000000013.pt",
    ]
