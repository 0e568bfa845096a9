"""Slices from a trained generator: loaded in a notebook, and written by ``mrigan generate``."""

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image

import mrigan
from mrigan.artifacts import run_tree
from mrigan.artifacts.generator import latent
from mrigan.errors import SettingsError, StorageError, UnreadableError
from mrigan.jobs.drawing import Drawing
from mrigan.jobs.generate.job import generate
from mrigan.jobs.generate.request import PIECE_IMAGES, Request
from mrigan.jobs.train.generators import publish_generator
from mrigan.models.family import family_of
from mrigan.settings.fields import Settings
from mrigan.storage.store import StoreOptions, open_store

HEIGHT, WIDTH = 37, 45
DEADLINE_SECONDS = 120
MODELS = ["dcgan", "r3-tiny"]


def published(uri, model="dcgan", seed=0):
    """A run in which an untrained generator was published; returns its network."""
    settings = Settings(model=model, image_height=HEIGHT, image_width=WIDTH)
    torch.manual_seed(seed)
    network, _ = family_of(model).networks(settings)
    store = open_store(str(uri))
    store.put(run_tree.RUN, b"{}")
    publish_generator(store, settings, network.state_dict(), images_seen=512, epoch=3)
    return network.eval()


@pytest.fixture(scope="module", params=MODELS)
def run(request, tmp_path_factory):
    uri = str(tmp_path_factory.mktemp("runs") / request.param)
    return uri, published(uri, request.param)


@pytest.fixture
def dcgan(tmp_path):
    published(tmp_path / "run")
    return str(tmp_path / "run")


def drawing_of(run, truncation=1.0):
    return Drawing(
        run=run, which="latest", truncation=truncation, device="cpu", options=StoreOptions()
    )


def written(run, out, *, count=40, should_stop=lambda: False, truncation=1.0, **changed):
    request = Request(drawing=drawing_of(run, truncation), out=str(out), count=count, **changed)
    return generate(request, should_stop)


def content(uri):
    store = open_store(str(uri))
    return {info.key: store.get(info.key) for info in store.list()}


def test_slices_are_what_the_network_draws(run):
    uri, network = run
    g = mrigan.load(uri, device="cpu")
    floats = g.sample_floats(5, seed=7)
    assert (floats.shape, floats.dtype) == ((5, 1, HEIGHT, WIDTH), torch.float32)
    z = torch.stack([latent(seed, g.config.latent_dim) for seed in range(7, 12)])
    with torch.no_grad():
        drawn = network(z).clamp(-1, 1)
    torch.testing.assert_close(floats, drawn, rtol=0, atol=2e-5)
    assert floats.abs().max() <= 1
    slices = g.sample(5, seed=7)
    assert (slices.shape, slices.dtype) == ((5, HEIGHT, WIDTH), np.uint8)
    np.testing.assert_array_equal(slices, np.rint((floats[:, 0].numpy() + 1) * 127.5))
    assert (g.config.epoch, g.config.images_seen, g.config.image_width) == (3, 512, WIDTH)


@pytest.mark.parametrize("count", [1, 2, 15, 16, 17, 40])
def test_a_seed_gives_the_same_bits_whatever_is_drawn_with_it(run, count):
    g = mrigan.load(run[0], device="cpu")
    many = g.sample_floats(64)
    assert torch.equal(g.sample_floats(count, seed=20), many[20 : 20 + count][:44])
    assert len(torch.unique(many.flatten(1), dim=0)) == 64


def test_truncation_scales_the_latents(run):
    g = mrigan.load(run[0], device="cpu")
    alike = g.sample_floats(3, truncation=0.0)
    assert torch.equal(alike[0], alike[1])
    spreads = [g.sample_floats(16, truncation=t).std(0).mean() for t in (0.2, 0.6, 1.0)]
    assert spreads == sorted(spreads)


def test_loading_leaves_the_callers_random_numbers(dcgan):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    mrigan.load(dcgan, device="cpu").sample(1)
    assert torch.equal(torch.rand(3), expected)


def test_a_grid_is_a_picture(dcgan):
    grid = mrigan.load(dcgan, device="cpu").grid(10, columns=4)
    assert grid.size == (4 * (WIDTH + 2) + 2, 3 * (HEIGHT + 2) + 2)


