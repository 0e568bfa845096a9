"""Compose from start to end: a bucket is filled, a job trains, its run comes to the host."""

import hashlib
import json
import os
from pathlib import Path

import pytest

pytestmark = [pytest.mark.container, pytest.mark.timeout(1800)]

REPO = Path(__file__).parents[2]
DEMO = "runs/demo/"


@pytest.fixture(scope="module")
def finished(compose):
    """The first ``up train``, on an empty bucket that is not there yet when the S3 is healthy."""
    return compose.up(check=False)


@pytest.fixture(scope="module")
def artifacts(compose, finished):
    return compose.objects(DEMO)


def test_up_train_ends_by_itself_with_the_run_completed(compose, events, finished):
    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert compose.exit_status() == 0
    assert len(events(finished.stdout, "completed")) == 1


def test_the_seed_fills_the_bucket_with_as_many_phantoms_as_asked(compose, finished):
    slices = compose.objects("slices/")
    assert len(slices) == 48
    assert all(body.startswith(b"\x89PNG") for body in slices.values())


def test_the_bucket_holds_the_whole_run(artifacts):
    assert json.loads(artifacts["status.json"])["state"] == "completed"
    assert len(artifacts["metrics.jsonl"].splitlines()) == 2
    for key in ("samples/real.png", "samples/epoch-0002.png", "plots/losses.png"):
        assert artifacts[key].startswith(b"\x89PNG"), key
    assert {"run.json", "data/manifest.jsonl", "report.html"} <= artifacts.keys()
    assert {"model/generator.safetensors", "model/config.json"} <= artifacts.keys()
    # The image has TensorBoard.
    assert any(key.startswith("tensorboard/events.out.tfevents.") for key in artifacts)


def test_every_checkpoint_in_the_bucket_is_what_its_record_says(artifacts):
    records = [key for key in artifacts if key.startswith("checkpoints/") and key.endswith("json")]
    assert records
    for key in records:
        tensors = artifacts[key.removesuffix(".json") + ".pt"]
        assert json.loads(artifacts[key])["sha256"] == hashlib.sha256(tensors).hexdigest()


def test_up_train_again_says_that_the_run_is_complete(compose, events, artifacts):
    again = compose.up()
    assert compose.exit_status() == 0
    assert len(events(again.stdout, "already_complete")) == 1
    assert events(again.stdout, "epoch") == []
    assert compose.objects(DEMO) == artifacts


def test_the_last_line_says_how_the_run_comes_to_the_host(events, finished):
    (told,) = events(finished.stdout, "fetch_with")
    assert told["command"] == "docker compose run --rm fetch s3://mri/runs/demo"
    assert finished.stdout.rindex("fetch_with") > finished.stdout.rindex("published")


def test_a_misspelt_name_in_dot_env_is_refused(compose, finished):
    """Compose hands the whole file to the job."""
    file = REPO / ".env"
    if file.exists():
        pytest.skip("this checkout has a .env of its own")
    try:
        file.write_text("MRIGAN_EPOHS=3\nSLICES=unused\n")
        refused = compose("run", "--rm", "-T", "--no-deps", "train", check=False)
    finally:
        file.unlink()
    assert refused.returncode == 2
    assert "MRIGAN_EPOHS: unknown, did you mean MRIGAN_EPOCHS?" in refused.stderr


def test_a_folder_of_slices_that_is_not_there_is_an_error_and_not_made(compose, finished, tmp_path):
    nowhere = tmp_path / "nosuch"
    refused = compose("run", "--rm", "-T", "--no-deps", "seed", check=False, SLICES=str(nowhere))
    assert refused.returncode != 0
    assert "bind source path does not exist" in refused.stderr
    assert not nowhere.exists()


def test_fetch_brings_the_run_to_a_folder_as_its_owner(compose, artifacts, tmp_path):
    folder = tmp_path / "results"
    folder.mkdir()
    if os.getuid() == 0:
        os.chown(folder, 1234, 1235)
    compose("run", "--rm", "-T", "fetch", RESULTS=str(folder))
    files = [path for path in folder.rglob("*") if path.is_file()]
    run = folder / "demo"
    assert {path.relative_to(run).as_posix(): path.read_bytes() for path in files} == {
        key: data for key, data in artifacts.items() if not key.startswith("lease/")
    }
    assert {path.stat().st_uid for path in files} == {folder.stat().st_uid}


def test_a_terminated_run_leaves_a_checkpoint_and_up_goes_on_from_it(compose, events):
    # Of the model whose length may change.
    here = {
        "MRIGAN_MODEL": "dcgan",
        "MRIGAN_OUTPUT_URI": "s3://mri/runs/stopped",
        "MRIGAN_CHECKPOINT_EVERY": "1000",
    }
    compose("up", "--detach", "train", MRIGAN_EPOCHS="500", **here)
    compose.wait_until(lambda: len(events(compose.logs(), "epoch")) >= 2, "a second epoch")
    compose("kill", "--signal", "TERM", "train", MRIGAN_EPOCHS="500", **here)
    compose.wait_until(lambda: compose.exit_status() != 0, "an exit")
    assert compose.exit_status() == 143
    left = compose.objects("runs/stopped/")
    status = json.loads(left["status.json"])
    assert status["state"] == "interrupted"
    assert f"checkpoints/{status['images_seen']:09d}.json" in left

    ended = compose.up(MRIGAN_EPOCHS=str(status["epoch"] + 2), **here)
    (resumed,) = events(ended.stdout, "resumed")
    assert resumed["images_seen"] == status["images_seen"]
    assert compose.exit_status() == 0
    rows = compose.objects("runs/stopped/")["metrics.jsonl"].splitlines()
    assert [json.loads(row)["epoch"] for row in rows] == list(range(1, status["epoch"] + 3))


def test_the_exit_status_of_the_job_is_that_of_up(compose, finished):
    bad = compose.up("--exit-code-from", "train", check=False, MRIGAN_EPOCHS="many")
    assert bad.returncode == 2


def test_the_folder_that_slices_names_is_uploaded_instead_of_phantoms(compose, finished, tmp_path):
    for number in range(3):
        (tmp_path / f"mine-{number}.txt").write_text("a slice of the user's")
    tmp_path.chmod(0o755)
    seed = ("run", "--rm", "-T", "--no-deps", "seed")
    upload = ("phantom", "s3://mri/mine", "--if-empty", "--from", "/slices")
    compose(*seed, *upload, SLICES=str(tmp_path))
    assert compose.objects("mine/").keys() == {f"mine-{number}.txt" for number in range(3)}


def test_the_users_allocator_passes_through_compose(compose):
    chosen = compose.config(PYTORCH_CUDA_ALLOC_CONF="max_split_size_mb:64")
    environment = chosen["services"]["train"]["environment"]
    assert environment["PYTORCH_CUDA_ALLOC_CONF"] == "max_split_size_mb:64"


def test_the_gpu_override_adds_the_reservation_and_asks_for_cuda(compose, with_gpu):
    base = compose.config()["services"]["train"]
    gpu = with_gpu.config()["services"]["train"]
    (device,) = gpu["deploy"]["resources"]["reservations"]["devices"]
    assert (device["driver"], device["capabilities"]) == ("nvidia", ["gpu"])
    assert gpu["environment"]["MRIGAN_DEVICE"] == "cuda"
    assert gpu["user"] == base["user"]
    assert "deploy" not in base
