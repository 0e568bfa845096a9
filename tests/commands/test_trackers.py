"""What experiment trackers are told of a run, by TensorBoard's own reader and real clients."""

import io
import json
import struct
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from mrigan.jobs.train.trackers.tracker import About
from mrigan.storage.store import open_store

SIX = {"epochs": 6, "input_uri": "phantom://4", "image_height": 32, "image_width": 35}


def rows_of(uri):
    return [json.loads(line) for line in open_store(uri).get("metrics.jsonl").splitlines()]


def events_of(uri, folder):
    """A run's event files, fetched into a folder, as TensorBoard reads them."""
    store = open_store(uri)
    for info in store.list():
        if info.key.startswith("tensorboard/"):
            (folder / Path(info.key).name).write_bytes(store.get(info.key))
    found = EventAccumulator(str(folder), size_guidance={"scalars": 0, "images": 0})
    return found.Reload()


def curve(events, name):
    return [(event.step, event.value) for event in events.Scalars(name)]


def as_told(rows, name):
    """A curve of metrics.jsonl, rounded as event files have it."""
    return [(row["images_seen"], pytest.approx(row[name], rel=1e-6)) for row in rows if name in row]


def test_tensorboard_shows_each_epoch_of_a_run_and_its_samples(train, store_uri, tmp_path):
    (tmp_path / "events").mkdir()
    assert train(store_uri, trackers="auto", **SIX).status == 0
    events, rows = events_of(store_uri, tmp_path / "events"), rows_of(store_uri)
    assert len(rows) == 6
    for name in ("training/d_loss", "score/swd", "machine/images_per_second", "progress/epoch"):
        assert curve(events, name) == as_told(rows, name.partition("/")[2]), name
    last = events.Images("samples")[-1]
    assert last.step == rows[-1]["images_seen"]
    shown = np.asarray(Image.open(io.BytesIO(last.encoded_image_string)))[..., 0]
    grid = open_store(store_uri).get("samples/epoch-0006.png")
    assert np.array_equal(shown, np.asarray(Image.open(io.BytesIO(grid))))


def test_tensorboard_has_one_curve_where_a_run_went_back(train, tmp_path):
    (tmp_path / "events").mkdir()
    uri = str(tmp_path / "run")
    assert train(uri, trackers="tensorboard", **SIX).status == 0
    for checkpoint in (tmp_path / "run/checkpoints").glob("00000002[04].*"):
        checkpoint.unlink()
    assert train(uri, trackers="tensorboard", **SIX | {"epochs": 8}).status == 0
    events, rows = events_of(uri, tmp_path / "events"), rows_of(uri)
    assert len(rows) == 8
    assert curve(events, "training/g_loss") == as_told(rows, "g_loss")
    speeds = [speed for _, speed in curve(events, "machine/images_per_second")]
    assert speeds == [pytest.approx(row["images_per_second"], rel=1e-6) for row in rows]


def test_a_tensorboard_that_does_not_work_costs_a_warning_and_no_more(
    train, tmp_path, tinier, monkeypatch
):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)  # as one that can't import
    ended = train(str(tmp_path / "run"), trackers="tensorboard", **tinier)
    assert ended.status == 0
    assert ended.out.count("tracker_failed tracker=tensorboard") == 1
    assert not (tmp_path / "run/tensorboard").exists()


def test_mlflow_creates_one_run_whatever_fails_next(tmp_path, mlflow_folder, monkeypatch):
    from mlflow import MlflowClient

    from mrigan.jobs.train.trackers.mlflow import Mlflow

    log_batch, names = MlflowClient.log_batch, []
    about = About("first", "s3://b/first", {"epochs": 3}, "", names.append)

    def away(*_, **__):
        raise OSError("away")

    monkeypatch.setattr(MlflowClient, "log_batch", away)
    with pytest.raises(OSError, match="away"):
        Mlflow(about)
    monkeypatch.setattr(MlflowClient, "log_batch", log_batch)
    Mlflow(replace(about, known=names[0]))
    assert len(names) == 1
    (run,) = [path.parent for path in mlflow_folder.glob("*/*/meta.yaml")]
    assert (run / "params/epochs").read_text() == "3"


def test_a_run_without_trackers_writes_no_file_for_them(train, tmp_path, tinier):
    assert train(str(tmp_path / "run"), trackers="none", **tinier).status == 0
    assert not (tmp_path / "run/tensorboard").exists()


