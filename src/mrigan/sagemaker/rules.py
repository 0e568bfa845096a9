"""What must hold between the settings of a launch; every breach is told, a line each.

The limits are those of CreateTrainingJob, checked before anything is sent:
https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_CreateTrainingJob.html
"""

import re
from collections.abc import Iterator, Mapping

from mrigan.errors import StorageError
from mrigan.sagemaker.instances import family, has_gpu, has_own_disk, why_unusable
from mrigan.settings.fields import Settings
from mrigan.settings.sagemaker import LaunchSettings
from mrigan.storage.location import BucketLocation, parse_uri

VALUE_CHARACTERS = 256
URI_CHARACTERS = 900  # of SageMaker's 1024; names of ours follow
_JOB_NAME = re.compile(r"[a-zA-Z0-9](-*[a-zA-Z0-9]){0,62}")
_REGION = re.compile(r"\.dkr\.ecr(?:-fips)?\.([a-z0-9-]+)\.amazonaws")
_SECRET = re.compile(
    r"(AKIA|ASIA)[A-Z0-9]{12}|aws_(secret|session|access)|://[^/\s]*@|-----BEGIN", re.IGNORECASE
)


def image_region(image: str) -> str:
    """Return the region of an ECR image's URI, "" if there is none in it."""
    found = _REGION.search(image)
    return found[1] if found else ""


def breaches(
    settings: Settings, launch: LaunchSettings, *, job_name: str, region: str
) -> list[str]:
    """Say everything that SageMaker or the job would refuse, by the names of the options."""
    return [
        *_places(settings, launch),
        *_image(launch, region),
        *_machines(settings, launch),
        *_times(launch),
        *_network(launch),
        *_name(launch, job_name),
    ]


def secrets_in(request: Mapping[str, object]) -> list[str]:
    """Say where a request holds what looks like a credential, without repeating it."""
    return [
        f"{where}: looks like a credential, and DescribeTrainingJob shows it to many; give the "
        "role permissions instead"
        for where, text in _texts(request)
        if _SECRET.search(text)
    ]


def _texts(value: object, where: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _texts(inner, f"{where}.{name}".lstrip("."))
            yield f"{where}.{name}".lstrip("."), str(name)
    elif isinstance(value, list):
        for inner in value:
            yield from _texts(inner, where)
    elif isinstance(value, str):
        yield where, value


def _places(settings: Settings, launch: LaunchSettings) -> Iterator[str]:
    if not settings.input_uri.startswith("phantom://"):
        yield from _s3("--input-uri", settings.input_uri, "mrigan phantom s3://… --from DIR")
    if "output_uri" not in settings.model_fields_set:
        yield "--output-uri: needed: s3://bucket/prefix, where the run is written and resumed"
    else:
        yield from _s3("--output-uri", settings.output_uri, "mrigan fetch afterwards")
    if settings.init_from:
        yield from _s3("--init-from", settings.init_from, "mrigan phantom s3://… --from DIR")
    copy, output = launch.checkpoint_uri, settings.output_uri.rstrip("/")
    if copy:
        yield from _s3("--checkpoint-uri", copy, "s3://bucket/prefix")
        if launch.network_isolation and copy != output:
            yield (
                "--checkpoint-uri: with --network-isolation the run is kept at --output-uri; "
                "leave it out"
            )
        elif not launch.network_isolation and _overlap(copy, output):
            yield f"--checkpoint-uri: overlaps --output-uri {output}: choose a place beside it"
        if _overlap(copy, settings.input_uri):
            yield f"--checkpoint-uri: overlaps --input-uri {settings.input_uri}: choose another"
    if launch.input_mode == "pull" and launch.network_isolation:
        yield "--input-mode pull: a job in --network-isolation can't reach S3; use File"
    if settings.device == "mps":
        yield "--device mps: there is none on SageMaker; use auto"


def _s3(option: str, uri: str, way: str) -> Iterator[str]:
    try:
        location = parse_uri(uri)
    except StorageError as error:
        yield f"{option}: {error}"
        return
    if not isinstance(location, BucketLocation):
        yield f"{option}: {uri} is on this machine, out of the job's reach; use S3 ({way})"
    elif len(uri) > URI_CHARACTERS:
        yield f"{option}: longer than {URI_CHARACTERS} characters; choose a shorter prefix"


def _overlap(one: str, other: str) -> bool:
    one, other = f"{one.rstrip('/')}/", f"{other.rstrip('/')}/"
    return one.startswith(other) or other.startswith(one)


def _image(launch: LaunchSettings, region: str) -> Iterator[str]:
    if not launch.role:
        yield "--role: needed: arn:aws:iam::ACCOUNT:role/NAME, which the job runs as"
    if not launch.image:
        yield "--image: needed: mrigan's image in ECR (deploy/build_and_push.sh prints its URI)"
    elif region and image_region(launch.image) != region:
        yield (
            f"--image: is in {image_region(launch.image)}, the job would be in {region}; push it "
            "there, or set AWS_REGION"
        )
    if not region:
        yield "AWS_REGION: needed: the region to run in"


def _machines(settings: Settings, launch: LaunchSettings) -> Iterator[str]:
    machine = launch.instance_type
    if why := why_unusable(machine):
        yield f"--instance-type {machine}: {why}; try ml.g5.xlarge"
    elif settings.device == "cuda" and not has_gpu(machine):
        yield f"--instance-type {machine}: has no GPU, but --device is cuda; try ml.g5.xlarge"
    if launch.volume_kms_key and has_own_disk(machine):
        yield (
            f"--volume-kms-key: ml.{family(machine)} machines encrypt their own disks and take no "
            "key; leave it out"
        )


def _times(launch: LaunchSettings) -> Iterator[str]:
    wait = launch.max_wait_hours
    if launch.spot and wait is not None and wait < launch.max_run_hours:
        yield (
            f"--max-wait-hours {wait:g}: less than --max-run-hours {launch.max_run_hours:g}, "
            "which it includes"
        )
    if launch.spot and launch.keep_alive_minutes:
        yield "--keep-alive-minutes: spot machines can't be kept; leave out one of the two"


def _network(launch: LaunchSettings) -> Iterator[str]:
    if bool(launch.subnets) != bool(launch.security_groups):
        missing = "--security-groups" if launch.subnets else "--subnets"
        yield f"{missing}: needed: a VPC takes subnets and security groups"


def _name(launch: LaunchSettings, job_name: str) -> Iterator[str]:
    if launch.job_name and launch.sender == "sagemaker":
        yield "--job-name: the sagemaker SDK names jobs itself; leave it out, or use boto3"
    if not _JOB_NAME.fullmatch(job_name):
        yield f"--job-name: {job_name} is no name of a job: up to 63 letters, digits and hyphens"
