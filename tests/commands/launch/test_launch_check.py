"""``--check`` against an AWS that has everything, then lacks one thing after another."""

import json
import uuid

import boto3
import pytest

from mrigan.errors import MriganError, UncheckedError
from mrigan.jobs.checklist import Check, go_through
from mrigan.sagemaker.aws import Aws
from mrigan.sagemaker.checks import Checks
from mrigan.storage.store import StoreOptions

TRUST = {
    "Version": "2012-10-17",
    "Statement": [
        {
            "Effect": "Allow",
            "Principal": {"Service": ["sagemaker.amazonaws.com"]},
            "Action": "sts:AssumeRole",
        }
    ],
}
QUOTA = "ml.g5.xlarge for training job usage"


class Account:
    """An AWS account with what a launch needs, each thing under a name of its own."""

    def __init__(self):
        self.name = f"n{uuid.uuid4().hex[:10]}"
        self.s3 = boto3.client("s3", region_name="us-east-1")
        self.iam = boto3.client("iam", region_name="us-east-1")
        self.ecr = boto3.client("ecr", region_name="us-east-1")
        arn = self.iam.create_role(
            RoleName=self.name, Path="/jobs/", AssumeRolePolicyDocument=json.dumps(TRUST)
        )["Role"]["Arn"]
        repository = self.ecr.create_repository(repositoryName=f"mri/{self.name}")["repository"]
        self.digest = self.push("0.1.0")
        self.s3.create_bucket(Bucket=self.name)
        self.s3.put_object(Bucket=self.name, Key="in/a/1.png", Body=b"x" * 2**20)
        self.options = {
            "role": arn,
            "image": f"{repository['repositoryUri']}:0.1.0",
            "input_uri": f"s3://{self.name}/in",
            "output_uri": f"s3://{self.name}/runs/first",
        }

    def push(self, tag, media_type="application/vnd.docker.distribution.manifest.v2+json"):
        manifest = {"schemaVersion": 2, "mediaType": media_type, "layers": [], "tag": tag}
        if "index" in media_type:
            manifest["manifests"] = []
        image = self.ecr.put_image(
            repositoryName=f"mri/{self.name}",
            imageManifest=json.dumps(manifest),
            imageManifestMediaType=media_type,
            imageTag=tag,
        )["image"]
        return image["imageId"]["imageDigest"]


@pytest.fixture
def account(aws_environ):
    return Account()


@pytest.fixture
def check(mrigan, account):
    """Run the checks: ``check(output_uri=...)`` is the status and each check's word."""

    def run(**changes):
        options = account.options | changes
        given = (f"--{name.replace('_', '-')}={value}" for name, value in options.items())
        ended = mrigan("launch", *given, "--check", "--log-format", "json")
        lines = [json.loads(line) for line in ended.out.splitlines()]
        return ended.status, {line["name_of_check"]: line for line in lines}

    return run


def test_what_is_there_is_said_and_nothing_is_changed(check, account):
    status, told = check()
    assert status == 0
    assert [name for name, line in told.items() if line["ok"] is False] == []
    assert list(told) == ["caller", "role", "image", "input", "output", "quota"]
    assert "in us-east-1" in told["caller"]["found"]
    assert told["role"]["found"].endswith("exists and trusts SageMaker")
    assert account.digest in told["image"]["found"]
    assert "1 objects, 0.00 GiB in us-east-1, channel training" in told["input"]["found"]
    assert "a new run" in told["output"]["found"]
    keys = account.s3.list_objects_v2(Bucket=account.name)["Contents"]
    assert [each["Key"] for each in keys] == ["in/a/1.png"]


def test_an_image_by_its_digest_is_found(check, account):
    image = f"{account.options['image'].rpartition(':')[0]}@{account.digest}"
    assert check(image=image)[0] == 0


def test_a_run_that_is_there_is_said_to_go_on(check, account):
    account.s3.put_object(Bucket=account.name, Key="runs/first/status.json", Body=b"{}")
    status, told = check()
    assert status == 0
    assert "a run is there: the job resumes it" in told["output"]["found"]


def test_phantoms_need_no_input(check):
    status, told = check(input_uri="phantom://5")
    assert status == 0
    assert "input" not in told


def missing_role(account):
    return {"role": f"{account.options['role']}x"}


def role_of_another_account(account):
    return {"role": "arn:aws:iam::999999999999:role/mrigan"}


def role_for_ec2(account):
    document = json.dumps(TRUST).replace("sagemaker", "ec2")
    account.iam.update_assume_role_policy(RoleName=account.name, PolicyDocument=document)


def missing_tag(account):
    return {"image": account.options["image"].replace("0.1.0", "0.2.0")}


def missing_repository(account):
    return {"image": account.options["image"].replace("mri/", "mra/")}


def index_of_images(account):
    account.push("index", "application/vnd.oci.image.index.v1+json")
    return {"image": account.options["image"].replace("0.1.0", "index")}


def nothing_under_the_prefix(account):
    account.s3.put_object(Bucket=account.name, Key="empty/", Body=b"")
    return {"input_uri": f"s3://{account.name}/empty"}


def doubled_slashes(account):
    account.s3.put_object(Bucket=account.name, Key="in/b//2.png", Body=b"x")


