"""Each way a job can fail: its exit status, its one line, and what it leaves behind."""

import json
import os
import re
import signal
import socket
import threading
from itertools import chain, repeat
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mrigan.artifacts import publisher as publisher_module
from mrigan.artifacts.publisher import Publisher
from mrigan.jobs.train import recorder as train_module
from mrigan.storage.store import open_store
from tiny import newest


def the_line(ended):
    """The one line of a failed command."""
    assert re.fullmatch(r"mrigan: [^\n]+\n", ended.err), ended.err
    assert "Traceback" not in ended.out
    return ended.err.removeprefix("mrigan: ").rstrip()


def status_of(uri):
    return json.loads(open_store(uri).get("status.json"))


def assert_failed(uri, status, reason):
    found = status_of(uri)
    assert (found["state"], found["exit_status"]) == ("failed", status)
    assert " ".join(found["reason"].split()) == reason


@pytest.fixture
def output(tmp_path):
    return str(tmp_path / "output")


@pytest.fixture
def slices(tmp_path):
    """A folder for slices, with a way to put good ones in."""
    folder = tmp_path / "slices"
    folder.mkdir()
    rng = np.random.default_rng(1)

    def put(*names):
        for name in names:
            Image.fromarray(rng.integers(0, 256, (40, 36), np.uint8)).save(folder / name)

    return folder, put


def test_training_that_diverges_fails_and_keeps_its_last_checkpoint(train, output, monkeypatch):
    # 60 finite steps of D and as many of G, then none. The state is copied where an epoch begins,
    # 50 steps or more after the last copy; of 13 steps each, that is where the 4th has ended.
    flags = chain([True] * 120, repeat(False))
    monkeypatch.setattr("mrigan.training.step.is_finite_step", lambda *_: torch.tensor(next(flags)))
    ended = train(output, epochs=6, batch_size=1, accumulation_steps=1)
    assert ended.status == 3
    line = the_line(ended)
    assert re.match(r"training diverged: .* not finite at \d+ images, after 3 .* MRIGAN_G_LR", line)
    assert ended.out.count(" WARNING rolled_back nonfinite=1 ") == 3
    assert ended.out.count(" WARNING diverged nonfinite=1 ") == 1
    saved = newest(open_store(output))
    assert saved.images_seen == 4 * 13
    weights = saved.content
    assert all(value.isfinite().all() for part in "GD" for value in weights[part].values())
    assert_failed(output, 3, line)
    assert saved.images_seen <= status_of(output)["images_seen"] < 6 * 13


def test_rates_that_are_too_high_end_the_run(train, output):
    ended = train(output, g_lr=1, d_lr=1, beta1=0.9, beta2=0)
    assert ended.status == 3
    assert "lower MRIGAN_G_LR and MRIGAN_D_LR" in the_line(ended)
    saved = newest(open_store(output))
    weights = saved.content
    assert all(value.isfinite().all() for part in "GD" for value in weights[part].values())
    # No checkpoint is made of steps that were skipped.
    assert saved.images_seen <= status_of(output)["images_seen"]


def test_a_folder_that_is_not_there(train, output, tmp_path):
    ended = train(output, input_uri=tmp_path / "nowhere")
    assert ended.status == 5
    line = the_line(ended)
    assert str(tmp_path / "nowhere") in line
    assert_failed(output, 5, line)


def test_an_empty_folder(train, output, slices):
    ended = train(output, input_uri=slices[0])
    assert ended.status == 4
    assert the_line(ended) == f"nothing under {slices[0]}; check MRIGAN_INPUT_URI"
    assert_failed(output, 4, the_line(ended))


def test_a_folder_without_a_single_slice(train, output, slices):
    folder, _ = slices
    (folder / "notes.txt").write_text("hello")
    (folder / "empty.png").touch()
    ended = train(output, input_uri=folder)
    assert ended.status == 4
    line = the_line(ended)
    assert line.startswith(f"none of the 2 objects under {folder} is a slice: ")
    assert "'empty.png' zero bytes" in line
    assert "'notes.txt' " in line
    assert_failed(output, 4, line)
    assert len(open_store(output).get("data/manifest.jsonl").splitlines()) == 2


def test_more_refused_than_allowed(train, output, slices):
    folder, put = slices
    put(*(f"{number}.png" for number in range(9)))
    (folder / "notes.txt").write_text("hello")
    ended = train(output, input_uri=folder, max_refused="9.9")
    assert ended.status == 4
    line = the_line(ended)
    assert "1 of 10 objects" in line
    assert "10.0 %, 9.9 % is allowed" in line
    assert "'notes.txt' " in line
    assert "MRIGAN_MAX_REFUSED" in line
    assert_failed(output, 4, line)


def test_no_more_refused_than_allowed(train, output, slices):
    folder, put = slices
    put(*(f"{number}.png" for number in range(9)))
    (folder / "notes.txt").write_text("hello")
    ended = train(output, input_uri=folder, max_refused="10%", epochs=1)
    assert ended.status == 0
    assert "slices used=9 refused=1" in ended.out
    manifest = open_store(output).get("data/manifest.jsonl").splitlines()
    [refused] = [entry for entry in map(json.loads, manifest) if entry["status"] == "refused"]
    assert (refused["key"], refused["row"]) == ("notes.txt", None)
    assert refused["reason"]


