"""A container engine, the image built from this checkout, and compose with an S3 behind it.

The engine is whatever ``docker info`` reaches; ``.ci/run`` makes one where there is none. Without
one these tests skip, except in CI, where a skip is a failure.
"""

import base64
import json
import os
import subprocess
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

REPO = Path(__file__).parents[2]
IMAGE = "mrigan"
S3_IMAGE = "chrislusf/seaweedfs:4.46"
PROJECT = "mrigan-test"
# What a run of seconds on two CPU cores needs.
SMALL = {
    "SEED_SLICES": "48",
    "MRIGAN_INPUT_URI": "s3://mri/slices",
    "MRIGAN_IMAGE_HEIGHT": "40",
    "MRIGAN_IMAGE_WIDTH": "32",
    "MRIGAN_EPOCHS": "2",
    "MRIGAN_CHECKPOINT_EVERY": "1",
    "MRIGAN_LOG_FORMAT": "json",
}

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

READ_BUCKET = """
import base64, boto3, json, os, sys
s3 = boto3.client("s3", endpoint_url=os.environ["AWS_ENDPOINT_URL_S3"])
pages = s3.get_paginator("list_objects_v2").paginate(Bucket="mri", Prefix=sys.argv[1])
keys = [found["Key"] for page in pages for found in page.get("Contents", [])]
read = lambda key: s3.get_object(Bucket="mri", Key=key)["Body"].read()
print(json.dumps({key: base64.b64encode(read(key)).decode() for key in keys}))
"""


def events_in(text, event):
    """The JSON lines of one kind in what a job printed."""
    plain = (line.removeprefix("\x1b[2K") for line in text.splitlines())  # compose's own
    lines = [json.loads(line) for line in plain if line.startswith("{")]
    return [line for line in lines if line["event"] == event]


def run_command(*command, check=True, env=None):
    result = subprocess.run(command, capture_output=True, text=True, env=env, check=False, cwd=REPO)
    if check and result.returncode:
        pytest.fail(
            f"{' '.join(command)}: exit {result.returncode}\n{result.stdout}\n{result.stderr}"
        )
    return result


class Compose:
    """The project's compose files, in a project of their own and without the user's .env."""

    def __init__(self, *files):
        files = files or ("docker-compose.yml",)
        named = [part for file in files for part in ("--file", file)]
        self.command = ["docker", "compose", "--ansi", "never", "--env-file", os.devnull, *named]

    def __call__(self, *arguments, check=True, **settings):
        return run_command(*self.command, *arguments, check=check, env=self.environment(settings))

    def environment(self, settings):
        ours = ("MRIGAN_", "COMPOSE_", "AWS_", "PYTORCH_")
        clean = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
        return {**clean, "COMPOSE_PROJECT_NAME": PROJECT, **SMALL, **settings}

    def config(self, **settings):
        return json.loads(self("config", "--format", "json", **settings).stdout)

    def up(self, *options, check=True, **settings):
        """``up train`` to its end."""
        return self("up", "--no-log-prefix", *options, "train", check=check, **settings)

    def logs(self):
        return self("logs", "--no-log-prefix", "train").stdout

    def exit_status(self):
        """Of the train service's container."""
        found = self("ps", "--all", "--format", "json", "train").stdout
        return json.loads(found)["ExitCode"]

    def objects(self, prefix):
        """Key below the prefix -> bytes, as a client of the S3 sees them."""
        client = ("run", "--rm", "-T", "--no-deps", "--entrypoint", "python", "train")
        found = self(*client, "-c", READ_BUCKET, prefix).stdout
        listed = json.loads(found.splitlines()[-1])
        return {key.removeprefix(prefix): base64.b64decode(body) for key, body in listed.items()}

    def wait_until(self, condition, what, seconds=120):
        end = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > end:
                pytest.fail(f"{what} did not come to be:\n{self.logs()}")
            time.sleep(0.5)


class Job:
    """A tree as the platform lays it out, and the platform's ways with a container on it."""

    def __init__(self, root, image, run, host="algo-1", hosts=("algo-1",), network="none"):
        self.root = root
        self.name = f"mrigan-sagemaker-{uuid.uuid4().hex[:8]}"
        self._network = ["--network", network]
        if network != "none":
            self._network += ["--network-alias", host]  # not its hostname, as on the platform
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
        cluster = CONFIG["resourceconfig"] | {"current_host": host, "hosts": list(hosts)}
        self.say("resourceconfig", cluster)
        self.hyperparameters()

    def say(self, name, content):
        (self.root / f"input/config/{name}.json").write_text(json.dumps(content))

    def hyperparameters(self, **changed):
        self.say("hyperparameters", HYPERPARAMETERS | changed)

    def command(self, *options):
        environ = ["--env", f"TRAINING_JOB_NAME={self.name}", "--env", "TRAINING_JOB_ARN=arn:x"]
        mounted = [*self._network, "--volume", f"{self.root}:/opt/ml"]
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

    def wait(self):
        """Wait for the end; return the exit status."""
        return int(self._run("docker", "wait", self.name).stdout)

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

    def rows(self):
        """The lines of metrics.jsonl, without what a clock or the machine says."""
        rows = [json.loads(row) for row in self.files("checkpoints")["metrics.jsonl"].splitlines()]
        clocks = {"seconds", "images_per_second", "peak_rss_mib", "score_seconds"}
        return [{name: row[name] for name in row.keys() - clocks} for row in rows]


@pytest.fixture(scope="session")
def run():
    return run_command


@pytest.fixture(scope="session")
def events():
    return events_in


@pytest.fixture(scope="session")
def engine() -> None:
    try:
        answers = run_command("docker", "info", check=False).returncode == 0
    except FileNotFoundError:
        answers = False
    if not answers:
        pytest.skip("no container engine answers `docker info`")


@pytest.fixture(scope="session")
def image(engine) -> str:
    """The image of this checkout; where only code has changed, that needs no network."""
    run_command(*Compose().command, "build", "--quiet", "train")
    return IMAGE


@pytest.fixture(scope="session")
def compose(image) -> Iterator[Compose]:
    """Compose with the bucket's server up, and everything removed at the end."""
    if run_command("docker", "image", "inspect", S3_IMAGE, check=False).returncode:
        run_command("docker", "pull", "--quiet", S3_IMAGE)
    project = Compose()
    project("down", "--volumes", "--remove-orphans")
    yield project
    project("--profile", "*", "down", "--volumes", "--remove-orphans")


@pytest.fixture(scope="session")
def with_gpu(engine) -> Compose:
    return Compose("docker-compose.yml", "docker-compose.gpu.yml")


@pytest.fixture(scope="session")
def docker_run(image):
    """``docker run`` of the image without a network: ``docker_run(options, *arguments)``."""

    def call(options, *arguments, check=True):
        command = ["docker", "run", "--rm", "--network", "none", *options, image, *arguments]
        return run_command(*command, check=check)

    return call


@pytest.fixture(scope="module")
def new_job(image, run, tmp_path_factory):
    """Lay out one host's tree of a training job; its container is removed at the end."""
    jobs = []

    def lay_out(**place):
        jobs.append(Job(tmp_path_factory.mktemp("job") / "ml", image, run, **place))
        return jobs[-1]

    yield lay_out
    for job in jobs:
        job.remove()
