"""Doctor: what it says of machine, data, credentials and places, and how it ends."""

import json
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image

from mrigan.data.phantom import draw
from mrigan.storage.store import open_store

SMALL = [
    "--image-height", "32", "--image-width", "35", "--batch-size", "3", "--device", "cpu",
    "--storage-retries", "0",
]  # fmt: skip


@pytest.fixture
def doctor(mrigan, monkeypatch):
    monkeypatch.setenv("COLUMNS", "20")  # whatever the width, a check is one line

    def examine(*arguments):
        ended = mrigan("doctor", *SMALL, *arguments)
        assert ended.err == ""
        lines = ended.out.splitlines()
        checks = {}
        for line in lines:
            verdict, name, found = re.fullmatch(r"(ok    |failed)  (\w+) +(.*)", line).groups()
            checks[name] = (verdict.strip(), found)
        assert list(checks) == ["machine", "input", "cache", "output", "trackers", "training"]
        return ended.status, checks

    return examine


def verdicts(checks):
    return {name: verdict for name, (verdict, _) in checks.items() if verdict != "ok"}


def test_all_is_well_with_nothing_set_up(doctor, tmp_path):
    output = tmp_path / "a" / "b"
    status, checks = doctor("--input-uri", "phantom://13", "--output-uri", output, "--epochs", 20)
    assert (status, verdicts(checks)) == (0, {})
    assert re.search(r"CPU threads, (fp32|bf16), torch 2\.", checks["machine"][1])
    assert "13 of 13 tried are slices" in checks["input"][1]
    assert checks["output"][1].endswith("honours conditional writes; a new run")
    assert re.search(
        r"[\d.]+ images/s; 20 epochs of 13 take about \d+ s; peak_rss", checks["training"][1]
    )
    assert not (tmp_path / "a").exists()


def test_a_bucket_is_tried_and_left_as_it_was(doctor, bucket):
    store = open_store(f"{bucket}/in")
    for number in range(3):
        Image.fromarray(draw(number, 40, 37)).save("picture.png")
        store.put(f"{number}.png", Path("picture.png"))
    before = open_store(bucket).list()
    status, checks = doctor("--input-uri", f"{bucket}/in", "--output-uri", f"{bucket}/run")
    assert (status, verdicts(checks)) == (0, {})
    assert "3 objects" in checks["input"][1]
    assert open_store(bucket).list() == before


def test_each_check_fails_by_itself_and_the_first_decides_the_status(doctor, tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "empty").mkdir()
    status, checks = doctor(
        "--input-uri", tmp_path / "empty", "--output-uri", tmp_path / "file" / "run"
    )
    assert status == 4
    assert verdicts(checks) == {"input": "failed", "output": "failed"}
    assert checks["input"][1] == f"{tmp_path / 'empty'}: nothing is there; check MRIGAN_INPUT_URI"
    assert "a file and a folder would have one name" in checks["output"][1]


def test_a_device_that_is_absent_is_a_settings_error(mrigan, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    ended = mrigan("doctor", *SMALL, "--device", "cuda", "--input-uri", "phantom://3")
    assert ended.status == 2
    assert "failed  machine  MRIGAN_DEVICE: cuda was asked for" in ended.out
    assert "failed  training not tried: no device" in ended.out


@pytest.fixture
def mixed(tmp_path):
    """A folder of good slices and of files that are none."""

    def make(good, bad):
        folder = tmp_path / "mixed"
        folder.mkdir()
        for number in range(good):
            Image.fromarray(draw(number, 33, 34)).save(folder / f"{number:03}.png")
        for number in range(bad):
            (folder / f"{number:03}.txt").write_text("notes")
        return folder

    return make


@pytest.mark.parametrize(
    ("good", "bad", "allowed", "status"),
    [(0, 2, 100, 4), (9, 1, 9, 4), (9, 1, 10, 0), (39, 1, 1, 0), (20, 20, 5, 4)],
)
def test_refused_objects_fail_where_the_job_would(doctor, mixed, good, bad, allowed, status):
    found, checks = doctor("--input-uri", mixed(good, bad), "--max-refused", allowed)
    assert found == status
    if status == 4:
        assert re.search(r"\d{3}\.txt: text", checks["input"][1])


def test_an_unreachable_endpoint_and_a_missing_bucket(doctor, aws_environ, monkeypatch):
    status, checks = doctor("--output-uri", "s3://nobody-made-this/run")
    assert status == 5
    assert "bucket nobody-made-this does not exist" in checks["output"][1]
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    status, checks = doctor("--input-uri", "s3://bucket/in")
    assert status == 5
    assert "http://127.0.0.1:9 refuses connections" in checks["input"][1]


def test_a_run_that_is_there_is_told_or_refused(doctor, finished_in_folder, tmp_path):
    output = shutil.copytree(finished_in_folder.uri, tmp_path / "copy")
    status, checks = doctor("--input-uri", "phantom://13", "--output-uri", output)
    assert status == 2
    assert "holds a run with other settings: " in checks["output"][1]
    same = ["--image-height", 48, "--image-width", 33, "--batch-size", 4]
    status, checks = doctor(
        "--input-uri", "phantom://13", "--output-uri", output, *same, "--accumulation-steps", 2
    )
    assert status == 0
    assert checks["output"][1].endswith("a run of these settings, completed at epoch 3")


def test_a_cache_without_room(doctor, tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=10_000))
    status, checks = doctor("--input-uri", "phantom://13", "--cache-dir", tmp_path / "not" / "yet")
    assert status == 1
    assert re.search(r"yet: .* GiB are needed .* set MRIGAN_CACHE_DIR", checks["cache"][1])
    assert not (tmp_path / "not").exists()


def test_json_is_one_object_a_check(mrigan):
    ended = mrigan("doctor", *SMALL, "--log-format", "json", "--input-uri", "phantom://3")
    assert ended.status == 0
    lines = [json.loads(line) for line in ended.out.splitlines()]
    assert [line["event"] for line in lines] == ["check"] * 6
    assert lines[0]["name_of_check"] == "machine"
    assert all(line["ok"] is True for line in lines)


def test_a_tracker_that_is_not_set_up_is_told_before_the_job_is(doctor, tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    place = ("--input-uri", "phantom://13", "--output-uri", tmp_path / "run")
    status, checks = doctor(*place, "--trackers", "tensorboard")
    assert (status, checks["trackers"]) == (0, ("ok", "tensorboard"))
    status, checks = doctor(*place, "--trackers", "mlflow")
    assert (status, verdicts(checks)) == (2, {"trackers": "failed"})
    assert "MLFLOW_TRACKING_URI is not set" in checks["trackers"][1]
