"""The IAM documents of deploy/: well-formed, no wider than needed, wide enough for the job."""

import json
import re
import string
import subprocess
import sys
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

IAM = Path(__file__).parents[1] / "deploy/iam"
KEY = "arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"
VALUES = {
    "account": "111122223333",
    "input_bucket": "their-slices",
    "input_prefix": "mri/slices",
    "job_name": "mrigan",
    "kms_key_arn": KEY,
    "output_bucket": "our-runs",
    "output_prefix": "runs",
    "partition": "aws",
    "region": "eu-central-1",
    "repository": "mrigan",
    "sagemaker_role": "mrigan-sagemaker",
}
DOCUMENTS = sorted(path.stem for path in IAM.glob("*.json"))
# Actions that IAM lets nobody narrow down to a resource.
UNBOUNDED = {
    "cloudwatch:PutMetricData",
    "ec2:DescribeDhcpOptions",
    "ec2:DescribeNetworkInterfaces",
    "ec2:DescribeSecurityGroups",
    "ec2:DescribeSubnets",
    "ec2:DescribeVpcs",
    "ecr:GetAuthorizationToken",
    "servicequotas:ListServiceQuotas",
}


def filled_in(name):
    return json.loads(string.Template((IAM / f"{name}.json").read_text()).substitute(VALUES))


def listed(value):
    return value if isinstance(value, list) else [value]


def statements(name):
    return filled_in(name)["Statement"]


def holds(condition, context):
    compare = {
        "StringEquals": lambda asked, given: asked == given,
        "StringLike": lambda asked, given: fnmatchcase(asked, given),
        "Bool": lambda asked, given: asked == given,
    }
    return all(
        key in context and any(compare[operator](context[key], value) for value in listed(values))
        for operator, keys in condition.items()
        for key, values in keys.items()
    )


def allows(name, action, resource="*", **context):
    """Whether a policy that has only Allow statements lets ``action`` pass; IAM's own logic."""
    context = {key.replace("__", ":"): value for key, value in context.items()}
    return any(
        any(fnmatchcase(action, pattern) for pattern in listed(statement["Action"]))
        and any(fnmatchcase(resource, pattern) for pattern in listed(statement["Resource"]))
        and holds(statement.get("Condition", {}), context)
        for statement in statements(name)
    )


def as_resource(name):
    """Return a CloudFormation resource whose type says by which grammar to check a document."""
    document = filled_in(name)
    if name.endswith("-trust"):
        properties = {"AssumeRolePolicyDocument": document}
        return {"Type": "AWS::IAM::Role", "Properties": properties}
    if name == "bucket-policy":
        properties = {"Bucket": "our-runs", "PolicyDocument": document}
        return {"Type": "AWS::S3::BucketPolicy", "Properties": properties}
    return {"Type": "AWS::IAM::ManagedPolicy", "Properties": {"PolicyDocument": document}}


@pytest.mark.slow
def test_aws_s_own_linter_knows_every_action_and_its_resource(tmp_path):
    resources = {name.title().replace("-", ""): as_resource(name) for name in DOCUMENTS}
    wrong = as_resource("push-policy")
    wrong["Properties"]["PolicyDocument"]["Statement"][0]["Action"] = "ecr:GetAuthorisationToken"
    template = tmp_path / "template.json"
    template.write_text(json.dumps({"Resources": resources | {"Wrong": wrong}}))
    linter = Path(sys.executable).with_name("cfn-lint")
    command = [linter, "--include-checks", "I", "--format", "json", "--", template]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    found = {match["Location"]["Path"][1]: match["Message"] for match in json.loads(result.stdout)}
    assert found.keys() == {"Wrong"}, found


@pytest.mark.parametrize("name", DOCUMENTS)
def test_placeholders_are_the_only_thing_to_fill_in(name):
    text = (IAM / f"{name}.json").read_text()
    assert set(re.findall(r"\$\{(\w+)\}", text)) <= set(VALUES)
    assert not re.search(r"\d{12}|arn:aws", text)


@pytest.mark.parametrize("name", [n for n in DOCUMENTS if n.endswith("policy") and n[:2] != "bu"])
def test_no_policy_of_ours_has_a_wildcard_where_one_can_be_avoided(name):
    for statement in statements(name):
        actions = listed(statement["Action"])
        assert statement["Effect"] == "Allow"
        assert not {"NotAction", "NotResource"} & statement.keys()
        assert not [action for action in actions if "*" in action]
        if "*" in listed(statement["Resource"]):
            assert set(actions) <= UNBOUNDED


def test_sagemaker_takes_the_role_for_this_account_only():
    (statement,) = statements("sagemaker-trust")
    assert statement["Principal"] == {"Service": "sagemaker.amazonaws.com"}
    assert statement["Condition"] == {"StringEquals": {"aws:SourceAccount": "111122223333"}}


OBJECT = "arn:aws:s3:::our-runs/runs/first/checkpoints/000512000.pt"
REPOSITORY = "arn:aws:ecr:eu-central-1:111122223333:repository/mrigan"
LOGS = "arn:aws:logs:eu-central-1:111122223333:log-group:/aws/sagemaker/TrainingJobs"
STREAM = f"{LOGS}:log-stream:mrigan-20261122-101500-1a2b/algo-1-1795342500"
JOB = "arn:aws:sagemaker:eu-central-1:111122223333:training-job/mrigan-20261122-101500-1a2b"
ROLE = "arn:aws:iam::111122223333:role/mrigan-sagemaker"