def missing_bucket(account):
    return {"input_uri": "s3://no-such-bucket-here/in"}


def output_elsewhere(account):
    name = f"far-{account.name}"
    far = boto3.client("s3", region_name="eu-west-1")
    far.create_bucket(Bucket=name, CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
    return {"output_uri": f"s3://{name}/runs"}


@pytest.mark.parametrize(
    ("lack", "name", "told"),
    [
        (missing_role, "role", "does not exist; deploy/ makes it"),
        (role_of_another_account, "role", "is of another account than the caller (123456789012)"),
        (role_for_ec2, "role", "does not trust SageMaker; add sagemaker.amazonaws.com"),
        (missing_tag, "image", "is not in ECR in us-east-1; push it"),
        (missing_repository, "image", "is not in ECR in us-east-1; push it"),
        (index_of_images, "image", "build it with --provenance=false --sbom=false"),
        (nothing_under_the_prefix, "input", "/empty/: nothing is there; check --input-uri"),
        (
            doubled_slashes,
            "input",
            "1 keys hold '//', at which the platform's download fails: b//2",
        ),
        (missing_bucket, "input", "bucket no-such-bucket-here does not exist"),
        (output_elsewhere, "output", "is in eu-west-1, the job in us-east-1; use a bucket there"),
    ],
)
def test_what_is_missing_is_one_line_and_hides_nothing_else(check, account, lack, name, told):
    status, lines = check(**(lack(account) or {}))
    assert status == 2
    assert [each for each, line in lines.items() if line["ok"] is False] == [name]
    assert told in lines[name]["found"]
    assert len(lines) == 6


def test_keys_with_doubled_slashes_are_no_matter_where_the_job_pulls(check, account):
    doubled_slashes(account)
    status, told = check(input_mode="pull")
    assert status == 0
    assert "2 objects" in told["input"]["found"]


def test_on_a_terminal_each_check_is_a_line(mrigan, account):
    given = (f"--{name.replace('_', '-')}={value}" for name, value in account.options.items())
    ended = mrigan("launch", *given, "--check")
    assert [line.split()[:2] for line in ended.out.splitlines()] == [
        ["ok", "caller"], ["ok", "role"], ["ok", "image"],
        ["ok", "input"], ["ok", "output"], ["unknown", "quota"],
    ]  # fmt: skip


def checks_of(request):
    return dict(Checks(Aws(), request, StoreOptions()).each())


@pytest.fixture
def request_of(mrigan, account):
    given = (f"--{name.replace('_', '-')}={value}" for name, value in account.options.items())
    return json.loads(mrigan("launch", *given, "--dry-run").out)


@pytest.mark.parametrize(
    ("is_spot", "told"),
    [
        (False, f"ok      quota    {QUOTA}: 1, needed 1"),
        (
            True,
            "unknown quota    ml.g5.xlarge for spot training job usage: Service Quotas does",
        ),
    ],
)
def test_a_quota_that_suffices_is_ok_and_one_that_is_not_listed_unknown(
    request_of, platform, monkeypatch, capsys, is_spot, told
):
    monkeypatch.setenv("AWS_ENDPOINT_URL_SERVICE_QUOTAS", platform.url)
    platform.quotas = {QUOTA: 1}
    request_of["EnableManagedSpotTraining"] = is_spot
    check = Check("quota", checks_of(request_of)["quota"])
    assert go_through([check], "text", failed="missing") == [0]
    assert capsys.readouterr().out.startswith(told)


def test_a_quota_of_nothing_is_found_before_the_job_is_refused(request_of, platform, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL_SERVICE_QUOTAS", platform.url)
    platform.quotas = {f"ml.g4dn.{n}xlarge for training job usage": 9 for n in range(7)}
    platform.quotas[QUOTA] = 0
    with pytest.raises(MriganError, match=r"training job usage: 0, needed 1; ask for more"):
        checks_of(request_of)["quota"]()


@pytest.mark.parametrize(
    ("service", "operation", "check_name"),
    [
        ("SERVICE_QUOTAS", "ListServiceQuotas", "quota"),
        ("ECR", "DescribeImages", "image"),
        ("IAM", "GetRole", "role"),
    ],
)
def test_what_may_not_be_looked_at_is_unchecked_and_not_missing(
    request_of, platform, monkeypatch, service, operation, check_name
):
    monkeypatch.setenv(f"AWS_ENDPOINT_URL_{service}", platform.url)
    code = "AccessDenied" if service == "IAM" else "AccessDeniedException"
    platform.refusals[operation] = [(403, code, "not authorized")]
    with pytest.raises(UncheckedError, match=r"not (allowed|authorized)"):
        checks_of(request_of)[check_name]()
    assert platform.refusals[operation] == []


def test_who_can_not_be_told_is_said_once(mrigan, account, monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    given = (f"--{name.replace('_', '-')}={value}" for name, value in account.options.items())
    checked = mrigan("launch", *given, "--check")
    lines = checked.out.splitlines()
    assert checked.status == 2
    assert len(lines) == 2
    assert lines[0].startswith("missing caller")
    assert lines[1].startswith("unknown the rest")
    assert lines[1].endswith("not checked: role, image, input, output, quota")
