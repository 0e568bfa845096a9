"""The request of a launch: what SageMaker's own model says of it, and what the job makes of it."""

import itertools
import json
import re

import botocore.session
import pytest
from botocore.validate import ParamValidator

from mrigan.errors import SettingsError
from mrigan.logs import METRICS
from mrigan.sagemaker.instances import has_gpu, has_own_disk, why_unusable
from mrigan.sagemaker.outcome import run_uri
from mrigan.sagemaker.request import build_request, make_job_name
from mrigan.settings.fields import Settings
from mrigan.settings.sagemaker import LaunchSettings
from mrigan.settings.sources import load_launch, load_settings

REGION = "eu-west-3"
NAME = "mrigan-20261122-230459-0a1f"
NEEDED = {
    "role": "arn:aws:iam::123456789012:role/service-role/mrigan",
    "image": f"123456789012.dkr.ecr.{REGION}.amazonaws.com/team/mrigan:4b51249",
    "input_uri": "s3://slices/t1/train",
    "output_uri": "s3://runs/first",
}
VPC = {"subnets": "subnet-0a, subnet-0b", "security_groups": "sg-01"}
KEY = "arn:aws:kms:eu-west-3:123456789012:key/0f-1"


@pytest.fixture(scope="module")
def model():
    return botocore.session.get_session().get_service_model("sagemaker")


def request_for(name=NAME, region=REGION, **options):
    settings, launch = load_launch(NEEDED | options)
    return build_request(settings, launch, job_name=name, region=region)


def problems(name=NAME, region=REGION, without=(), **options):
    given = {key: value for key, value in (NEEDED | options).items() if key not in without}
    try:
        settings, launch = load_launch(given)
        build_request(settings, launch, job_name=name, region=region)
    except SettingsError as error:
        return error.problems
    return ()


def assert_within_limits(value, shape, where="request"):
    """Patterns and upper bounds, which botocore leaves to the service."""
    limits = shape.metadata
    if shape.type_name == "structure":
        for member, inner in value.items():
            assert_within_limits(inner, shape.members[member], f"{where}.{member}")
    elif shape.type_name == "map":
        assert len(value) <= limits.get("max", 10**9), where
        for key, inner in value.items():
            assert_within_limits(key, shape.key, where)
            assert_within_limits(inner, shape.value, f"{where}.{key}")
    elif shape.type_name == "list":
        assert len(value) <= limits.get("max", 10**9), where
        for inner in value:
            assert_within_limits(inner, shape.member, where)
    elif shape.type_name == "string":
        assert len(value) <= limits.get("max", 10**9), where
        pattern = limits.get("pattern", ".*")
        for theirs, ours in {r"\p{L}": r"\w", r"\p{Z}": r"\s", r"\p{N}": r"\d"}.items():
            pattern = pattern.replace(theirs, ours)
        assert re.fullmatch(pattern, value), where
        assert not shape.enum or value in shape.enum, where
    elif shape.type_name == "integer":
        assert limits.get("min", 0) <= value <= limits.get("max", 10**9), where


PLACES = [
    {},
    {"input_uri": "s3://slices"},
    {"input_uri": "phantom://77", "network_isolation": "true"},
    {"input_mode": "FastFile", **VPC},
    {"input_mode": "pull", "checkpoint_uri": "s3://runs/copies/first/"},
    {"network_isolation": "true", "encrypt_traffic": "true", "instance_count": "3", **VPC},
]
MACHINES = [
    {},
    {"spot": "true", "retries": "30"},
    {"spot": "true", "max_run_hours": "600"},
    {"spot": "true", "max_run_hours": "0.3", "max_wait_hours": "0.3", "job_name": "a-1"},
    {"instance_type": "ml.m5.2xlarge", "volume_kms_key": KEY, "keep_alive_minutes": "60"},
    {"instance_type": "ml.g6e.12xlarge", "tags": "project=mri, owner=", "output_kms_key": "k"},
]
TRAINING = [
    {},
    {"epochs": "7", "g_lr": "2e-4", "max_refused": "2.5 %", "sse": "aws:kms"},
    {"sse": "aws:kms", "sse_kms_key_id": "alias/mri", "log_format": "json", "cache_dir": "/c"},
]
CASES = [a | b | c for a, b, c in itertools.product(PLACES, MACHINES, TRAINING)]