@pytest.mark.parametrize("role", ["sagemaker-policy", "ec2-policy"])
@pytest.mark.parametrize(
    ("action", "resource", "context"),
    [
        ("s3:ListBucket", "arn:aws:s3:::their-slices", {"s3__prefix": "mri/slices/"}),
        ("s3:GetObject", "arn:aws:s3:::their-slices/mri/slices/a/1.png", {}),
        ("s3:ListBucket", "arn:aws:s3:::our-runs", {"s3__prefix": "runs/first/checkpoints/"}),
        ("s3:GetObject", OBJECT, {}),
        ("s3:PutObject", OBJECT, {}),
        ("s3:AbortMultipartUpload", OBJECT, {}),
        ("s3:DeleteObject", OBJECT, {}),
        ("ecr:GetAuthorizationToken", "*", {}),
        ("ecr:BatchGetImage", REPOSITORY, {}),
        ("ecr:GetDownloadUrlForLayer", REPOSITORY, {}),
    ],
)
def test_a_job_may_do_what_it_does(role, action, resource, context):
    assert allows(role, action, resource, **context)


@pytest.mark.parametrize("role", ["sagemaker-policy", "ec2-policy", "launcher-policy"])
@pytest.mark.parametrize(
    ("action", "resource", "context"),
    [
        ("s3:PutObject", "arn:aws:s3:::their-slices/mri/slices/a/1.png", {}),
        ("s3:DeleteObject", "arn:aws:s3:::their-slices/mri/slices/a/1.png", {}),
        ("s3:GetObject", "arn:aws:s3:::their-slices/mri/reports/a.pdf", {}),
        ("s3:ListBucket", "arn:aws:s3:::their-slices", {"s3__prefix": "mri/slices-of-others/"}),
        ("s3:ListBucket", "arn:aws:s3:::their-slices", {"s3__prefix": ""}),
        ("s3:ListBucket", "arn:aws:s3:::our-runs", {}),
        ("s3:GetObject", "arn:aws:s3:::our-runs/others/1", {}),
        ("s3:GetObject", "arn:aws:s3:::another-bucket/runs/1", {}),
        ("s3:DeleteObjectVersion", OBJECT, {}),
        ("s3:PutBucketPolicy", "arn:aws:s3:::our-runs", {}),
        ("ecr:PutImage", REPOSITORY, {}),
        ("iam:PassRole", f"{ROLE}-of-others", {"iam__PassedToService": "sagemaker.amazonaws.com"}),
        ("iam:PassRole", ROLE, {"iam__PassedToService": "ec2.amazonaws.com"}),
        ("sagemaker:CreateTrainingJob", JOB.replace("mrigan-2", "another-2"), {}),
    ],
)
def test_nobody_may_do_what_no_job_needs(role, action, resource, context):
    assert not allows(role, action, resource, **context)


def test_a_job_logs_and_counts_where_sagemaker_looks():
    assert allows("sagemaker-policy", "logs:CreateLogGroup", LOGS)
    assert allows("sagemaker-policy", "logs:CreateLogStream", STREAM)
    assert allows("sagemaker-policy", "logs:PutLogEvents", STREAM)
    here = {"cloudwatch__namespace": "/aws/sagemaker/TrainingJobs"}
    assert allows("sagemaker-policy", "cloudwatch:PutMetricData", "*", **here)
    assert not allows(
        "sagemaker-policy", "cloudwatch:PutMetricData", "*", cloudwatch__namespace="x"
    )


@pytest.mark.parametrize(
    ("action", "resource", "context"),
    [
        ("sagemaker:CreateTrainingJob", JOB, {}),
        ("sagemaker:AddTags", JOB, {}),
        ("sagemaker:DescribeTrainingJob", JOB, {}),
        ("sagemaker:StopTrainingJob", JOB, {}),
        ("iam:PassRole", ROLE, {"iam__PassedToService": "sagemaker.amazonaws.com"}),
        ("iam:GetRole", ROLE, {}),
        ("ecr:DescribeImages", REPOSITORY, {}),
        ("logs:DescribeLogStreams", f"{LOGS}:log-stream:", {}),
        ("logs:GetLogEvents", STREAM, {}),
        ("s3:ListBucket", "arn:aws:s3:::their-slices", {"s3__prefix": "mri/slices/"}),
        ("s3:ListBucket", "arn:aws:s3:::our-runs", {"s3__prefix": "runs/first/"}),
        ("s3:GetObject", OBJECT, {}),
        ("servicequotas:ListServiceQuotas", "*", {}),
    ],
)
def test_a_launcher_may_submit_follow_stop_and_fetch(action, resource, context):
    assert allows("launcher-policy", action, resource, **context)


def test_a_key_is_used_through_s3_and_granted_to_aws_alone():
    through = {"kms__ViaService": "s3.eu-central-1.amazonaws.com"}
    assert allows("kms-policy", "kms:Decrypt", KEY, **through)
    assert allows("kms-policy", "kms:GenerateDataKey", KEY, **through)
    assert not allows("kms-policy", "kms:Decrypt", KEY)
    assert allows("kms-volume-policy", "kms:CreateGrant", KEY, kms__GrantIsForAWSResource="true")
    assert not allows("kms-volume-policy", "kms:CreateGrant", KEY)