@pytest.mark.parametrize(
    ("count", "options", "words"),
    [
        (-1, {}, "count"),
        (1, {"seed": -1}, "seed"),
        (1, {"seed": 2**62}, "seed"),
        (1, {"truncation": 1.1}, "truncation"),
        (1, {"truncation": float("nan")}, "truncation"),
    ],
)
def test_a_number_out_of_range_is_refused(dcgan, count, options, words):
    with pytest.raises(ValueError, match=words):
        mrigan.load(dcgan, device="cpu").sample(count, **options)


@pytest.mark.parametrize("name", ["which", "device"])
def test_an_unknown_choice_is_refused(dcgan, name):
    with pytest.raises(ValueError, match=name):
        mrigan.load(dcgan, **{name: "newest"})


def test_what_is_not_there_is_said(dcgan, tmp_path):
    with pytest.raises(StorageError, match="no run is there"):
        mrigan.load(str(tmp_path / "nothing"))
    with pytest.raises(StorageError, match="no best generator yet; it is published when a score"):
        mrigan.load(dcgan, which="best")
    (Path(dcgan) / run_tree.GENERATOR).unlink()
    with pytest.raises(StorageError, match="is not there"):
        mrigan.load(dcgan)


def rewritten(run, data, **changed):
    """Put other weights into a run, with a config that vouches for them."""
    config_path = Path(run) / run_tree.GENERATOR_CONFIG
    facts = {"sha256": hashlib.sha256(data).hexdigest(), "size_bytes": len(data)}
    config = json.loads(config_path.read_text()) | facts | changed
    (Path(run) / run_tree.GENERATOR).write_bytes(data)
    config_path.write_text(json.dumps(config))


def weights_of(run):
    return safetensors.torch.load((Path(run) / run_tree.GENERATOR).read_bytes())


def header(size):
    return size.to_bytes(8, "little")


HOSTILE = {
    "long header": lambda run: header(2**40) + b"{}" * 100,
    "deep header": lambda run: header(200_000) + b"[" * 200_000,
    "no header": lambda run: b"abc",
    "empty": lambda run: b"",
    "pickle": lambda run: b"\x80\x04cos\nsystem\n.",
    "other tensors": lambda run: safetensors.torch.save({"weight": torch.zeros(3)}),
    "other shapes": lambda run: safetensors.torch.save(
        {name: value.flatten()[:1] for name, value in weights_of(run).items()}
    ),
    "not finite": lambda run: safetensors.torch.save(
        {name: value * float("nan") for name, value in weights_of(run).items()}
    ),
    "overlapping": lambda run: overlapping(weights_of(run)),
    "huge": lambda run: safetensors.torch.save({"weight": torch.zeros(3_000_000)}),
}


def overlapping(weights):
    names = {
        name: {"dtype": "F32", "shape": list(value.shape), "data_offsets": [0, 4 * value.numel()]}
        for name, value in weights.items()
    }
    text = json.dumps(names).encode()
    return header(len(text)) + text + b"\0" * 4 * max(v.numel() for v in weights.values())


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_weights_are_refused_in_one_line(dcgan, name):
    rewritten(dcgan, HOSTILE[name](dcgan))
    with pytest.raises(UnreadableError) as caught:
        mrigan.load(dcgan, device="cpu")
    assert run_tree.GENERATOR in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_flipped_bit_is_noticed(dcgan):
    path = Path(dcgan) / run_tree.GENERATOR
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(StorageError, match=r"generator\.safetensors"):
        mrigan.load(dcgan, device="cpu")


@pytest.mark.parametrize(
    "changed",
    [
        {"image_height": 10**9},
        {"image_width": -1},
        {"latent_dim": 10**12},
        {"latent_dim": "100"[:0]},
        {"sha256": "../../etc"},
        {"model": "stylegan"},
        {"model": ["dcgan"]},
        {"model": "os"},
    ],
)
def test_a_hostile_config_is_refused_in_one_line(dcgan, changed):
    rewritten(dcgan, (Path(dcgan) / run_tree.GENERATOR).read_bytes(), **changed)
    with pytest.raises(UnreadableError, match=r"model/config\.json: .*version"):
        mrigan.load(dcgan, device="cpu")


