"""The image as SageMaker runs it: ``docker run IMAGE train``, an /opt/ml tree, and nothing else."""

import json
import re
from hashlib import sha256

import pytest

from mrigan.logs import metric_regex

pytestmark = [pytest.mark.container, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def finished(new_job):
    """An uninterrupted job, and what the container said."""
    job = new_job()
    return job, job.train()


def test_it_trains_from_the_channel_without_network_or_credentials(finished):
    job, ended = finished
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "slices used=13 refused=0" in ended.stdout
    assert "uri=/opt/ml/input/data/training" in ended.stdout
    assert json.loads(job.files("checkpoints")["status.json"])["state"] == "completed"
    assert not (job.root / "output/failure").exists()


def test_it_leaves_a_model_and_output_data_for_the_platform_to_upload(finished):
    job, _ = finished
    run = job.files("checkpoints")
    assert job.files("model") == {
        key.removeprefix("model/"): data for key, data in run.items() if key.startswith("model/")
    }
    assert {"generator.safetensors", "config.json"} < job.files("model").keys()
    assert {"report.html", "samples/epoch-0024.png", "plots/losses.png", "metrics.jsonl"} <= (
        job.files("output/data").keys()
    )
    assert not any("sagemaker-" in key or "#" in key for key in run)


def test_the_metrics_patterns_find_their_numbers_in_what_it_prints(finished):
    job, ended = finished
    lines = [line for line in ended.stdout.splitlines() if " epoch epoch=" in line]
    rows = job.rows()
    assert len(lines) == len(rows) == 24
    for line, row in zip(lines, rows, strict=True):
        for name in ("epoch", "images_seen", "d_loss", "g_loss", "real_score", "fake_score"):
            found = re.search(metric_regex(name), line)
            assert float(found[1]) == pytest.approx(row[name], rel=1e-4), name


def test_a_stop_leaves_a_checkpoint_and_the_next_job_goes_on_to_the_same_bits(finished, new_job):
    whole, _ = finished
    job = new_job()
    job.start()
    job.wait_for(" epoch epoch=2 ")
    status, seconds = job.stop()
    assert status == 0, job.logs()
    assert seconds < 60
    left = job.files("checkpoints")
    at = json.loads(left["status.json"])
    assert (at["state"], at["reason"]) == ("interrupted", "SIGTERM")
    assert 0 < at["epoch"] < 24
    record = json.loads(left[f"checkpoints/{at['images_seen']:09d}.json"])
    tensors = left[f"checkpoints/{at['images_seen']:09d}.pt"]
    assert record["sha256"] == sha256(tensors).hexdigest()
    assert not (job.root / "output/failure").exists()

    restarted = new_job()
    (restarted.root / "checkpoints").rmdir()
    (job.root / "checkpoints").rename(restarted.root / "checkpoints")
    ended = restarted.train()
    assert ended.returncode == 0, ended.stderr
    assert f"resumed images_seen={at['images_seen']} " in ended.stdout
    assert restarted.rows() == whole.rows()
    ours, theirs = restarted.files("model"), whole.files("model")
    assert sha256(ours["generator.safetensors"]).digest() == (
        sha256(theirs["generator.safetensors"]).digest()
    )
    ours, theirs = (
        # Event files are named by the time at which they were written.
        {name for name in job.files("output/data") if not name.startswith("tensorboard/")}
        for job in (restarted, whole)
    )
    assert ours == theirs


@pytest.mark.parametrize(
    ("name", "content", "status", "begins"),
    [
        (
            "hyperparameters",
            {"epoch": "3"},
            2,
            "SettingsError: hyperparameter epoch: unknown, did ",
        ),
        ("inputdataconfig", {"images": {}}, 2, "SettingsError: no channel is called training"),
    ],
)
def test_bad_input_ends_with_a_reason_for_the_console(new_job, name, content, status, begins):
    job = new_job()
    job.say(name, content)
    ended = job.train()
    assert ended.returncode == status
    failure = (job.root / "output/failure").read_text()
    assert failure.startswith(begins)
    assert len(failure) <= 1024
    assert ended.stderr == f"mrigan: {failure.removeprefix('SettingsError: ')}\n"


def test_a_channel_without_slices_ends_with_a_reason_for_the_console(new_job):
    job = new_job()
    for path in (job.root / "input/data/training/patients").iterdir():
        path.unlink()
    assert job.train().returncode == 4
    assert (job.root / "output/failure").read_text() == (
        "DataError: nothing under /opt/ml/input/data/training; check MRIGAN_INPUT_URI"
    )


def test_it_needs_no_shared_memory_to_speak_of(new_job):
    """The platform gives 64 MB, as docker does, and can't be asked for more."""
    job = new_job()
    job.hyperparameters(epochs="1")
    ended = job.train("--shm-size", "1m")
    assert ended.returncode == 0, ended.stderr
