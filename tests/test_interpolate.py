"""What lies between slices: from seed to seed in even steps, every pixel as it was drawn."""

import io

import av
import numpy as np
import pytest
import torch
from PIL import Image, ImageSequence

import mrigan
from mrigan.artifacts.grids import GAP_PX
from mrigan.errors import SettingsError
from mrigan.jobs.interpolate import interpolate, way
from mrigan.storage.store import open_store
from test_generate import HEIGHT, WIDTH, drawing_of, published


@pytest.fixture
def run(tmp_path):
    published(tmp_path / "run", "r3-tiny")
    return str(tmp_path / "run")


def draw(run, place, *, seeds=(4, 7, 2), frames=5, truncation=1.0):
    interpolate(drawing_of(run, truncation), str(place), seeds=seeds, frames=frames)


@pytest.mark.parametrize("kind", ["gif", "webp"])
def test_an_animation_passes_its_seeds_and_comes_back(run, tmp_path, kind):
    draw(run, tmp_path / f"way.{kind}")
    with Image.open(tmp_path / f"way.{kind}") as image:
        frames = [np.asarray(frame.convert("L")) for frame in ImageSequence.Iterator(image)]
        note = image.info["comment"] if kind == "gif" else image.info["xmp"]
        assert image.info["loop"] == 0
    assert len(frames) == 15
    g = mrigan.load(run, device="cpu")
    for at, seed in ((0, 4), (5, 7), (10, 2)):
        np.testing.assert_array_equal(frames[at], g.sample(1, seed=seed)[0])
    assert (b"synthetic" if kind == "gif" else b"trainedAlgorithmicMedia") in note


def test_a_video_shows_the_same_frames(run, tmp_path):
    draw(run, tmp_path / "way.mp4")
    with av.open(tmp_path / "way.mp4") as video:
        assert video.metadata["comment"] == "synthetic, made by mrigan"
        frames = [frame.to_ndarray(format="gray") for frame in video.decode(video=0)]
        assert float(video.streams.video[0].average_rate) == 12.5
    assert len(frames) == 15
    g = mrigan.load(run, device="cpu")
    for at, seed in ((0, 4), (5, 7), (10, 2)):
        assert frames[at].shape == (HEIGHT + HEIGHT % 2, WIDTH + WIDTH % 2)
        shown = frames[at][:HEIGHT, :WIDTH].astype(int)
        assert np.abs(shown - g.sample(1, seed=seed)[0]).mean() < 3  # of 255, after compression


def test_a_video_without_its_library_is_refused(run, tmp_path, monkeypatch):
    monkeypatch.setattr("mrigan.jobs.interpolate.find_spec", lambda _: None)
    with pytest.raises(SettingsError, match=r"pip install 'mrigan\[video\]'"):
        draw(run, tmp_path / "way.mp4")


def test_a_sheet_has_a_row_for_each_pair_in_a_folder_and_in_a_bucket(store_uri, run):
    draw(run, f"{store_uri}/way.png")
    data = open_store(store_uri).get("way.png")
    with Image.open(io.BytesIO(data)) as image:
        assert image.text["Synthetic"] == "true"
        grid = np.asarray(image)
    g = mrigan.load(run, device="cpu")
    for row, column, seed in ((0, 0, 4), (0, 4, 7), (1, 0, 7), (1, 4, 2)):
        top, left = (GAP_PX + at * (side + GAP_PX) for at, side in ((row, HEIGHT), (column, WIDTH)))
        cell = grid[top : top + HEIGHT, left : left + WIDTH]
        np.testing.assert_array_equal(cell, g.sample(1, seed=seed)[0])


def test_steps_are_even_and_no_shorter_than_what_was_trained_on():
    generator = torch.Generator().manual_seed(1)
    start, end = torch.randn(2, 64, generator=generator)
    latents = way(start, end, 9, closed=True).double()
    torch.testing.assert_close(latents[0], start.double(), rtol=0, atol=1e-6)
    torch.testing.assert_close(latents[-1], end.double(), rtol=0, atol=1e-6)
    lengths = latents.norm(dim=1)
    assert lengths.min() >= min(start.norm(), end.norm()) - 1e-5
    directions = latents / lengths[:, None]
    cosines = (directions[1:] * directions[:-1]).sum(1)
    torch.testing.assert_close(cosines, cosines.mean().expand(8), rtol=0, atol=1e-6)


def test_equal_and_zero_latents_make_no_nan():
    z = torch.ones(1, 6)[0]
    for pair in ((z, z), (z, -z), (z * 0, z * 0)):
        assert way(*pair, 4, closed=False).isfinite().all()


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"seeds": [1]}, "--seeds"),
        ({"seeds": [1, -1]}, "--seeds"),
        ({"frames": 1}, "--frames"),
        ({"frames": 10**6}, "--frames"),
        ({"truncation": 2.0}, "--truncation"),
    ],
)
def test_what_cannot_be_drawn_is_refused(run, tmp_path, changed, words):
    with pytest.raises(SettingsError, match=words):
        draw(run, tmp_path / "way.gif", **changed)
    assert not (tmp_path / "way.gif").exists()


@pytest.mark.parametrize("name", ["way.avi", "way", "s3://bucket"])
def test_another_kind_of_file_is_refused(run, tmp_path, name):
    with pytest.raises(SettingsError, match=r"\.gif, \.webp, \.mp4, \.png"):
        draw(run, name if name.startswith("s3") else tmp_path / name)