@pytest.mark.parametrize("options", CASES)
def test_sagemakers_own_model_accepts_every_request(model, options):
    request = request_for(**options)
    shape = model.operation_model("CreateTrainingJob").input_shape
    report = ParamValidator().validate(request, shape)
    assert not report.has_errors(), report.generate_report()
    assert_within_limits(request, shape)
    stopping = request["StoppingCondition"]
    assert ("MaxWaitTimeInSeconds" in stopping) == ("spot" in options)
    wait = stopping.get("MaxWaitTimeInSeconds", stopping["MaxRuntimeInSeconds"])
    assert wait >= stopping["MaxRuntimeInSeconds"]
    assert wait <= 28 * 86400


def test_the_model_would_refuse_what_the_test_of_limits_is_for(model):
    shape = model.operation_model("CreateTrainingJob").input_shape
    request = request_for()
    request["RoleArn"] = "mrigan"
    with pytest.raises(AssertionError, match="RoleArn"):
        assert_within_limits(request, shape)


@pytest.mark.parametrize("options", TRAINING)
def test_the_job_reads_the_hyperparameters_back_to_what_was_chosen(tmp_path, options):
    request = request_for(**options)
    assert all(isinstance(value, str) for value in request["HyperParameters"].values())
    path = tmp_path / "hyperparameters.json"
    path.write_text(json.dumps(request["HyperParameters"]))
    theirs = load_settings(hyperparameters=path)
    ours, _ = load_launch(NEEDED | options)
    there = {"input_uri", "cache_dir"}
    for field in Settings.model_fields.keys() - there:
        assert getattr(theirs, field) == getattr(ours, field), field


def test_only_what_someone_chose_is_sent_and_nothing_of_this_machine(monkeypatch, tmp_path):
    dotenv = tmp_path / ".env"
    dotenv.write_text("MRIGAN_BATCH_SIZE=16\nMRIGAN_CACHE_DIR=/scratch\nMRIGAN_SPOT=true\n")
    monkeypatch.setenv("MRIGAN_EPOCHS", "500")
    monkeypatch.setenv("MRIGAN_LOG_FORMAT", "auto")
    settings, launch = load_launch(NEEDED, dotenv=dotenv)
    request = build_request(settings, launch, job_name=NAME, region=REGION)
    assert request["HyperParameters"] == {
        "batch_size": "16",
        "epochs": "500",
        "output_uri": "s3://runs/first",
    }
    assert request["EnableManagedSpotTraining"] is True


def test_the_same_settings_are_the_same_request_whatever_the_machine_says(monkeypatch):
    first = request_for(spot="true", tags="a=b")
    monkeypatch.setenv("AWS_REGION", "us-west-2")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "other")
    assert request_for(spot="true", tags="a=b") == first
    assert first["Environment"]["AWS_REGION"] == REGION


def test_the_channel_takes_the_folder_and_not_what_begins_like_it():
    [channel] = request_for(input_uri="s3://slices/t1/")["InputDataConfig"]
    assert channel["ChannelName"] == "training"
    assert channel["DataSource"]["S3DataSource"]["S3Uri"] == "s3://slices/t1/"
    assert (
        request_for(input_uri="s3://slices")["InputDataConfig"][0]["DataSource"]["S3DataSource"][
            "S3Uri"
        ]
        == "s3://slices/"
    )


@pytest.mark.parametrize(
    "options",
    [{"input_uri": "phantom://9"}, {"input_uri": "s3://slices/t1", "input_mode": "pull"}],
)
def test_without_a_channel_the_job_is_told_where_to_look(options):
    request = request_for(**options)
    assert "InputDataConfig" not in request
    assert request["HyperParameters"]["input_uri"] == options["input_uri"]


def test_a_spot_job_always_has_a_copy_of_its_run_that_the_platform_keeps():
    assert "CheckpointConfig" not in request_for()
    kept = request_for(spot="true")["CheckpointConfig"]
    assert kept["S3Uri"] == "s3://runs/first/sagemaker/checkpoints"
    chosen = request_for(spot="true", checkpoint_uri="s3://other/kept")["CheckpointConfig"]
    assert chosen["S3Uri"] == "s3://other/kept"


def test_in_isolation_the_platform_keeps_the_run_at_the_output_and_the_job_knows_no_bucket():
    request = request_for(network_isolation="true", epochs="3")
    assert request["CheckpointConfig"] == {
        "S3Uri": "s3://runs/first",
        "LocalPath": "/opt/ml/checkpoints",
    }
    assert request["HyperParameters"] == {"epochs": "3"}


@pytest.mark.parametrize("options", [{}, {"network_isolation": "true"}, {"input_mode": "FastFile"}])
def test_a_jobs_description_tells_where_its_run_is(options):
    assert (
        run_uri(request_for(output_uri="s3://runs/a/b/", **options)).rstrip("/") == "s3://runs/a/b"
    )


