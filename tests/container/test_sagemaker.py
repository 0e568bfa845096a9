"""The image as SageMaker runs it: ``docker run IMAGE train``, an /opt/ml tree, and nothing else."""

import json
import os
import re
import subprocess
import time
import uuid
from hashlib import sha256

import numpy as np
import pytest
from PIL import Image

from mrigan.logs import metric_regex

pytestmark = [pytest.mark.container, pytest.mark.timeout(1800)]

# As SDK v2 sends them: str() of each.
HYPERPARAMETERS = {
    "image_height": "40",
    "image_width": "32",
    "batch_size": "4",
    "accumulation_steps": "2",
    "epochs": "24",
    "sample_every": "12",
    "checkpoint_every": "1000",
    "g_lr": "0.0002",
    "beta1": "None",
    "sagemaker_region": "eu-west-1",
}
CONFIG = {
    "resourceconfig": {
        "current_host": "algo-1",
        "current_instance_type": "ml.m5.xlarge",
        "hosts": ["algo-1"],
        "network_interface_name": "eth0",
    },
    "inputdataconfig": {
        "training": {
            "TrainingInputMode": "File",
            "S3DistributionType": "FullyReplicated",
            "RecordWrapperType": "None",
        }
    },
    "checkpointconfig": {"S3Uri": "s3://bucket/kept", "LocalPath": "/opt/ml/checkpoints"},
}
CLOCKS = {"seconds", "images_per_second", "peak_rss_mib"}


class Job:
    """A tree as the platform lays it out, and the platform's ways with a container on it."""

    def __init__(self, root, image, run):
        self.root = root
        self.name = f"mrigan-sagemaker-{uuid.uuid4().hex[:8]}"
        self._image = image
        self._run = run
        for folder in ("input/config", "model", "output/data", "checkpoints"):
            (root / folder).mkdir(parents=True)
        slices = root / "input/data/training/patients"
        slices.mkdir(parents=True)
        rng = np.random.default_rng(7)
        for number in range(13):
            pixels = rng.integers(0, 256, (41, 30 + number), np.uint8)
            Image.fromarray(pixels).save(slices / f"{number:02}.png")
        for name, content in CONFIG.items():
            self.say(name, content)
        self.say("hyperparameters", HYPERPARAMETERS)

    def say(self, name, content):
        (self.root / f"input/config/{name}.json").write_text(json.dumps(content))

    def command(self, *options):
        environ = ["--env", f"TRAINING_JOB_NAME={self.name}", "--env", "TRAINING_JOB_ARN=arn:x"]
        mounted = ["--network", "none", "--volume", f"{self.root}:/opt/ml"]
        named = ["--name", self.name, *options]
        return ["docker", "run", *named, *mounted, *environ, self._image, "train"]

    def train(self, *options):
        return self._run(*self.command("--rm", *options), check=False)

    def start(self):
        self._run(*self.command("--detach"))

    def logs(self):
        return self._run("docker", "logs", self.name).stdout

    def wait_for(self, text, seconds=300):
        end = time.monotonic() + seconds
        while text not in self.logs():
            assert time.monotonic() < end, self.logs()
            time.sleep(0.2)

    def stop(self):
        """As the platform stops a job; return the exit status and how long it took."""
        began = time.monotonic()
        self._run("docker", "stop", "-t", "120", self.name)
        seconds = time.monotonic() - began
        state = self._run("docker", "inspect", "-f", "{{.State.ExitCode}}", self.name).stdout
        return int(state), seconds

    def remove(self):
        """Remove the container, and give what root wrote to whoever runs the tests."""
        subprocess.run(["docker", "rm", "--force", self.name], capture_output=True, check=False)
        owner = f"{os.getuid()}:{os.getgid()}"
        chown = ["--entrypoint", "chown", "--volume", f"{self.root}:/opt/ml", self._image]
        self._run("docker", "run", "--rm", *chown, "-R", owner, "/opt/ml")

    def files(self, folder):
        below = self.root / folder
        found = [path for path in below.rglob("*") if path.is_file()]
        return {path.relative_to(below).as_posix(): path.read_bytes() for path in found}


@pytest.fixture(scope="module")
def new_job(image, run, tmp_path_factory):
    jobs = []

    def lay_out():
        jobs.append(Job(tmp_path_factory.mktemp("job") / "ml", image, run))
        return jobs[-1]

    yield lay_out
    for job in jobs:
        job.remove()


@pytest.fixture(scope="module")
def finished(new_job):
    """An uninterrupted job, and what the container said."""
    job = new_job()
    return job, job.train()


def rows_of(job):
    rows = [json.loads(row) for row in job.files("checkpoints")["metrics.jsonl"].splitlines()]
    return [{name: row[name] for name in row.keys() - CLOCKS} for row in rows]


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
    assert job.files("model").keys() == {"generator.safetensors", "config.json"}
    assert {"report.html", "samples/epoch-0024.png", "plots/losses.png", "metrics.jsonl"} <= (
        job.files("output/data").keys()
    )
    assert not any("sagemaker-" in key or "#" in key for key in run)


def test_the_metrics_patterns_find_their_numbers_in_what_it_prints(finished):
    job, ended = finished
    lines = [line for line in ended.stdout.splitlines() if " epoch epoch=" in line]
    rows = rows_of(job)
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
    assert rows_of(restarted) == rows_of(whole)
    ours, theirs = restarted.files("model"), whole.files("model")
    assert sha256(ours["generator.safetensors"]).digest() == (
        sha256(theirs["generator.safetensors"]).digest()
    )
    assert restarted.files("output/data").keys() == whole.files("output/data").keys()


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
    job.say("hyperparameters", HYPERPARAMETERS | {"epochs": "1"})
    ended = job.train("--shm-size", "1m")
    assert ended.returncode == 0, ended.stderr
