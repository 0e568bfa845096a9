"""Both ways to send a request, and that they send the same one."""

import json
import os
import subprocess
from pathlib import Path

import boto3
import pytest
from botocore.config import Config

REPO = Path(__file__).parents[3]
SDK = REPO / ".sdk" / "v3" / "bin" / "python"
SEND = """
import json, sys
from mrigan.errors import MriganError
from mrigan.sagemaker.aws import Aws
from mrigan.sagemaker.submit_by_sdk import send_by_sdk
for request in json.load(sys.stdin):
    try:
        print("NAME", send_by_sdk(Aws(), request))
    except MriganError as error:
        print(f"mrigan: {error}")
"""
VPC = {"subnets": "subnet-0a,subnet-0b", "security_groups": "sg-01"}
CASES = [
    {},
    {"spot": "true", "epochs": "3", "g_lr": "2e-4", "retries": "2", "tags": "a=1, b=two words"},
    {"input_uri": "phantom://9", "instance_type": "ml.m5.xlarge", "volume_kms_key": "key"},
    {"network_isolation": "true", "input_mode": "FastFile", "encrypt_traffic": "true"} | VPC,
    {"network_isolation": "true", "keep_alive_minutes": "9", "output_kms_key": "alias/mri"},
    {"checkpoint_uri": "s3://runs/copies/1", "input_mode": "pull", "max_run_hours": "0.5"} | VPC,
]


# The first request makes moto load a whole service; boto3 would ask again after a minute.
READ_SECONDS = 280


@pytest.fixture
def patient(monkeypatch):
    """Wait for an answer for as long as it takes."""
    monkeypatch.setattr("mrigan.sagemaker.aws._READ_SECONDS", READ_SECONDS)


def test_an_aws_of_many_knows_the_job_as_it_was_shown(mrigan, arguments, aws_environ, patient):
    line = arguments(job_name="mine", epochs="3", spot="true")
    shown = json.loads(mrigan(*line, "--dry-run").out)
    ended = mrigan(*line, "--no-follow")
    assert (ended.status, ended.err) == (0, "")
    config = Config(read_timeout=READ_SECONDS)
    client = boto3.client("sagemaker", region_name="us-east-1", config=config)
    found = client.describe_training_job(TrainingJobName="mine")
    dropped = {"Environment", "RetryStrategy"}  # moto keeps neither
    for name in shown.keys() - dropped - {"AlgorithmSpecification"}:
        assert found[name] == shown[name], name
    image = found["AlgorithmSpecification"]["TrainingImage"]
    assert image == shown["AlgorithmSpecification"]["TrainingImage"]


def test_there_the_job_is_followed_to_its_end(mrigan, arguments, aws_environ, quick, patient):
    ended = mrigan(*arguments())
    assert (ended.status, ended.err) == (0, "")
    assert "mrigan fetch s3://runs/first" in ended.out


def test_without_the_sdk_its_sender_says_what_to_install(launch, platform):
    ended = launch(sender="sagemaker")
    assert ended.status == 2
    assert ended.err == (
        "mrigan: --sender sagemaker: the SDK is not installed; pip install 'sagemaker>=3.27,<4', "
        "or use boto3\n"
    )
    assert platform.requests == []


@pytest.fixture
def send_by_sdk(platform, tmp_path):
    """Send requests by the SDK in a process of its own, which has it installed: a line for each."""
    if not SDK.exists():
        pytest.skip("`make sdk` makes the environment of the SDK")

    def send(*requests, **environment):
        names = {**os.environ, "PYTHONPATH": str(REPO / "src"), "HOME": str(tmp_path)}
        # Every other service leads to the same server, and so does what a proxy would reach.
        names |= {"AWS_ENDPOINT_URL": platform.url, "HTTPS_PROXY": platform.url}
        ended = subprocess.run(
            [SDK, "-c", SEND], input=json.dumps(requests), capture_output=True, text=True,
            env=names | {"NO_PROXY": "127.0.0.1"} | environment, check=False,
        )  # fmt: skip
        assert ended.returncode == 0, ended.stderr
        return ended.stdout.splitlines()

    return send


@pytest.fixture
def requests(mrigan, arguments):
    """What ``--dry-run`` shows for each of the cases."""
    return [json.loads(mrigan(*arguments(**options), "--dry-run").out) for options in CASES]


@pytest.mark.sdk
def test_the_sdk_sends_the_requests_that_boto3_sends_but_for_the_name(
    send_by_sdk, platform, requests
):
    told = send_by_sdk(*requests)
    sent = [request for name, request in platform.requests if name == "CreateTrainingJob"]
    assert len(told) == len(sent) == len(CASES)
    for line, theirs, ours in zip(told, sent, requests, strict=True):
        name, digits = theirs.pop("TrainingJobName"), ours.pop("TrainingJobName")[-4:]
        assert line == f"NAME {name}"
        assert name.startswith(f"mrigan-{digits}-")
        assert theirs == ours
    # It asks no one about the role, and reports to no one.
    assert set(platform.operations) == {"CreateTrainingJob", "DescribeTrainingJob"}


@pytest.mark.sdk
def test_through_the_sdk_nothing_else_is_sent_and_a_refusal_reads_the_same(
    send_by_sdk, mrigan, arguments, platform, requests, tmp_path
):
    configuration = tmp_path / "config.yaml"
    configuration.write_text(
        "SchemaVersion: '1.0'\n"
        "SageMaker:\n  TrainingJob:\n    VpcConfig:\n"
        "      Subnets: [subnet-1234]\n      SecurityGroupIds: [sg-1234]\n"
    )
    platform.refusals["CreateTrainingJob"] = [(400, "ResourceLimitExceeded", "The limit is 0")]
    spot, isolated = requests[1], requests[4]
    # The SDK leaves out what is empty.
    tagged = json.loads(mrigan(*arguments(tags="owner="), "--dry-run").out)
    told = send_by_sdk(spot, tagged, isolated, SAGEMAKER_USER_CONFIG_OVERRIDE=str(configuration))
    assert told[0].startswith(
        "mrigan: can't submit the job: ResourceLimitExceeded: The limit is 0; raise the quota "
        "(Service Quotas > Amazon SageMaker: 'ml.g5.xlarge for spot training job usage')"
    )
    assert "the sagemaker SDK would send another Tags than --dry-run shows" in told[1]
    # A user's configuration of the SDK is not asked.
    [(_, sent)] = [each for each in platform.requests if each[0] == "CreateTrainingJob"]
    assert "VpcConfig" not in sent
