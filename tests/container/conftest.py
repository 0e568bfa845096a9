"""A container engine, the image built from this checkout, and compose with an S3 behind it.

The engine is whatever ``docker info`` reaches; ``.ci/run`` makes one where there is none. Without
one these tests skip, except in CI, where a skip is a failure.
"""

import base64
import json
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

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