def test_each_png_says_that_it_is_synthetic_and_can_be_drawn_again(run, tmp_path):
    uri, _ = run
    assert written(uri, tmp_path / "out", count=23, first_seed=100)
    rows = run_tree.read_rows(open_store(str(tmp_path / "out")), "manifest.jsonl")
    assert [row["seed"] for row in rows] == list(range(100, 123))
    files = {f"slices/seed-{seed:07d}.png" for seed in range(100, 123)}
    assert content(tmp_path / "out").keys() == files | {"manifest.jsonl", "generation.json"}
    g = mrigan.load(uri, device="cpu")
    for row in rows:
        data = (tmp_path / "out" / row["file"]).read_bytes()
        assert hashlib.sha256(data).hexdigest() == row["sha256"]
        with Image.open(tmp_path / "out" / row["file"]) as image:
            assert image.text["Synthetic"] == "true"
            assert image.text["Seed"] == str(row["seed"])
            pixels = np.asarray(image)
        np.testing.assert_array_equal(pixels, g.sample(1, seed=row["seed"])[0])
        assert hashlib.sha256(pixels.tobytes()).hexdigest() == row["pixels_sha256"]
    about = json.loads((tmp_path / "out" / "generation.json").read_text())
    assert about["synthetic"] is about["complete"] is True
    assert about["generator_sha256"] == g.config.sha256


def test_sixteen_bits_and_floats_keep_what_is_between_two_grey_levels(dcgan, tmp_path):
    for kind in ("png16", "npy"):
        written(dcgan, tmp_path / kind, count=3, kind=kind)
    floats = mrigan.load(dcgan, device="cpu").sample_floats(3)[:, 0].numpy()
    for seed in range(3):
        exact = np.load(tmp_path / f"npy/slices/seed-{seed:07d}.npy")
        np.testing.assert_array_equal(exact, floats[seed])
        with Image.open(tmp_path / f"png16/slices/seed-{seed:07d}.png") as image:
            deep = np.asarray(image).astype(np.float64)
            assert image.text["Synthetic"] == "true"
        np.testing.assert_array_equal(deep, np.rint((floats[seed].astype(float) + 1) * 32767.5))


def test_all_in_one_file_in_a_folder_and_in_a_bucket(store_uri, dcgan):
    count = 2 * PIECE_IMAGES + 5
    assert written(dcgan, store_uri, count=count, kind="npz", first_seed=9)
    found = content(store_uri)
    assert found.keys() == {"slices.npz", "manifest.jsonl", "generation.json"}
    path = Path(dcgan) / "back.npz"
    path.write_bytes(found["slices.npz"])
    with np.load(path, allow_pickle=False) as packed:
        expected = mrigan.load(dcgan, device="cpu").sample(count, seed=9)
        np.testing.assert_array_equal(packed["images"], expected)
        np.testing.assert_array_equal(packed["seeds"], np.arange(9, 9 + count))
        assert packed["synthetic"]
        assert json.loads(str(packed["about"]))["generator_sha256"]


@pytest.mark.parametrize("kind", ["png", "npz"])
def test_a_stop_keeps_what_is_there_and_the_rest_follows(dcgan, tmp_path, kind):
    count = 3 * PIECE_IMAGES + 1
    assert written(dcgan, tmp_path / "whole", count=count, kind=kind)
    asks = iter(range(10**6))
    many = 2 * PIECE_IMAGES // 16 + 5
    assert not written(
        dcgan, tmp_path / "out", count=count, kind=kind, should_stop=lambda: next(asks) > many
    )
    kept = [key for key in content(tmp_path / "out") if key.endswith(".jsonl")]
    assert kept
    assert written(dcgan, tmp_path / "out", count=count, kind=kind)
    assert content(tmp_path / "out") == content(tmp_path / "whole")


