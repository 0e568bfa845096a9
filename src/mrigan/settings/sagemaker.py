"""What ``mrigan launch`` must know beyond the job: where on SageMaker it runs, and for how long.

None of it reaches the job: these are no hyperparameters. One field says one thing; what must go
together is ``mrigan.sagemaker.rules``'s to say, with all other problems of a request.
"""

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field
from pydantic_settings import NoDecode

from mrigan.settings.declared import DeclaredSettings

HOUR_SECONDS = 3600
# `<name>-YYYYmmdd-HHMMSS-abcd` has at most 63 characters.
NAME_CHARACTERS = 42
_NAME = re.compile(r"[a-zA-Z0-9](-*[a-zA-Z0-9])*")
_ROLE = re.compile(r"arn:aws[a-z-]*:iam::\d{12}:role/[\w+=,.@/-]+")
_IMAGE = re.compile(
    r"\d{12}\.dkr\.ecr(-fips)?\.[a-z0-9-]+\.amazonaws\.com(\.cn)?"
    r"/[a-z0-9][a-z0-9._/-]*(:[\w.-]{1,128}|@sha256:[0-9a-f]{64})"
)
_INSTANCE = re.compile(r"ml\.[a-z0-9]+(-[a-z0-9]+)?\.[a-z0-9]+")
_KMS = re.compile(r"[a-zA-Z0-9:/_-]{1,2048}")
_TAG = re.compile(r"[\w .:/+@-]+=[\w .:/=+@-]*")
_SUBNET = re.compile(r"subnet-[0-9a-z-]+")
_GROUP = re.compile(r"sg-[0-9a-z-]+")


def _split(value: object) -> object:
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return value


def _each(value: tuple[str, ...], pattern: re.Pattern[str], form: str) -> tuple[str, ...]:
    for part in value:
        if not pattern.fullmatch(part):
            raise ValueError(f"takes {form}, separated by commas")
    return value


def _whole(value: str, pattern: re.Pattern[str], form: str) -> str:
    if value and not pattern.fullmatch(value):
        raise ValueError(f"takes {form}")
    return value


def _tags(value: tuple[str, ...]) -> tuple[str, ...]:
    names = [tag.partition("=")[0] for tag in _each(value, _TAG, "name=value")]
    if len(names) != len(set(names)):
        raise ValueError("names a tag twice")
    for tag in value:
        name, _, text = tag.partition("=")
        if len(name) > 128 or len(text) > 256 or name.lower().startswith("aws:"):
            raise ValueError("takes names up to 128 characters, not aws:…, and values up to 256")
    return value


def _bucket_uri(value: str) -> str:
    return _whole(value.rstrip("/"), re.compile(r"s3://[^/\s]+(/\S+)?"), "s3://bucket/prefix")


Names = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)]
KmsKey = Annotated[str, AfterValidator(lambda v: _whole(v, _KMS, "a KMS key's ARN, id or alias"))]


class LaunchSettings(DeclaredSettings):
    """How a job is run on SageMaker, field by field valid; build it with ``load_launch``."""

    role: Annotated[
        str, AfterValidator(lambda v: _whole(v, _ROLE, "arn:aws:iam::ACCOUNT:role/NAME"))
    ] = Field(
        "",
        title="SageMaker",
        description="ARN of the role that the job runs as; needed",
    )
    image: Annotated[
        str,
        Field(max_length=255),
        AfterValidator(
            lambda v: _whole(
                v,
                _IMAGE,
                "ACCOUNT.dkr.ecr.REGION.amazonaws.com/REPOSITORY with a :tag or an @sha256:digest",
            )
        ),
    ] = Field("", description="URI of mrigan's image in ECR, with a tag or digest; needed")
    instance_type: Annotated[
        str, AfterValidator(lambda v: _whole(v, _INSTANCE, "an instance type, as ml.g5.xlarge"))
    ] = Field("ml.g5.xlarge", description="machine to rent", min_length=1)
    instance_count: int = Field(1, ge=1, le=64, description="machines")
    volume_gb: int = Field(
        50,
        ge=1,
        le=16384,
        description="disk of each, GB; machines with a disk of their own ignore it",
    )
    spot: bool = Field(
        False,
        description="use spare capacity: cheaper, may be interrupted, resumes from its checkpoint",
    )
    max_run_hours: float = Field(
        24.0, ge=1 / 60, le=28 * 24, allow_inf_nan=False, description="training stops then, hours"
    )
    max_wait_hours: float | None = Field(
        None,
        ge=1 / 60,
        le=28 * 24,
        allow_inf_nan=False,
        description="with `spot`: running and waiting for capacity together, hours; default: half "
        "as long again as `max_run_hours`",
    )
    input_mode: Literal["File", "FastFile", "pull"] = Field(
        "File",
        description="how slices in S3 reach the job: copied to its disk by the platform (`File`), "
        "read through it (`FastFile`), or pulled by the job itself (`pull`)",
    )
    checkpoint_uri: Annotated[str, AfterValidator(_bucket_uri)] = Field(
        "",
        description="`s3://bucket/prefix` for a second copy of the run, kept by the platform; with "
        "`spot` there is one anyway, in `sagemaker/checkpoints` below the output",
    )
    subnets: Annotated[
        Names,
        Field(max_length=16),
        AfterValidator(lambda v: _each(v, _SUBNET, "subnet-…")),
    ] = Field((), description="subnets of the VPC to run in, separated by commas")
    security_groups: Annotated[
        Names, Field(max_length=5), AfterValidator(lambda v: _each(v, _GROUP, "sg-…"))
    ] = Field((), description="security groups there, separated by commas")
    network_isolation: bool = Field(
        False, description="no network and no credentials in the job; the platform moves its files"
    )
    encrypt_traffic: bool = Field(False, description="encrypt what several machines exchange")
    output_kms_key: KmsKey = Field(
        "", description="KMS key of the platform's own uploads; default: `sse_kms_key_id`"
    )
    volume_kms_key: KmsKey = Field("", description="KMS key of the machines' disks")
    tags: Annotated[Names, Field(max_length=50), AfterValidator(_tags)] = Field(
        (), description="tags of the job, `name=value` separated by commas; never a patient's name"
    )
    retries: int = Field(
        0, ge=0, le=30, description="new attempts after a failure of the platform itself"
    )
    keep_alive_minutes: int = Field(
        0, ge=0, le=60, description="keep the machines for a next job (and pay for them), minutes"
    )
    base_name: Annotated[
        str, AfterValidator(lambda v: _whole(v, _NAME, "letters, digits and hyphens between them"))
    ] = Field(
        "mrigan",
        min_length=1,
        max_length=NAME_CHARACTERS,
        description="what the job's name begins with; time and four random digits follow",
    )
    job_name: Annotated[
        str, AfterValidator(lambda v: _whole(v, _NAME, "letters, digits and hyphens between them"))
    ] = Field("", max_length=63, description="the job's whole name instead")
    sender: Literal["boto3", "sagemaker"] = Field(
        "boto3", description="what submits the request: `boto3`, or the `sagemaker` SDK's v3"
    )
