"""The two examples of deploy/sagemaker, run as they stand: what they ask AWS for."""

from pathlib import Path

import pytest

from mrigan.logs import METRICS, metric_regex
from mrigan.sagemaker.request import build_request
from mrigan.settings.fields import Settings
from mrigan.settings.sagemaker import LaunchSettings

pytestmark = pytest.mark.sdk

FOLDER = Path(__file__).parents[2] / "deploy" / "sagemaker"
EXAMPLES = {"v2": FOLDER / "estimator_v2.py", "v3": FOLDER / "model_trainer_v3.py"}
ROLE = "arn:aws:iam::111122223333:role/mrigan"
IMAGE = "111122223333.dkr.ecr.eu-central-1.amazonaws.com/mrigan:0.1.0"
SLICES, RUN = "s3://scans/slices", "s3://scans/runs/first"
CHOICES = {
    "MRIGAN_ROLE": ROLE,
    "MRIGAN_IMAGE": IMAGE,
    "MRIGAN_INPUT_URI": SLICES,
    "MRIGAN_OUTPUT_URI": f"{RUN}/",
}


@pytest.fixture(scope="module", params=EXAMPLES)
def version(request):
    return request.param


@pytest.fixture(scope="module")
def submitted(version, sdk, submit):
    """What the example printed and what AWS was asked for."""
    return submit(sdk(version), EXAMPLES[version], **CHOICES)


@pytest.fixture
def aws(submitted):
    return submitted[1]


def without_sdks_own(request):
    """``request`` less its name and what a version of the SDK says besides, each a default."""
    plain = {name: value for name, value in request.items() if name != "TrainingJobName"}
    assert plain.pop("ProfilerConfig", {"DisableProfiler": True}) == {"DisableProfiler": True}
    output = dict(plain["OutputDataConfig"])
    assert output.pop("CompressionType", "GZIP") == "GZIP"
    channels = [dict(channel) for channel in plain["InputDataConfig"]]
    assert [channel.pop("InputMode", "File") for channel in channels] == ["File"]
    return {**plain, "OutputDataConfig": output, "InputDataConfig": channels}


def test_an_example_sends_the_request_of_mrigan_launch(aws):
    settings = Settings(
        input_uri=SLICES, output_uri=RUN, epochs=500, batch_size=32, accumulation_steps=8
    )
    launch = LaunchSettings(role=ROLE, image=IMAGE, spot=True, network_isolation=True)
    ours = build_request(settings, launch, job_name="any", region="eu-central-1")
    del ours["Environment"]  # the region, for AWS calls that an isolated job can't make
    assert without_sdks_own(aws.training_job()) == without_sdks_own(ours)


def test_an_examples_metrics_are_the_loggers(aws):
    definitions = aws.training_job()["AlgorithmSpecification"]["MetricDefinitions"]
    assert definitions == [
        {"Name": f"train:{name}", "Regex": metric_regex(name)} for name in METRICS
    ]


def test_an_example_asks_for_the_job_alone_and_tells_nobody_else(version, aws):
    reads = {"v2": [], "v3": ["SageMaker.DescribeTrainingJob"]}[version]
    assert aws.operations == ["SageMaker.CreateTrainingJob", *reads]


def test_the_name_of_the_job_is_the_last_that_an_example_prints(submitted):
    printed, aws = submitted
    name = aws.training_job()["TrainingJobName"]
    assert printed.splitlines()[-1] == f"mrigan launch --attach {name}"