def test_the_same_again_changes_nothing_and_another_request_is_refused(dcgan, tmp_path):
    out = tmp_path / "out"
    written(dcgan, out)
    before = content(out)
    times = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    assert written(dcgan, out)
    assert times == {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    for changed in ({"count": 41}, {"first_seed": 1}, {"truncation": 0.5}, {"kind": "npy"}):
        with pytest.raises(SettingsError, match=f"holds other slices: {next(iter(changed))}"):
            written(dcgan, out, **changed)
    published(dcgan, seed=1)
    with pytest.raises(SettingsError, match="generator_sha256"):
        written(dcgan, out)
    assert content(out) == before


def test_what_a_kill_at_the_very_end_has_left_goes(dcgan, tmp_path):
    written(dcgan, tmp_path / "out")
    whole = content(tmp_path / "out")
    (tmp_path / "out/pieces").mkdir()
    (tmp_path / "out/pieces/000000.jsonl").write_bytes(whole["manifest.jsonl"])
    assert written(dcgan, tmp_path / "out")
    assert content(tmp_path / "out") == whole
    assert not (tmp_path / "out/pieces").exists()


def test_a_folder_with_other_files_is_left_alone(dcgan, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").write_text("text")
    with pytest.raises(SettingsError, match=r"thesis\.txt"):
        written(dcgan, tmp_path / "mine")
    assert content(tmp_path / "mine") == {"thesis.txt": b"text"}


@pytest.mark.parametrize(
    ("changed", "name"),
    [
        ({"count": 0}, "--count"),
        ({"count": 10**9}, "--count"),
        ({"first_seed": -1}, "--first-seed"),
        ({"first_seed": 2**62}, "--first-seed"),
        ({"truncation": 1.5}, "--truncation"),
        ({"processes": 0}, "--processes"),
        ({"kind": "jpeg"}, "--format"),
    ],
)
def test_what_cannot_be_drawn_is_refused_before_anything_is_written(dcgan, tmp_path, changed, name):
    with pytest.raises(SettingsError, match=name):
        written(dcgan, tmp_path / "out", **changed)
    assert not (tmp_path / "out").exists()


def command(*arguments, start_new_session=False):
    arguments = [sys.executable, "-m", "mrigan", "generate", *map(str, arguments)]
    return subprocess.Popen(
        arguments,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ,
        start_new_session=start_new_session,
    )


@pytest.mark.slow
def test_a_kill_and_two_processes_change_no_bit(dcgan, tmp_path):
    count = 24 * PIECE_IMAGES + 3
    process = command(dcgan, tmp_path / "out", "--count", count)
    waited = time.monotonic()
    while not (tmp_path / "out/pieces/000001.jsonl").exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() - waited < DEADLINE_SECONDS
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (tmp_path / "out/manifest.jsonl").exists()
    process = command(dcgan, tmp_path / "out", "--count", count, "--processes", 2)
    said, complaints = process.communicate()
    assert process.returncode == 0, complaints
    assert f"of={count}" in said
    assert not complaints
    assert written(dcgan, tmp_path / "whole", count=count)
    ours, theirs = content(tmp_path / "out"), content(tmp_path / "whole")
    assert ours == theirs


def two_processes_that_draw(dcgan, out):
    """Start them, and wait until they do."""
    process = command(dcgan, out, "--count", 10**6, "--processes", 2, start_new_session=True)
    waited = time.monotonic()
    while not (out / "pieces/000003.jsonl").exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() - waited < DEADLINE_SECONDS
        time.sleep(0.01)
    return process


@pytest.mark.slow
def test_a_terminal_s_ctrl_c_stops_all_processes_in_good_order(dcgan, tmp_path):
    process = two_processes_that_draw(dcgan, tmp_path / "out")
    os.killpg(process.pid, signal.SIGINT)
    said, complaints = process.communicate(timeout=DEADLINE_SECONDS)
    assert (process.returncode, complaints) == (143, "")
    assert "generate_interrupted" in said


@pytest.mark.slow
def test_a_process_that_is_killed_ends_the_command_in_one_line(dcgan, tmp_path):
    process = two_processes_that_draw(dcgan, tmp_path / "out")
    started = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    drawing = [
        int(pid) for pid in started if "spawn_main" in Path(f"/proc/{pid}/cmdline").read_text()
    ]
    assert len(drawing) == 2
    os.kill(drawing[0], signal.SIGKILL)
    _, complaints = process.communicate(timeout=DEADLINE_SECONDS)
    assert process.returncode == 1
    assert re.fullmatch(
        r"mrigan: a process that drew slices was killed, .*--processes\n", complaints
    )


def test_the_readme_s_lines_run(dcgan, tmp_path, monkeypatch):
    readme = (Path(__file__).parents[1] / "README.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(code.replace("runs/first", dcgan), names)
    assert names["slices"].shape == (16, HEIGHT, WIDTH)
    with Image.open(tmp_path / "grid.png") as grid:
        assert grid.width > 8 * WIDTH
