"""Runs that are stopped or killed, and what the same command makes of them afterwards."""

import json
import os
import signal
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from mrigan.artifacts.checkpoints import list_checkpoints
from mrigan.data.phantom import draw
from mrigan.jobs.train import recorder as train_module
from mrigan.storage.store import open_store
from processes import follow
from tiny import newest

DEADLINE_SECONDS = 250  # only a broken promise takes so long


@pytest.fixture(autouse=True)
def patient(monkeypatch):
    """Let the last uploads take their time; none of these tests is about a slow store."""
    monkeypatch.setattr(train_module, "_FLUSH_SECONDS_WHEN_STOPPED", float(DEADLINE_SECONDS))


def status_of(uri):
    return json.loads(open_store(uri).get("status.json"))


@pytest.fixture
def slow(monkeypatch):
    """An S3 that lists 200 objects and is silent when one of them is asked for.

    It has the event that one was asked for, and the paths of all that were.
    """
    asked, end, paths = threading.Event(), threading.Event(), []
    keys = ["status.json", *(f"samples/{index:03}.png" for index in range(199))]
    rows = "".join(
        f"<Contents><Key>in/{key}</Key><Size>300</Size><ETag>&quot;{'0' * 32}&quot;</ETag>"
        "<LastModified>2026-10-21T07:28:00.000Z</LastModified></Contents>"
        for key in keys
    )
    body = (
        "<?xml version='1.0'?><ListBucketResult><Name>bkt</Name><Prefix>in/</Prefix>"
        f"<KeyCount>200</KeyCount><IsTruncated>false</IsTruncated>{rows}</ListBucketResult>"
    ).encode()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_):
            pass

        def do_GET(self):
            if "list-type" not in self.path:
                paths.append(self.path)
                asked.set()
                end.wait()
                self.close_connection = True
                return
            self.send_response(200)
            self.send_header("Content-Type", "application/xml")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    yield asked, paths
    end.set()
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.mark.slow
def test_a_terminated_process_saves_where_it_is_and_another_goes_on_to_the_same_bits(
    spawn_train, train, tmp_path, finished_in_folder, content, assert_same_run
):
    uri = str(tmp_path / "run")
    process = spawn_train(uri, held_at="epoch epoch=1")
    follow(process, "epoch epoch=1")
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=DEADLINE_SECONDS)
    assert (process.returncode, err) == (143, "")
    assert "interrupted signal=SIGTERM" in out
    assert 'resume="run the same command again"' in out
    status = status_of(uri)
    assert (status["state"], status["reason"]) == ("interrupted", "SIGTERM")
    assert status["images_seen"] == newest(open_store(uri)).images_seen < 39
    assert train(uri).status == 0
    ours, theirs = content(uri), content(finished_in_folder.uri)
    for key in [key for key in ours if key.startswith("checkpoints/") and key not in theirs]:
        del ours[key]  # the stop's own, in the middle of an epoch
    kept = {key: data for key, data in theirs.items() if key in ours or "checkpoints/" not in key}
    assert "checkpoints/000000039.pt" in kept
    assert_same_run(ours, kept)


@pytest.mark.slow
def test_a_killed_process_is_gone_on_from_its_last_checkpoint_to_the_same_bits(
    spawn_train, train, tmp_path, finished_in_folder, content, assert_same_run
):
    uri = str(tmp_path / "run")
    process = spawn_train(uri, held_at="checkpoint images_seen=")
    follow(process, "checkpoint images_seen=")
    process.kill()
    process.communicate(timeout=DEADLINE_SECONDS)
    assert process.returncode == -signal.SIGKILL
    assert status_of(uri)["state"] == "running"
    resumed = train(uri)
    assert resumed.status == 0
    assert "resumed images_seen=" in resumed.out
    assert_same_run(content(uri), content(finished_in_folder.uri))


def assert_nothing_was_waited_for(paths):
    """No read was silent for so long that it was given up and begun again."""
    assert paths
    assert len(set(paths)) == len(paths)