@pytest.mark.parametrize(
    ("trackers", "told"),
    [
        ("tensorbord", "'tensorbord' is no tracker; choose auto, none or some of"),
        ("mlflow,", "'' is no tracker"),
        ("tensorboard,auto", "'auto' is no tracker"),
        ("mlflow", "MLFLOW_TRACKING_URI is not set; set it to your server's URL"),
        ("wandb", "has no API key; set WANDB_API_KEY, or WANDB_MODE=offline"),
    ],
)
def test_a_tracker_that_can_be_told_nothing_is_refused_at_once(
    train, tmp_path, monkeypatch, trackers, told
):
    for name in ("MLFLOW_TRACKING_URI", "WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    ended = train(str(tmp_path / "run"), trackers=trackers)
    assert ended.status == 2
    assert told in ended.err
    assert not (tmp_path / "run").exists()


def test_a_tracker_that_is_not_installed_is_refused_with_its_extra(train, tmp_path, monkeypatch):
    choice = "mrigan.jobs.train.trackers.choice"
    monkeypatch.setattr(f"{choice}.find_spec", lambda _: None)
    ended = train(str(tmp_path / "run"), trackers="tensorboard")
    assert ended.status == 2
    assert "tensorboard, which is not installed: pip install 'mrigan[tensorboard]'" in ended.err
    assert train(str(tmp_path / "run"), trackers="auto", **SIX | {"epochs": 1}).status == 0


@pytest.fixture
def mlflow_folder(tmp_path, monkeypatch):
    """Where MLflow's own client keeps what it is told, without a server."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "mlflow").as_uri())
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    return tmp_path / "mlflow"


@pytest.mark.slow
def test_mlflow_has_one_run_for_all_starts(spawn_train, tmp_path, mlflow_folder):
    uri = str(tmp_path / "first")
    for epochs in (4, 6):
        process = spawn_train(uri, trackers="mlflow", **SIX | {"epochs": epochs})
        out, err = process.communicate(timeout=240)
        assert process.returncode == 0, out + err
        assert "tracker" not in out
    (run,) = [path.parent for path in mlflow_folder.glob("*/*/meta.yaml")]
    meta = (run / "meta.yaml").read_text()
    assert "run_name: first" in meta
    assert "status: 3" in meta  # FINISHED
    assert (run / "params/image_width").read_text() == "35"
    assert (run / "tags/mrigan.uri").read_text() == uri
    found = [line.split() for line in (run / "metrics/training/d_loss").read_text().splitlines()]
    told = [(int(step), float(value)) for _, value, step, *_ in found]
    assert told == [(row["images_seen"], row["d_loss"]) for row in rows_of(uri)]
    grid = next(path for path in run.glob("artifacts/samples/epoch-0006.png"))
    assert grid.read_bytes() == (tmp_path / "first/samples/epoch-0006.png").read_bytes()


@pytest.mark.slow
def test_a_tracker_that_is_away_costs_a_warning_and_no_more(spawn_train, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")  # nobody listens there
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    process = spawn_train(str(tmp_path / "run"), trackers="mlflow", **SIX)
    out, err = process.communicate(timeout=240)
    assert process.returncode == 0, err
    assert out.count("tracker_failed tracker=mlflow") == 1
    assert "tracker_missed tracker=mlflow" in out
    assert "completed epochs=6" in out


@pytest.mark.slow
def test_weights_and_biases_has_each_epoch_and_the_samples(spawn_train, tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    uri = str(tmp_path / "first")
    process = spawn_train(uri, trackers="wandb", **SIX)
    out, err = process.communicate(timeout=240)
    assert process.returncode == 0, out + err
    assert "tracker" not in out
    (file,) = tmp_path.glob("wandb/offline-run-*/*.wandb")
    told = [
        {
            item.nested_key[0] if item.nested_key else item.key: item.value_json
            for item in record.history.item
        }
        for record in records_of(file)
        if record.HasField("history")
    ]
    losses = [
        (int(row["images_seen"]), float(row["training/d_loss"]))
        for row in told
        if "training/d_loss" in row
    ]
    assert losses == [(row["images_seen"], row["d_loss"]) for row in rows_of(uri)]
    own = json.loads((tmp_path / "first/trackers.json").read_text())["wandb"]
    assert file.name == f"run-{own}.wandb"
    pictures = [
        np.asarray(Image.open(path))
        for path in file.parent.glob("files/media/images/samples_*.png")
    ]
    last = np.asarray(Image.open(tmp_path / "first/samples/epoch-0006.png"))
    assert any(np.array_equal(picture, last) for picture in pictures)


def records_of(file):
    """The records of a ``.wandb`` file: LevelDB's log format behind a header of 7 bytes."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, at, part = file.read_bytes(), 7, b""
    while at + 7 <= len(data):
        if 2**15 - at % 2**15 < 7:  # too little of the block is left for a header
            at += 2**15 - at % 2**15
            continue
        _, length, kind = struct.unpack("<IHB", data[at : at + 7])
        part += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last of several parts
            yield Record.FromString(part)
            part = b""
