"""A generator as a file for other programs: it draws the same slices, or it is not written."""

import json
import warnings

import onnx
import onnxruntime
import pytest
import torch

import mrigan
from mrigan.errors import SettingsError, StorageError
from mrigan.jobs import export as job
from mrigan.jobs.export import ExportError, export
from mrigan.storage.store import open_store
from test_generate import HEIGHT, WIDTH, drawing_of, published

LATENTS = {"dcgan": 100, "r3-tiny": 64}


def check_facts(about, model, generator):
    assert about.pop("note").startswith("draws synthetic slices")
    assert about == {
        "synthetic": "true",
        "model": model,
        "generator_sha256": generator.config.sha256,
        "image_height": str(HEIGHT),
        "image_width": str(WIDTH),
        "latent_dim": str(LATENTS[model]),
        "epoch": "3",
        "images_seen": "512",
    }


@pytest.fixture(scope="module", params=list(LATENTS))
def run(request, tmp_path_factory):
    uri = str(tmp_path_factory.mktemp("runs") / request.param)
    published(uri, request.param)
    return uri, request.param


def test_onnx_draws_what_the_generator_draws(run, store_uri):
    uri, model = run
    export(drawing_of(uri), f"{store_uri}/generator.onnx")
    data = open_store(store_uri).get("generator.onnx")
    onnx.checker.check_model(onnx.load_from_string(data))
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    (z,), (images,) = session.get_inputs(), session.get_outputs()
    assert (z.name, z.shape[1], images.name) == ("z", LATENTS[model], "images")
    g = mrigan.load(uri, device="cpu")
    for count in (1, 5, 16):
        z = torch.randn(count, LATENTS[model], generator=torch.Generator().manual_seed(count))
        (found,) = session.run(None, {"z": z.numpy()})
        assert found.shape == (count, 1, HEIGHT, WIDTH)
        assert abs(torch.from_numpy(found) - g.draw_latents(z)).max() <= 1e-4
    check_facts(session.get_modelmeta().custom_metadata_map, model, g)


def test_pt2_draws_what_the_generator_draws(run, tmp_path):
    uri, model = run
    export(drawing_of(uri), str(tmp_path / "generator.pt2"))
    extra = {"about.json": ""}
    with warnings.catch_warnings():  # torch 2.11's own, of how it reads
        warnings.filterwarnings("ignore", "The given buffer is not writable", UserWarning)
        module = torch.export.load(tmp_path / "generator.pt2", extra_files=extra).module()
    g = mrigan.load(uri, device="cpu")
    check_facts(json.loads(extra["about.json"]), model, g)
    for count in (1, 7, 16):
        z = torch.randn(count, LATENTS[model], generator=torch.Generator().manual_seed(count))
        torch.testing.assert_close(module(z), g.draw_latents(z), rtol=0, atol=1e-5)


def test_values_beyond_the_range_are_clamped(tmp_path):
    uri = str(tmp_path / "run")
    published(uri, "r3-tiny")
    g = mrigan.load(uri, device="cpu")
    z = torch.randn(4, LATENTS["r3-tiny"], generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        assert g.network(z).abs().max() > 1.5
    _, draws = job._pt2(job._program(g), {})
    assert draws(z).abs().max() == 1.0


@pytest.mark.parametrize("kind", ["onnx", "pt2"])
def test_what_differs_is_not_written(tmp_path, monkeypatch, kind):
    uri = str(tmp_path / "run")
    published(uri, "dcgan")
    published(tmp_path / "other", "dcgan", seed=1)
    other, program = mrigan.load(str(tmp_path / "other"), device="cpu"), job._program
    monkeypatch.setattr(job, "_program", lambda _: program(other))
    with pytest.raises(ExportError, match="differs from the generator by"):
        export(drawing_of(uri), str(tmp_path / f"out/generator.{kind}"))
    assert not (tmp_path / "out").exists()


def test_what_can_not_be_exported_is_refused(tmp_path, monkeypatch):
    published(tmp_path / "run")
    with pytest.raises(SettingsError, match=r"none of \.onnx, \.pt2"):
        export(drawing_of(str(tmp_path / "run")), str(tmp_path / "generator.pth"))
    with pytest.raises(StorageError, match="no run is there"):
        export(drawing_of(str(tmp_path / "nowhere")), str(tmp_path / "generator.pt2"))
    monkeypatch.setattr(job, "find_spec", lambda name: None if name == "onnx" else name)
    with pytest.raises(SettingsError, match=r"onnx not installed; pip install 'mrigan\[export\]'"):
        export(drawing_of(str(tmp_path / "run")), str(tmp_path / "generator.onnx"))
    assert {path.name for path in tmp_path.iterdir()} == {"run"}