@pytest.mark.slow
def test_a_process_terminated_while_slices_are_on_their_way_does_not_wait_for_them(
    spawn_train, slow, tmp_path
):
    asked, paths = slow
    uri = str(tmp_path / "run")
    process = spawn_train(uri, input_uri="s3://bkt/in", cache_dir=tmp_path / "cache")
    assert asked.wait(DEADLINE_SECONDS)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=DEADLINE_SECONDS)
    assert (process.returncode, err) == (143, "")
    assert 'interrupted signal=SIGTERM while="pulling slices"' in out
    assert_nothing_was_waited_for(paths)
    assert (status_of(uri)["state"], status_of(uri)["reason"]) == ("interrupted", "SIGTERM")


def test_a_fetch_terminated_while_files_are_on_their_way_does_not_wait_for_them(
    spawn, slow, tmp_path
):
    asked, paths = slow
    process = spawn("fetch", "s3://bkt/in", tmp_path / "copy")
    assert asked.wait(DEADLINE_SECONDS)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=DEADLINE_SECONDS)
    assert (process.returncode, err) == (143, "")
    assert "fetch_interrupted" in out
    assert_nothing_was_waited_for(paths)


def stop_with(number):
    return lambda: os.kill(os.getpid(), number)


def test_ctrl_c_stops_as_cleanly(train, tmp_path):
    uri = str(tmp_path / "run")
    ended = train(uri, at="epoch epoch=1", do=stop_with(signal.SIGINT), checkpoint_every=10)
    assert (ended.status, ended.err) == (143, "")
    assert status_of(uri)["reason"] == "SIGINT"
    assert list_checkpoints(open_store(uri)) == [13]


def test_a_second_ctrl_c_means_at_once(train, tmp_path):
    def twice():
        stop_with(signal.SIGINT)()
        stop_with(signal.SIGINT)()

    ended = train(str(tmp_path / "run"), at="plan slices", do=twice)
    assert ended.status == 130
    assert ended.err == "mrigan: interrupted at once: what was not yet saved is lost\n"


def test_a_stop_in_the_middle_of_an_epoch_is_in_no_number_afterwards(
    train, tmp_path, finished_in_folder, content, assert_same_run
):
    uri = str(tmp_path / "run")
    ended = train(uri, at="memory weights_mib", do=stop_with(signal.SIGTERM))
    assert ended.status == 143
    assert list_checkpoints(open_store(uri)) == [8]  # the first step
    assert train(uri).status == 0
    assert_same_run(content(uri), content(finished_in_folder.uri))


def test_a_stop_while_slices_are_pulled_trains_nothing_and_says_so(train, tmp_path, monkeypatch):
    uri, drawn = str(tmp_path / "run"), []

    def note(index, *size):
        drawn.append(index)
        return draw(index, *size)

    monkeypatch.setattr("mrigan.data.source.draw", note)
    ended = train(
        uri,
        input_uri="phantom://9999",
        cache_dir=tmp_path / "cache",
        at="machine device",
        do=stop_with(signal.SIGTERM),
    )
    assert len(drawn) < 9999
    assert (ended.status, ended.err) == (143, "")
    assert 'interrupted signal=SIGTERM while="pulling slices"' in ended.out
    assert (status_of(uri)["state"], status_of(uri)["reason"]) == ("interrupted", "SIGTERM")
    assert [info.key for info in open_store(uri).list()] == ["lease/000001.json", "status.json"]


def test_on_sagemaker_a_clean_stop_is_success_and_settings_come_from_its_file(
    mrigan, tmp_path, monkeypatch, cache_dir
):
    config = tmp_path / "ml" / "input" / "config"
    config.mkdir(parents=True)
    monkeypatch.setenv("MRIGAN_ML_ROOT", str(tmp_path / "ml"))
    uri = str(tmp_path / "run")
    hyperparameters = {
        "input_uri": '"phantom://5"',
        "output_uri": uri,
        "image_height": "32",
        "image_width": "32",
        "batch_size": "2",
        "accumulation_steps": "1",
        "device": "cpu",
        "cache_dir": str(cache_dir / "mrigan"),
        "sagemaker_region": "us-east-1",
    }
    (config / "hyperparameters.json").write_text(json.dumps(hyperparameters))
    (config / "resourceconfig.json").write_text('{"current_host": "algo-1"}')
    ended = mrigan("train", at="epoch epoch=1", do=stop_with(signal.SIGTERM))
    assert (ended.status, ended.err) == (0, "")
    assert status_of(uri)["state"] == "interrupted"
    assert status_of(uri)["images_seen"] in (5, 6)
