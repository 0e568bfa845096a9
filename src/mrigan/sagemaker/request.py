"""From settings to the CreateTrainingJob request: the same settings, the same request.

The slices are the channel ``training``, so that a job without network or credentials can read them
too. The run's own tree is at OUTPUT_URI in every case: written there by the job, or, in network
isolation, kept in step with the job's checkpoint folder by the platform. Either way the next job
with the same OUTPUT_URI resumes it, which is also what makes spot capacity safe.
"""

from datetime import datetime

from mrigan.errors import SettingsError
from mrigan.logs import METRICS, metric_regex
from mrigan.sagemaker.aws import Request
from mrigan.sagemaker.contract import CHANNEL, CHECKPOINTS, METRIC_PREFIX, PLATFORM_FOLDER
from mrigan.sagemaker.rules import VALUE_CHARACTERS, breaches, secrets_in
from mrigan.settings.fields import Settings
from mrigan.settings.sagemaker import HOUR_SECONDS, LaunchSettings

_MOST_WAIT_HOURS = 28 * 24
_MINUTE_SECONDS = 60
# Of this machine only, or said in another place of the request.
_NOT_SENT = frozenset({"cache_dir", "input_uri", "output_uri"})


def make_job_name(base: str, moment: datetime, digits: str) -> str:
    """Return ``<base>-YYYYmmdd-HHMMSS-<digits>``, unique enough for two launches in a second."""
    return f"{base}-{moment:%Y%m%d-%H%M%S}-{digits}"


def build_request(
    settings: Settings, launch: LaunchSettings, *, job_name: str, region: str
) -> Request:
    """Return the arguments of ``create_training_job``.

    Args:
        settings: Of the job; only what someone has chosen is passed on.
        launch: Where and how it runs.
        job_name: Unique in account and region.
        region: Where.

    Raises:
        SettingsError: A line for each thing that SageMaker or the job would refuse.
    """
    problems = breaches(settings, launch, job_name=job_name, region=region)
    if problems:
        raise SettingsError(*problems)
    request: Request = {
        "TrainingJobName": job_name,
        "RoleArn": launch.role,
        "AlgorithmSpecification": _algorithm(launch),
        "HyperParameters": hyperparameters(settings, launch),
        "OutputDataConfig": _output(settings, launch),
        "ResourceConfig": _resources(launch),
        "StoppingCondition": _stopping(launch),
        # Not among the variables that the platform promises to set.
        "Environment": {"AWS_REGION": region, "AWS_DEFAULT_REGION": region},
        **_channels(settings, launch),
        **_checkpoints(settings, launch),
        **_network(launch),
    }
    if launch.spot:
        request["EnableManagedSpotTraining"] = True
    if launch.retries:
        request["RetryStrategy"] = {"MaximumRetryAttempts": launch.retries}
    if launch.tags:
        pairs = (tag.partition("=") for tag in launch.tags)
        request["Tags"] = [{"Key": name, "Value": value} for name, _, value in pairs]
    if problems := [*_too_long(request["HyperParameters"]), *secrets_in(request)]:
        raise SettingsError(*problems)
    return request


def hyperparameters(settings: Settings, launch: LaunchSettings) -> dict[str, str]:
    """Return what the job is told, as text: what was chosen, never a default of ours."""
    chosen = settings.model_dump(mode="json", include=settings.model_fields_set - _NOT_SENT)
    if chosen.get("log_format") == "auto":
        del chosen["log_format"]
    pulls = launch.input_mode == "pull" or settings.input_uri.startswith("phantom://")
    if pulls and "input_uri" in settings.model_fields_set:
        chosen["input_uri"] = settings.input_uri
    if not launch.network_isolation:
        chosen["output_uri"] = settings.output_uri
    return {name: str(value) for name, value in sorted(chosen.items()) if value not in (None, "")}


def _too_long(values: dict[str, str]) -> list[str]:
    return [
        f"--{name.replace('_', '-')}: longer than {VALUE_CHARACTERS} characters, which SageMaker "
        "refuses; shorten it"
        for name, value in values.items()
        if len(value) > VALUE_CHARACTERS
    ]


def _algorithm(launch: LaunchSettings) -> Request:
    return {
        "TrainingImage": launch.image,
        "TrainingInputMode": "FastFile" if launch.input_mode == "FastFile" else "File",
        "MetricDefinitions": [
            {"Name": f"{METRIC_PREFIX}{name}", "Regex": metric_regex(name)} for name in METRICS
        ],
    }


def _channels(settings: Settings, launch: LaunchSettings) -> Request:
    if launch.input_mode == "pull" or settings.input_uri.startswith("phantom://"):
        return {}
    source = {
        "S3DataType": "S3Prefix",
        # Without the slash, s3://bucket/slices would bring s3://bucket/slices-old too.
        "S3Uri": f"{settings.input_uri.rstrip('/')}/",
        "S3DataDistributionType": "FullyReplicated",
    }
    return {"InputDataConfig": [{"ChannelName": CHANNEL, "DataSource": {"S3DataSource": source}}]}


def _output(settings: Settings, launch: LaunchSettings) -> Request:
    uri = f"{settings.output_uri.rstrip('/')}/{PLATFORM_FOLDER}"
    key = launch.output_kms_key or settings.sse_kms_key_id
    return {"S3OutputPath": uri, "CompressionType": "GZIP", **({"KmsKeyId": key} if key else {})}


def _checkpoints(settings: Settings, launch: LaunchSettings) -> Request:
    output = settings.output_uri.rstrip("/")
    uri = output if launch.network_isolation else launch.checkpoint_uri
    if not uri and launch.spot:  # the job's own uploads are enough, until they are what fails
        uri = f"{output}/{PLATFORM_FOLDER}/checkpoints"
    if not uri:
        return {}
    return {"CheckpointConfig": {"S3Uri": uri, "LocalPath": str(CHECKPOINTS)}}


def _resources(launch: LaunchSettings) -> Request:
    resources: Request = {
        "InstanceType": launch.instance_type,
        "InstanceCount": launch.instance_count,
        "VolumeSizeInGB": launch.volume_gb,
    }
    if launch.volume_kms_key:
        resources["VolumeKmsKeyId"] = launch.volume_kms_key
    if launch.keep_alive_minutes:
        resources["KeepAlivePeriodInSeconds"] = launch.keep_alive_minutes * _MINUTE_SECONDS
    return resources


def _stopping(launch: LaunchSettings) -> Request:
    run = launch.max_run_hours
    stopping = {"MaxRuntimeInSeconds": round(run * HOUR_SECONDS)}
    if launch.spot:
        wait = launch.max_wait_hours or max(run, min(1.5 * run, _MOST_WAIT_HOURS))
        stopping["MaxWaitTimeInSeconds"] = round(wait * HOUR_SECONDS)
    return stopping


def _network(launch: LaunchSettings) -> Request:
    network: Request = {}
    if launch.subnets:
        network["VpcConfig"] = {
            "SecurityGroupIds": list(launch.security_groups),
            "Subnets": list(launch.subnets),
        }
    if launch.network_isolation:
        network["EnableNetworkIsolation"] = True
    if launch.encrypt_traffic:
        network["EnableInterContainerTrafficEncryption"] = True
    return network