def test_a_job_of_someone_elses_tells_nothing():
    assert run_uri({"OutputDataConfig": {"S3OutputPath": "s3://bucket/models"}}) == ""


def test_the_runs_key_encrypts_the_platforms_uploads_too():
    options = {"sse": "aws:kms", "sse_kms_key_id": "alias/mri"}
    assert request_for(**options)["OutputDataConfig"]["KmsKeyId"] == "alias/mri"
    both = request_for(**options, output_kms_key=KEY)
    assert both["OutputDataConfig"]["KmsKeyId"] == KEY


def test_every_metric_of_the_log_is_defined():
    defined = request_for()["AlgorithmSpecification"]["MetricDefinitions"]
    assert [each["Name"] for each in defined] == [f"train:{name}" for name in METRICS]
    for each, name in zip(defined, METRICS, strict=True):
        found = re.search(each["Regex"], f"12:00:00 epoch {name}=1.25e-03 x=2")
        assert found[1] == "1.25e-03"


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"without": ["role"]}, "--role: needed"),
        ({"without": ["image"]}, "--image: needed"),
        ({"without": ["output_uri"]}, "--output-uri: needed"),
        ({"region": ""}, "AWS_REGION: needed"),
        ({"region": "us-east-1"}, "--image: is in eu-west-3, the job would be in us-east-1"),
        ({"input_uri": "slices"}, "--input-uri: slices is on this machine"),
        ({"output_uri": "runs/x"}, "--output-uri: runs/x is on this machine"),
        ({"input_uri": "s3://me:pw@bucket/x"}, "--input-uri: s3://…@…: credentials don't belong"),
        ({"output_uri": "s3://runs/" + 891 * "x"}, "--output-uri: longer than 900"),
        ({"output_uri": "s3://runs/" + 300 * "x"}, "--output-uri: longer than 256"),
        ({"checkpoint_uri": "s3://runs/first/ck"}, "--checkpoint-uri: overlaps --output-uri"),
        ({"checkpoint_uri": "s3://runs"}, "--checkpoint-uri: overlaps --output-uri"),
        ({"checkpoint_uri": "s3://slices/t1"}, "--checkpoint-uri: overlaps --input-uri"),
        (
            {"checkpoint_uri": "s3://copies", "network_isolation": "true"},
            "--checkpoint-uri: with --network-isolation",
        ),
        (
            {"input_mode": "pull", "network_isolation": "true"},
            "--input-mode pull: a job in --network-isolation",
        ),
        ({"instance_type": "ml.p3.2xlarge"}, "--instance-type ml.p3.2xlarge: its GPU is older"),
        ({"instance_type": "ml.p2.xlarge"}, "--instance-type ml.p2.xlarge: its GPU is older"),
        ({"instance_type": "ml.trn1.2xlarge"}, "--instance-type ml.trn1.2xlarge: it has no NVIDIA"),
        (
            {"instance_type": "ml.m5.xlarge", "device": "cuda"},
            "--instance-type ml.m5.xlarge: has no GPU",
        ),
        ({"device": "mps"}, "--device mps: there is none"),
        ({"volume_kms_key": KEY}, "--volume-kms-key: ml.g5 machines encrypt their own disks"),
        (
            {"spot": "true", "max_wait_hours": "5", "max_run_hours": "6"},
            "--max-wait-hours 5: less than --max-run-hours 6",
        ),
        ({"spot": "true", "keep_alive_minutes": "5"}, "--keep-alive-minutes: spot machines"),
        ({"subnets": "subnet-1"}, "--security-groups: needed"),
        ({"security_groups": "sg-1"}, "--subnets: needed"),
        ({"sender": "sagemaker", "job_name": "mine"}, "--job-name: the sagemaker SDK names"),
        ({"name": "a" * 64}, "--job-name: aaaa"),
        ({"tags": "key=AKIAIOSFODNN7EXAMPLE"}, "Tags.Value: looks like a credential"),
        ({"tags": "aws_secret_access_key=x"}, "Tags.Key: looks like a credential"),
        ({"output_kms_key": "ASIAIOSFODNN7EXAMPLE"}, "OutputDataConfig.KmsKeyId: looks like"),
        # one field by itself
        ({"role": "mrigan"}, "--role: takes arn:aws:iam::ACCOUNT:role/NAME"),
        ({"image": "mrigan:latest"}, "--image: takes ACCOUNT.dkr.ecr.REGION.amazonaws.com"),
        ({"image": NEEDED["image"].removesuffix(":4b51249")}, "--image: takes ACCOUNT.dkr"),
        ({"instance_type": "g5.xlarge"}, "--instance-type: takes an instance type"),
        ({"max_run_hours": "673"}, "--max-run-hours: must be at most 672"),
        ({"retries": "31"}, "--retries: must be at most 30"),
        ({"keep_alive_minutes": "61"}, "--keep-alive-minutes: must be at most 60"),
        ({"spot": "perhaps"}, "--spot: takes true or false"),
        ({"tags": "project"}, "--tags: takes name=value, separated by commas"),
        ({"tags": "a=1,a=2"}, "--tags: names a tag twice"),
        ({"tags": "aws:x=1"}, "--tags: takes names up to 128"),
        ({"subnets": "vpc-1"}, "--subnets: takes subnet-…, separated by commas"),
        ({"base_name": "mri_gan"}, "--base-name: takes letters, digits and hyphens between"),
        ({"base_name": 43 * "a"}, "--base-name: takes at most 42 characters"),
        ({"input_mode": "Pipe"}, "--input-mode: takes 'File', 'FastFile' or 'pull'"),
    ],
)
def test_what_sagemaker_or_the_job_would_refuse_is_told_before(options, told):
    found = problems(**options)
    assert [line for line in found if line.startswith(told)], found
    assert len(found) == 1
    assert "\n" not in found[0]
    for secret in ("IOSFODNN7EXAMPLE", "pw@"):
        assert secret not in found[0]


