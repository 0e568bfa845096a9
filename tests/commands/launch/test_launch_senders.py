"""Both ways to send a request, and that they send the same one."""

import json
import os
import subprocess
import sys
from pathlib import Path

import boto3
import pytest

REPO = Path(__file__).parents[3]
SDK = REPO / ".sdk" / "v3" / "bin" / "python"
SEND = """
import json, sys
from mrigan.errors import MriganError
from mrigan.launch.aws import Aws
from mrigan.launch.sdk import send_by_sdk
try:
    print("NAME", send_by_sdk(Aws(), json.load(sys.stdin)))
except MriganError as error:
    sys.exit(f"mrigan: {error}")
"""
VPC = {"subnets": "subnet-0a,subnet-0b", "security_groups": "sg-01"}
CASES = [
    {},
    {"spot": "true", "epochs": "3", "g_lr": "2e-4", "retries": "2", "tags": "a=1, b="},
    {"input_uri": "phantom://9", "instance_type": "ml.m5.xlarge", "volume_kms_key": "key"},
    {"network_isolation": "true", "input_mode": "FastFile", "encrypt_traffic": "true"} | VPC,
    {"network_isolation": "true", "keep_alive_minutes": "9", "output_kms_key": "alias/mri"},
    {"checkpoint_uri": "s3://runs/copies/1", "input_mode": "pull", "max_run_hours": "0.5"} | VPC,
]


def test_an_aws_of_many_knows_the_job_as_it_was_shown(mrigan, arguments, aws_environ):
    line = arguments(job_name="mine", epochs="3", spot="true")
    shown = json.loads(mrigan(*line, "--dry-run").out)
    assert mrigan(*line, "--no-follow").status == 0
    client = boto3.client("sagemaker", region_name="us-east-1")
    found = client.describe_training_job(TrainingJobName="mine")
    dropped = {"Environment", "RetryStrategy"}  # moto keeps neither
    for name in shown.keys() - dropped - {"AlgorithmSpecification"}:
        assert found[name] == shown[name], name
    image = found["AlgorithmSpecification"]["TrainingImage"]
    assert image == shown["AlgorithmSpecification"]["TrainingImage"]


def test_there_the_job_is_followed_to_its_end(mrigan, arguments, aws_environ, quick):
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
    """Send a request by the SDK in a process of its own, which has it installed."""
    if not SDK.exists():
        pytest.skip("`make sdk` makes the environment of the SDK")

    def send(request, **environment):
        names = {**os.environ, "PYTHONPATH": str(REPO / "src"), "HOME": str(tmp_path)}
        return subprocess.run(
            [SDK, "-c", SEND], input=json.dumps(request), capture_output=True, text=True,
            env=names | environment, check=False,
        )  # fmt: skip

    return send


@pytest.mark.sdk
@pytest.mark.parametrize("options", CASES)
def test_the_sdk_sends_the_request_that_boto3_sends_but_for_the_name(
    send_by_sdk, mrigan, arguments, platform, options
):
    request = json.loads(mrigan(*arguments(**options), "--dry-run").out)
    ended = send_by_sdk(request)
    assert ended.returncode == 0, ended.stderr
    [(operation, sent)] = [
        (name, sent) for name, sent in platform.requests if name.startswith("Create")
    ]
    assert operation == "CreateTrainingJob"
    name = sent.pop("TrainingJobName")
    digits = request.pop("TrainingJobName")[-4:]
    assert name.startswith(f"mrigan-{digits}-")
    assert f"NAME {name}" in ended.stdout
    assert sent == request


@pytest.mark.sdk
def test_the_sdk_is_stopped_where_its_configuration_would_change_the_request(
    send_by_sdk, mrigan, arguments, platform, tmp_path
):
    configuration = tmp_path / "config.yaml"
    configuration.write_text(
        "SchemaVersion: '1.0'\n"
        "SageMaker:\n  TrainingJob:\n    VpcConfig:\n"
        "      Subnets: [subnet-1234]\n      SecurityGroupIds: [sg-1234]\n"
    )
    request = json.loads(mrigan(*arguments(network_isolation="true"), "--dry-run").out)
    ended = send_by_sdk(request, SAGEMAKER_USER_CONFIG_OVERRIDE=str(configuration))
    assert ended.returncode == 1
    assert "the sagemaker SDK would send another VpcConfig than --dry-run shows" in ended.stderr
    assert "CreateTrainingJob" not in platform.operations


@pytest.mark.sdk
def test_a_refusal_through_the_sdk_is_the_same_line(send_by_sdk, mrigan, arguments, platform):
    request = json.loads(mrigan(*arguments(spot="true"), "--dry-run").out)
    platform.refusals["CreateTrainingJob"] = [(400, "ResourceLimitExceeded", "The limit is 0")]
    ended = send_by_sdk(request)
    assert "mrigan: can't submit the job: ResourceLimitExceeded: The limit is 0" in ended.stderr
    assert "ml.g5.xlarge for spot training job usage" in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.sdk
def test_the_sdk_asks_no_one_about_the_role_and_reports_to_no_one(
    send_by_sdk, mrigan, arguments, platform, tmp_path
):
    request = json.loads(mrigan(*arguments(), "--dry-run").out)
    # Every other service leads to the same server, and so does what is reached by a proxy.
    ended = send_by_sdk(
        request, AWS_ENDPOINT_URL=platform.url, HTTPS_PROXY=platform.url, HTTP_PROXY="",
        NO_PROXY="127.0.0.1",
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    assert set(platform.operations) == {"CreateTrainingJob", "DescribeTrainingJob"}
    assert sys.version_info