def test_a_failed_attempt_to_prolong_leaves_a_run_complete(finished_in_folder, train):
    uri = finished_in_folder.uri
    before = status_of(uri)
    assert train(uri, epochs=4, input_uri="nowhere").status == 5
    assert status_of(uri) == before


def test_a_failed_attempt_keeps_the_progress_of_an_interrupted_run(train, output, tmp_path):
    assert train(output, epochs=1).status == 0
    store = open_store(output)
    store.put("status.json", json.dumps(status_of(output) | {"state": "interrupted"}).encode())
    assert train(output, input_uri=tmp_path / "nowhere").status == 5
    status = status_of(output)
    assert (status["state"], status["epoch"], status["images_seen"]) == ("failed", 1, 13)
    assert train(output, epochs=2).status == 0
    assert status_of(output)["images_seen"] == 26


@pytest.mark.parametrize("side", ["input_uri", "output_uri"])
def test_a_bucket_that_does_not_exist(train, output, aws_environ, side):
    uris = {"output_uri": output} | {side: "s3://nobody-made-this/run"}
    ended = train(**uris)
    assert ended.status == 5
    line = the_line(ended)
    assert re.search(r"s3://nobody-made-this/run\S*: bucket nobody-made-this does not exist", line)
    if side == "input_uri":
        assert_failed(output, 5, line)


@pytest.mark.parametrize("side", ["input_uri", "output_uri"])
def test_an_endpoint_where_nobody_listens(train, output, aws_environ, monkeypatch, side):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
    ended = train(**{"output_uri": output, "storage_retries": 0} | {side: "s3://bucket/run"})
    assert ended.status == 5
    assert f"http://127.0.0.1:{port} refuses connections; start it" in the_line(ended)


def test_no_credentials(train, output, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    ended = train(output, input_uri="s3://bucket/slices")
    assert ended.status == 5
    assert "no AWS credentials found; set AWS_ACCESS_KEY_ID" in the_line(ended)


def test_an_output_that_can_not_be_written(train, tmp_path):
    (tmp_path / "file").touch()
    ended = train(tmp_path / "file" / "run")
    assert ended.status == 5
    assert str(tmp_path / "file" / "run") in the_line(ended)


@pytest.fixture
def little_patience(monkeypatch):
    """A publisher that gives up on a failing store after a moment."""
    monkeypatch.setitem(Publisher.__init__.__kwdefaults__, "patience_seconds", 0.5)


def spoils(output):
    """Put a file where a folder should be."""
    return lambda: (Path(output) / "plots").write_text("mine")


def test_a_store_that_fails_in_mid_run_ends_it(train, output, little_patience):
    ended = train(output, at="plan slices", do=spoils(output), epochs=50)
    assert ended.status == 5
    line = the_line(ended)
    assert "plots/losses.png" in line
    assert_failed(output, 5, line)


def test_a_stop_while_the_store_fails_is_heard(train, output, monkeypatch):
    """A step waits for its checkpoint's turn, which waits for the store."""
    monkeypatch.setattr(Publisher, "_is_held_up", lambda _: False)
    monkeypatch.setattr(train_module, "_FLUSH_SECONDS_WHEN_STOPPED", 1.0)
    # The store is tried again after minutes only; then its failure ends the run in other words.
    monkeypatch.setattr(publisher_module, "_UNMENDABLE_SECONDS", 250.0)
    monkeypatch.setattr(publisher_module, "_FIRST_PAUSE_SECONDS", 200.0)
    monkeypatch.setitem(Publisher.__init__.__kwdefaults__, "patience_seconds", 250.0)
    failed, asked = threading.Event(), []
    wait_until = Publisher._wait_until

    def watched(publisher, is_ready):
        def look():
            ready = is_ready()
            if not ready and failed.is_set() and not asked:
                asked.append(signal.SIGTERM)
                os.kill(os.getpid(), signal.SIGTERM)
            return ready

        wait_until(publisher, look)

    monkeypatch.setattr(Publisher, "_wait_until", watched)
    Path(output).mkdir()
    spoils(output)()
    ended = train(output, at="publish_again slot=plots/losses.png", do=failed.set, epochs=50)
    assert asked
    assert ended.status == 5
    line = the_line(ended)
    assert line.startswith("not everything was published within 1 s (waiting: ")
    assert "plots/losses.png" in line
    assert ended.out.count("publish_again") == 1


def test_a_broken_settings_file_of_another_program(train, tmp_path, output):
    open_store(output).put("settings.json", b"[]")
    ended = train(output)
    assert ended.status == 5
    assert "not the JSON that a run writes there" in the_line(ended)
    open_store(output).put("settings.json", b'{"editor": "dark"}')
    ended = train(output)
    assert ended.status == 2
    assert "was not written by this version of mrigan" in the_line(ended)


def test_a_device_that_is_absent(train, output, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    ended = train(output, device="cuda")
    assert ended.status == 2
    assert re.match(r"MRIGAN_DEVICE: cuda was asked for.*driver", the_line(ended))
    assert not Path(output).exists()