def test_all_breaches_are_told_at_once():
    told = problems(
        without=["role"],
        output_uri="here",
        instance_type="ml.p3.2xlarge",
        spot="true",
        keep_alive_minutes="9",
        subnets="subnet-1",
        region="us-east-1",
    )
    assert [line.split(":")[0].split(" ")[0] for line in told] == [
        "--output-uri", "--role", "--image", "--instance-type", "--keep-alive-minutes",
        "--security-groups",
    ]  # fmt: skip


def test_a_jobs_name_fits_with_the_longest_base(model):
    from datetime import UTC, datetime

    name = make_job_name(42 * "b", datetime(2026, 11, 22, 23, 4, 59, tzinfo=UTC), "0a1f")
    assert name.endswith("-20261122-230459-0a1f")
    assert_within_limits(name, model.shape_for("TrainingJobName"))


def test_every_training_instance_of_sagemakers_is_known_for_what_it_is(model):
    kinds = model.shape_for("TrainingInstanceType").enum
    families = {kind.split(".")[1]: kind for kind in kinds}
    disks = {name for name, kind in families.items() if has_own_disk(kind)}
    unusable = {name for name, kind in families.items() if why_unusable(kind)}
    gpus = {name for name, kind in families.items() if has_gpu(kind)}
    assert disks == {
        "g4dn", "g5", "g6", "g6e", "g7", "g7e", "p3dn", "p4d", "p4de", "p5", "p5e", "p5en",
        "p6-b200", "p6-b300", "p6e-gb200", "r5d", "trn1", "trn1n", "trn2",
    }  # fmt: skip
    assert unusable == {"p2", "p3", "p3dn", "p6e-gb200", "trn1", "trn1n", "trn2"}
    assert gpus == {name for name in families if name[0] in "gp"}


def test_one_env_file_serves_every_command(monkeypatch, tmp_path):
    dotenv = tmp_path / ".env"
    dotenv.write_text("MRIGAN_SPOT=perhaps\nMRIGAN_ROLE=x\nMRIGAN_EPOCHS=3\n")
    monkeypatch.setenv("MRIGAN_INSTANCE_TYPE", "ml.g6.xlarge")
    assert load_settings(dotenv=dotenv).epochs == 3
    with pytest.raises(SettingsError) as caught:
        load_launch(NEEDED, dotenv=dotenv)
    assert caught.value.problems == (f"MRIGAN_SPOT: takes true or false (in {dotenv})",)


@pytest.mark.parametrize("load", [load_settings, load_launch])
def test_a_misspelt_name_of_the_launch_is_refused_by_every_command(monkeypatch, load):
    monkeypatch.setenv("MRIGAN_INSTANCE_TPYE", "ml.g6.xlarge")
    with pytest.raises(SettingsError) as caught:
        load()
    assert caught.value.problems == (
        "MRIGAN_INSTANCE_TPYE: unknown, did you mean MRIGAN_INSTANCE_TYPE?",
    )


def test_no_name_means_two_things():
    assert not Settings.model_fields.keys() & LaunchSettings.model_fields.keys()
