"""Local mode of the SDK's two versions: each writes SageMaker's files and starts the image.

Nothing but the channel and the hyperparameters is said, so the rest is what the platform's files
make of it. Version 3 passes no ``train`` and names a network interface that does not exist.
"""

import hashlib
import json
import os
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytestmark = [pytest.mark.container, pytest.mark.timeout(1800)]

SCRIPTS = Path(__file__).parent / "sdk_local"
SLICES = 13
SETTINGS = {
    "image_height": 40,
    "image_width": 32,
    "epochs": 2,
    "batch_size": 4,
    "accumulation_steps": 1,
}
NO_TELEMETRY = """
SchemaVersion: '1.0'
SageMaker: {PythonSDK: {Modules: {TelemetryOptOut: true}}}
"""


@pytest.fixture(scope="module")
def slices(tmp_path_factory):
    """A folder of unlike PNGs."""
    folder = tmp_path_factory.mktemp("slices")
    random = np.random.default_rng(5)
    for number in range(SLICES):
        pixels = random.integers(0, 256, (45, 37), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:03}.png")
    return folder


@pytest.fixture(scope="module")
def local_job(run, image, sdk, slices, tmp_path_factory):
    """Run a job to its end and return its folder of archives: ``local_job("v3")``."""
    folders = []

    def call(version):
        folder = tmp_path_factory.mktemp(version)
        folders.append(folder)
        results = folder / "results"
        results.mkdir()
        (folder / "config.yaml").write_text(NO_TELEMETRY)
        environment = {
            **{name: os.environ[name] for name in os.environ if name.startswith("DOCKER_")},
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "TMPDIR": str(folder),  # where version 2 makes what it mounts
            "AWS_DEFAULT_REGION": "eu-central-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "SAGEMAKER_USER_CONFIG_OVERRIDE": str(folder / "config.yaml"),
        }
        script = [sdk(version), str(SCRIPTS / f"{version}.py")]
        run(*script, image, str(slices), str(results), json.dumps(SETTINGS), env=environment)
        return results

    yield call
    remove_containers(run, folders)


def remove_containers(run, folders):
    """Of the compose projects below ``folders``: the SDK leaves them behind."""
    place = '{{.ID}} {{.Label "com.docker.compose.project.working_dir"}}'
    for line in run("docker", "ps", "--all", "--format", place).stdout.splitlines():
        container, _, project = line.partition(" ")
        if any(Path(project).is_relative_to(folder) for folder in folders):
            run("docker", "rm", container)
    run("docker", "network", "rm", "sagemaker-local", check=False)


def unpacked(archive):
    """Name -> bytes of the files in an archive."""
    with tarfile.open(archive) as files:
        found = [member for member in files if member.isfile()]
        return {member.name: files.extractfile(member).read() for member in found}


@pytest.fixture(scope="module")
def v2(local_job):
    return local_job("v2")


@pytest.fixture(scope="module")
def v3(local_job):
    return local_job("v3")


@pytest.fixture(params=["v2", "v3"])
def results(request):
    return request.getfixturevalue(request.param)


def test_a_local_job_leaves_the_generator_as_its_model(results):
    model = unpacked(results / "model.tar.gz")
    assert {"generator.safetensors", "config.json"} < set(model)


def test_a_local_job_trains_on_its_channel_and_leaves_the_run_as_output_data(results):
    output = unpacked(results / "output.tar.gz")
    assert json.loads(output["data/status.json"])["state"] == "completed"
    assert len(output["data/metrics.jsonl"].splitlines()) == 2
    manifest = [json.loads(line) for line in output["data/data/manifest.jsonl"].splitlines()]
    assert [line["key"] for line in manifest] == [f"{number:03}.png" for number in range(SLICES)]
    assert output["data/samples/epoch-0002.png"].startswith(b"\x89PNG")
    assert "failure" not in output


def test_both_versions_train_the_same_generator(v2, v3):
    one, other = (unpacked(results / "model.tar.gz") for results in (v2, v3))
    (ours, theirs) = (hashlib.sha256(each["generator.safetensors"]) for each in (one, other))
    assert ours.hexdigest() == theirs.hexdigest()
